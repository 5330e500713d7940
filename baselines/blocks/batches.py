"""Draw and iterate batches: seeded generators, index streams, evaluation batches.

Every random number comes from a CPU generator of a named seed, so the batches do not depend on the
device.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.blocks.backbone import normalise
from bench.detector import Context, Samples


def generator(context: Context, purpose: str) -> torch.Generator:
    """Return the CPU generator of one named seed."""
    return torch.Generator().manual_seed(context.seeds[purpose])


class Stream:
    """Endless indices of n items: permutations, one after the other, each shuffled anew."""

    def __init__(self, n: int, rng: torch.Generator) -> None:
        self._n, self._rng = n, rng
        self._left = torch.empty(0, dtype=torch.long)

    def take(self, k: int) -> Tensor:
        """Return the next k indices, (k,) long on the CPU."""
        while len(self._left) < k:
            self._left = torch.cat([self._left, torch.randperm(self._n, generator=self._rng)])
        taken, self._left = self._left[:k], self._left[k:]
        return taken


def in_batches(samples: Samples, context: Context) -> Iterator[Tensor]:
    """Yield samples in their order, normalised and without augmentation.

    Each batch is (B, 3, H, W) float32, channels last, on the context's device.
    """
    for start in range(0, len(samples), context.score_batch_size):
        chunk = torch.from_numpy(samples.images[start : start + context.score_batch_size])
        images = normalise(chunk.to(context.device).float() / 255)
        yield images.contiguous(memory_format=torch.channels_last)


def joined(tensors: list[Tensor]) -> NDArray[np.float32]:
    """Return the results of batches as one float32 array."""
    return torch.cat(tensors).float().cpu().numpy()
