"""Figures of intervals, harmless whatever the names are."""

from bench.analysis.paired import Difference
from bench.analysis.statistics import Estimate
from bench.report.figures.ablation import Comparison, intervals
from bench.report.figures.scores import distributions, roc
from bench.report.figures.trends import defects_plot, shots_plot
from tests.fixtures.figures import HOSTILE, LABEL, SCORE, checked


def test_hostile_names_are_only_names():
    runs = {HOSTILE: (SCORE, LABEL), "\N{PILE OF POO}": (SCORE, LABEL)}
    by_name = {name: {1: Estimate(0.5, 1, None), 10: Estimate(0.7, 2, (0.4, 1.3))} for name in runs}
    gap = Difference(Estimate(0.1, 2, (-0.1, 0.3)), (-0.2, 0.4), 0.5)
    for drawn in (
        distributions(runs, HOSTILE),
        roc({name: [run] for name, run in runs.items()}, HOSTILE),
        shots_plot(by_name, HOSTILE),
        defects_plot({HOSTILE: {0: Estimate(0.5, 1, None)}}, [HOSTILE], HOSTILE),
        intervals([Comparison(HOSTILE, {}, {}, gap)], HOSTILE),
    ):
        assert "<script" not in checked(drawn)
        assert "alert(1)" in drawn
