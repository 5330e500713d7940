import itertools
import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.analysis.statistics import (
    holm,
    mean_interval,
    paired_difference,
    paired_ratio,
    ranking,
    signed_rank,
)
from bench.metrics import auroc, auroc_interval


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


def test_a_ratio_by_hand_is_a_geometric_mean():
    found = paired_ratio([2.0, 8.0], [1.0, 1.0])  # logarithms log 2 and 3 log 2
    assert (found.mean, found.n) == (pytest.approx(4.0), 2)
    assert found.interval == pytest.approx((2 ** (2 - 12.7062), 2 ** (2 + 12.7062)), rel=1e-4)
    assert paired_ratio([3.0], [2.0]).interval is None
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([3.0, 1.0], [2.0])


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=2, max_size=9))
def test_a_ratio_turned_round_is_its_inverse(pairs):
    there = paired_ratio([a for a, _ in pairs], [b for _, b in pairs])
    back = paired_ratio([b for _, b in pairs], [a for a, _ in pairs])
    assert back.mean == pytest.approx(1 / there.mean)
    assert back.interval == pytest.approx((1 / there.interval[1], 1 / there.interval[0]))


def test_one_value_has_no_interval():
    assert mean_interval([0.5]).interval is None


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_every_level_and_number_of_seeds_is_scipys(level, n):
    values = list(np.random.RandomState(n).beta(20, 2, n))
    assert mean_interval(values, level).interval == pytest.approx(
        stats.t.interval(level, n - 1, np.mean(values), stats.sem(values))
    )


