"""Weighted cross-entropy with CutMix pseudo anomalies: the "Cut-Mix" column of ATAC-Net's Table 1.

Stated there: ResNet-50, an MLP, weighted categorical cross-entropy, CutMix, and what the paper
fixes for all (224 px, batch 16, Adam 1e-3 stepped by 0.1 every 10 epochs, 30 epochs).

Chosen here: global average pooling and an MLP C-256-2; pseudo anomalies count as class 1, and each
normal of a batch becomes one with probability 1/2 (as in DRA); plain shuffled batches of all
training images, since the weights already balance the classes; weights by inverse expected
frequency; score = logit of the anomalous class minus that of the normal one; as many steps an
epoch as ATAC-Net makes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.blocks.backbone import Backbone
from baselines.blocks.weak_training import (
    Stream,
    TrainingImages,
    TrainingParameters,
    generator,
    score_in_batches,
    train,
)
from bench.detector import Context, Samples, TrainingSet


class CutMix:
    """Two-class classifier of normal images against labelled and pseudo anomalies."""

    name = "cutmix"
    version = 1
    supervision = "weak"
    settings = frozenset({"precision", "batch_size", "backbone"})

    @dataclass(frozen=True, kw_only=True)
    class Parameters(TrainingParameters):
        """The defaults are the reading above."""

        hidden: int = 256
        pseudo_probability: float = 0.5

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def fit(self, train_set: TrainingSet, context: Context) -> None:
        """Train the classifier with inverse-frequency class weights."""
        p = self.parameters
        assert context.backbone is not None
        self.context = context
        backbone = Backbone(context.backbone, context.precision)
        self.network = nn.Sequential(
            backbone,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(backbone.channels, p.hidden),
            nn.ReLU(),
            nn.Linear(p.hidden, 2),
        ).to(context.device)
        self.network.to(memory_format=torch.channels_last)
        images = TrainingImages(train_set, context, p)
        total = images.normals + images.anomalies
        normal = images.normals * (1 - p.pseudo_probability)
        weights = torch.tensor([total / (2 * normal), total / (2 * (total - normal))])
        cross_entropy = nn.CrossEntropyLoss(weights.to(context.device))
        rng = generator(context, "batches")
        stream = Stream(total, rng)

        def batch() -> tuple[Tensor, Tensor]:
            indices = stream.take(context.batch_size)
            labels = (indices >= images.normals).long()
            chosen = torch.rand(context.batch_size, generator=rng) < p.pseudo_probability
            pseudo = torch.nonzero(chosen & (labels == 0)).flatten()
            labels[pseudo] = 1
            picked = images.pick(indices)
            if len(pseudo):
                place = pseudo.to(picked.device)
                picked[place] = images.pseudo(picked[place])
            return images.finish(picked), labels.to(picked.device)

        def loss(batch_images: Tensor, labels: Tensor) -> Tensor:
            return cross_entropy(self.network(batch_images), labels)

        train(self.network, batch, loss, images, p, context)

    def score(self, samples: Samples) -> NDArray[np.float32]:
        """Logit of the anomalous class minus logit of the normal class."""

        def score(images: Tensor) -> Tensor:
            logits = self.network(images)
            return logits[:, 1] - logits[:, 0]

        return score_in_batches(self.network, score, samples, self.context)
