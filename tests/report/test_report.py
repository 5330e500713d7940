"""The page, from stored runs alone."""

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from bench.analysis.configurations import Stored
from bench.analysis.filling import printed_table
from bench.published.tables import published
from bench.report.content import contents
from bench.report.export import exports, write_exports
from bench.report.markup import as_csv, as_latex, as_markdown
from bench.report.page import render
from bench.source import source_hash
from bench.store.archive import pack
from bench.store.open import open_results
from bench.store.results import receipts
from tests.campaigns.big_report import METHODS, SEEDS, MadeUp, measured
from tests.fixtures.runs import HERE, REFERENCE, SCORES, SPEC, bench, store_at, truncate

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
TRAINED = replace(
    SPEC, method="atacnet", precision="float32", batch_size=16, backbone="resnet50", stage=3,
    weights="a" * 64,
    parameters={"lr": 1e-3, "view": "attention", "epochs": 30, "steps_per_epoch": 0,
                "margin": 10.0, "attention": True, "pseudo": True},
)  # fmt: skip
TWICE = replace(TRAINED, parameters={**TRAINED.parameters, "view": "raw_twice"})
SLOWER = replace(TRAINED, parameters={**TRAINED.parameters, "lr": 2e-4})


@pytest.fixture
def store(tmp_path):
    runs = [replace(s, seed=i) for s in (TRAINED, TWICE) for i in range(3)]
    return store_at(tmp_path / "results", SPEC, *runs, SLOWER, facts={"optimiser_steps": 30})


def cell(store, name):
    return next(c for c in table(store).cells() if c.name == f"atacnet_table1-{name}")


def table(store, name="atacnet_table1"):
    return printed_table(name, Stored(store, tuple(receipts(store))))


def beyond_print(results):
    return next(t for t in contents(results).tables if t.name == "other")


def page_of(results):
    return render(contents(results))


def test_a_cell_shows_the_way_that_departs_least_and_keeps_the_others(store):
    found = cell(store, "head_ct-head_ct-10-atacnet")
    assert len(found.ours.receipts) == 3
    assert found.ours.receipts[0]["spec"]["parameters"]["view"] == "attention"
    assert any("stage 3, not 4" in d for d in found.ours.departures)
    assert {o.receipts[0]["spec"]["parameters"]["lr"] for o in found.others} == {1e-3, 2e-4}
    assert found.word == "differs"
    assert found.verdict.difference == pytest.approx(0.75 - 0.985)


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
    printed = [cell.printed for cell in second.times.cells]
    assert [p and int(p.value) for p in printed] == [480, 339, 319, 225, 32, 29, None]
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
    (line,) = Stored(there, tuple(receipts(there))).lines(by_method["padim"].ours)
    assert line.interval[0] <= 5 / 6 <= line.interval[1]


def test_what_no_paper_prints_has_a_table_of_its_own(store):
    assert len(contents(store).tables) == 2
    mine = replace(TRAINED, dataset="screws", category="m4", shots=3)
    hard = replace(TRAINED, dataset="mvtec_ad", category="carpet", setting="hard",
                   seen_defect="hole")  # fmt: skip
    store_at(store.root, mine, hard, replace(mine, method="nearest", method_source="c" * 64))
    other = beyond_print(store)
    assert [r.title for r in other.rows] == ["mvtec_ad/carpet (hard, hole)", "screws/m4"]
    assert [(c.method, c.shots) for c in other.columns] == [
        ("atacnet", 3), ("nearest", 3), ("atacnet", 10)]  # fmt: skip
    assert all(cell.word == "" for cell in other.cells())
    assert not table(store).blocks[0].rows[0].ran  # hard runs never stand in Table 1


