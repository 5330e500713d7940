"""Means of the published tables, worked out from their rows."""

from bench.published.means import means
from bench.published.tables import published_tables
from tests.fixtures.audit import FOUND, evidence


def test_every_mean_of_table_1_follows_from_its_rows_but_one():
    assert FOUND["atacnet_table1-means"].text.startswith("9 of 10")
    assert evidence("atacnet_table1-means") == [
        "mean of SAOE, ten shots: published 0.926, its rows give 0.92533"
    ]
    recomputed = [round(m.recomputed, 4) for m in means(published_tables()["atacnet_table1"])]
    assert [str(r) for r in recomputed] == [
        "0.7937", "0.8826", "0.8337", "0.8124", "0.9011",
        "0.9447", "0.9588", "0.9253", "0.9315", "0.9727",
    ]  # fmt: skip


def test_five_means_of_table_2_do_not_follow():
    assert FOUND["atacnet_table2-means"].text.startswith("13 of 18")
    assert evidence("atacnet_table2-means") == [
        "mean over textures of SPADE: published 0.929, its rows give 0.85560",
        "mean over textures of PaDiM: published 0.959, its rows give 0.97860",
        "mean over objects of SPADE: published 0.976, its rows give 0.85340",
        "mean over objects of PaDiM: published 0.975, its rows give 0.93330",
        "mean over objects of ATAC-Net, ten shots: published 0.969, its rows give 0.96830",
    ]
    by_place = {
        (m.key.category, m.key.method): m for m in means(published_tables()["atacnet_table2"])
    }
    assert str(round(by_place["mean", "memseg"].recomputed, 4)) == "0.9911"
    memseg = by_place["mean_object", "memseg"]  # a half: .9905, rounded up as people do
    assert memseg.follows
    assert (str(memseg.recomputed), str(memseg.published)) == ("0.9905", "0.991")
