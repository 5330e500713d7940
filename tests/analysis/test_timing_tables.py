"""Tables of times by machine."""

import re

import pytest

from bench.analysis.timing_tables import HEAD
from bench.analysis.timings import Span, compared
from tests.fixtures.runs import changed
from tests.fixtures.times import (
    ATACNET,
    CPU,
    PADIM,
    SPADE,
    page_of_times,
    rounds,
    table_of_times,
    timed,
)

# Rounds


def test_one_round_has_the_interval_of_its_repetitions():
    (only,) = table_of_times(timed(PADIM, 0.1)).timed
    assert only.span("latency") == Span(0.1, pytest.approx((0.098, 0.103)), 1)
    assert only.span("latency_file").interval == pytest.approx((0.1038, 0.1043))
    bare = timed(PADIM, 0.1, latency_low_s="absent", latency_high_s="absent")
    assert table_of_times(bare).timed[0].span("latency") == Span(0.1, None, 1)


def test_disturbed_rounds_are_left_out_and_counted_unless_all_are():
    calm = rounds(PADIM, 0.1, 0.12)
    busy = [timed(PADIM, 9.0, seed=s, disturbed="load average 9") for s in (2, 3)]
    found = table_of_times(*calm, *busy)
    (there,) = found.timed
    assert (there.span("latency").middle, there.left_out) == (pytest.approx(0.11), 2)
    assert found.rows[0][-1] == "2 of 4"
    assert "PaDiM: 2 rounds left out as disturbed by other work." in found.remarks
    only = table_of_times(*busy)
    assert (only.timed[0].span("latency").middle, only.timed[0].left_out) == (9.0, 0)
    assert re.fullmatch("PaDiM\N{DAGGER}?\N{DOUBLE DAGGER}", only.rows[0][0])
    assert "\N{DOUBLE DAGGER} PaDiM, every round disturbed: load average 9." in only.remarks


def test_what_the_rounds_were_measured_under_is_said():
    two = [timed(PADIM, 0.1, on={**CPU, "unofficial_copy": "256x256 px, not 900x900"}),
           timed(SPADE, 0.1)]  # fmt: skip
    assert list(table_of_times(*two).remarks) == [
        "Unofficial copy of mvtec_ad/bottle: 256x256 px, not 900x900.",
        "The processor ran at 2450 to 2600 MHz.",
        "Other programs used at most 1.2 % of the processor.",
    ]
    steady = {"mhz_high": 2450.4, "unofficial_copy": ""}
    two = [changed(r, provenance={**r.provenance, **steady}) for r in two]
    assert next(table_of_times(*two).remarks) == "The processor ran at 2450 MHz."


def test_what_was_not_measured_is_left_empty():
    absent = dict.fromkeys(("explain_latency_s", "step_s", "latency_p95_s", "yardstick_s",
                            "throughput_per_s"), "absent")  # fmt: skip
    found = dict(zip(HEAD, table_of_times(timed(SPADE, 0.3, **absent)).rows[0], strict=True))
    assert {name for name, text in found.items() if not text} == {
        "bank, vectors", "bank, MiB", "p95, ms", "images a second", "with maps, ms",
        "training step, ms", "\N{MULTIPLICATION SIGN} ResNet-18 pass",
    }  # fmt: skip
    assert found["memory of fitting, MiB"] == "900"
    assert page_of_times(timed(SPADE, 0.3, latency_s="absent")).count("<td>–</td>") > 2


def test_the_ratio_to_the_yardstick_is_paired_by_round():
    found = [timed(PADIM, 0.1, yardstick_s=0.2), timed(PADIM, 0.4, seed=1, yardstick_s=0.4),
             timed(PADIM, 0.3, seed=2, yardstick_s="absent")]  # fmt: skip
    assert table_of_times(*found).timed[0].of_yardstick == pytest.approx(0.75)


# Ratios


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
    ours, *_ = table_of_times(*rounds(ATACNET, 0.1, 0.1, 0.1)).timed
    others = [table_of_times(*rounds(s, *v)).timed[0] for s, v in ((PADIM, padim), (SPADE, spade))]
    assert compared(ours, others).endswith(end)
