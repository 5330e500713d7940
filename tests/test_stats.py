import math

import numpy as np
import pytest
from scipy import stats

from bench.stats import mean_interval, paired_difference


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
