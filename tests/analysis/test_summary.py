from dataclasses import replace

import numpy as np
import pytest

from bench.analysis.summary import differences, markdown, notes, tabulate
from bench.errors import RequestError
from bench.registry import METHODS
from bench.source import Standing, source_hash
from bench.store.archive import pack
from bench.store.groups import Provenance
from bench.store.results import receipts
from tests.fixtures.runs import HERE, SCORES, SPEC, bench, store_at
from tests.fixtures.times import scored

TRAINED = replace(
    SPEC, method="atacnet", parameters={"lr": 1e-3, "view": "attention", "epochs": 30},
    precision="bfloat16", batch_size=16, backbone="resnet50", stage=3, weights="a" * 64,
)  # fmt: skip
RAW = replace(TRAINED, parameters={**TRAINED.parameters, "view": "raw"})
BETTER = replace(SCORES, score=np.array([0.1, 0.2, 0.35, 0.8, 0.9], np.float32))
"""AUROC 1 where SCORES has 0.75."""


def made_here(method, **changes):
    """Return the provenance of a run of a method that today's code has made."""
    return {**HERE, "source_sha256": source_hash(METHODS[method].path.partition(":")[0]), **changes}


@pytest.fixture
def store(tmp_path):
    seeds = [replace(TRAINED, seed=s) for s in range(3)]
    made = {"provenance": made_here("atacnet", weights_title="some, of ours")}
    store_at(tmp_path / "results", *seeds, scores=BETTER, **made)
    store_at(tmp_path / "results", SPEC, provenance=made_here("shortcut"))
    return store_at(tmp_path / "results", RAW, replace(RAW, seed=1), **made)


def table(store, **where):
    return tabulate(receipts(store), where)


def test_each_way_to_run_a_method_is_a_column_of_its_own(store):
    found = table(store)
    assert found.columns == ("atacnet view=attention", "atacnet view=raw", "shortcut")
    assert found.rows == (("head_ct", 10),)
    assert dict(found.cells[("head_ct", 10), "atacnet view=raw"]) == {0: 0.75, 1: 0.75}


def test_a_cell_gives_mean_deviation_and_number_of_seeds(store):
    text = markdown(table(store))
    assert "| head_ct | 10 | 1.000 ± 0.000 (3) | 0.750 ± 0.000 (2) | 0.750 |" in text
    weights = "weights file aaaaaaaa (some, of ours)"
    assert f"backbone resnet50, stage 3, {weights}, image_size 64, precision bfloat16" in text
    assert "batch_size 16, lr 0.001, epochs 30" in text


def test_where_keeps_what_fits_and_what_does_not_know_the_key(store):
    found = table(store, view="raw", stage=3)
    assert found.columns == ("atacnet", "shortcut")


def test_where_nothing_fits_it_says_so(store):
    with pytest.raises(RequestError, match="no stored run has a setting of that name"):
        table(store, nosuch=1)
    with pytest.raises(RequestError, match="no stored run fits"):
        table(store, method="nosuch")


def test_differences_are_paired_over_the_seeds_that_both_have(store):
    def scores(receipt):
        return store.scores(receipt.run_id)

    gaps = differences(table(store), "atacnet view=raw", scores)
    gap = gaps[("head_ct", 10), "atacnet view=attention"]
    assert (gap.over_seeds.mean, gap.over_seeds.n) == (0.25, 2)
    assert gap.with_images == (0.0, 1.0), "one of four pairs of images tells them apart"
    assert gaps[("head_ct", 10), "shortcut"].over_seeds.interval is None
    with pytest.raises(RequestError, match="the columns are"):
        differences(table(store), "nosuch", scores)


def test_each_column_is_compared_with_the_one_that_differs_in_one_setting(tmp_path):
    def scores(receipt):
        return store.scores(receipt.run_id)

    def of(**parameters):
        return replace(TRAINED, parameters={**TRAINED.parameters, **parameters})

    views = [of(view=view, lr=lr) for view in ("attention", "random", "raw") for lr in (1e-3, 2e-4)]
    store = store_at(tmp_path, *views, SPEC)
    gaps = differences(table(store), ("view", "raw"), scores)
    wanted = {
        f"atacnet lr={lr} view={v}" for lr in (0.001, 0.0002) for v in ("attention", "random")
    }
    assert {column for _, column in gaps} == wanted
    rates = differences(table(store), ("lr", 1e-3), scores)
    assert {c for _, c in rates} == {
        f"atacnet lr=0.0002 view={v}" for v in ("attention", "random", "raw")
    }
    for nothing in (("view", "nosuch"), ("nosuch", 3), ("stage", 3)):
        with pytest.raises(RequestError, match="no two columns differ"):
            differences(table(store), nothing, scores)
    with pytest.raises(RequestError, match="lr must be a number"):
        differences(table(store), ("lr", "high"), scores)


def test_numbers_that_methods_record_are_tabulated_and_compared(tmp_path):
    raw = replace(TRAINED, parameters={**TRAINED.parameters, "view": "raw"})
    store = store_at(tmp_path, TRAINED, replace(TRAINED, seed=1), facts={"hinge": 3.0})
    store_at(tmp_path, raw, replace(raw, seed=1), facts={"hinge": 1.0})
    summary = tabulate(receipts(store_at(tmp_path, SPEC)), {}, value="hinge")
    assert summary.columns == ("atacnet view=attention", "atacnet view=raw")
    text = markdown(summary)
    assert "| head_ct | 10 | 3.000 ± 0.000 (2)† | 1.000 ± 0.000 (2)† |" in text
    assert "hinge, mean ± standard deviation over seeds (number of seeds);" in text
    (gap,) = differences(summary, ("view", "raw"), None).values()
    assert (gap.over_seeds.mean, gap.over_seeds.n, gap.with_images) == (2.0, 2, None)
    with pytest.raises(RequestError, match="--value nothing: no run has a number of that name"):
        tabulate(receipts(store), {}, value="nothing")


