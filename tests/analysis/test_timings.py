"""Inference times in a report, and Table 2's unsupervised columns, from runs made up in memory."""

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.analysis.filling import printed_table
from bench.analysis.timing_tables import FIELDS, HEAD, time_tables
from bench.analysis.timings import (
    Span,
    clocks,
    compared,
    milliseconds,
    over_rounds,
    same_but_length,
)
from bench.published.tables import published
from bench.report.content import contents
from bench.report.export import exports
from bench.report.figures import speed
from bench.report.figures.speed import common, mean_time, ticks
from bench.report.page import render
from bench.text import figures, spanned
from tests.fixtures.runs import SCORES
from tests.fixtures.times import (
    ATACNET,
    CPU,
    GPU,
    MEMSEG,
    PADIM,
    PATCHCORE,
    SPADE,
    Held,
    rounds,
    scored,
    stored,
    timed,
    whole_table_2,
)
from tests.report.test_figures import HOSTILE, checked

WIDE = {"backbone": "wide_resnet50_2", "weights": "b" * 64}


def row(*receipts):
    """Return Table 2's row of times and its cells by method."""
    table = printed_table("atacnet_table2", stored(*receipts))
    cells = zip(table.columns, table.times.cells, strict=True)
    return table.times, {column.method: cell for column, cell in cells}


def held(*receipts):
    return contents(Held(receipts))


def page_of(*receipts):
    return " ".join(render(held(*receipts)).split())


def files_of(*receipts):
    return dict(exports(held(*receipts)))


def table_of(*receipts):
    (found,) = time_tables(stored(*receipts))
    return found


# Numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(480, "480"), (31.24, "31.2"), (2.1, "2.10"), (0.4, "0.400"), (0.01333, "0.0133"),
     (9.996, "10.0"), (0.9996, "1.00"), (1234.5, "1234"), (0.000012, "0.0000"), (0, "0")],
)  # fmt: skip
def test_numbers_keep_three_digits_that_count(value, text):
    assert figures(value) == text


@given(st.floats(0.01, 1e6))
def test_a_written_number_is_within_half_a_percent(value):
    assert float(figures(value)) == pytest.approx(value, rel=0.0051)


def test_ends_of_an_interval_have_the_decimals_of_its_middle():
    assert spanned(2.1, (0.04, 12.3456)) == "2.10 (0.04 to 12.35)"
    assert spanned(31.2, (-3.0, 31.44)) == "31.2 (0.0 to 31.4)"
    assert milliseconds(Span(0.0312, None, 1)) == "31.2"
    assert milliseconds(None) == ""


# Rounds


def test_of_several_rounds_the_interval_is_students():
    values = [0.030, 0.034, 0.031]
    found = over_rounds(values, (0.0, 9.0))
    wanted = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.middle, found.rounds) == (0.031, 3)
    assert found.interval == pytest.approx(wanted)


def test_one_round_has_the_interval_of_its_repetitions():
    (only,) = table_of(timed(PADIM, 0.1)).timed
    assert only.span("latency") == Span(0.1, pytest.approx((0.098, 0.103)), 1)
    assert only.span("latency_file").interval == pytest.approx((0.1038, 0.1043))
    bare = timed(PADIM, 0.1, latency_low_s="absent", latency_high_s="absent")
    assert table_of(bare).timed[0].span("latency") == Span(0.1, None, 1)


def test_disturbed_rounds_are_left_out_and_counted_unless_all_are():
    calm = rounds(PADIM, 0.1, 0.12)
    busy = [timed(PADIM, 9.0, seed=s, disturbed="load average 9") for s in (2, 3)]
    found = table_of(*calm, *busy)
    (there,) = found.timed
    assert (there.span("latency").middle, there.left_out) == (pytest.approx(0.11), 2)
    assert found.rows[0][-1] == "2 of 4"
    assert "PaDiM: 2 rounds left out as disturbed by other work." in found.remarks
    only = table_of(*busy)
    assert (only.timed[0].span("latency").middle, only.timed[0].left_out) == (9.0, 0)
    assert re.fullmatch("PaDiM\N{DAGGER}?\N{DOUBLE DAGGER}", only.rows[0][0])
    assert "\N{DOUBLE DAGGER} PaDiM, every round disturbed: load average 9." in only.remarks


