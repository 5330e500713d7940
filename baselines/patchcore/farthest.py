"""Search for the patch of an image that is farthest from a memory bank.

Not every patch needs an exact search. The distance of a patch to any vector of the bank is at least
that to its nearest one. The nearest in the bank's first principal directions costs little and is a
good guess, so the distances to the guessed vectors bound those of all patches. The patches with the
largest bounds are searched exactly, then all those whose bounds exceed the largest distance so far:
no other can be the farthest.
"""

import torch
from torch import Tensor

from baselines.blocks.neighbours import GROUP, Bank

DIRECTIONS = 32
"""Principal directions in which the nearest vector is guessed."""
FIRST = 16
"""Patches of an image that are always searched exactly."""
PRODUCTS = 1 << 22
"""Products of patches and vectors that are held at once."""


class Farthest:
    """Searches a bank (M, D) for the patch that is farthest from it."""

    def __init__(self, bank: Tensor) -> None:
        self.bank = Bank(bank)
        mean = bank.mean(0)
        spread = torch.addmm(mean.outer(mean), bank.T, bank, beta=-len(bank))
        self._directions = torch.linalg.eigh(spread).eigenvectors[:, -DIRECTIONS:]
        sketch = bank @ self._directions
        # Padded to a multiple of GROUP; the padding is infinitely far, so never the nearest.
        self._sketch = sketch.new_zeros(-len(bank) // GROUP * -GROUP, sketch.shape[1])
        self._squares = sketch.new_full((len(self._sketch),), torch.inf)
        self._sketch[: len(bank)], self._squares[: len(bank)] = sketch, sketch.square().sum(1)

    def __call__(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each image's largest distance of a patch to the bank.

        `patches` (B, P, D) float32 -> distances (B,), indices of the farthest patches (B,) and of
        their nearest vectors (B,): what an exact search for all patches gives, up to the rounding
        of a distance.
        """
        flat = patches.flatten(0, 1)
        differences = self.bank.vectors[self._guessed(flat)].sub_(flat)
        bounds = torch.linalg.vector_norm(differences, dim=1).view(patches.shape[:2])
        distances = torch.full_like(bounds, -torch.inf)
        vectors = torch.zeros_like(bounds, dtype=torch.long)
        # A bound that is not a number compares as False: negated, its patch is searched too.
        first = ~(bounds < bounds.topk(min(FIRST, bounds.shape[1])).values[:, -1:])
        for again in (False, True):
            some = ~(first | (bounds <= distances.amax(1, keepdim=True))) if again else first
            nearest, index = self.bank.nearest(patches[some], 1)
            distances[some], vectors[some] = nearest[:, 0], index[:, 0]
        distance, patch = distances.max(1)
        return distance, patch, vectors.gather(1, patch.unsqueeze(1)).squeeze(1)

    def _guessed(self, patches: Tensor) -> Tensor:
        """Return the nearest vector of patches (N, D) in the principal directions, (N,)."""
        few = patches @ self._directions
        guessed = [self._nearest(part) for part in few.split(max(1, PRODUCTS // len(self._sketch)))]
        return torch.cat(guessed)

    def _nearest(self, few: Tensor) -> Tensor:
        product = torch.addmm(self._squares, few, self._sketch.T, alpha=-2)
        grouped = product.unflatten(1, (GROUP, -1))
        # amin is much quicker than argmin: first the group of the minimum, then its column.
        group = grouped.amin(1).argmin(1)
        inside = grouped[torch.arange(len(few), device=few.device), :, group].argmin(1)
        return inside * grouped.shape[2] + group