def test_an_unofficial_copy_is_marked_and_explained(tmp_path):
    spec = replace(SPEC, dataset="mvtec_ad", category="bottle")
    provenance = made_here("shortcut", unofficial_copy="256x256 px, not 900x900")
    store = store_at(tmp_path, spec, provenance=provenance)
    text = markdown(table(store))
    assert "| mvtec_ad/bottle* | 10 | 0.750 |" in text
    assert "mvtec_ad/bottle: 256x256 px, not 900x900" in text


def test_what_older_code_has_made_is_marked(store):
    old = replace(TRAINED, seed=3)
    mixed = store_at(store.root, old, scores=BETTER)
    text = markdown(table(mixed))
    assert "| head_ct | 10 | 1.000 ± 0.000 (4)† | 0.750 ± 0.000 (2) | 0.750 |" in text
    assert "† Made by older code of the method." in text
    assert "†" not in markdown(table(mixed, view="raw"))


def test_the_command_reads_folders_and_archives_alike(store, tmp_path, capsys):
    pack(store, tmp_path / "archive")
    arguments = ("--where", "stage=3", "--where", "view!=raw", "--against", "shortcut")
    code, out, _ = bench(capsys, "table", "--results", str(store.root), *arguments)
    assert code == 0
    assert "- head_ct, 10 shots, atacnet: +0.250, 1 seed\n" in out
    assert "view=raw" not in out
    by_setting = bench(capsys, "table", "--results", str(store.root),
                       "--against", "view=raw", "--tuned-by", "0")  # fmt: skip
    assert "- head_ct, 10 shots, atacnet view=attention: +0.250 alike in all" in by_setting[1]
    assert "without seed 0, which chose a setting: +0.250" in by_setting[1]
    code, _, err = bench(capsys, "table", "--results", str(store.root),
                         "--against", "shortcut", "--tuned-by", "first")  # fmt: skip
    assert (code, err) == (2, "bench: --tuned-by takes seeds such as 0,1, not 'first'\n")
    again = bench(capsys, "table", "--results", str(tmp_path / "archive"), *arguments)
    assert again[1] == out


def test_a_bad_where_is_one_line(store, capsys):
    code, _, err = bench(capsys, "table", "--results", str(store.root), "--where", "stage")
    assert code == 2
    assert err == "bench: --where takes key=value or key!=value, not 'stage'\n"


def test_settings_that_not_all_methods_share_are_told_by_method(tmp_path):
    frozen = replace(SPEC, method="padim", parameters={"channels": 100}, shots=0,
                     precision="float32", backbone="resnet50", stage=3)  # fmt: skip
    trained = replace(frozen, method="memseg", parameters={"epochs": 15}, batch_size=8,
                      precision="bfloat16")  # fmt: skip
    own = replace(SPEC, method="patchsvdd", parameters={"epochs": 20}, shots=0)
    alike = replace(frozen, method="spade", parameters={})
    text = markdown(tabulate(receipts(store_at(tmp_path, frozen, trained, own, alike)), {}))
    size = SPEC.image_size
    assert f"AUROC; seed 0; backbone resnet50, stage 3, image_size {size};" in text
    assert ("spade, padim: precision float32; memseg: precision bfloat16, batch_size 8, epochs 15;"
            " patchsvdd: epochs 20.") in text  # fmt: skip


def test_code_proved_equal_elsewhere_is_said_below_the_table(tmp_path, monkeypatch):
    folder = store_at(tmp_path, SPEC, provenance=made_here("shortcut"))
    monkeypatch.setattr(Provenance, "standing", lambda self, path: Standing(False, "cpu"))
    text = markdown(tabulate(receipts(folder), {}))
    assert "proved on cpu to give the same numbers: shortcut." in text
    assert "†" not in text


def test_methods_without_labels_stand_in_the_rows_of_those_with_some():
    def scored_as(values, **changes):
        spec = replace(SPEC, **changes)
        return [scored(spec, v, seed=s) for s, v in enumerate(values)]

    padim = scored_as((0.7, 0.8, 0.9), method="padim", shots=0, parameters={})
    spade = scored_as((0.6, 0.6, 0.7), method="spade", shots=0, parameters={})
    ours = [r for k in (1, 10) for r in scored_as((0.9, 0.8, 0.9), method="devnet", shots=k)]
    found = tabulate([*padim, *spade, *ours], {})
    assert found.rows == (("head_ct", 1), ("head_ct", 10))
    assert all(found.cells[row, "padim"][2] == pytest.approx(0.9) for row in found.rows)
    assert "same test images in each row: spade, padim." in " ".join(notes(found))
    gaps = differences(found, "padim", lambda receipt: SCORES)
    once = [(row[1], column) for row, column in gaps]
    assert once == [(1, "devnet"), (1, "spade"), (10, "devnet")]
    assert gaps[("head_ct", 10), "devnet"].over_seeds.mean == pytest.approx(0.2 / 3)
    alone = tabulate(padim, {})
    assert alone.rows == (("head_ct", 0),)
    assert "same test images" not in " ".join(notes(alone))
