"""Numbers, sizes, durations and lists as text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.figures.figure import slug
from bench.text import (
    brief,
    counted,
    duration,
    figures,
    gibibytes,
    gigabytes,
    hours,
    joined,
    listed,
    signed,
    wrapped,
)
from tests.fixtures.figures import HOSTILE


@pytest.mark.parametrize(
    ("seconds", "text"), [(8, "8 s"), (200, "3 min"), (9000, "2.5 h"), (None, "?")]
)
def test_durations_are_written_for_people(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1, "0.1 s"), (40.02, "40 s"), (5400.3, "1.5 h"), (1800, "30 min"), (86400.2, "24 h")],
)
def test_limits_are_written_as_they_were_given(seconds: float, text: str) -> None:
    assert hours(seconds) == text


def test_things_are_counted_in_words():
    assert [counted(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


def test_a_path_is_never_broken_between_lines():
    lines = wrapped("look at /a-long/path-name now", 10, "* ", "  ")
    assert lines == ["* look at", "  /a-long/path-name", "  now"]


def test_words_in_a_sentence():
    assert joined(["a"]) == "a"
    assert joined(["a", "b", "c"]) == "a, b and c"


def test_words():
    assert slug("zoom", "mvtec_ad/metal_nut", 10) == "zoom-mvtec-ad-metal-nut-10"
    assert re.fullmatch("[a-z0-9-]+", slug("x", HOSTILE))
    assert brief("a\nb\x00\ud800") == r"a\nb\x00\ud800"
    assert len(brief("x" * 99)) == 40
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert signed(-0.0381) == "\N{MINUS SIGN}0.038"


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


def test_sizes_are_written_for_people() -> None:
    assert (gibibytes(None), gibibytes(3 << 29)) == ("unknown", "1.5 GiB")
    assert (gigabytes(2_500_000_000), gigabytes(40_000)) == ("2.5 GB", "0.0 MB")