def test_what_the_rounds_were_measured_under_is_said():
    two = [timed(PADIM, 0.1, on={**CPU, "unofficial_copy": "256x256 px, not 900x900"}),
           timed(SPADE, 0.1)]  # fmt: skip
    assert list(table_of(*two).remarks) == [
        "Unofficial copy of mvtec_ad/bottle: 256x256 px, not 900x900.",
        "The processor ran at 2450 to 2600 MHz.",
        "Other programs used at most 1.2 % of the processor.",
    ]
    for receipt in two:
        receipt["provenance"] |= {"mhz_high": 2450.4, "unofficial_copy": ""}
    assert next(table_of(*two).remarks) == "The processor ran at 2450 MHz."


def test_what_was_not_measured_is_left_empty():
    absent = dict.fromkeys(("explain_latency_s", "step_s", "latency_p95_s", "yardstick_s",
                            "throughput_per_s"), "absent")  # fmt: skip
    found = dict(zip(HEAD, table_of(timed(SPADE, 0.3, **absent)).rows[0], strict=True))
    assert {name for name, text in found.items() if not text} == {
        "bank, vectors", "bank, MiB", "p95, ms", "images a second", "with maps, ms",
        "training step, ms", "\N{MULTIPLICATION SIGN} ResNet-18 pass",
    }  # fmt: skip
    assert found["memory of fitting, MiB"] == "900"
    assert page_of(timed(SPADE, 0.3, latency_s="absent")).count("<td>–</td>") > 2


def test_the_ratio_to_the_yardstick_is_paired_by_round():
    found = [timed(PADIM, 0.1, yardstick_s=0.2), timed(PADIM, 0.4, seed=1, yardstick_s=0.4),
             timed(PADIM, 0.3, seed=2, yardstick_s="absent")]  # fmt: skip
    assert table_of(*found).timed[0].of_yardstick == pytest.approx(0.75)


# Clocks


def test_what_ran_on_another_machine_or_in_another_way_is_another_clock():
    other_threads, other_host = {**CPU, "threads": 2}, {**GPU, "cpu": "Host 1"}
    on = [CPU, other_threads, GPU, other_host]
    found = clocks(stored(*(timed(PADIM, 0.1, seed=i, on=about) for i, about in enumerate(on))))
    assert len(found) == 4
    half = replace(ATACNET, precision="bfloat16")
    assert len(clocks(stored(timed(ATACNET, 0.1), timed(half, 0.1)))) == 2
    elsewhere = replace(PADIM, category="pill")
    assert len(clocks(stored(timed(PADIM, 0.1), timed(elsewhere, 0.1)))) == 2


def test_a_method_without_a_precision_computes_in_float32():
    told_nothing = replace(PADIM, precision=None)
    (clock,) = clocks(stored(timed(told_nothing, 0.1), timed(ATACNET, 0.1)))
    assert str(clock) == "Slow 1000 (1 thread), float32, mvtec_ad/bottle"


def test_the_row_is_of_the_machine_with_the_most_methods_and_says_which():
    slow = [timed(spec, 0.2) for spec in (ATACNET, PADIM)]
    fast = [timed(spec, 0.01, seed=9, on=GPU) for spec in (ATACNET, PADIM, SPADE)]
    found, cells = row(*slow, *fast)
    assert str(found.clock) == "Fast GPU (Host 9, 8 threads), float32, mvtec_ad/bottle"
    assert cells["padim"].ours.span("latency").middle == 0.01
    assert cells["patchcore"].ours is None
    assert {m: int(c.printed.value) for m, c in cells.items() if c.printed} == {
        "patchsvdd": 480, "spade": 339, "padim": 319, "patchcore": 225, "memseg": 32, "atacnet": 29,
    }  # fmt: skip
    page = page_of(*slow, *fast)
    assert "ours on Fast GPU (Host 9, 8 threads), float32, mvtec_ad/bottle" in page
    assert "<summary>Slow 1000 (1 thread), float32, mvtec_ad/bottle</summary>" in page
    assert "MemSeg&#39;s 32 ms is that method&#39;s published 31.3 frames a second" in page


