"""The published tables: what their sources state, and what of ours stands against them."""

from decimal import Decimal

import pytest

from bench.data.catalog import DATASETS
from bench.published.tables import MEANS, NAMES, Key, averages, published_tables
from bench.text import shots_in_words


def test_table_2_is_of_whole_test_sets_but_for_atacnet():
    table = published_tables()["atacnet_table2"]
    metrics = {(shots, method): table.metric(method) for shots, method in table.columns()}
    assert metrics == {
        (0, "patchsvdd"): "auroc_full",
        (0, "spade"): "auroc_full",
        (0, "padim"): "auroc_full",
        (0, "patchcore"): "auroc_full",
        (0, "memseg"): "auroc_full",
        (10, "atacnet"): "auroc",
    }
    assert table.protocol == {"setting": "general", "image_size": 224, "backbone": "resnet50"}
    assert table.methods.keys() - {"atacnet"} == {"spade", "memseg", "patchsvdd"}, "as published"


def test_atacnet_is_the_same_in_both_tables():
    one, two = (published_tables()[f"atacnet_table{n}"] for n in (1, 2))
    assert {**two.protocol, **two.methods["atacnet"]} == {**one.protocol, **one.methods["atacnet"]}


def test_the_other_tables_are_without_the_labelled_anomalies():
    for name in ("atacnet_table1", "dra_table1", "ahl_table7"):
        table = published_tables()[name]
        assert {table.metric(m) for _, m in table.columns()} == {"auroc"}


@pytest.mark.parametrize("name", published_tables())
def test_a_table_is_whole(name):
    table = published_tables()[name]
    for key, published in table.cells.items():
        assert key.method in NAMES or key.metric == "defect_types"
        assert key.category in (*DATASETS[key.dataset].categories, *MEANS, "all", "total")
        if key.metric.endswith("auroc"):
            assert Decimal(0) < published.value <= 1, key
    for shots, method in table.columns():
        rows = [k for k in table.rows(method, shots) if k.dataset == "mvtec_ad"]
        assert len(rows) == 15, (method, shots)


@pytest.mark.parametrize("name", published_tables())
def test_every_number_has_its_source_table_and_row(name):
    table = published_tables()[name]
    assert table.citation
    assert table.confidence in ("checked against a scan", "read in source", "restated by others")
    places = [table.place(key) for key in table.cells]
    assert len(set(places)) == len(places), "two numbers at one place"
    assert not any("{" in place or "_" in place for place in places)


def test_places_are_told_as_the_source_writes_them():
    tables = published_tables()
    for name, key, place in (
        ("atacnet_table1", Key("mvtec_ad", "metal_nut", 1, "saoe", "image_auroc"),
         "Table 1, row metal nut, column SAOE at one shot"),
        ("atacnet_table2", Key("mvtec_ad", "mean_object", 10, "atacnet", "image_auroc"),
         "Table 2, row mean (Object), column ATAC-Net at ten shots"),
        ("atacnet_table2", Key("mvtec_ad", "all", 0, "spade", "inference_ms"),
         "Table 2, row Inference Time (ms), column SPADE"),
        ("dra_table1", Key("head_ct", "head_ct", 0, "kdad", "image_auroc"),
         "Table 1, row HeadCT, column KDAD"),
        ("anomalib_wrn50", Key("mvtec_ad", "pill", 0, "patchcore", "image_auroc"),
         "README of PatchCore, image-level AUROC, row Wide ResNet-50, column pill"),
    ):  # fmt: skip
        assert key in tables[name].cells
        assert tables[name].place(key) == place


def test_known_numbers_stand_where_they_are_printed():
    tables = published_tables()
    for table, key, value in (
        ("atacnet_table1", Key("head_ct", "head_ct", 10, "atacnet", "image_auroc"), "0.985"),
        ("atacnet_table1", Key("mvtec_ad", "screw", 1, "atacnet", "image_auroc"), "0.734"),
        ("atacnet_table1", Key("mvtec_ad", "cable", 0, "", "defect_types"), "8"),
        ("atacnet_table2", Key("mvtec_ad", "all", 0, "memseg", "inference_ms"), "32"),
        ("atacnet_table2", Key("mvtec_ad", "grid", 0, "spade", "image_auroc"), "0.473"),
        ("dra_table1", Key("mvtec_ad", "carpet", 10, "dra", "image_auroc"), "0.940"),
        ("ahl_table7", Key("mvtec_ad", "screw", 1, "devnet", "image_auroc"), "0.766"),
        ("spade_paper_pixels", Key("mvtec_ad", "tile", 0, "spade", "pixel_auroc"), "0.874"),
        ("anomalib_r18", Key("mvtec_ad", "hazelnut", 0, "padim", "image_auroc"), "0.750"),
    ):
        assert str(tables[table].cells[key].value) == value
    std = tables["dra_table1"].cells[Key("head_ct", "head_ct", 1, "dra", "image_auroc")].std
    assert str(std) == "0.105"


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("atacnet_table1", 180), ("atacnet_table2", 108), ("dra_table1", 198), ("ahl_table7", 108)],
)
def test_no_number_is_missing(name, numbers):
    cells = published_tables()[name].cells
    assert sum(k.metric == "image_auroc" for k in cells) == numbers


def test_words():
    assert [shots_in_words(n) for n in (1, 2, 10)] == ["one shot", "2 shots", "ten shots"]
    assert averages("mean", "screw")
    assert averages("mean_texture", "wood")
    assert not averages("mean_object", "wood")
