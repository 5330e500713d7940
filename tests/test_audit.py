"""Each finding, pinned to the figures that a reader found by hand in the tables."""

import tomllib
from decimal import Decimal

import pytest

from bench.audit import NAMES, findings, means
from bench.cli import main
from bench.published import FOLDER, MEANS, Key, published

FOUND = {f.key: f for f in findings()}


def evidence(key):
    return "\n".join(FOUND[key].evidence)


def test_every_mean_of_table_1_follows_from_its_rows_but_one():
    assert FOUND["atacnet_table1-means"].text.startswith("9 of 10")
    assert evidence("atacnet_table1-means") == (
        "mean of SAOE, ten shots: printed 0.926, its rows give 0.92533"
    )
    recomputed = [round(m.recomputed, 4) for m in means(published()["atacnet_table1"])]
    assert [str(r) for r in recomputed] == [
        "0.7937", "0.8826", "0.8337", "0.8124", "0.9011",
        "0.9447", "0.9588", "0.9253", "0.9315", "0.9727",
    ]  # fmt: skip


def test_the_wrong_mean_was_inherited():
    assert "mean of SAOE, ten shots" in evidence("atacnet_table1-inherited-dra_table1")


def test_five_means_of_table_2_do_not_follow():
    assert FOUND["atacnet_table2-means"].text.startswith("13 of 18")
    told = evidence("atacnet_table2-means")
    for method, values in (("SPADE", (".85560", ".85340")), ("PaDiM", (".97860", ".93330"))):
        assert all(f"of {method}: printed" in told and v in told for v in values)
    assert "mean over objects of ATAC-Net, ten shots: printed 0.969, its rows give 0.96830" in told


def test_spades_means_are_of_pixels():
    assert "0.9294" in evidence("atacnet_table2-pixel-spade-mean_texture")
    assert "0.9757" in evidence("atacnet_table2-pixel-spade-mean_object")
    assert "imply 0.960 over all; printed is 0.854" in FOUND["atacnet_table2-implied-spade"].text
    assert "imply 0.970 over all" in FOUND["atacnet_table2-implied-padim"].text


@pytest.mark.parametrize(
    ("key", "count", "unequal"),
    [
        ("table1-copied-devnet-dra-saoe", "100 of 102", ["leather, SAOE, one shot: printed 0.993, "
         "there 0.996", "brain_mri, SAOE, one shot: printed 0.532, there 0.531"]),
        ("table2-copied-spade", "15 of 15", []),
        ("table2-copied-patchsvdd", "15 of 15", []),
        ("table2-copied-padim", "12 of 15", ["carpet, PaDiM: printed 0.988, there 0.995",
         "leather, PaDiM: printed 0.996, there 1.000",
         "bottle, PaDiM: printed 0.991, there 0.999"]),
        ("table2-copied-patchcore", "12 of 15", ["wood, PatchCore: printed 0.991, there 0.989",
         "pill, PatchCore: printed 0.920, there 0.924",
         "zipper, PatchCore: printed 0.985, there 0.982"]),
        ("table2-copied-atacnet", "15 of 15", []),
    ],
)  # fmt: skip
def test_copied_columns_are_told_with_what_differs(key, count, unequal):
    found = FOUND[f"atacnet_{key}"]
    assert found.text.startswith(count)
    assert list(found.evidence) == unequal


def test_others_beat_it_in_its_own_table():
    assert [line.partition(":")[0] for line in FOUND["atacnet_table1-beaten-1"].evidence] == [
        "carpet", "grid", "pill", "screw",
    ]  # fmt: skip
    assert [line.partition(":")[0] for line in FOUND["atacnet_table1-beaten-10"].evidence] == [
        "carpet", "wood", "capsule", "toothbrush",
    ]  # fmt: skip
    assert "DevNet 0.999, DRA 0.998" in evidence("atacnet_table1-beaten-10")


def test_against_dra_it_wins_ties_and_loses():
    assert "10 won, 1 tied, 4 lost; the mean lead is 0.019" in (
        FOUND["atacnet_table1-duel-dra-1"].text
    )
    assert "8 won, 4 tied, 3 lost" in FOUND["atacnet_table1-duel-dra-10"].text


def test_toothbrush_gains_next_to_nothing():
    assert "gains 0.015" in FOUND["atacnet_table1-gain-toothbrush"].text
    assert "CutMix: +0.307" in evidence("atacnet_table1-gain-toothbrush")
    assert [k for k in FOUND if "-gain-" in k] == ["atacnet_table1-gain-toothbrush"]


def test_it_is_lowest_on_two_categories():
    assert "on carpet and toothbrush" in FOUND["atacnet_table2-lowest"].text
    assert "transistor: ATAC-Net 0.969 is below 3 of 5" in evidence("atacnet_table2-lowest")


def test_the_columns_of_table_2_have_different_test_sets():
    assert "toothbrush: 20 of 30" in evidence("atacnet_table2-test-sets")
    assert "transistor: 30 of 40" in evidence("atacnet_table2-test-sets")


def test_the_same_code_differs_between_papers():
    assert "up to 0.367" in FOUND["ahl_table7-rerun-gap"].text
    rows = {s: [li.partition(":")[0] for li in FOUND[f"ahl_table7-rerun-rivals-{s}"].evidence]
            for s in (1, 10)}  # fmt: skip
    assert rows[1] == ["carpet", "grid", "pill", "screw", "brain_mri"]
    assert rows[10] == ["carpet", "grid", "wood", "toothbrush", "head_ct"]


def test_what_was_read_has_a_source_and_a_word_on_confidence():
    for key, card in tomllib.loads((FOLDER / "findings.toml").read_text()).items():
        assert card["source"], key
        assert card["confidence"].startswith(("read in source", "likely")), key
        assert "[mem]" not in str(card)


@pytest.mark.parametrize("name", published())
def test_a_table_is_whole(name):
    table = published()[name]
    for key, printed in table.cells.items():
        assert key.method in NAMES
        if key.metric.endswith("auroc"):
            assert Decimal(0) < printed.value <= 1, key
    for shots, method in table.columns():
        rows = [k for k in table.rows(method, shots) if k.dataset == "mvtec_ad"]
        assert len(rows) == 15, (method, shots)


def test_known_numbers_stand_where_they_are_printed():
    tables = published()
    for table, key, value in (
        ("atacnet_table1", Key("head_ct", "head_ct", 10, "atacnet", "image_auroc"), "0.985"),
        ("atacnet_table1", Key("mvtec_ad", "screw", 1, "atacnet", "image_auroc"), "0.734"),
        ("atacnet_table2", Key("mvtec_ad", "all", 0, "memseg", "inference_ms"), "32"),
        ("dra_table1", Key("mvtec_ad", "carpet", 10, "dra", "image_auroc"), "0.940"),
    ):
        assert str(tables[table].cells[key].value) == value
    std = tables["dra_table1"].cells[Key("head_ct", "head_ct", 1, "dra", "image_auroc")].std
    assert str(std) == "0.105"
    assert any(k.category in MEANS for k in tables["ahl_table7"].cells)


def test_the_command_prints_every_finding(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["audit"])
    assert not ended.value.code
    said = " ".join(capsys.readouterr().out.split())
    for found in FOUND.values():
        assert " ".join(found.text.split()) in said
        assert found.confidence in said