def test_a_column_s_source_is_shown_where_runs_are_made_as_it_was(tmp_path):
    """Table 1's DRA column is the DRA paper's: ResNet-18, 448 px, where Table 1 states others."""
    told = {"lr": 2e-4, "epochs": 30, "steps_per_epoch": 20, "scales": 1}
    stated = replace(
        TRAINED, method="dra", dataset="mvtec_ad", category="bottle", image_size=224, stage=4,
        parameters=told,
    )  # fmt: skip
    as_theirs = {"scales": 2, "sampler": "thirds", "reference_set": "redrawn"}
    theirs = replace(
        stated, image_size=448, batch_size=48, backbone="resnet18",
        parameters={**told, **as_theirs},
    )  # fmt: skip
    facts = {"optimiser_steps": 600}
    no_sources = ["atacnet_table1", "atacnet_table2"]
    shortcut = replace(theirs, method="shortcut", parameters={})
    there = store_at(tmp_path / "both", stated, shortcut, facts=facts)
    assert [t.name for t in contents(there).tables] == no_sources
    store_at(there.root, theirs, facts=facts)
    only = store_at(tmp_path / "only", theirs, facts=facts)
    for results, ways in ((there, 2), (only, 1)):
        found = {t.name: t for t in contents(results).tables}
        assert {*found} == {*no_sources, "dra_table1"}
        (cell,) = [c for c in found["dra_table1"].cells() if c.key.method == "dra" and c.ours]
        assert cell.ours.row == theirs
        assert cell.ours.departures == ()
        assert len(cell.others) == ways - 1
        assert str(cell.printed.value) == "1.000"
    (cell,) = [c for c in found["atacnet_table1"].cells() if c.key.method == "dra" and c.ours]
    assert {"image_size 448, not 224", "scales 2, not 1"} <= {*cell.ours.departures}
    assert {c.method for c in found["dra_table1"].columns} == {"devnet", "saoe", "dra", "shortcut"}
    page = render(contents(there))
    assert "<h2>DRA paper, Table 1" in page
    assert page.count('value="source"') == 2  # theirs is its own source


def test_what_was_run_stands_before_what_was_not(store, tmp_path):
    assert [t.name for t in contents(store).tables] == ["atacnet_table1", "atacnet_table2"]
    synthetic = replace(TRAINED, dataset="synthetic", category="weave")
    only = contents(store_at(tmp_path / "only", synthetic))
    assert [t.name for t in only.tables] == ["other", "atacnet_table1", "atacnet_table2"]
    assert render(only).count("Nothing of it was run") == 2


def test_links_are_unique_whatever_data_is_called(tmp_path):
    names = ("a-b", "a b", "a/b", "a.b", "ab")
    runs = [replace(TRAINED, dataset="mine", category=c) for c in names]
    other = beyond_print(store_at(tmp_path, *runs))
    assert len({c.name for c in other.cells()}) == len(names)


BETTER = replace(SCORES, score=np.array([0.1, 0.2, 0.35, 0.8, 0.9], np.float32))
"""AUROC 1 where SCORES has 0.75."""
RIVALS = ("devnet", "dra", "saoe", "cutmix")


def test_the_best_is_marked_only_where_intervals_allow_it(tmp_path):
    def best(root, seeds, rivals):
        ours = [replace(TRAINED, seed=i) for i in range(seeds)]
        theirs = [replace(TRAINED, method=m, seed=i) for m in rivals for i in range(seeds)]
        store_at(tmp_path / root, *ours, scores=BETTER)
        there = store_at(tmp_path / root, *theirs)
        return [c.key.method for c in table(there).cells() if c.best]

    assert best("all", 3, RIVALS) == ["atacnet"]
    assert best("few", 2, RIVALS) == [], "two seeds say nothing"
    assert best("some", 3, RIVALS[:3]) == [], "a printed rival has not been run"
    assert best("alone", 3, ["shortcut"]) == []


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


