"""SAOE: a classifier of normal, labelled and pseudo anomalies with outlier exposure.

Reproduces: the third column of ATAC-Net's Table 1, a baseline of the DRA paper (Ding et al., CVPR
2022, its p. 15): synthetic anomalies and outlier exposure joined. No code of it is public; this is
rebuilt from that description. Three classes (normal, labelled anomaly, pseudo anomaly) on DRA's
plain path, a 1x1 convolution and the top 10 % mean; beside it the exposure term of Hendrycks et
al. (ICLR 2019): images from elsewhere shall get the uniform distribution over the classes.

Defaults: what ATAC-Net's Table 1 fixes for all (ResNet-50, 224 px, batch 16 with half normals, 30
epochs, the rate times 0.1 every 10 epochs), Adam 2e-4 and weight decay 1e-5 as DRA. Its authors
ran it as DRA: ResNet-18, 448 px, two scales, batch 48: suite `table1-published`.

Chosen here, where the description is silent: maps of signed logits, one for each class; unweighted
cross-entropy; exposure weight 0.5 and a quarter of the batch in external images, added to it and
rotated like all; score = log-odds of not being normal, which orders images as 1 - p(normal) does
and does not saturate. Rotation within +-180 degrees and gradients clipped at norm 1, as for all.

A run's `external` names the source of the external images: `textures`, the default, tiles of three
textures that come with scikit-image; `mvtec_ad`, 32 normal training images of each other MVTec AD
category that is there; or `none`. The DRA paper took MVTec AD or, for the medical rows, LAG fundus
images, which are on request only, without the classes that overlap with those under test.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.blocks.backbone import Backbone, pyramid
from baselines.blocks.batches import Stream, generator
from baselines.blocks.deviation import top_k_mean
from baselines.blocks.weak import (
    EXTERNAL,
    Batch,
    BatchLoss,
    Seen,
    TrainingImages,
    TrainingParameters,
    WeakMethod,
    WeakNetwork,
    balanced_batches,
    thirds_batches,
)
from bench.detector import parameter

CLASSES = 3


class Network(WeakNetwork):
    """Maps of class logits, their top-K means averaged over scales."""

    def __init__(self, backbone: Backbone, scales: int, top_k: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = nn.Conv2d(backbone.channels, CLASSES, 1)
        self.scales, self.top_k = scales, top_k

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 3) logits: normal, labelled anomaly, pseudo anomaly."""
        maps = [self.classes(self.backbone(view)) for view in pyramid(images, self.scales)]
        scored = [top_k_mean(m.flatten(0, 1), self.top_k).view(-1, CLASSES) for m in maps]
        return torch.stack(scored).mean(0)

    def scores(self, images: Tensor) -> Tensor:
        """Return (B,) scores of any sign."""
        return log_odds(self(images))

    def embed(self, images: Tensor) -> Tensor:
        """Return the pooled features of the full size, (B, C)."""
        features: Tensor = self.backbone(images)
        return features.mean((2, 3))

    def explain(self, images: Tensor) -> Seen:
        """Return the log-odds at each position of the full size, and the logits of the image."""
        logits = dict(zip(("normal", "seen", "pseudo"), self(images).unbind(1), strict=True))
        return Seen({"score": log_odds(self.classes(self.backbone(images)))}, logits)


def log_odds(logits: Tensor) -> Tensor:
    """Log-odds of not being normal, from logits (B, 3, ...) -> (B, ...)."""
    return logits[:, 1:].logsumexp(1) - logits[:, 0]


class SAOE(WeakMethod):
    """Three classes on a top-K path, and outlier exposure."""

    name = "saoe"
    version = 1
    planned = True
    settings = frozenset({"precision", "batch_size", "backbone", "external"})

    @dataclass(frozen=True, kw_only=True)
    class Parameters(TrainingParameters):
        """The defaults are the reading above."""

        lr: float = parameter(2e-4, above=0)
        exposure_weight: float = parameter(0.5, least=0)
        exposure_share: float = parameter(0.25, above=0)
        """External images in a batch, as a share of its size."""
        sampler: str = parameter("halves", choices=("halves", "thirds"))
        scales: int = parameter(1, least=1, most=2)
        top_k: float = parameter(0.1, above=0, most=1)

    def build(self, backbone: Backbone) -> Network:
        """Return the network."""
        return Network(backbone, self.parameters.scales, self.parameters.top_k)

    def batches(self, images: TrainingImages) -> Callable[[], Batch]:
        """Return batches of the chosen composition, external images after them."""
        size, rng = self.context.batch_size, generator(self.context, "batches")
        if self.parameters.sampler == "thirds":
            inner = thirds_batches(images, size, rng)
        else:
            inner = balanced_batches(images, size, True, rng)
        if self.context.external is None:
            return inner
        external = torch.from_numpy(self.context.external).to(self.context.device)
        stream = Stream(len(external), generator(self.context, "external"))
        count = self.exposed()
        outside = torch.full((count,), EXTERNAL, device=external.device)

        def draw() -> tuple[Tensor, ...]:
            return (stream.take(count),)

        def batch() -> Batch:
            batch_images, kinds = inner()
            (indices,) = images.plan.take(draw)
            exposed = images.finish(external[indices].float() / 255)
            return torch.cat([batch_images, exposed]), torch.cat([kinds, outside])

        return batch

    def exposed(self) -> int:
        """Return how many external images are added to a batch."""
        if self.context.external is None:
            return 0
        return max(1, round(self.parameters.exposure_share * self.context.batch_size))

    def batch_images(self) -> int:
        """Return how many images a batch holds, the external ones among them."""
        return self.context.batch_size + self.exposed()

    def loss(self, images: Tensor, kinds: Tensor) -> BatchLoss:
        """Cross-entropy of the three classes, and to the uniform one where images are external."""
        logits = self.network(images)
        external = kinds == EXTERNAL
        known = F.cross_entropy(logits, kinds.clamp(max=CLASSES - 1), reduction="none")
        value = (known * ~external).sum() / (~external).sum()
        uniform = -logits.log_softmax(1).mean(1)
        exposure = (uniform * external).sum() / external.sum().clamp(min=1)
        value = value + self.parameters.exposure_weight * exposure
        return BatchLoss(value, log_odds(logits))
