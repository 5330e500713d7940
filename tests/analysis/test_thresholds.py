import numpy as np
import pytest

from bench.analysis.thresholds import balanced_error, best_threshold, transfer


def scored(normal, anomalous):
    label = np.repeat([False, True], [len(normal), len(anomalous)])
    return np.array([*normal, *anomalous], np.float32), label


def test_the_balanced_error_is_the_mean_of_both_error_rates():
    run = scored([0, 1, 2, 3], [2, 5])
    assert balanced_error(run, 2) == pytest.approx((2 / 4 + 0) / 2)
    assert balanced_error(run, 4) == pytest.approx((0 + 1 / 2) / 2)


@pytest.mark.parametrize("seed", range(20))
def test_the_best_threshold_is_as_good_as_any_that_a_search_finds(seed):
    random = np.random.RandomState(seed)
    run = scored(random.randint(0, 8, 9), random.randint(2, 10, 12))
    search = min(balanced_error(run, t) for t in np.arange(-1, 11, 0.25))
    assert balanced_error(run, best_threshold(run)) == pytest.approx(search)


def test_of_separable_scores_the_threshold_lies_in_the_middle_of_the_gap():
    assert best_threshold(scored([0, 1], [5, 9])) == 3


def test_a_threshold_that_moves_between_seeds_does_not_carry_over():
    steady = [scored([0, 1], [5, 9]), scored([0, 1], [6, 9])]
    moving = [scored([0, 1], [5, 9]), scored([100, 101], [105, 109])]
    moved = transfer(moving, margin=10)
    assert transfer(steady, None).other.mean == 0
    assert (moved.own.mean, moved.other.mean) == (0, 0.5)
    assert moved.best == (3, 103)
    assert moved.half_margin.mean == (0 + 0.5) / 2  # 5 reaches half of 10
    assert transfer(steady, None).half_margin is None
    assert transfer(steady[:1], None) is None
