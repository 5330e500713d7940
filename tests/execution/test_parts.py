"""Parts leave a method's batches and draws as they are."""

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.execution.parts import OwnDraws, images_of_a_part, spans


@pytest.mark.parametrize("count", [0, 1, 7, 8, 15, 16, 17, 100])
def test_all_items_are_in_one_span_each_and_none_is_a_remnant(count: int) -> None:
    found = list(spans(count, 8))
    assert [i for span in found for i in range(count)[span]] == list(range(count))
    assert all(len(range(count)[span]) >= min(8, count) for span in found)
    assert all(len(range(count)[span]) < 16 for span in found)


@pytest.mark.parametrize("batch", [1, 3, 8, 12, 32, 33])
def test_a_part_leaves_batches_of_methods_as_they_are(batch: int) -> None:
    size = images_of_a_part(batch)
    assert size % batch == size % min(8, batch) == 0


def test_a_generator_that_is_drawn_from_and_one_that_is_only_seeded_are_told_apart() -> None:
    detector = SimpleNamespace(boxes=torch.Generator().manual_seed(3), name="any")
    draws = OwnDraws(detector)
    assert not draws.drawn()
    detector.boxes.manual_seed(4)
    assert not draws.drawn()
    torch.rand(1, generator=detector.boxes)
    assert draws.drawn()
    draws.restore()
    assert not draws.drawn()


@pytest.mark.parametrize(
    "draw",
    [
        lambda _: torch.rand(1),
        lambda _: np.random.rand(),
        lambda _: random.random(),
        lambda detector: torch.rand(1, generator=detector.network.draws),
        lambda detector: detector.network.numpy.random(),
        lambda detector: detector.legacy.rand(),
        lambda detector: detector.python.random(),
    ],
)
def test_draws_of_any_generator_at_hand_are_seen(draw: Callable[[Any], Any]) -> None:
    network = SimpleNamespace(draws=torch.Generator(), numpy=np.random.default_rng(0))
    owned = {"legacy": np.random.RandomState(0), "python": random.Random(0)}
    detector = SimpleNamespace(network=network, name="any", **owned)
    draws = OwnDraws(detector)
    assert not draws.drawn()
    first = draw(detector)
    assert draws.drawn()
    draws.restore()
    assert not draws.drawn()
    assert draw(detector) == first