def test_what_is_stale_damaged_or_failed_is_counted_run_by_run(tmp_path):
    fresh = {"provenance": {**HERE, "source_sha256": source_hash("atacnet.detector")}}
    there = store_at(tmp_path, *(replace(TRAINED, seed=i) for i in range(3)), **fresh)
    store_at(tmp_path, replace(TRAINED, seed=3))  # made by other code
    damaged, failed = (replace(TRAINED, seed=i) for i in (4, 5))
    store_at(tmp_path, damaged)
    truncate(there.runs / damaged.run_id / "scores.parquet")
    failure = {"kind": "method", "reason": f"{HOSTILE}\nmore", "traceback": "", "provenance": HERE}
    there.record_failure(there.stage(failed.run_id), failed, failure)
    found = contents(there)
    assert (found.stale, found.damaged, found.failed) == (1, 1, 1)
    page = " ".join(render(found).split())
    assert "1 run failed and has no result." in page
    assert "1 run does not verify and is left out: bench verify says which." in page
    assert "1 shown run came from older code" in page
    assert "<img src=x" not in page
    (facts,) = [f for f in found.provenance if f.title == "Failed runs"]
    assert facts.rows == ((failed.run_id, str(failed), "method", HOSTILE),)


def test_a_printed_mean_gets_a_verdict_on_the_means_of_shared_seeds(tmp_path):
    objects = [c for c in dict.fromkeys(k.category for k in published()["atacnet_table1"].rows(
        "atacnet", 10)) if c not in ("brain_mri", "head_ct")]  # fmt: skip
    runs = [replace(TRAINED, dataset="mvtec_ad", category=c, seed=i)
            for c in objects for i in range(3)]  # fmt: skip
    there = store_at(tmp_path, *runs)
    mean = table(there).blocks[0].means[0].cells[10]
    assert (mean.ours, mean.missing, mean.mixed) == (0.75, 0, False)
    assert mean.word == "differs"  # printed .973
    carpet = replace(runs[0], method_version=2, seed=0)
    mixed = table(store_at(tmp_path, carpet)).blocks[0].means[0].cells[10]
    assert mixed.mixed
    assert mixed.word == "inconclusive", "one seed is left that all rows have"


def test_methods_and_shots_that_are_not_printed_stand_beyond_print(tmp_path):
    mine = replace(TRAINED, method="nearest", method_source="n:Nearest@" + "c" * 64)
    there = store_at(tmp_path, TRAINED, mine, replace(TRAINED, shots=5))
    (row,) = beyond_print(there).rows
    assert row.title == "head_ct"
    ran = {(c.key.method, c.key.shots) for c in row.cells if c.ours}
    assert ran == {("nearest", 10), ("atacnet", 5)}


def test_texts_that_are_no_unicode_do_not_stop_the_page(tmp_path, capsys):
    provenance = {**HERE, "cpu": "odd \udcff name"}
    there = store_at(tmp_path / "r", TRAINED, provenance=provenance)
    code, _, err = bench(capsys, "report", "--results", there.root, "--out", tmp_path / "p.html",
                         "--export", tmp_path / "e")  # fmt: skip
    assert code == 0, err
    assert r"odd \udcff name" in (tmp_path / "p.html").read_text()


def test_the_same_runs_give_the_same_bytes_from_a_folder_and_an_archive(store, tmp_path):
    pack(store, tmp_path / "archive")
    page = page_of(store)
    assert page_of(store) == page
    assert page_of(open_results(tmp_path / "archive")) == page


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.ids, self.aims = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append((tag, given))
        self.ids += [given["id"]] if "id" in given else []
        self.aims += [given["href"]] if tag == "a" else []


def test_hostile_names_and_texts_render_harmlessly(tmp_path):
    provenance = {**HERE, "unofficial_copy": HOSTILE, "cpu": HOSTILE, "torch": HOSTILE}
    scores = replace(SCORES, file=tuple(f"{HOSTILE}{i}" for i in range(5)))
    page = page_of(store_at(tmp_path, TRAINED, scores=scores, provenance=provenance))
    assert "<script>alert" not in page
    found = Tags(page)
    assert [t for t, _ in found.tags].count("script") == 1
    assert not [t for t, a in found.tags if t == "img" or any(k.startswith("on") for k in a)]
    assert "&lt;img src=x" in page


def test_the_page_asks_for_nothing_and_its_links_lead_somewhere(store):
    found = Tags(page_of(store))
    for tag, given in found.tags:
        assert "src" not in given, tag
        assert "style" not in given, tag  # the policy would refuse it
        for name in ("href", "xlink:href"):
            assert given.get(name, "#").startswith("#"), given
    assert len(found.ids) == len(set(found.ids)), "an id twice"
    assert {aim[1:] for aim in found.aims} <= set(found.ids)


