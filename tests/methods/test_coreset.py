"""The lazy greedy selection against the plain one in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from baselines.patchcore import coreset
from baselines.patchcore.coreset import k_centre_greedy

Points = NDArray[np.float64]


def squared(points: Points, centre: Points) -> Points:
    return np.asarray(np.square(points - centre).sum(1))


def plain(points: Points, count: int, first: int) -> tuple[list[int], float]:
    """Return the picks of the plain greedy algorithm and the squared covering radius."""
    picks, nearest = [first], squared(points, points[first])
    while len(picks) < count:
        picks.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, squared(points, points[picks[-1]]))
    return picks, float(nearest.max())


def assert_greedy(points: Points, picks: list[int], first: int, rounding: float) -> None:
    """Check that every pick is, but for rounding, the farthest from those before it, once each.

    So near ties may be broken either way, and all that follows from it is checked too.
    """
    assert picks[0] == first
    assert len(set(picks)) == len(picks)
    nearest = squared(points, points[first])
    for pick in picks[1:]:
        assert nearest[pick] >= nearest.max() - rounding
        nearest = np.minimum(nearest, squared(points, points[pick]))


def rounding_of(points: Points) -> float:
    """Return what float32 may get wrong in a squared distance by the expansion of the square."""
    eps = float(np.finfo(np.float32).eps)
    return 4 * eps * points.shape[1] ** 0.5 * float(np.square(points).sum(1).max())


def chosen(points: Points, count: int, first: int = 0) -> list[int]:
    picks = k_centre_greedy(torch.tensor(points, dtype=torch.float32), count, first)
    assert picks.dtype == torch.long
    assert picks.shape == (count,)
    return [int(p) for p in picks]


def gaussian(n: int, d: int, seed: int) -> Points:
    points = np.random.RandomState(seed).normal(size=(n, d))
    return np.asarray(points.astype(np.float32).astype(np.float64))


def clustered(n: int, d: int, seed: int) -> Points:
    """Return points in tight clusters of very unlike sizes, far from the origin."""
    random = np.random.RandomState(seed)
    centres = random.normal(2, 3, (12, d))
    spread = random.choice([0.003, 0.1, 1.0], (12, 1))
    cluster = np.minimum(random.geometric(0.3, n) - 1, 11)
    points = centres[cluster] + spread[cluster] * random.normal(size=(n, d))
    return np.asarray(points.astype(np.float32).astype(np.float64))


@pytest.fixture(params=[(1024, 8), (1, 1), (7, 3), (64, 100)], ids=str)
def pace(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates, slices = request.param
    monkeypatch.setattr(coreset, "CANDIDATES", candidates)
    monkeypatch.setattr(coreset, "SLICES", slices)


@pytest.mark.usefixtures("pace")
@pytest.mark.parametrize("made", [gaussian, clustered])
@pytest.mark.parametrize(("n", "d", "count"), [(300, 16, 60), (500, 3, 120), (40, 5, 40)])
def test_the_picks_are_those_of_the_plain_algorithm(
    made: Callable[[int, int, int], Points], n: int, d: int, count: int
) -> None:
    points, first = made(n, d, n + d), n // 3
    picks = chosen(points, count, first)
    wanted, radius = plain(points, count, first)
    assert_greedy(points, picks, first, rounding_of(points))
    nearest = np.min([squared(points, points[p]) for p in picks], axis=0)
    assert nearest.max() <= radius + rounding_of(points)
    if made is gaussian:  # no near ties in these
        assert picks == wanted


@pytest.mark.parametrize("made", [gaussian, clustered])
def test_more_points_than_candidates(made: Callable[[int, int, int], Points]) -> None:
    assert coreset.CANDIDATES < 3000
    points = made(3000, 24, 5)
    picks = chosen(points, 400, 17)
    assert_greedy(points, picks, 17, rounding_of(points))
    assert len(picks) == 400
    if made is gaussian:
        assert picks == plain(points, 400, 17)[0]


@st.composite
def lattices(draw: st.DrawFn) -> tuple[Points, int, int]:
    """Draw points of small whole numbers, whose float32 distances are exact, many of them equal."""
    n, d = draw(st.integers(1, 60)), draw(st.integers(1, 4))
    top = draw(st.sampled_from([0, 1, 3, 20]))
    random = np.random.RandomState(draw(st.integers(0, 2**20)))
    points = random.randint(-top, top + 1, (n, d)).astype(np.float64)
    return points, draw(st.integers(1, n)), draw(st.integers(0, n - 1))


@given(lattices(), st.sampled_from([1, 2, 9, 1024]), st.sampled_from([1, 2, 8]))
def test_every_pick_is_a_farthest_point_also_among_duplicates_and_ties(
    drawn: tuple[Points, int, int], candidates: int, slices: int
) -> None:
    points, count, first = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreset, "CANDIDATES", candidates)
        patch.setattr(coreset, "SLICES", slices)
        assert_greedy(points, chosen(points, count, first), first, 0)


@given(
    st.sampled_from([gaussian, clustered]), st.integers(2, 200), st.integers(1, 12),
    st.integers(0, 2**20), st.sampled_from([3, 20, 1024]), st.data(),
)  # fmt: skip
def test_every_pick_is_a_farthest_point_of_random_and_clustered_sets(
    made: Callable[[int, int, int], Points], n: int, d: int, seed: int, candidates: int, data: Any
) -> None:
    points, count = made(n, d, seed), data.draw(st.integers(1, n))
    first = data.draw(st.integers(0, n - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreset, "CANDIDATES", candidates)
        picks = chosen(points, count, first)
    assert_greedy(points, picks, first, rounding_of(points))


@pytest.mark.parametrize("n", [1, 2, 30])
def test_all_points_are_picked_once_where_all_are_wanted(n: int) -> None:
    assert sorted(chosen(gaussian(n, 4, 0), n, n - 1)) == list(range(n))
    assert sorted(chosen(np.zeros((n, 3)), n, 0)) == list(range(n))


def test_one_pick_is_the_first() -> None:
    assert chosen(gaussian(50, 4, 0), 1, 23) == [23]


@pytest.mark.parametrize("count", [-1, 0, 11])
def test_a_count_that_cannot_be_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"cannot pick {count} of 10 points"):
        k_centre_greedy(torch.zeros(10, 2), count, 0)


def test_the_points_are_left_as_they_were_and_the_picks_repeat() -> None:
    points = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
    before = points.clone()
    first = k_centre_greedy(points, 300, 5)
    assert torch.equal(points, before)
    assert torch.equal(first, k_centre_greedy(points, 300, 5))
