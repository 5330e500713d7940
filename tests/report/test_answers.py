"""What stands first on a page, of runs of which each number is known."""

from dataclasses import replace

import pytest

from bench.report.content import contents
from bench.report.page import Made, heading, render
from bench.report.run_list import COLUMNS, run_lines
from tests.fixtures.pages import TRAINED
from tests.fixtures.runs import MIDDLE, SPEC, store_at
from tests.fixtures.times import ATACNET, PADIM, content_of_times, scored

DEVNET = replace(ATACNET, method="devnet", parameters={"lr": 2e-4})


def answers_of(found):
    return {answer.question: answer.text for answer in found.answers}


def test_the_runs_are_compared_with_print_and_with_each_other():
    runs = [scored(ATACNET, 0.9 + seed / 100, seed=seed) for seed in range(3)]
    runs += [scored(DEVNET, 0.8, seed=0), scored(PADIM, 0.85, auroc_full=0.97)]
    found = answers_of(content_of_times(*runs))
    hold, reached, best, labels = found.values()
    assert hold.startswith("3 of "), "ATAC-Net, DevNet and PaDiM"
    assert " were run, all of them as stated; verdicts: " in hold
    assert "ten labelled anomalies, bottle: 0.910, published 1.000 (\N{MINUS SIGN}0.090)" in reached
    assert reached.endswith("verdicts: 1 differs.")
    assert "mvtec_ad, ten labelled anomalies: ATAC-Net 0.910 before DevNet 0.800" in best
    assert "holds by test in 0 of 1 row." in best
    assert "PaDiM without labels 0.850, ATAC-Net with up to 10 0.910" in labels
    assert "above in 0 of 1" in labels


def test_a_single_seed_is_said_to_give_no_verdict():
    _, reached = answers_of(content_of_times(scored(ATACNET, 0.9))).values()
    assert "1 inconclusive (1 with fewer seeds than the 3 that a verdict takes)" in reached


def test_the_zoomed_view_is_compared_by_seed_with_its_p(store):
    text = answers_of(contents(store))["Does the zoomed view help?"]
    assert text.startswith("After Holm's correction it helps in 0 and harms in 0 of 1 comparison.")
    assert "Against the whole image augmented twice: head_ct, 10 shots +0.000" in text
    assert text.endswith("3 seeds.")


def test_methods_without_labels_stand_in_the_rows_of_table_1():
    found = content_of_times(scored(ATACNET, 0.9), scored(PADIM, 0.85, auroc_full=0.97))
    table = next(t for t in found.tables if t.name == "atacnet_table1")
    (cell,) = [c for c in table.cells() if c.key.method == "padim" and c.ours]
    assert cell.ours.estimate.mean == pytest.approx(0.85), "without the images that others train on"
    assert not cell.word
    assert [shots for shots, _ in table.groups] == [1, 10, 0]
    only = content_of_times(scored(PADIM, 0.85, auroc_full=0.97))
    assert not any(c.method == "padim" for c in next(
        t for t in only.tables if t.name == "atacnet_table1").columns)  # fmt: skip


def test_a_page_of_own_data_leads_with_them(tmp_path):
    mine = replace(TRAINED, dataset="screws", category="m4")
    found = contents(store_at(tmp_path, mine, replace(mine, method="devnet")))
    assert heading(found) == "Anomaly detection on screws"
    page = render(found)
    assert page.index("<h2>Results</h2>") < page.index("<h2>ATAC-Net paper, Table 1</h2>")
    assert "have no run yet" not in page
    assert "unofficial copy:" not in page
    assert "<h1>My &lt;screws&gt;</h1>" in render(found, "My <screws>")


MINE = replace(ATACNET, dataset="screws", category="m4")


def test_a_page_of_own_data_opens_with_the_best_method_and_what_is_missing():
    runs = [scored(MINE, 0.9 + seed / 100, seed=seed) for seed in range(3)]
    runs += [scored(replace(MINE, category="m5"), 0.8 + s / 100, seed=s) for s in range(3)]
    statistic = replace(MINE, method="shortcut", parameters={"black": 10})
    alone = answers_of(content_of_times(*runs[:3], scored(statistic, 0.95)))
    best = alone["Which method is best?"]
    assert "screws, ten labelled anomalies: ATAC-Net 0.910 [0.885, 0.935], the only method" in best
    assert "not above one image statistic (shortcut 0.950 of one seed)" in best
    best, missing = answers_of(content_of_times(*runs, scored(statistic, 0.95))).values()
    assert "screws (2 categories), ten labelled anomalies: ATAC-Net 0.860 [0.835, 0.885]" in best
    assert missing.startswith("1 of 4 cells have no run, such as shortcut, ten labelled anomalies,")
    assert "1 of the 3 that ran have fewer than 3 seeds" in missing
    assert missing.endswith("no method without labels ran, so nothing tells what labels are worth.")


def test_methods_of_own_data_are_ranked_over_categories_with_those_without_labels():
    places = [replace(MINE, category=c) for c in ("m4", "m5")]
    runs = [scored(p, v + s / 100, seed=s) for p, v in zip(places, (0.9, 0.8), strict=True)
            for s in range(3)]  # fmt: skip
    free = {"dataset": "screws", "shots": 0}
    runs += [scored(replace(PADIM, **free, category=p.category), 0.7) for p in places]
    best, labels, missing = answers_of(content_of_times(*runs)).values()
    assert " on screws (2 categories), ten labelled anomalies: ATAC-Net 0.860 [0.835, " in best
    assert " before PaDiM without labels 0.700" in best
    assert "PaDiM without labels 0.700, ATAC-Net with up to 10 0.860" in labels
    assert "cells have no run" not in missing


def test_the_footer_tells_when_and_by_what_a_page_was_made(store):
    made = Made("2026-01-02", "bench report --out '<x>'", "abc")
    page = render(contents(store), made=made)
    assert "Made on 2026-01-02 by <kbd>bench report --out &#39;&lt;x&gt;&#39;</kbd>" in page
    assert ", commit abc." in page
    assert "<footer>" not in render(contents(store))


def test_all_runs_are_listed_with_their_texts_by_number(store):
    store_at(store.root, replace(SPEC, seed=7), scores=MIDDLE)
    texts, *runs = [line.split("\t") for line in run_lines(contents(store).stored).split("\n")]
    assert all(len(run) == len(COLUMNS) for run in runs)
    assert {run[-1] for run in runs} == {*store.ids()}
    (seven,) = [run for run in runs if run[4] == "7"]
    assert texts[int(seven[2])] == "head_ct"
    assert float(seven[5].rstrip("\N{DAGGER}")) == 0.5
