"""Histograms and ROC curves of scores, by hand."""

import numpy as np
import pytest

from bench.metrics import auroc
from bench.report.figures.scores import (
    _roc_points,
    _score_points,
    mean_roc,
    overlap,
    roc_points,
)
from tests.fixtures.figures import LABEL, SCORE


def test_overlap_and_roc_by_hand():
    x, y = roc_points(SCORE, LABEL)
    assert list(x) == [0, 0, 0.5, 0.5, 1]
    assert list(y) == [0, 0.5, 0.5, 1, 1]
    assert overlap(SCORE, LABEL) == 0.5
    assert overlap(np.array([0.1, 0.2, 9], np.float32), np.array([False, False, True])) == 0
    assert overlap(np.full(4, 0.5, np.float32), LABEL) == 1


def test_the_mean_curve_of_two_seeds_by_hand():
    x, y = mean_roc([(SCORE, LABEL), (np.array([1, 2, 3, 4], np.float32), LABEL)])
    assert list(x) == [0, 0, 0.5, 0.5, 1, 1]
    assert list(y) == pytest.approx([0, 0.75, 0.75, 1, 1, 1])


def test_the_area_under_the_mean_curve_is_the_mean_area():
    random = np.random.RandomState(0)
    label = np.arange(60) < 25
    runs = [(random.randint(0, 8, 60).astype(np.float32) + label, label) for _ in range(5)]
    wanted = np.mean([auroc(*run) for run in runs])
    assert np.trapezoid(*mean_roc(runs)[::-1]) == pytest.approx(wanted, abs=1e-6)
    few = mean_roc(runs, points=7)
    assert len(few[0]) == 14
    assert (few[0][-1], few[1][-1]) == (1, 1)


def test_the_points_that_are_exported_are_those_that_are_drawn():
    curve = _roc_points({"DRA": [(SCORE, LABEL)]})
    assert curve.rows[:2] == (("DRA", "0.000000", "0.000000"), ("DRA", "0.000000", "0.500000"))
    assert curve.rows[-1] == ("DRA", "1.000000", "1.000000")
    x, y = (np.array([float(row[i]) for row in curve.rows]) for i in (1, 2))
    assert np.trapezoid(y, x) == pytest.approx(auroc(SCORE, LABEL))
    scores = _score_points({"DRA": (SCORE, LABEL)})
    assert len(scores.rows) == len(SCORE)
    assert {float(row[2]) for row in scores.rows} == {*map(float, SCORE)}
    assert [row[3] for row in scores.rows if row[1] == "normal"] == ["0.500000", "1.000000"]
