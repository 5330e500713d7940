"""ATAC-Net as a method of the harness: its parameters, training and score.

Reproduces: "Zoomed view works better for Anomaly Detection", arXiv 2406.14398. Fixed by its text:
ResNet-50 features, 64-channel convolutions, self-attention, a score map and a crop from the channel
mean of the attention features scaled to 0-1 and thresholded at 0.4; the crop resized to the input
and passed through the same network; the mean of each map's top 10 % averaged over both views, in
training and at test; deviation loss with margin 10; CutMix pseudo anomalies; Adam 1e-3, the rate
times 0.1 every 10 epochs, 30 epochs, batch 16, 224 px.

Chosen here, where the text is silent (alternatives are parameters): the last stage; two
convolutions (1x1, 3x3) with batch normalisation; SAGAN's form of attention; absolute scores and
K = floor(10 %), as in DevNet and DRA; a tight box around all active cells; one loss on the averaged
score; the hinge that Eq. 12 lacks in print; a reference of 5000 draws a step; batches of 8 normal,
4 labelled and 4 pseudo anomalies; an epoch of one pass over the normals; pseudo anomalies cut from
the image itself, as DRA does; rotation by +-180 degrees; weight decay 1e-5; gradient norm <= 1.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atacnet.model import Network
from baselines.blocks.backbone import Backbone
from baselines.blocks.deviation import DeviationLoss
from baselines.blocks.weak_training import (
    TrainingImages,
    TrainingParameters,
    balanced_batches,
    generator,
    score_in_batches,
    train,
)
from bench.detector import Context, Samples, TrainingSet


class ATACNet:
    """Weakly supervised detector that scores an image and a zoomed view of it."""

    name = "atacnet"
    version = 1
    supervision = "weak"
    settings = frozenset({"precision", "batch_size", "backbone"})

    @dataclass(frozen=True, kw_only=True)
    class Parameters(TrainingParameters):
        """The defaults are the default reading above."""

        margin: float = 10.0
        loss_form: str = "hinge"
        reference: str = "drawn"
        pseudo: bool = True
        """Whether a quarter of each batch is pseudo anomalies; else labelled ones fill it."""
        channels: int = 64
        attention: bool = True
        """Whether the self-attention block is there; without it the box comes from the features."""
        view: str = "attention"
        """What the second pass sees, see `atacnet.model.VIEWS`."""
        threshold: float = 0.4
        padding: float = 0.0
        top_k: float = 0.1

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def fit(self, train_set: TrainingSet, context: Context) -> None:
        """Train both views with one deviation loss on their averaged score."""
        p = self.parameters
        assert context.backbone is not None
        self.context = context
        self.box_generator = generator(context, "boxes")
        self.network = Network(
            Backbone(context.backbone, context.precision),
            channels=p.channels,
            attention=p.attention,
            view=p.view,
            threshold=p.threshold,
            padding=p.padding,
            top_k=p.top_k,
            boxes=self.box_generator,
        ).to(context.device)
        self.network.to(memory_format=torch.channels_last)
        deviation = DeviationLoss(
            p.margin, p.loss_form, p.reference, generator(context, "reference")
        )
        fallbacks = torch.zeros((), dtype=torch.long, device=context.device)

        def loss(batch: Tensor, labels: Tensor) -> Tensor:
            output = self.network(batch)
            fallbacks.add_(output.fallbacks.sum())
            return deviation(output.scores, labels)

        images = TrainingImages(train_set, context, p)
        rng = generator(context, "batches")
        batch = balanced_batches(images, context.batch_size, p.pseudo, rng)
        train(self.network, batch, loss, images, p, context)
        context.record("crop_fallbacks_train", int(fallbacks))

    def score(self, samples: Samples) -> NDArray[np.float32]:
        """Mean of both views' top-K means; >= 0."""
        # Scoring twice must give the same boxes, also where they are random.
        self.box_generator.manual_seed(self.context.seeds["boxes"] + 1)
        fallbacks = 0

        def score(images: Tensor) -> Tensor:
            nonlocal fallbacks
            output = self.network(images)
            fallbacks += int(output.fallbacks.sum())
            return output.scores

        scores = score_in_batches(self.network, score, samples, self.context)
        self.context.record("crop_fallbacks_test", fallbacks)
        return scores
