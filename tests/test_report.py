"""The page, from stored runs alone."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bench.archive import pack
from bench.report.figures import histograms, overlap, roc_points
from bench.report.page import render
from bench.report.tables import Stored, report_table
from bench.results import receipts
from bench.store import open_results
from tests.fixtures.runs import HERE, SCORES, SPEC, bench, store_at

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
TRAINED = replace(
    SPEC, method="atacnet", precision="float32", batch_size=16, backbone="resnet50", stage=3,
    weights="a" * 64,
    parameters={"lr": 1e-3, "view": "attention", "epochs": 30, "steps_per_epoch": 0,
                "margin": 10.0, "attention": True, "pseudo": True},
)  # fmt: skip
TWICE = replace(TRAINED, parameters={**TRAINED.parameters, "view": "raw_twice"})
SLOWER = replace(TRAINED, parameters={**TRAINED.parameters, "lr": 2e-4})
ROOT = Path(__file__).parent.parent
ARCHIVES = sorted((ROOT / "results" / "reference").iterdir())


@pytest.fixture
def store(tmp_path):
    runs = [replace(s, seed=i) for s in (TRAINED, TWICE) for i in range(3)]
    return store_at(tmp_path / "results", SPEC, *runs, SLOWER, facts={"optimiser_steps": 30})


def cell(store, name):
    table = report_table("atacnet_table1", Stored(store, tuple(receipts(store))), (1, 10))
    return next(c for c in table.cells() if c.name == name)


def test_a_cell_shows_the_way_that_departs_least_and_keeps_the_others(store):
    found = cell(store, "head_ct-10-atacnet")
    assert len(found.ours.runs) == 3
    assert found.ours.runs[0].receipt["spec"]["parameters"]["view"] == "attention"
    assert any("stage 3, not 4" in d for d in found.ours.departures)
    assert [ours.departures[-2:] for ours in found.others] != []
    assert {o.runs[0].receipt["spec"]["parameters"]["lr"] for o in found.others} == {1e-3, 2e-4}
    assert found.word == "differs"
    assert found.verdict.difference == pytest.approx(0.75 - 0.985)


def test_what_was_not_run_and_what_cannot_be_compared_are_said(store):
    assert cell(store, "head_ct-1-atacnet").word == "not run"
    dra = replace(TRAINED, method="dra", parameters={})
    there = store_at(store.root, dra)
    assert cell(there, "head_ct-10-dra").word == "not comparable"
    assert cell(there, "head_ct-10-shortcut").word == ""


def test_a_mean_is_given_only_over_a_complete_column(store):
    table = report_table("atacnet_table1", Stored(store, tuple(receipts(store))), (10,))
    (mean,) = table.means
    assert all(ours is None and missing == 15 for _, ours, missing in mean.cells)


def test_the_best_is_marked_only_where_intervals_allow_it(tmp_path):
    better = replace(SCORES, score=np.array([0.1, 0.2, 0.35, 0.8, 0.9], np.float32))
    seeds = range(3)
    store_at(tmp_path, *(replace(TRAINED, seed=i) for i in seeds), scores=better)
    there = store_at(tmp_path, *(replace(TRAINED, method="devnet", seed=i) for i in seeds))
    assert cell(there, "head_ct-10-atacnet").best
    assert not cell(there, "head_ct-10-devnet").best
    few = store_at(tmp_path / "few", replace(TRAINED, method="devnet"))
    store_at(tmp_path / "few", TRAINED, scores=better)
    assert not cell(few, "head_ct-10-atacnet").best


def test_the_same_runs_give_the_same_bytes_from_a_folder_and_an_archive(store, tmp_path):
    pack(store, tmp_path / "archive")
    page = render(store)
    assert render(store) == page
    assert render(open_results(tmp_path / "archive")) == page


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
    page = render(store_at(tmp_path, TRAINED, scores=scores, provenance=provenance))
    assert "<script>alert" not in page
    found = Tags(page)
    assert [t for t, _ in found.tags].count("script") == 1
    assert not [t for t, a in found.tags if t == "img" or any(k.startswith("on") for k in a)]
    assert "&lt;img src=x" in page


def test_the_page_asks_for_nothing_and_its_links_lead_somewhere(store):
    found = Tags(render(store))
    for tag, given in found.tags:
        assert "src" not in given, tag
        assert "style" not in given, tag  # the policy would refuse it
        for name in ("href", "xlink:href"):
            assert given.get(name, "#").startswith("#"), given
    assert len(found.ids) == len(set(found.ids)), "an id twice"
    assert {aim[1:] for aim in found.aims} <= set(found.ids)


def test_a_page_of_nothing_says_that_nothing_was_run(tmp_path):
    page = render(store_at(tmp_path))
    assert "170 of 170 printed cells" in " ".join(page.split())


def test_a_figure_says_what_it_shows(store):
    svg = histograms({HOSTILE: SCORES}, HOSTILE)
    assert svg == histograms({HOSTILE: SCORES}, HOSTILE)
    assert "<script" not in svg
    assert "style=" not in svg
    assert 'role="img" aria-label="&lt;/script&gt;' in svg


def test_overlap_and_roc_by_hand():
    score = np.array([0.1, 0.4, 0.35, 0.8], np.float32)
    label = np.array([False, False, True, True])
    x, y = roc_points(score, label)
    assert list(x) == [0, 0, 0.5, 0.5, 1]
    assert list(y) == [0, 0.5, 0.5, 1, 1]
    assert overlap(score, label) == 0.5
    assert overlap(np.array([0.1, 0.2, 9], np.float32), np.array([False, False, True])) == 0
    assert overlap(np.full(4, 0.5, np.float32), label) == 1


def test_the_command_writes_the_page(store, tmp_path, capsys):
    page = tmp_path / "deep" / "page.html"
    code, out, _ = bench(capsys, "report", "--results", str(store.root), "--out", str(page))
    assert code == 0
    assert out.startswith(f"{page}: 0.")
    assert page.read_text().startswith("<!doctype html>")


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda p: p.name)
def test_a_browser_opens_the_reference_page_without_a_complaint(archive, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(render(open_results(archive)))
    assert page.stat().st_size < 5e6
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
         "--log-level=0", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert "</html>" in done.stdout
    assert not re.findall(r"CONSOLE.*", done.stderr)
