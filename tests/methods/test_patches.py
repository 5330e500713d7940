"""Where patches lie, how they are cut, and how their scores come back to pixels."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from baselines.patchsvdd.patches import (
    DIRECTIONS,
    cut,
    draw_noise,
    near_pairs,
    position_pairs,
    spreading,
)

SIDES = st.sampled_from([32, 64])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(SIDES, st.integers(67, 300), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_displaced_patch_lies_in_its_direction_or_at_the_border(
    side: int, size: int, seed: int
) -> None:
    first, second, direction = position_pairs(50, side, size, rng(seed))
    last = size - side
    for corner in (first, second):
        assert corner.min() >= 0
        assert corner.max() <= last
    steps = DIRECTIONS[direction].tolist()
    for one, other, step in zip(first.tolist(), second.tolist(), steps, strict=True):
        for a, b, sign in zip(one, other, step, strict=True):
            if sign == 0:
                assert a == b
            elif b in (0, last):  # clipped, if not just there
                assert (b - a) * sign <= side - 1
                assert (b - a) * sign >= min(3 * side // 4, last - a if sign > 0 else a)
            else:
                assert 3 * side // 4 <= (b - a) * sign <= side - 1


@pytest.mark.parametrize("side", [32, 64])
def test_all_directions_and_all_distances_are_equally_likely(side: int) -> None:
    first, second, direction = position_pairs(16000, side, 2000, rng())
    assert Counter(direction.tolist()).keys() == set(range(8))
    assert len({tuple(d) for d in DIRECTIONS.tolist()} - {(0, 0)}) == 8
    for count in torch.bincount(direction).tolist():
        assert count == pytest.approx(2000, abs=250)
    distances = (second - first).abs()
    free = ((second > 0) & (second < 2000 - side) & (distances > 0)).all(1)
    moved = torch.bincount(distances[free].flatten())
    assert moved.nonzero().flatten().tolist() == list(range(3 * side // 4, side))
    assert moved[3 * side // 4 :].min() > 0.6 * moved.max()


@given(SIDES, st.integers(67, 300), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_patch_moves_a_little_inside_the_image_and_never_by_nothing(
    side: int, size: int, seed: int
) -> None:
    first, second = near_pairs(50, side, size, rng(seed))
    for corner in (first, second):
        assert corner.min() >= 0
        assert corner.max() <= size - side
    moved = (second - first).abs()
    assert moved.max() <= side // 32
    assert moved.sum(1).min() >= 1


@pytest.mark.parametrize(("side", "shifts"), [(32, 8), (64, 24)])
def test_all_small_displacements_are_equally_likely(side: int, shifts: int) -> None:
    first, second = near_pairs(1000 * shifts, side, 600, rng())
    counts = Counter(tuple(s) for s in (second - first).tolist())
    assert len(counts) == shifts
    assert all(count == pytest.approx(1000, abs=150) for count in counts.values())


def test_patches_are_cut_where_their_corners_say() -> None:
    images = torch.randn(3, 3, 70, 70, generator=rng())
    which, corners = torch.tensor([2, 0, 2]), torch.tensor([[0, 38], [5, 6], [38, 0]])
    patches = cut(images, which, corners, 32)
    assert patches.shape == (3, 3, 32, 32)
    for patch, n, (down, right) in zip(patches, which, corners.tolist(), strict=True):
        assert torch.equal(patch, images[n, :, down : down + 32, right : right + 32])


def test_jitter_is_one_draw_for_a_channel_and_one_for_a_pixel() -> None:
    (noise,) = draw_noise(300, 32, 0.02, rng())
    colour = noise.mean((2, 3))
    assert colour.std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.corrcoef(colour.T)[0, 1].abs() < 0.2
    assert (noise - colour[:, :, None, None]).std().item() == pytest.approx(0.02, rel=0.01)


@given(st.integers(67, 140), st.sampled_from([(64, 16), (32, 4), (32, 7), (8, 8)]))
@settings(max_examples=20, deadline=None)
def test_a_pixel_gets_the_mean_of_the_patches_over_it(size: int, kind: tuple[int, int]) -> None:
    side, stride = kind
    weights = spreading(size, side, stride)
    n = (size - side) // stride + 1
    assert weights.shape == (n, size)
    values = torch.rand(n, n, generator=rng(size))
    np.testing.assert_allclose(
        weights.T @ values @ weights, brute_spread(values, size, side, stride), rtol=1e-5
    )


def brute_spread(values: Tensor, size: int, side: int, stride: int) -> NDArray[np.float64]:
    total, count = np.zeros((size, size)), np.zeros((size, size))
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            place = np.s_[i * stride : i * stride + side, j * stride : j * stride + side]
            total[place] += value
            count[place] += 1
    return total / count.clip(1)