def test_of_equal_machines_the_row_is_of_that_with_atacnet():
    unsupervised = [timed(PADIM, 0.1), timed(SPADE, 0.1), timed(SPADE, 0.1, seed=1)]
    found, cells = row(*unsupervised, *(timed(s, 0.1, seed=9, on=GPU) for s in (ATACNET, PADIM)))
    assert found.clock.machine.device == "Fast GPU"
    assert cells["atacnet"].ours


def test_times_of_two_machines_are_never_set_against_each_other():
    found, _ = row(timed(ATACNET, 0.2), timed(PADIM, 0.01, on=GPU), timed(PADIM, 0.01, seed=1))
    assert "times as long" not in found.told
    page = page_of(timed(ATACNET, 0.2), timed(PADIM, 0.01, on=GPU))
    assert "times as long" not in page


def test_the_timed_way_nearest_the_stated_network_stands_in_the_row():
    wide = replace(PADIM, **WIDE)
    _, cells = row(*rounds(wide, 0.5, 0.5), timed(PADIM, 0.1))
    assert cells["padim"].ours.span("latency").middle == 0.1
    assert cells["padim"].departures == ()
    _, cells = row(*rounds(wide, 0.5, 0.5))
    assert cells["padim"].departures == ("backbone wide_resnet50_2, not resnet50",)
    short = replace(ATACNET, parameters={**ATACNET.parameters, "epochs": 1, "steps_per_epoch": 3})
    assert row(timed(short, 0.1))[1]["atacnet"].departures == ()


# Ratios


def test_the_order_is_told_by_ratios_paired_by_round():
    """Both methods slow down together: 4 to 1 in every round, whatever the round."""
    ours, theirs = rounds(ATACNET, 0.4, 0.8, 4.0), rounds(PADIM, 0.1, 0.2, 1.0)
    found, _ = row(*ours, *theirs)
    assert found.told == (
        "In print ATAC-Net is the fastest. ATAC-Net takes 4.00 (4.00 to 4.00) times as long as"
        " PaDiM. So it is not the fastest of them: PaDiM takes less."
        " Not timed there: Patch-SVDD, SPADE, PatchCore and MemSeg."
    )


@pytest.mark.parametrize(
    ("padim", "spade", "end"),
    [
        ((0.2, 0.21, 0.19), (0.4, 0.41, 0.42), "So it is the fastest of them."),
        ((0.05, 0.1, 0.2), (0.4, 0.41, 0.42),
         "Whether it is the fastest of them is open: PaDiM may take less."),
        ((0.05, 0.051, 0.052), (0.04, 0.041, 0.042),
         "So it is not the fastest of them: PaDiM and SPADE take less."),
    ],
)  # fmt: skip
def test_the_fastest_is_named_only_where_intervals_allow_it(padim, spade, end):
    ours, *_ = table_of(*rounds(ATACNET, 0.1, 0.1, 0.1)).timed
    others = [table_of(*rounds(s, *v)).timed[0] for s, v in ((PADIM, padim), (SPADE, spade))]
    assert compared(ours, others).endswith(end)


def test_one_round_gives_a_ratio_and_no_order():
    found, _ = row(timed(ATACNET, 0.2), timed(PADIM, 0.1))
    assert "takes 2.00 (one round) times as long as PaDiM" in found.told
    assert "One round does not tell which of them is the fastest." in found.told


