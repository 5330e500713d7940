"""A figure is the same each time it is drawn."""

import re

from bench.report.figures.scores import distributions
from tests.fixtures.figures import LABEL, SCORE


def test_drawn_again_a_figure_is_the_same_to_the_byte():
    runs = {"one": (SCORE, LABEL), "two": (-SCORE, LABEL)}
    drawn = distributions(runs, "one place")
    assert distributions(runs, "one place") == drawn
    first, second = (set(re.findall(r' id="([^"]*)"', d))
                     for d in (drawn, distributions(runs, "another")))  # fmt: skip
    assert first
    assert not first & second, "ids would meet on a page"
