"""PaDiM: at every position a Gaussian of normal features, an image by its farthest position.

Reproduces: Defard et al., ICPR 2021 (arXiv 2011.08785), which ATAC-Net's Table 2 quotes. The maps
of stages 1 to 3 are brought to the grid of stage 1 by nearest neighbours and joined; a random part
of their channels is kept. At each position the normal images give a mean and a covariance, to which
0.01 is added on the diagonal (eq. 1); the anomaly map holds Mahalanobis distances (eq. 2). The
score is its maximum, once it is brought to the size of the image and blurred (Gaussian, sigma 4).

Defaults: ATAC-Net's text says ResNet-50 and 224 px; its numbers come from a Wide ResNet-50 (suite
`table2-published`). Chosen here: images are resized whole, where the paper resizes to 256 px and
crops 224 from the centre. Only the choice of channels is random.

With N images and d channels the covariance is (X'X) / (N - 1) + 0.01 I. Where N < d it is kept by
its N x d factor: with G = X X' + 0.01 (N - 1) I = L L' and F = L^-1 X,

    z' C^-1 z = (z'z - |F z|^2) / 0.01,

exactly, for a fraction of the memory. Else F = L^-1 with C = L L', and the distance is |F z|.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.blocks.frozen import CHUNK, FrozenMethod, channels_of, smoothed
from bench.detector import BackboneSource, Context, MethodError, parameter

STAGES = (1, 2, 3)
PUBLISHED = {"resnet18": 100}
"""Channels kept of a backbone as published; of wider ones 550."""
POSITIONS = 64
"""Positions whose matrices are factored at once."""


class PaDiM(FrozenMethod):
    """A Gaussian at each position."""

    name = "padim"
    version = 1
    memory_of = ("chosen", "mean", "factor")

    @dataclass(frozen=True, kw_only=True)
    class Parameters:
        """The published constants."""

        channels: int = parameter(0, least=0)
        """Channels kept; 0: 100 of ResNet-18, else 550, and never more than there are."""
        epsilon: float = parameter(0.01, above=0)
        """Added to the diagonal of each covariance."""
        sigma: float = parameter(4.0, above=0)
        """Of the blur of the map, in pixels."""

    def stages(self, source: BackboneSource) -> tuple[int, ...]:
        """Read stages 1 to 3."""
        return STAGES

    def dimensions(self, backbone: str) -> int:
        """Return how many channels the Gaussians see."""
        channels = sum(channels_of(backbone, STAGES))
        return min(channels, self.parameters.channels or PUBLISHED.get(backbone, 550))

    def remember(self, features: Iterable[list[Tensor]], count: int) -> None:
        """Fit the Gaussians."""
        if count < 2:
            raise MethodError("a covariance takes two normal images at least")
        assert self.context.backbone is not None
        backbone = self.context.backbone.name
        total, d = sum(channels_of(backbone, STAGES)), self.dimensions(backbone)
        rng = torch.Generator().manual_seed(self.context.seeds["init"])
        self.chosen = torch.randperm(total, generator=rng)[:d].sort().values.to(self.context.device)
        each = (self.embedded(maps) for maps in features)
        first = next(each)
        batches = itertools.chain([first], each)
        fit = self._by_images if count < d else self._by_channels
        try:
            self.mean, self.factor = fit(batches, count, first.mean(2))
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            epsilon = self.parameters.epsilon
            raise MethodError(f"features are too large for epsilon = {epsilon}: raise it") from None
        self.context.record("bank_vectors", self.factor.shape[0] * self.factor.shape[1])
        self.context.record("bank_bytes", self.factor.nbytes)

    def embedded(self, maps: list[Tensor]) -> Tensor:
        """Return the chosen channels of all stages at each of the P positions, (P, d, B)."""
        size = maps[0].shape[-2:]
        starts = itertools.accumulate((m.shape[1] for m in maps), initial=0)
        parts = []
        for level, start in zip(maps, starts, strict=False):
            own = (self.chosen >= start) & (self.chosen < start + level.shape[1])
            few = level.permute(0, 2, 3, 1)[..., self.chosen[own] - start]
            if few.shape[1:3] != size and few.shape[3]:  # interpolate takes no empty maps
                few = F.interpolate(few.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)
            if few.shape[3]:
                parts.append(few)
        # The channels of a position lie together in memory: so a matrix is quickly applied to them.
        return torch.cat(parts, 3).flatten(1, 2).permute(1, 2, 0)

    def _by_images(
        self, batches: Iterator[Tensor], count: int, pilot: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the means (P, d) and the factors (P, N, d), for fewer images than channels."""
        positions, d = pilot.shape
        held = pilot.new_empty(positions, count, d)
        start = 0
        for batch in batches:
            held[:, start : start + batch.shape[2]] = batch.transpose(1, 2)
            start += batch.shape[2]
        mean = held.mean(1)
        held -= mean.unsqueeze(1)
        ridge = (count - 1) * self.parameters.epsilon * torch.eye(count, device=held.device)
        for x in held.split(POSITIONS):
            lower = torch.linalg.cholesky(x @ x.mT + ridge)
            x.copy_(torch.linalg.solve_triangular(lower, x, upper=False))
        return mean, held

    def _by_channels(
        self, batches: Iterator[Tensor], count: int, pilot: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the means (P, d) and the inverse factors (P, d, d).

        Products are summed about the mean of the first batch, lest large means eat the digits.
        """
        positions, d = pilot.shape
        total, products = torch.zeros_like(pilot), pilot.new_zeros(positions, d, d)
        for batch in batches:
            x = batch - pilot.unsqueeze(2)
            total += x.sum(2)
            products.baddbmm_(x, x.mT)
        shift = total / count
        identity = torch.eye(d, device=pilot.device)
        for s, m in zip(products.split(POSITIONS), shift.split(POSITIONS), strict=True):
            covariance = (s - count * m.unsqueeze(2) * m.unsqueeze(1)) / (count - 1)
            lower = torch.linalg.cholesky(covariance + self.parameters.epsilon * identity)
            s.copy_(torch.linalg.solve_triangular(lower, identity.expand_as(s), upper=False))
        return pilot + shift, products

    def distances(self, maps: list[Tensor]) -> Tensor:
        """Return Mahalanobis distances (B, h, w) on the grid of stage 1."""
        z = self.embedded(maps) - self.mean.unsqueeze(2)
        # In this order it is quick for a single image too.
        squared = torch.bmm(z.mT, self.factor.mT).square_().sum(2)
        images, channels = self.factor.shape[1:]
        if images < channels:
            squared = (z.square().sum(1) - squared).clamp_(min=0) / self.parameters.epsilon
        return squared.sqrt().T.unflatten(1, maps[0].shape[-2:])

    def maps(self, features: list[Tensor]) -> Tensor:
        """Return the distances at the size of the image, blurred."""
        return smoothed(self.distances(features), self.size, self.parameters.sigma)

    def scores(self, features: list[Tensor]) -> Tensor:
        """Return the largest value of each map."""
        return self.maps(features).amax((1, 2))

    def memory(self, normals: int, size: int, context: Context) -> int:
        """Return the bytes of the factors, and of the features of a batch."""
        assert context.backbone is not None
        d = self.dimensions(context.backbone.name)
        positions = math.ceil(size / 4) ** 2
        # The chosen channels of a batch are there up to four times on their way to distances.
        batch = CHUNK * (sum(channels_of(context.backbone.name, STAGES)) + 4 * d)
        return 4 * positions * (min(normals, d) * d + batch)