def test_rounds_that_are_not_shared_make_no_ratio():
    found, _ = row(timed(ATACNET, 0.2), timed(PADIM, 0.1, seed=1))
    assert "No other method was timed in the same rounds." in found.told
    calm = rounds(ATACNET, 0.2, 0.2)
    busy = [timed(PADIM, 9.0, disturbed="x"), timed(PADIM, 0.1, seed=1)]
    assert "takes 2.00 (one round) times" in row(*calm, *busy)[0].told


def test_without_times_the_row_says_so():
    found, cells = row(scored(PADIM, 0.9))
    assert (found.clock, found.told) == (None, "")
    assert not any(cell.ours for cell in cells.values())
    page = page_of(scored(PADIM, 0.9))
    assert "None was measured in these results." in page
    assert 'id="time"' not in page
    assert not [f for f in files_of(scored(PADIM, 0.9)) if f.startswith("time")]


# What a timing run must not be


def test_the_auroc_of_a_timing_run_is_shown_nowhere():
    found = held(*rounds(PADIM, 0.1, 0.1, 0.1), timed(ATACNET, 0.1))
    assert not any(cell.ours for table in found.tables for cell in table.cells())
    assert not found.drawings
    assert "0.123" not in render(found)
    assert not [name for name, text in exports(found) if "0.123" in text]
    assert {table.name for table in found.tables} == {"atacnet_table1", "atacnet_table2"}


# The figure


def both(*methods_with_places):
    return {method: dict.fromkeys(places) for method, places in methods_with_places}


def test_the_places_are_those_that_all_shown_methods_have():
    pill, bottle, head = ("mvtec_ad", "pill"), ("mvtec_ad", "bottle"), ("head_ct", "head_ct")
    found = both(("a", [pill, bottle]), ("b", [bottle, pill, head]), ("c", [head]))
    assert common(found) == (["a", "b"], [bottle, pill])
    assert common({}) == ([], [])


def test_the_figure_sets_the_auroc_of_full_runs_beside_the_time():
    short = {"epochs": 1, "steps_per_epoch": 3}
    hurried = replace(ATACNET, parameters={**ATACNET.parameters, **short})
    runs = [scored(ATACNET, v, seed=i) for i, v in enumerate((0.97, 0.98, 0.99))]
    there = [*runs, scored(PADIM, 0.9, auroc_full=0.95), *rounds(hurried, 0.15, 0.15),
             *rounds(PADIM, 0.10, 0.10), *rounds(MEMSEG, 0.2)]  # fmt: skip
    (drawing,) = [plan() for plan in speed.plans(stored(*there))]
    assert drawing.note == (
        "On mvtec_ad/bottle. ATAC-Net: AUROC 0.980 (0.955 to 1.000, 3 seeds) at 150 (150 to 150)"
        " ms, 2 rounds; PaDiM: AUROC 0.900 (one seed) at 100 (100 to 100) ms, 2 rounds."
        " Timed on this machine, but without such runs there: MemSeg."
    )
    assert "Slow 1000 (1 thread), float32" in drawing.title
    assert "ATAC-Net" in checked(drawing.svg)
    assert 'id="figure-time-slow-1000' in page_of(*there)


def test_another_variant_or_place_gives_no_point():
    other = replace(ATACNET, parameters={**ATACNET.parameters, "view": "raw"})
    elsewhere = replace(PADIM, category="pill")
    there = [scored(other, 0.9), scored(elsewhere, 0.9), timed(ATACNET, 0.1), timed(PADIM, 0.1)]
    assert not speed.plans(stored(*there))
    assert same_but_length(other) != same_but_length(ATACNET)


def test_another_precision_is_taken_where_the_same_is_not_there_and_said():
    half = replace(ATACNET, precision="bfloat16")
    common_runs = [scored(PADIM, 0.9), timed(ATACNET, 0.1), timed(PADIM, 0.1)]
    (drawing,) = [p() for p in speed.plans(stored(*common_runs, scored(half, 0.8)))]
    assert "ATAC-Net: AUROC 0.800 (one seed) in bfloat16 at 100" in drawing.note
    two = stored(*common_runs, scored(half, 0.8), scored(ATACNET, 0.9))
    (drawing,) = [p() for p in speed.plans(two)]
    assert "ATAC-Net: AUROC 0.900 (one seed) at 100" in drawing.note


