"""Parts leave a method's batches and draws as they are."""

from types import SimpleNamespace

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
