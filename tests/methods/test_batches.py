from typing import Any

import numpy as np
import pytest
import torch

from baselines.blocks.backbone import normalise
from baselines.blocks.batches import Stream, in_batches
from bench.detector import Context, Samples, Seeds


def samples(n: int) -> Samples:
    images = np.random.RandomState(n).randint(0, 256, (n, 3, 16, 16)).astype(np.uint8)
    ones = np.ones(n, np.int64)
    return Samples(images, tuple(map(str, range(n))), ones, ones, ("RGB",) * n, ones)


def context(**changes: Any) -> Context:
    return Context(device="cpu", seeds=Seeds(0, "d", "c"), **changes)


def test_a_stream_gives_every_item_once_before_any_twice() -> None:
    stream = Stream(7, torch.Generator().manual_seed(0))
    taken = torch.cat([stream.take(5) for _ in range(7)]).view(5, 7)
    assert (taken.sort(1).values == torch.arange(7)).all()
    assert len({tuple(row.tolist()) for row in taken}) > 1


def test_a_stream_of_one_gives_it_again_and_again() -> None:
    assert Stream(1, torch.Generator()).take(4).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("size", [1, 4, 32])
def test_evaluation_sees_every_image_once_in_order_and_unaugmented(size: int) -> None:
    tested = samples(11)
    chunks = list(in_batches(tested, context(score_batch_size=size)))
    assert all(len(c) <= size for c in chunks)
    images = torch.cat(chunks)
    assert torch.equal(images, normalise(torch.from_numpy(tested.images).float() / 255))
