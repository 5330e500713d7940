import math

import numpy as np
import pytest
from scipy import stats

from bench.stats import holm, mean_interval, paired_difference, ranking


def test_the_interval_is_scipys_t_interval():
    values = [0.91, 0.94, 0.97, 0.90, 0.95]
    found = mean_interval(values)
    assert found.n == 5
    assert found.mean == pytest.approx(np.mean(values))
    assert found.interval == pytest.approx(
        stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    )


def test_by_hand_two_values_have_the_wide_interval_of_one_degree_of_freedom():
    found = mean_interval([0.0, 2.0])  # sd sqrt(2), standard error 1, t = 12.706
    assert found.interval == pytest.approx((1 - 12.706, 1 + 12.706), abs=1e-3)


def test_one_value_has_no_interval():
    assert mean_interval([0.5]).interval is None


def test_a_paired_difference_ignores_what_both_share():
    common = np.array([0.1, 0.5, 0.9])
    gains = np.array([0.01, 0.02, 0.03])
    found = paired_difference(list(common + gains), list(common))
    assert found.mean == pytest.approx(0.02)
    half = stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(3)
    assert found.interval == pytest.approx((0.02 - half, 0.02 + half))


def test_pairs_must_match():
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 2.0])


def test_the_interval_covers_the_mean_as_often_as_it_says():
    random = np.random.RandomState(0)
    covered = 0
    for _ in range(2000):
        low, high = mean_interval(random.normal(0.9, 0.02, 5)).interval
        covered += low <= 0.9 <= high
    assert 0.935 < covered / 2000 < 0.965


VALUES = {
    "a": [0.95, 0.97, 0.91, 0.99, 0.96, 0.94, 0.98, 0.93, 0.92, 0.90],
    "b": [0.90, 0.95, 0.90, 0.97, 0.97, 0.91, 0.95, 0.91, 0.88, 0.85],
    "c": [0.80, 0.83, 0.85, 0.81, 0.97, 0.84, 0.86, 0.92, 0.87, 0.89],
}


def test_a_ranking_is_scipys_tests_and_ranks_by_hand():
    found = ranking(VALUES)
    assert found.p == pytest.approx(stats.friedmanchisquare(*VALUES.values()).pvalue)
    assert list(found.ranks) == ["a", "b", "c"]
    assert found.ranks == pytest.approx({"a": 1.2, "b": 2.15, "c": 2.65})
    raw = {p: stats.wilcoxon(VALUES[p[0]], VALUES[p[1]]).pvalue for p in found.pairs}
    assert found.pairs == pytest.approx(holm(raw))
    assert found.datasets == 10


def test_holm_by_hand():
    assert holm({"x": 0.01, "y": 0.04, "z": 0.03}) == pytest.approx(
        {"x": 0.03, "z": 0.06, "y": 0.06}
    )


def test_methods_that_are_equal_everywhere_do_not_differ():
    assert ranking({**VALUES, "d": VALUES["a"]}).pairs["a", "d"] == 1.0


def test_a_ranking_takes_every_dataset_of_every_method():
    with pytest.raises(ValueError, match="every dataset"):
        ranking({**VALUES, "d": [0.5]})
    with pytest.raises(ValueError, match="three methods"):
        ranking({"a": [0.5, 0.6], "b": [0.5, 0.6]})
