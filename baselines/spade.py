"""SPADE: an image by its distance to the most similar normal images.

Reproduces: Cohen and Hoshen, arXiv 2005.02357, which ATAC-Net's Table 2 quotes by way of a port.
The score is the mean distance between the pooled features of the deepest stage and those of the K
nearest normal images (eqs. 1-2). The map compares every position with all positions of these K
images, stage by stage: the distance to the nearest one (eqs. 3-4, kappa = 1), brought to the size
of the image, averaged over stages 1 to 3 and blurred by a Gaussian, sigma 4.

Defaults: K = 50 as the paper has it for MVTec AD; the port whose numbers Table 2 prints has K = 5
(suite `table2-published`), and takes a Wide ResNet-50 where ATAC-Net's text says ResNet-50. Chosen
here: images are resized whole, where the port resizes to 256 px and crops 224; Euclidean distances,
as the port has them, not their squares; the average over stages, as in the port, where the paper
joins the stages to one feature. Nothing is random.

The score asks for pooled features alone; the map for the features of K images at every position,
which are computed of the normal images when the first map is wanted: with a ResNet-50 5.6 MB an
image at 224 px. So a saved model holds the normal training images themselves.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from baselines.blocks.frozen import FrozenMethod, channels_of, smoothed
from baselines.blocks.neighbours import nearest
from bench.detector import BackboneSource, Context, Samples, TrainingSet, parameter

PYRAMID = (1, 2, 3)
"""Stages that the map compares."""


class SPADE(FrozenMethod):
    """The K nearest normal images."""

    name = "spade"
    version = 1
    seedless = True
    memory_of = ("gallery", "images")

    @dataclass(frozen=True, kw_only=True)
    class Parameters:
        """The reading above."""

        k: int = parameter(50, least=1)
        """Nearest normal images; never more than there are."""
        sigma: float = parameter(4.0, above=0)
        """Of the blur of the map, in pixels; the score does not see it."""

    def stages(self, source: BackboneSource) -> tuple[int, ...]:
        """Read the pyramid, and the deepest stage for the pooled features."""
        return (*PYRAMID, *range(PYRAMID[-1] + 1, source.stage + 1))

    def begin(self, context: Context) -> None:
        """Build the feature extractor, and forget what was computed of other images."""
        self.__dict__.pop("pyramid", None)
        super().begin(context)

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Remember the normal images and their pooled features."""
        self.images = torch.from_numpy(train.normal.images)
        super().fit(train, context)

    def remember(self, features: Iterable[list[Tensor]], count: int) -> None:
        """Keep the pooled features, (N, D)."""
        self.gallery = torch.cat([maps[-1].mean((2, 3)) for maps in features])
        self.context.record("bank_vectors", count)
        self.context.record("bank_bytes", self.gallery.nbytes)

    def retrieved(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return distances to the K nearest normal images and their indices, (B, K)."""
        k = min(self.parameters.k, len(self.gallery))
        return nearest(features[-1].mean((2, 3)), self.gallery, k)

    def scores(self, features: list[Tensor]) -> Tensor:
        """Return the mean distance to the K nearest normal images."""
        return self.retrieved(features)[0].mean(1)

    def maps(self, features: list[Tensor]) -> Tensor:
        """Return the distances of positions to the retrieved images, over stages and blurred."""
        _, similar = self.retrieved(features)
        total = torch.zeros((), device=similar.device)
        for level, gallery in zip(features, self.pyramid, strict=False):
            grid = level.shape[-2:]
            distances = [
                nearest(image.flatten(1).T, gallery[own].flatten(0, 1), 1)[0].view(grid)
                for image, own in zip(level, similar, strict=True)
            ]
            total = total + smoothed(torch.stack(distances), self.size, self.parameters.sigma)
        return total / len(PYRAMID)

    @cached_property
    def pyramid(self) -> list[Tensor]:
        """The features of the normal images at all positions, (N, h x w, channels) by stage."""
        n = len(self.images)
        unknown = np.zeros(n, np.int64)
        images = self.images.cpu().numpy()  # of a loaded model they lie on the device
        normal = Samples(images, ("",) * n, unknown, unknown, ("RGB",) * n, unknown)
        held: list[Tensor] = []
        start = 0
        for batch in self._features(normal):
            levels = [maps.flatten(2).mT for maps in batch[: len(PYRAMID)]]
            held = held or [level.new_empty(n, *level.shape[1:]) for level in levels]
            for stage, level in zip(held, levels, strict=True):
                stage[start : start + len(level)] = level
            start += len(levels[0])
        return held

    def memory(self, normals: int, size: int, context: Context) -> int:
        """Return the bytes of the images and their pooled features; maps take much more."""
        assert context.backbone is not None
        pooled = channels_of(context.backbone.name, (context.backbone.stage,))[0]
        return normals * (3 * size**2 + 4 * pooled)