@pytest.mark.parametrize("value", [1.0, 0.0, 0.1, 0.9270833333333334])
def test_values_without_spread_give_an_interval_of_no_width(value):
    found = mean_interval([value] * 3)
    assert found.mean == pytest.approx(value, abs=1e-15)
    assert found.interval == (found.mean, found.mean)
    assert paired_difference([value] * 3, [value] * 3).interval == (0.0, 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_has_no_mean(bad):
    with pytest.raises(ValueError, match="finite"):
        mean_interval([0.9, bad])
    with pytest.raises(ValueError, match="finite"):
        ranking({**VALUES, "d": [bad] * 10})


def test_no_values_have_no_mean():
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


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


def test_the_interval_covers_near_the_ceiling_too():
    """AUROCs of five seeds are not normal near 1; as long as they vary, little is lost."""
    random = np.random.RandomState(0)
    covered = 0
    for values in random.beta(60, 3, (2000, 5)):
        low, high = mean_interval(list(values)).interval
        covered += low <= 60 / 63 <= high
    assert 0.91 < covered / 2000 < 0.95


def test_an_interval_over_images_says_nothing_of_seeds():
    """Where training again moves the AUROC, a run's interval over images misses the mean over seeds
    more often than it says; the interval over seeds of the same runs does not.
    """
    random, labels = np.random.RandomState(0), np.repeat([0, 1], [50, 100])
    shifts = random.normal(1.5, 0.5, (150, 5))
    there = np.mean(stats.norm.cdf(random.normal(1.5, 0.5, 100_000) / np.sqrt(2)))
    by_image, by_seed = [], []
    for group in shifts:
        runs = [random.normal(labels * shift, 1) for shift in group]
        low, high = auroc_interval(runs[0], labels, repeats=500)
        by_image.append(low <= there <= high)
        low, high = mean_interval([auroc(scores, labels) for scores in runs]).interval
        by_seed.append(low <= there <= high)
    assert np.mean(by_image) < 0.75
    assert np.mean(by_seed) > 0.90


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
    raw = {p: signed_rank(VALUES[p[0]], VALUES[p[1]]) for p in found.pairs}
    assert found.pairs == pytest.approx(holm(raw))
    assert found.datasets == 10


@given(st.lists(st.integers(-999, 999).filter(bool), min_size=2, max_size=12, unique_by=abs))
def test_without_ties_the_signed_rank_test_is_scipys(gaps):
    first, second = [0.5 + gap / 2000 for gap in gaps], [0.5] * len(gaps)
    expected = stats.wilcoxon(gaps, method="exact").pvalue
    assert signed_rank(first, second) == pytest.approx(expected)


@given(st.lists(st.integers(-3, 3), max_size=8))
def test_with_ties_it_counts_all_ways_to_set_the_signs(gaps):
    left = [gap for gap in gaps if gap]
    ranks = stats.rankdata(np.abs(left)) if left else np.array([])
    sums = [ranks[list(signs)].sum() if left else 0.0
            for signs in itertools.product([False, True], repeat=len(left))]  # fmt: skip
    positive = ranks[np.array(left, int) > 0].sum()
    least = min(positive, ranks.sum() - positive)
    expected = min(1.0, 2 * np.mean([s <= least for s in sums]))
    found = signed_rank([0.9 + gap / 100 for gap in gaps], [0.9] * len(gaps))
    assert found == pytest.approx(expected)


def counted(gaps):
    """Return the p of signed ranks by whole numbers: how many ways of all have such a sum."""
    doubled = [int(2 * rank) for rank in stats.rankdata(np.abs(gaps))]
    ways = Counter({0: 1})
    for rank in doubled:
        ways = ways + Counter({total + rank: n for total, n in ways.items()})
    positive = sum(rank for rank, gap in zip(doubled, gaps, strict=True) if gap > 0)
    least = min(positive, sum(doubled) - positive)
    return min(1.0, 2 * sum(n for total, n in ways.items() if total <= least) / (1 << len(gaps)))


@pytest.mark.parametrize("n", [1, 2, 5, 17, 53, 80])
@pytest.mark.parametrize("values", [3, 10**6], ids=["ties", "no ties"])
def test_the_signed_rank_test_is_exact(n, values):
    """Whole numbers below 2**53 are not even rounded."""
    for shift in (-values // 2, 0, values):
        gaps = np.random.RandomState(n).randint(-values, values, n) + shift
        gaps = np.where(gaps, gaps, 1)
        found = signed_rank([gap / 10**7 for gap in gaps], [0.0] * n)
        assert found == (counted(gaps) if n <= 53 else pytest.approx(counted(gaps), rel=1e-13))


def test_the_signed_rank_test_of_many_places_is_no_matter_of_seconds():
    random = np.random.RandomState(0)
    first, second = random.beta(20, 2, 1200), random.beta(20, 2, 1200)
    before = time.process_time()
    found = signed_rank(first[:400], second[:400])
    assert time.process_time() - before < 2
    assert found == pytest.approx(
        stats.wilcoxon(first[:400], second[:400], method="exact").pvalue, rel=1e-9
    )
    assert signed_rank(first + 1, second) < 1e-190
    assert 0 < signed_rank(first, second) <= 1


def test_five_pairs_cannot_reach_five_per_cent():
    assert signed_rank([0.9, 0.91, 0.92, 0.93, 0.94], [0.1] * 5) == 0.0625
    assert signed_rank([0.9] * 6, [0.1] * 6) == 0.03125


def test_the_ranking_finds_what_is_not_there_as_often_as_it_says():
    random, found = np.random.RandomState(0), 0
    for _ in range(200):
        p = ranking({m: list(random.beta(20, 2, 15)) for m in "abc"}).pairs.values()
        found += min(p) < 0.05
    assert found / 200 < 0.08


def test_methods_that_tie_everywhere_do_not_differ():
    found = ranking({m: [1.0, 0.9, 0.8] for m in "abc"})
    assert (found.p, set(found.ranks.values()), set(found.pairs.values())) == (1.0, {2.0}, {1.0})


def test_what_rounding_leaves_is_a_tie():
    third = [0.1 + 0.2, 0.7, 0.9]
    assert third[0] != 0.3
    found = ranking({"a": third, "b": [0.3, 0.7, 0.9], "c": [0.2, 0.6, 0.8]})
    assert found.ranks == {"a": 1.5, "b": 1.5, "c": 3.0}
    assert found.pairs["a", "b"] == 1.0


def test_holm_by_hand():
    assert holm({}) == {}
    assert holm({"x": 0.6, "y": 0.5}) == {"y": 1.0, "x": 1.0}
    assert holm({"x": 0.01, "y": 0.04, "z": 0.03}) == pytest.approx(
        {"x": 0.03, "z": 0.06, "y": 0.06}
    )


def test_methods_that_are_equal_everywhere_do_not_differ():
    assert ranking({**VALUES, "d": VALUES["a"]}).pairs["a", "d"] == 1.0


def test_a_ranking_takes_every_dataset_of_every_method():
    with pytest.raises(ValueError, match="every dataset"):
        ranking({**VALUES, "d": [0.5]})
    with pytest.raises(ValueError, match="every dataset"):
        ranking({"a": [], "b": [], "c": []})
    with pytest.raises(ValueError, match="three methods"):
        ranking({"a": [0.5, 0.6], "b": [0.5, 0.6]})
