"""DevNet for images: deviation loss on the top-K scores of a fine-tuned network.

Reproduces: "Explainable Deep Few-shot Anomaly Detection with Deviation Networks" (Pang et al.,
arXiv 2108.00462), the first column of ATAC-Net's Table 1. A 1x1 convolution on the backbone's last
stage gives a score map, its absolute values' top 10 % are averaged, and the deviation loss with
margin 5 pulls normals to the mean of a N(0, 1) reference and pushes anomalies five deviations up.

Values are those of the code that its authors released (Choubo/deviation-network-image). DevNet for
tables (Pang et al., KDD 2019; GuansongPang/deviation-network), where the loss and the margin come
from, drew the reference once, when the graph was built, trained by RMSprop and kept the weights of
the least training loss. The version for images, and so this file, draws it anew at every call,
trains by Adam and keeps the last epoch; `reference = "constant"` takes 0 and 1 instead.

Defaults: what ATAC-Net's Table 1 fixes for all (ResNet-50, 224 px, batch 16, 30 epochs, the rate
times 0.1 every 10 epochs) with what is DevNet's own: margin, no pseudo anomalies (half of a batch
are labelled anomalies), Adam 2e-4, weight decay 1e-5, gradient norm <= 1, rotation by +-180
degrees. Its authors ran ResNet-18 at 448 px with `scales = 2`, batch 48 and 50 epochs of 20 steps:
suite `table1-published`.

Chosen here: the map that `explain` shows is the score map, not the gradient at the input; images
turn by bilinear interpolation (the released code: by the nearest pixel).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.blocks.backbone import Backbone, pyramid
from baselines.blocks.batches import generator
from baselines.blocks.deviation import REFERENCES, DeviationLoss, ScoreMap, top_k_mean
from baselines.blocks.weak import (
    NORMAL,
    Batch,
    BatchLoss,
    Seen,
    TrainingImages,
    TrainingParameters,
    WeakMethod,
    WeakNetwork,
    balanced_batches,
)
from bench.detector import Samples, parameter


class Network(WeakNetwork):
    """Top-K mean of a score map, averaged over scales."""

    def __init__(self, backbone: Backbone, scales: int, top_k: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.score_map = ScoreMap(backbone.channels)
        self.scales, self.top_k = scales, top_k

    def scores(self, images: Tensor) -> Tensor:
        """Return (B,) scores, >= 0."""
        maps = [self.score_map(self.backbone(view)) for view in pyramid(images, self.scales)]
        return torch.stack([top_k_mean(m, self.top_k) for m in maps]).mean(0)

    def embed(self, images: Tensor) -> Tensor:
        """Return the pooled features of the full size, (B, C)."""
        features: Tensor = self.backbone(images)
        return features.mean((2, 3))

    def explain(self, images: Tensor) -> Seen:
        """Return the score map of the full size and the score of each scale."""
        maps = [self.score_map(self.backbone(view)) for view in pyramid(images, self.scales)]
        parts = {f"scale_{i + 1}": top_k_mean(m, self.top_k) for i, m in enumerate(maps)}
        return Seen({"score": maps[0]}, parts)


class DevNet(WeakMethod):
    """Deviation loss on a top-K score."""

    name = "devnet"
    version = 1
    planned = True

    @dataclass(frozen=True, kw_only=True)
    class Parameters(TrainingParameters):
        """The defaults are the reading above."""

        lr: float = parameter(2e-4, above=0)
        margin: float = parameter(5.0, above=0)
        reference: str = parameter("drawn", choices=REFERENCES)
        scales: int = parameter(1, least=1, most=2)
        top_k: float = parameter(0.1, above=0, most=1)
        pseudo: bool = False
        """Whether half of the anomalies of a batch are pseudo anomalies."""

    def build(self, backbone: Backbone) -> Network:
        """Return the network."""
        p = self.parameters
        rng = generator(self.context, "reference")
        self.deviation = DeviationLoss(p.margin, "hinge", p.reference, rng, self.plan)
        return Network(backbone, p.scales, p.top_k)

    def batches(self, images: TrainingImages) -> Callable[[], Batch]:
        """Return batches of half normals, half labelled anomalies."""
        rng = generator(self.context, "batches")
        return balanced_batches(images, self.context.batch_size, self.parameters.pseudo, rng)

    def loss(self, images: Tensor, kinds: Tensor) -> BatchLoss:
        """Deviation loss of the scores."""
        scores = self.network.scores(images)
        return BatchLoss(self.deviation(scores, (kinds != NORMAL).float()), scores, scores)

    def pushed(self, samples: Samples) -> NDArray[np.float32]:
        """Return the scores."""
        return self.score(samples)
