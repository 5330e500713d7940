"""The tables of the page, from stored runs alone."""

from dataclasses import replace

import numpy as np
import pytest

from bench.analysis.configurations import Configuration, StoredRuns
from bench.analysis.filling import starred
from bench.analysis.tables import Block, Cell, Row
from bench.published.tables import Key, published_tables
from bench.report.content import contents
from bench.report.page import render
from bench.store.results import receipts
from tests.fixtures.pages import TRAINED, cell, table
from tests.fixtures.runs import MIDDLE, SCORES, SPEC, store_at
from tests.fixtures.times import scored


def beyond_published(results):
    return next(t for t in contents(results).tables if t.name == "other")


def test_a_cell_shows_the_way_that_departs_least_and_keeps_the_others(store):
    found = cell(store, "head_ct-head_ct-10-atacnet")
    assert len(found.ours.receipts) == 3
    assert found.ours.receipts[0].spec.parameters["view"] == "attention"
    assert any("stage 3, not 4" in d for d in found.ours.departures)
    assert {o.receipts[0].spec.parameters["lr"] for o in found.others} == {1e-3, 2e-4}
    assert found.word == "differs"
    assert found.verdict.difference == pytest.approx(2 / 3 - 0.985)


def test_what_was_not_run_and_what_cannot_be_compared_are_said(store):
    assert cell(store, "head_ct-head_ct-1-atacnet").word == "not run"
    dra = replace(TRAINED, method="dra", parameters={})
    there = store_at(store.root, dra)
    assert cell(there, "head_ct-head_ct-10-dra").word == "not comparable"
    assert cell(there, "head_ct-head_ct-10-shortcut").word == ""


def test_a_mean_is_given_only_over_a_complete_column(tmp_path):
    textures = ("carpet", "grid", "leather", "tile", "wood")
    runs = [replace(TRAINED, dataset="mvtec_ad", category=c) for c in textures]
    there = store_at(tmp_path, *runs)
    mvtec, *_ = table(there).blocks
    ours = mvtec.means[0].cells[10]  # the columns are five and `shortcut`, twice
    assert (mvtec.means[0].title, ours.ours, ours.missing) == ("mean", None, 10)
    (block,) = table(there, "atacnet_table2").blocks
    of_textures, of_objects, of_all = (m.cells[5] for m in block.means)
    assert (of_textures.ours, of_textures.missing) == (0.75, 0)
    assert (of_objects.missing, of_all.missing) == (10, 10)


def test_tables_stand_in_the_order_of_the_paper(store):
    first, second = table(store), table(store, "atacnet_table2")
    assert [c.title for c in first.columns] == [
        "DevNet", "DRA", "SAOE", "CutMix", "ATAC-Net", "shortcut"] * 2  # fmt: skip
    assert [s for s, _ in first.groups] == [1, 10]
    assert [b.dataset for b in first.blocks] == ["mvtec_ad", "brain_mri", "head_ct"]
    assert [r.title for r in first.rows][:6] == [
        "carpet", "grid", "leather", "tile", "wood", "bottle"]  # fmt: skip
    assert [c.title for c in second.columns] == [
        "Patch-SVDD", "SPADE", "PaDiM", "PatchCore", "MemSeg", "ATAC-Net", "shortcut"]  # fmt: skip
    published = [cell.published for cell in second.times.cells]
    assert [p and int(p.value) for p in published] == [480, 339, 319, 225, 32, 29, None]
    assert first.times is None


def test_each_cell_of_table_2_takes_the_metric_that_was_printed(tmp_path):
    """SCORES has AUROC 3/4, and 5/6 on the whole test set, for methods that learn no anomaly."""
    padim = replace(SPEC, method="padim", dataset="mvtec_ad", category="bottle", shots=0)
    ours = replace(TRAINED, dataset="mvtec_ad", category="bottle")
    metrics = {**SCORES.metrics(full=True), "scores_sha256": SCORES.digest()}
    there = store_at(tmp_path, padim, metrics=metrics)
    store_at(tmp_path, ours)
    (row,) = [r for r in table(there, "atacnet_table2").rows if r.ran]
    by_method = {c.key.method: c for c in row.cells}
    assert by_method["padim"].ours.estimate.mean == pytest.approx(5 / 6)
    assert by_method["atacnet"].ours.estimate.mean == 0.75
    assert by_method["padim"].source[0].startswith("anomalib")
    (line,) = StoredRuns(there, tuple(receipts(there))).lines(by_method["padim"].ours)
    assert line.interval[0] <= 5 / 6 <= line.interval[1]