def test_a_page_of_nothing_says_that_nothing_was_run(tmp_path):
    page = page_of(store_at(tmp_path))
    assert "170 of 170 printed cells" in " ".join(page.split())


def test_the_command_writes_the_page(store, tmp_path, capsys):
    page = tmp_path / "deep" / "page.html"
    code, out, _ = bench(capsys, "report", "--results", str(store.root), "--out", str(page))
    assert code == 0
    assert out.startswith(f"{page}: 0.")
    assert page.read_text().startswith("<!doctype html>")


def test_a_data_folder_that_is_not_there_is_refused(store, tmp_path, capsys):
    code, _, err = bench(capsys, "report", "--results", store.root, "--data", tmp_path / "no",
                         "--out", tmp_path / "p.html")  # fmt: skip
    assert code == 2
    assert "there is no such folder" in err
    assert not (tmp_path / "p.html").exists()


def exported(results):
    return dict(exports(contents(results)))


def test_every_table_is_exported_in_three_forms_and_every_figure(store, tmp_path):
    files = exported(store)
    for name in ("atacnet_table1", "atacnet_table2", "findings", "machines", "data"):
        assert {f"{name}.{form}" for form in ("csv", "md", "tex")} <= files.keys()
    assert [f for f in files if f.endswith(".svg")]
    assert write_exports(contents(store), tmp_path / "out") == len(files)
    assert (tmp_path / "out" / "findings.md").read_text() == files["findings.md"]


def test_a_table_as_csv_says_all_that_is_known_of_a_cell(store):
    rows = list(csv.DictReader(io.StringIO(exported(store)["atacnet_table1.csv"])))
    assert len(rows) == 17 * 12
    (row,) = [r for r in rows if (r["category"], r["shots"], r["method"])
              == ("head_ct", "10", "atacnet")]  # fmt: skip
    assert (row["mean"], row["std"], row["seeds"], row["printed"]) == ("0.75", "0.0", "3", "0.985")
    assert float(row["difference"]) == pytest.approx(-0.235)
    assert row["verdict"] == "differs"
    assert "stage 3, not 4" in row["basis"]
    assert len(row["runs"].split()) == 3


def test_no_text_in_csv_is_taken_for_a_formula():
    texts = ["=1+1", "@sum", "+1", "-cmd", "-0.235", "-.5", "plain"]
    assert as_csv([texts]).strip() == "'=1+1,'@sum,'+1,'-cmd,-0.235,-.5,plain"


def test_markdown_and_latex_escape_what_they_would_read():
    text = "[a|b] 50 % & $x_1$ \\ {~^#} <b> ±"
    (_, _, line) = as_markdown([["h"], [text]]).splitlines()
    left = re.sub(r"\\.", "", line)
    assert left.count("|") == 2
    assert not set(left) & set("<>[]_")
    latex = as_latex([["h"], [text]], "title").splitlines()
    assert latex[6] == (
        r"{[}a|b] 50 \% \& \$x\_1\$ \textbackslash{} \{\textasciitilde{}\textasciicircum{}\#\}"
        r" \textless{}b\textgreater{} $\pm$ \\"
    )


def test_the_page_of_many_runs_stays_small_and_quick(tmp_path):
    """Of several ways to run a method, only the one that a table shows brings its runs along."""
    one_way, in_table_2 = 17 * 2 * len(METHODS) * SEEDS, 15 * 2 * SEEDS
    pack(MadeUp(one_way + 500), tmp_path / "archive")
    found = measured(tmp_path / "archive", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert len(page) < 5e6
    assert found["peak_bytes"] < 1.5 * 2**30
    assert found["cpu_seconds"] < 60
    assert page.count("<code>") == one_way + in_table_2


@pytest.mark.parametrize("archive", sorted(REFERENCE.iterdir()), ids=lambda p: p.name)
def test_the_reference_page_is_quick(archive, tmp_path):
    assert measured(archive, tmp_path / "page.html")["cpu_seconds"] < 10
