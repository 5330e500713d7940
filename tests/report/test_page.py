"""The page, from stored runs alone."""

import csv
import io
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from bench.report.content import contents
from bench.report.export import exports
from bench.report.page import render
from bench.source import source_hash
from bench.store.archive import pack
from bench.store.open import open_results
from tests.fixtures.pages import TRAINED
from tests.fixtures.runs import HERE, SCORES, bench, fail, store_at, truncate
from tests.fixtures.times import (
    ATACNET,
    PADIM,
    SPADE,
    content_of_times,
    files_of_times,
    page_of_times,
    rounds,
    scored,
    table_2_cells,
    timed,
)

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def page_of(results):
    return render(contents(results))


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
        assert str(cell.published.value) == "1.000"
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


def test_what_is_stale_damaged_or_failed_is_counted_run_by_run(tmp_path):
    fresh = {"provenance": {**HERE, "source_sha256": source_hash("atacnet.detector")}}
    there = store_at(tmp_path, *(replace(TRAINED, seed=i) for i in range(3)), **fresh)
    store_at(tmp_path, replace(TRAINED, seed=3))  # made by other code
    damaged, failed = (replace(TRAINED, seed=i) for i in (4, 5))
    store_at(tmp_path, damaged)
    truncate(there.runs / damaged.run_id / "scores.parquet")
    fail(there, there.stage(failed.run_id), f"{HOSTILE}\nmore", failed, kind="method")
    found = contents(there)
    assert (found.stale, found.damaged, found.failed) == (1, 1, 1)
    page = " ".join(render(found).split())
    assert "1 run failed and has no result." in page
    assert "1 run does not verify and is left out: bench verify says which." in page
    assert "1 shown run came from older code" in page
    assert "<img src=x" not in page
    (facts,) = [f for f in found.provenance if f.title == "Failed runs"]
    assert facts.rows == ((failed.run_id, str(failed), "method", HOSTILE),)


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
    assert "170 of 170 published cells" in " ".join(page.split())


# What a timing run must not be


def test_the_auroc_of_a_timing_run_is_shown_nowhere():
    found = content_of_times(*rounds(PADIM, 0.1, 0.1, 0.1), timed(ATACNET, 0.1))
    assert not any(cell.ours for table in found.tables for cell in table.cells())
    assert not found.figures
    assert "0.123" not in render(found)
    assert not [name for name, text in exports(found) if "0.123" in text]
    assert {table.name for table in found.tables} == {"atacnet_table1", "atacnet_table2"}


def test_both_test_sets_are_shown_in_page_and_csv():
    values = [(0.91, 0.95), (0.93, 0.95)]
    runs = [scored(PADIM, one, auroc_full=all_, seed=i) for i, (one, all_) in enumerate(values)]
    found = table_2_cells(*runs)["padim"]
    assert found.ours.estimate.mean == pytest.approx(0.95)
    assert found.same_test.estimate.mean == pytest.approx(0.92)
    page = page_of_times(*runs)
    assert "<dt>On ATAC-Net’s test set</dt><dd>0.920 ± 0.014, 95 % interval 0.793 to 1.000" in page
    assert '<span class="same">0.920<small> ± 0.014 (2)</small></span>' in page
    rows = csv.DictReader(io.StringIO(files_of_times(*runs)["atacnet_table2.csv"]))
    (line,) = [r for r in rows if r["runs"]]
    assert (line["metric"], float(line["mean"])) == ("auroc_full", pytest.approx(0.95))
    assert float(line["mean_without_drawn"]) == pytest.approx(0.92)
    assert float(line["std_without_drawn"]) == pytest.approx(0.02 / 2**0.5)
    assert line["pixel_auroc"] == ""


def test_pixel_auroc_stands_beside_its_print():
    runs = [scored(SPADE, 0.9, pixel_auroc=0.96, seedless=True), scored(PADIM, 0.9)]
    page = page_of_times(*runs)
    assert page.count("<dt>Pixel AUROC</dt>") == 1
    assert "0.960, 1 seed; published 0.984, SPADE paper, pixel AUROC" in page
    rows = csv.DictReader(io.StringIO(files_of_times(*runs)["atacnet_table2.csv"]))
    said = {r["method"]: (r["pixel_auroc"], r["pixel_published"]) for r in rows if r["runs"]}
    assert said == {"spade": ("0.96", "0.984"), "padim": ("", "")}
