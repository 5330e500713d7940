"""The published tables: what their sources state, and what of ours stands against them."""

from bench.published import published


def test_table_2_is_of_whole_test_sets_but_for_atacnet():
    table = published()["atacnet_table2"]
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
    assert set(table.methods) == {"atacnet"}


def test_atacnet_is_the_same_in_both_tables():
    one, two = (published()[f"atacnet_table{n}"] for n in (1, 2))
    assert {**two.protocol, **two.methods["atacnet"]} == {**one.protocol, **one.methods["atacnet"]}


def test_the_other_tables_are_without_the_labelled_anomalies():
    for name in ("atacnet_table1", "dra_table1", "ahl_table7"):
        table = published()[name]
        assert {table.metric(m) for _, m in table.columns()} == {"auroc"}