def test_times_and_aurocs_are_means_over_the_places_round_by_round():
    pill = replace(PADIM, category="pill")
    there = [
        table_of(*rounds(PADIM, 0.1, 0.2)).timed[0],
        table_of(*rounds(pill, 0.3, 0.2)).timed[0],
    ]
    assert mean_time(there) == Span(pytest.approx(0.2), pytest.approx((0.2, 0.2)), 2)
    assert mean_time(there[:1]) == there[0].span("latency")
    alone = table_of(timed(pill, 0.4, seed=7)).timed[0]
    assert mean_time([there[0], alone]) == Span(pytest.approx(0.275), None, 0)
    runs = [scored(replace(s, category=c), v)
            for s in (ATACNET, PADIM) for c, v in (("bottle", 0.9), ("pill", 0.7))]  # fmt: skip
    times = [timed(replace(s, category=c), 0.1)
             for s in (ATACNET, PADIM) for c in ("bottle", "pill")]  # fmt: skip
    (drawing,) = [p() for p in speed.plans(stored(*runs, *times))]
    assert drawing.note.startswith("On mvtec_ad/bottle and mvtec_ad/pill. ATAC-Net: AUROC 0.800")


def test_a_method_has_one_look_on_all_machines():
    both_machines = [scored(spec, 0.9) for spec in (PATCHCORE, PADIM, SPADE, MEMSEG)]
    both_machines += [timed(spec, 0.1) for spec in (PATCHCORE, PADIM, SPADE, MEMSEG)]
    both_machines += [timed(spec, 0.1, on=GPU, seed=9) for spec in (PADIM, SPADE)]
    drawn = [plan().svg for plan in speed.plans(stored(*both_machines))]
    assert drawn == [plan().svg for plan in speed.plans(stored(*both_machines))]
    first, second = (set(re.findall(r'fill="(#[0-9a-f]{6})"', svg)) for svg in drawn)
    assert len(first) == len(second) + 2
    assert second < first


@pytest.mark.parametrize(("low", "high"), [(4, 30), (0.5, 3), (2, 900), (0.01, 9e5), (90, 110)])
def test_an_axis_has_a_few_round_numbers(low, high):
    found = ticks(low, high)
    assert found == sorted(found)
    assert 1 <= len(found) <= 9
    assert all(low <= t <= high for t in found)


def test_hostile_names_are_only_names():
    about = {**CPU, "cpu": HOSTILE, "disturbed": HOSTILE}
    mine = replace(PADIM, method="mine", method_source=f"m:{HOSTILE}@" + "c" * 64,
                   parameters={"x": HOSTILE})  # fmt: skip
    there = [scored(mine, 0.9), scored(ATACNET, 0.9), timed(mine, 0.1, on=about),
             timed(replace(mine, parameters={"x": "y"}), 0.1, on=about),
             timed(ATACNET, 0.1, on=about, disturbed=HOSTILE)]  # fmt: skip
    page = page_of(*there)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;img src=x" in page
    files = files_of(*there)
    (drawn,) = [text for name, text in files.items() if name.startswith("time-")]
    checked(drawn)
    assert not re.search(r"(?<!\\)<img", files["times.md"])


# Files


