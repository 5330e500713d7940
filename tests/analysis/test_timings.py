"""Inference times in a report, and Table 2's unsupervised columns, from runs made up in memory."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bench.analysis.timings import (
    Span,
    clocks,
    milliseconds,
    over_rounds,
)
from bench.text import spanned
from tests.fixtures.times import (
    ATACNET,
    CPU,
    GPU,
    PADIM,
    stored,
    timed,
)

# Numbers


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