def test_what_no_paper_prints_has_a_table_of_its_own(store):
    assert len(contents(store).tables) == 2
    mine = replace(TRAINED, dataset="screws", category="m4", shots=3)
    hard = replace(TRAINED, dataset="mvtec_ad", category="carpet", setting="hard",
                   seen_defect="hole")  # fmt: skip
    store_at(store.root, mine, hard, replace(mine, method="nearest", method_source="c" * 64))
    other = beyond_published(store)
    assert [r.title for r in other.rows] == ["mvtec_ad/carpet (hard, hole)", "screws/m4"]
    assert [(c.method, c.shots) for c in other.columns] == [
        ("atacnet", 3), ("nearest", 3), ("atacnet", 10)]  # fmt: skip
    assert all(cell.word == "" for cell in other.cells())
    assert not table(store).blocks[0].rows[0].ran  # hard runs never stand in Table 1


def test_links_are_unique_whatever_data_is_called(tmp_path):
    names = ("a-b", "a b", "a/b", "a.b", "ab")
    runs = [replace(TRAINED, dataset="mine", category=c) for c in names]
    other = beyond_published(store_at(tmp_path, *runs))
    assert len({c.name for c in other.cells()}) == len(names)


BETTER = replace(SCORES, score=np.array([0.1, 0.2, 0.35, 0.8, 0.9], np.float32))
"""AUROC 1 where SCORES has 0.75."""
RIVALS = ("devnet", "dra", "saoe", "cutmix")


def test_the_best_is_marked_only_where_intervals_allow_it(tmp_path):
    def best(root, seeds, rivals):
        ours = [replace(TRAINED, seed=i) for i in range(seeds)]
        theirs = [replace(TRAINED, method=m, seed=i) for m in rivals for i in range(seeds)]
        store_at(tmp_path / root, *ours, scores=BETTER)
        store_at(tmp_path / root, *(s for s in theirs if s.seed != 1))
        there = store_at(tmp_path / root, *(s for s in theirs if s.seed == 1), scores=MIDDLE)
        return [c.key.method for c in table(there).cells() if c.best]

    assert best("all", 4, RIVALS) == ["atacnet"]
    assert best("three", 3, RIVALS) == [], "p is 0.057"
    assert best("one", 1, RIVALS) == [], "one seed says nothing"
    assert best("some", 4, RIVALS[:3]) == [], "a published rival has not been run"
    assert best("alone", 4, ["shortcut"]) == []


def cells_of(aurocs):
    """Return rows of cells: for each row and method the AUROC of the seeds."""
    return tuple(
        Row(str(i), tuple(
            Cell(Key("mvtec_ad", str(i), 10, method, "image_auroc"), "", None, None,
                 Configuration(TRAINED, method, tuple(
                     scored(replace(TRAINED, method=method), float(v), seed=s)
                     for s, v in enumerate(values))), (), 0.01)
            for method, values in row.items()
        ), "")
        for i, row in enumerate(aurocs)
    )  # fmt: skip


def test_among_equal_methods_a_star_is_as_rare_as_it_says():
    """Two equal leaders got a star in one of 34 rows in 83 % of tables, uncorrected."""
    random, tables = np.random.RandomState(0), 12
    starred_tables = 0
    for _ in range(tables):
        rows = cells_of([dict(zip(RIVALS[:2], random.normal(0.9, 0.03, (2, 3)), strict=True))
                         for _ in range(34)])  # fmt: skip
        (block,) = starred([Block("mvtec_ad", rows, ())])
        starred_tables += any(c.best for row in block.rows for c in row.cells)
    assert starred_tables <= 2


def test_a_clear_lead_keeps_its_star_among_many_rows():
    random = np.random.RandomState(0)
    even = [dict(zip(RIVALS[:2], random.normal(0.9, 0.03, (2, 5)), strict=True)) for _ in range(16)]
    clear = {"devnet": 0.95 + random.normal(0, 0.002, 5), "dra": 0.9 + random.normal(0, 0.002, 5)}
    (block,) = starred([Block("mvtec_ad", cells_of([clear, *even]), ())])
    assert [c.key.method for c in block.rows[0].cells if c.best] == ["devnet"]