def test_times_are_exported_with_all_digits():
    bank = {"bank_vectors": 1000, "bank_bytes": 3 << 20}
    files = files_of(*rounds(ATACNET, 0.2, 0.4), *rounds(PATCHCORE, 0.1, 0.2, facts=bank),
                     timed(PADIM, 0.01, on=GPU, seed=9))  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(files["times.csv"])))
    assert list(rows[0]) == list(FIELDS)
    by_method = {r["method"]: r for r in rows}
    ours, theirs, fast = (by_method[m] for m in ("atacnet", "patchcore", "padim"))
    assert (fast["machine"], fast["host"], fast["threads"]) == ("Fast GPU", "Host 9", "8")
    assert float(theirs["latency_s"]) == pytest.approx(0.15)
    low, high = stats.t.interval(0.95, 1, 0.15, stats.sem([0.1, 0.2]))
    assert float(theirs["latency_low_s"]) == pytest.approx(low)
    assert float(theirs["latency_high_s"]) == pytest.approx(high)
    assert float(theirs["atacnet_ratio"]) == pytest.approx(2)
    assert (ours["atacnet_ratio"], fast["atacnet_ratio"]) == ("", "")
    assert (theirs["bank_vectors"], theirs["bank_bytes"]) == ("1000", str(3 << 20))
    assert (theirs["printed_ms"], ours["printed_ms"]) == ("225", "29")
    assert len(theirs["runs"].split()) == 2
    assert files["times.md"].count("| method |") == 2
    assert files["times.tex"].count(r"\begin{table}") == 2
    line = files["atacnet_table2.md"].splitlines()[-1]
    assert line.startswith("| inference, ms an image, on Slow 1000 (1 thread), float32")
    assert "not run \\[480\\]" in line


# Table 2's unsupervised columns


def cells_of(*receipts):
    table = printed_table("atacnet_table2", stored(*receipts))
    return {c.key.method: c for c in table.cells() if c.ours}


@pytest.mark.parametrize(
    ("gap", "word"), [(0.004, "reproduced"), (-0.009, "reproduced"), (0.02, "differs"),
                      (-0.3, "differs"), (0.01, "inconclusive")],
)  # fmt: skip
def test_of_a_method_without_randomness_one_run_says_all(gap, word):
    printed = 0.972  # SPADE on bottle
    found = cells_of(scored(SPADE, 0.5, auroc_full=printed + gap, seedless=True))["spade"]
    assert (found.word, found.verdict.interval) == (word, None)
    assert found.verdict.why.startswith(
        f"no randomness, one run says all: a difference of {gap:+.3f}"
    )


def test_randomness_is_assumed_where_a_run_does_not_deny_it():
    assert cells_of(scored(SPADE, 0.5, auroc_full=0.972))["spade"].word == "inconclusive"
    mixed = [scored(SPADE, 0.5, auroc_full=0.972, seedless=True),
             scored(SPADE, 0.5, auroc_full=0.972, seed=1)]  # fmt: skip
    assert cells_of(*mixed)["spade"].word == "inconclusive"
    belied = [scored(SPADE, 0.5, auroc_full=0.97 + 0.002 * i, seed=i, seedless=True)
              for i in range(2)]  # fmt: skip
    assert cells_of(*belied)["spade"].word == "inconclusive"


def test_a_draw_is_randomness_too():
    """ATAC-Net's test set depends on the draw, whatever the method says of itself."""
    found = cells_of(*(scored(ATACNET, 1.0, seed=i, seedless=True) for i in range(2)))
    assert found["atacnet"].word == "inconclusive"


def test_a_printed_mean_of_a_method_without_randomness_is_judged_by_one_seed():
    categories = [k.category for k in published()["atacnet_table2"].rows("spade", 0)]
    for says, word in (({"seedless": True}, "reproduced"), ({}, "inconclusive")):
        runs = [scored(replace(SPADE, category=c), 0.8, auroc_full=0.86, **says)
                for c in categories]  # fmt: skip
        table = printed_table("atacnet_table2", stored(*runs))
        mean = table.blocks[0].means[-1].cells[1]
        assert (mean.word, mean.ours, mean.same_test) == (word, pytest.approx(0.86), 0.8)


