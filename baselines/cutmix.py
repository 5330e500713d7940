"""Weighted cross-entropy with CutMix pseudo anomalies: the "Cut-Mix" column of ATAC-Net's Table 1.

Stated there: ResNet-50, an MLP, weighted categorical cross-entropy, CutMix, and what the paper
fixes for all (224 px, batch 16, Adam 1e-3 stepped by 0.1 every 10 epochs, 30 epochs).

Chosen here: global average pooling and an MLP C-256-2; pseudo anomalies count as class 1, and each
normal of a batch becomes one with probability 1/2 (as in DRA); plain shuffled batches of all
training images, since the weights already balance the classes; weights by inverse expected
frequency, the mean over a batch divided by the batch's own sum of weights; score = logit of the
anomalous class minus that of the normal one; as many steps an epoch as ATAC-Net makes; rotation
within +-180 degrees, weight decay 1e-5 and gradients clipped at norm 1, as for all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.blocks.backbone import Backbone
from baselines.blocks.batches import Stream, generator
from baselines.blocks.saliency import grad_cam
from baselines.blocks.weak import (
    NORMAL,
    PSEUDO,
    SEEN,
    Batch,
    BatchLoss,
    Seen,
    TrainingImages,
    TrainingParameters,
    WeakMethod,
    WeakNetwork,
    batches_of,
)
from bench.detector import parameter


class Network(WeakNetwork):
    """Backbone, average pooling and an MLP C-hidden-2."""

    def __init__(self, backbone: Backbone, hidden: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(backbone.channels, hidden), nn.ReLU())
        self.classes = nn.Linear(hidden, 2)

    def head(self, features: Tensor) -> Tensor:
        """Return (B, 2) logits, normal and anomalous, of features (B, C, h, w)."""
        logits: Tensor = self.classes(self.hidden(self.pool(features)))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 2) logits of images."""
        return self.head(self.backbone(images))

    def scores(self, images: Tensor) -> Tensor:
        """Return (B,) scores of any sign."""
        return _difference(self(images))

    def embed(self, images: Tensor) -> Tensor:
        """Return what the last layer sees, (B, hidden)."""
        hidden: Tensor = self.hidden(self.pool(self.backbone(images)))
        return hidden

    def explain(self, images: Tensor) -> Seen:
        """Return the Grad-CAM of the score at the backbone's last features, and both logits."""
        features = self.backbone(images)
        logits = self.head(features)
        seen = grad_cam(features, lambda leaf: _difference(self.head(leaf)))
        return Seen({"grad_cam": seen}, {"normal": logits[:, 0], "anomalous": logits[:, 1]})


def _difference(logits: Tensor) -> Tensor:
    return logits[:, 1] - logits[:, 0]


class CutMix(WeakMethod):
    """Two-class classifier of normal images against labelled and pseudo anomalies."""

    name = "cutmix"
    version = 1
    planned = True

    @dataclass(frozen=True, kw_only=True)
    class Parameters(TrainingParameters):
        """The defaults are the reading above."""

        hidden: int = parameter(256, least=1)
        pseudo_probability: float = parameter(0.5, least=0, most=0.95)

    def build(self, backbone: Backbone) -> Network:
        """Return the network."""
        return Network(backbone, self.parameters.hidden)

    def prepare(self, images: TrainingImages) -> None:
        """Weigh the classes by inverse expected frequency."""
        total = images.normals + images.anomalies
        normal = images.normals * (1 - self.parameters.pseudo_probability)
        weights = torch.tensor([total / (2 * normal), total / (2 * (total - normal))])
        self.cross_entropy = nn.CrossEntropyLoss(weights.to(self.context.device))

    def batches(self, images: TrainingImages) -> Callable[[], Batch]:
        """Return plain shuffled batches; each normal turns pseudo by chance."""
        rng = generator(self.context, "batches")
        stream = Stream(images.normals + images.anomalies, rng)

        def draw() -> tuple[Tensor, Tensor]:
            indices = stream.take(self.context.batch_size)
            kinds = torch.where(indices >= images.normals, SEEN, NORMAL)
            chosen = torch.rand(len(kinds), generator=rng) < self.parameters.pseudo_probability
            return indices, torch.where(chosen & (kinds == NORMAL), PSEUDO, kinds)

        return batches_of(images, draw, slice(None))

    def loss(self, images: Tensor, kinds: Tensor) -> BatchLoss:
        """Weighted cross-entropy; pseudo anomalies are class 1."""
        logits = self.network(images)
        value: Tensor = self.cross_entropy(logits, (kinds != NORMAL).long())
        return BatchLoss(value, _difference(logits))