def test_a_row_holds_one_content_and_says_that_there_is_another(tmp_path):
    """Ours saw other images than the baselines: no star, and a row of its own."""
    ours = [replace(TRAINED, seed=i) for i in range(3)]
    theirs = [replace(TRAINED, method=m, fingerprint="e" * 64, seed=i)
              for m in RIVALS for i in range(3)]  # fmt: skip
    store_at(tmp_path, *ours, scores=BETTER)
    store = store_at(tmp_path, *theirs)
    (row,) = [r for r in table(store).rows if r.ran]
    assert row.title == "head_ct (content eeeeeeee)"
    assert row.apart == "content ffffffff"
    assert {c.key.method for c in row.cells if c.ours} == {*RIVALS}
    assert not any(c.best for c in row.cells)
    (apart,) = beyond_published(store).rows
    assert apart.title == "head_ct (content ffffffff)"
    assert not apart.apart
    assert [c.key.method for c in apart.cells if c.ours] == ["atacnet"]
    page = render(contents(store))
    assert "content ffffffff has a row of its own" in page
    assert "head_ct (content eeeeeeee)" in page


def test_the_newest_version_stands_in_the_cell_whatever_older_ones_have(tmp_path):
    old = [replace(TRAINED, seed=i) for i in range(4)]
    new = [replace(TRAINED, method_version=2, seed=i) for i in range(3)]
    store_at(tmp_path, *new, scores=BETTER)
    found = cell(store_at(tmp_path, *old), "head_ct-head_ct-10-atacnet")
    assert found.ours.estimate.mean == 1.0
    assert [w.label for w in (found.ours, *found.others)] == [
        "atacnet method_version=2", "atacnet method_version=1"]  # fmt: skip


def test_a_method_from_outside_in_a_printed_column_says_so(tmp_path):
    mine = replace(TRAINED, method="padim", shots=0, dataset="mvtec_ad", category="bottle",
                   method_source="mine:Padim@" + "c" * 64)  # fmt: skip
    metrics = {**SCORES.metrics(full=True), "scores_sha256": SCORES.digest()}
    there = store_at(tmp_path, mine, metrics=metrics)
    (found,) = [c for c in table(there, "atacnet_table2").cells() if c.ours]
    assert found.ours.departures[0] == "method from outside: mine:Padim"


def test_a_printed_mean_gets_a_verdict_on_the_means_of_shared_seeds(tmp_path):
    numbers = published_tables()["atacnet_table1"].rows("atacnet", 10)
    categories = dict.fromkeys(key.category for key in numbers)
    objects = [c for c in categories if c not in ("brain_mri", "head_ct")]

    def runs(*seeds):
        return [replace(TRAINED, dataset="mvtec_ad", category=c, seed=i)
                for c in objects for i in seeds]  # fmt: skip

    store_at(tmp_path, *runs(2), scores=MIDDLE)
    there = store_at(tmp_path, *runs(0, 1))
    mean = table(there).blocks[0].means[0].cells[10]
    assert (mean.ours, mean.missing, mean.mixed) == (pytest.approx(2 / 3), 0, False)
    assert mean.departs
    assert "stage 3, not 4" in mean.basis
    assert mean.word == "differs"  # published .973
    carpet = replace(runs(0)[0], method_version=2)
    mixed = table(store_at(tmp_path, carpet)).blocks[0].means[0].cells[10]
    assert mixed.mixed
    assert mixed.word == "inconclusive", "one seed is left that all rows have"


def test_methods_and_shots_that_are_not_printed_stand_beyond_published(tmp_path):
    mine = replace(TRAINED, method="nearest", method_source="n:Nearest@" + "c" * 64)
    there = store_at(tmp_path, TRAINED, mine, replace(TRAINED, shots=5))
    (row,) = beyond_published(there).rows
    assert row.title == "head_ct"
    ran = {(c.key.method, c.key.shots) for c in row.cells if c.ours}
    assert ran == {("nearest", 10), ("atacnet", 5)}


def test_the_highest_of_a_row_is_known_where_two_methods_ran():
    (row,) = cells_of([{"devnet": [0.9, 0.91], "dra": [0.8, 0.8], "shortcut": [0.7, 0.7]}])
    named = replace(row, cells=tuple(replace(c, name=c.key.method) for c in row.cells))
    assert named.highest == {"devnet"}
    alone = replace(named, cells=named.cells[1:])
    assert not alone.highest, "the reference alone is no rival"
    tie = replace(named, cells=(named.cells[0], replace(named.cells[0], name="other")))
    assert tie.highest == {"devnet", "other"}