def test_both_test_sets_are_shown_in_page_and_csv():
    values = [(0.91, 0.95), (0.93, 0.95)]
    runs = [scored(PADIM, one, auroc_full=all_, seed=i) for i, (one, all_) in enumerate(values)]
    found = cells_of(*runs)["padim"]
    assert found.ours.estimate.mean == pytest.approx(0.95)
    assert found.same_test.estimate.mean == pytest.approx(0.92)
    page = page_of(*runs)
    assert "<dt>On ATAC-Net’s test set</dt><dd>0.920 ± 0.014, 95 % interval 0.793 to 1.000" in page
    assert '<span class="same">0.920<small> ± 0.014 (2)</small></span>' in page
    rows = csv.DictReader(io.StringIO(files_of(*runs)["atacnet_table2.csv"]))
    (line,) = [r for r in rows if r["runs"]]
    assert (line["metric"], float(line["mean"])) == ("auroc_full", pytest.approx(0.95))
    assert float(line["mean_without_drawn"]) == pytest.approx(0.92)
    assert float(line["std_without_drawn"]) == pytest.approx(0.02 / 2**0.5)
    assert line["pixel_auroc"] == ""


def test_average_precision_is_over_the_images_of_the_auroc():
    there = stored(scored(PADIM, 0.9))
    (cell,) = [c for c in printed_table("atacnet_table2", there).cells() if c.ours]
    (line,) = there.lines(cell.ours)
    assert line.ap == SCORES.metrics(full=True)["ap_full"]
    assert line.ap != SCORES.metrics(full=True)["ap"]


def test_pixel_auroc_stands_beside_its_print():
    runs = [scored(SPADE, 0.9, pixel_auroc=0.96, seedless=True), scored(PADIM, 0.9)]
    page = page_of(*runs)
    assert page.count("<dt>Pixel AUROC</dt>") == 1
    assert "0.960, 1 seed; printed 0.984, SPADE paper, pixel AUROC" in page
    rows = csv.DictReader(io.StringIO(files_of(*runs)["atacnet_table2.csv"]))
    said = {r["method"]: (r["pixel_auroc"], r["pixel_printed"]) for r in rows if r["runs"]}
    assert said == {"spade": ("0.96", "0.984"), "padim": ("", "")}


def test_the_way_nearest_the_stated_network_is_shown_first():
    ways = [replace(SPADE, **WIDE), replace(SPADE, **WIDE, parameters={"k": 50})]
    found = cells_of(*(scored(w, 0.9) for w in ways), scored(SPADE, 0.8, auroc_full=0.8))["spade"]
    assert found.ours.row.backbone == "resnet50"
    assert found.ours.departures == ()
    assert [w.departures for w in found.others] == [("backbone wide_resnet50_2, not resnet50",)] * 2


def test_what_is_left_open_of_a_method_is_no_departure_and_less_training_is_one():
    short = {"epochs": 9, "steps_per_epoch": 2}
    bent = [
        replace(MEMSEG, stage=3, batch_size=2, external="textures:4f", parameters=short),
        replace(PATCHCORE, stage=2, parameters={"coreset": 0.01, "embedding": "joined"}),
    ]
    found = cells_of(*(scored(spec, 0.9) for spec in bent))
    assert found["patchcore"].ours.departures == ()
    assert found["memseg"].ours.departures == (
        "stage 3, not 4", "batch_size 2, not 8", "epochs 9, not 50", "external textures, not dtd",
    )  # fmt: skip
    larger = replace(PADIM, image_size=256, backbone="resnet18")
    assert cells_of(scored(larger, 0.9))["padim"].ours.departures == (
        "image_size 256, not 224", "backbone resnet18, not resnet50")  # fmt: skip


def test_the_whole_of_table_2_can_be_filled():
    found = stored(*whole_table_2().receipts)
    table = printed_table("atacnet_table2", found)
    assert table.counts["not run"] == 0
    assert all(cell.ours for cell in table.times.cells if cell.printed)
    assert all(mean.word for means in table.blocks[0].means for mean in means.cells[:6])
    assert len(speed.plans(found)) == 2
