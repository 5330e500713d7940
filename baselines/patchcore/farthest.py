"""The patch of an image that is farthest from a bank, without the distances of all the others.

The distance of a patch to any vector of the bank is at least that to the nearest one. The nearest
in the bank's first principal directions costs little to find and is a good guess, so the distances
to the guessed ones bound those of all patches. The patches with the largest bounds are searched in
full, then all those whose bounds exceed the largest distance found: no other can be the farthest.
"""

import torch
from torch import Tensor

from baselines.blocks.neighbours import GROUP, Bank

DIRECTIONS = 32
"""Principal directions that a guess is made in."""
FIRST = 16
"""Patches of an image that are searched in full in any case."""
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
        # In whole groups of columns; what fills the last one is never the nearest.
        self._sketch = sketch.new_zeros(-len(bank) // GROUP * -GROUP, sketch.shape[1])
        self._squares = sketch.new_full((len(self._sketch),), torch.inf)
        self._sketch[: len(bank)], self._squares[: len(bank)] = sketch, sketch.square().sum(1)

    def __call__(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return of each image the largest distance of a patch to its nearest vector of the bank.

        `patches` (B, P, D) float32 -> distances (B,), the patches' indices (B,) and those of the
        vectors (B,), as a search for all patches gives them, up to the rounding of a distance.
        """
        flat = patches.flatten(0, 1)
        differences = self.bank.vectors[self._guessed(flat)].sub_(flat)
        bounds = torch.linalg.vector_norm(differences, dim=1).view(patches.shape[:2])
        distances = torch.full_like(bounds, -torch.inf)
        vectors = torch.zeros_like(bounds, dtype=torch.long)
        # Said by what is not: so a bound that is no number is searched, and seen.
        first = ~(bounds < bounds.topk(min(FIRST, bounds.shape[1])).values[:, -1:])
        for again in (False, True):
            some = ~(first | (bounds <= distances.amax(1, keepdim=True))) if again else first
            found, index = self.bank.nearest(patches[some], 1)
            distances[some], vectors[some] = found[:, 0], index[:, 0]
        distance, patch = distances.max(1)
        return distance, patch, vectors.gather(1, patch.unsqueeze(1)).squeeze(1)

    def _guessed(self, patches: Tensor) -> Tensor:
        """Return the vector that is nearest to each patch (N, D) in the few directions, (N,)."""
        few = patches @ self._directions
        guessed = [self._nearest(part) for part in few.split(max(1, PRODUCTS // len(self._sketch)))]
        return torch.cat(guessed)

    def _nearest(self, few: Tensor) -> Tensor:
        product = torch.addmm(self._squares, few, self._sketch.T, alpha=-2)
        grouped = product.unflatten(1, (GROUP, -1))
        # A minimum is much quicker to find than its place: first the group, then within it.
        group = grouped.amin(1).argmin(1)
        inside = grouped[torch.arange(len(few), device=few.device), :, group].argmin(1)
        return inside * grouped.shape[2] + group
