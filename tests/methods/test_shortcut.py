"""The shortcut's statistics in parts have the bits of all images at once."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from baselines.shortcut import AT_ONCE, Shortcut
from bench.detector import Samples


def samples(images: NDArray[np.uint8]) -> Samples:
    n = len(images)
    facts = np.arange(1, n + 1, dtype=np.int64)
    return Samples(images, ("",) * n, facts, facts, ("RGB",) * n, facts)


def at_once(images: NDArray[np.uint8], black: int) -> Any:
    """Return mean grey and share of black as version 1 was first written."""
    grey = np.tensordot(images, (0.299, 0.587, 0.114), axes=([1], [0]))
    return np.column_stack([grey.mean((1, 2)), (grey <= black).mean((1, 2))])


@given(
    st.integers(1, 4 * AT_ONCE + 3), st.sampled_from([2, 7, 16, 31, 32, 64, 67]),
    st.integers(0, 2**20), st.sampled_from([20, 256]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_parts_have_the_bits_of_all_at_once(
    count: int, side: int, seed: int, brightest: int, grey: bool, channels_last: bool
) -> None:
    """Grey pixels of 10 lie at the limit of black, where the last bit decides."""
    random = np.random.RandomState(seed)
    shape = (count, side, side, 3) if channels_last else (count, 3, side, side)
    images = random.randint(0, brightest, shape).astype(np.uint8)
    images = images.transpose(0, 3, 1, 2) if channels_last else images
    if grey:
        images[:] = images[:, :1]
    statistics = Shortcut(Shortcut.Parameters()).statistics(samples(images))
    assert np.array_equal(statistics[:, 4:], at_once(images, 10))


@pytest.mark.parametrize("count", [60, 200])
def test_memory_does_not_grow_with_the_images(count: int) -> None:
    images = np.zeros((count, 3, 64, 64), np.uint8)
    detector = Shortcut(Shortcut.Parameters())
    tracemalloc.start()
    detector.statistics(samples(images))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * AT_ONCE * 64 * 64 * 8 * 5
