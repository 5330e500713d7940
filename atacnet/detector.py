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
the image itself, as DRA does; rotation by +-180 degrees, bilinear; weight decay 1e-5; gradient norm
<= 1; running statistics of batch normalisation for each view, since in training each view is
normalised by its own batch (version 2; version 1 had one set for both).

Why each view: on pill, with the same training to the bit, the labelled images lie 0.7 below the
margin in evaluation with statistics of each view and 3.1 with shared ones, 0.4 in training (means
of three seeds, MobileNetV2 to stage 3, 300 steps; `results/README.md`, "What ATAC-Net fits").
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atacnet.model import BATCH_NORMS, VIEWS, Network
from baselines.blocks.backbone import Backbone
from baselines.blocks.batches import generator, joined
from baselines.blocks.deviation import FORMS, REFERENCES, DeviationLoss
from baselines.blocks.weak import (
    NORMAL,
    Batch,
    BatchLoss,
    TrainingImages,
    TrainingParameters,
    WeakMethod,
    balanced_batches,
)
from bench.detector import MethodError, Samples, parameter


class ATACNet(WeakMethod):
    """Weakly supervised detector that scores an image and a zoomed view of it."""

    name = "atacnet"
    version = 2
    planned = True

    @dataclass(frozen=True, kw_only=True)
    class Parameters(TrainingParameters):
        """The defaults are the default reading above."""

        margin: float = parameter(10.0, above=0)
        loss_form: str = parameter("hinge", choices=FORMS)
        reference: str = parameter("drawn", choices=REFERENCES)
        pseudo: bool = True
        """Whether a quarter of each batch is pseudo anomalies; else labelled ones fill it."""
        channels: int = parameter(64, least=8)
        attention: bool = True
        """Whether the self-attention block is there; without it the box comes from the features."""
        view: str = parameter("attention", choices=VIEWS)
        """What the second pass sees, see `atacnet.model.VIEWS`."""
        threshold: float = parameter(0.4, least=0, most=1)
        padding: float = parameter(0.0, least=0)
        top_k: float = parameter(0.1, above=0, most=1)
        batch_norm: str = parameter("per_view", choices=BATCH_NORMS)
        """Running statistics of each view or of both, see `atacnet.model.BATCH_NORMS`."""

    def build(self, backbone: Backbone) -> Network:
        """Return the network."""
        p = self.parameters
        if p.view == "raw_augmented" and not p.rotation:
            raise MethodError("view = raw_augmented needs rotation above 0: nothing else is drawn")
        rng = generator(self.context, "reference")
        self.deviation = DeviationLoss(p.margin, p.loss_form, p.reference, rng, self.plan)
        self.box_generator = generator(self.context, "boxes")
        self.fallbacks = torch.zeros((), dtype=torch.long, device=self.context.device)
        return Network(
            backbone,
            channels=p.channels,
            attention=p.attention,
            view=p.view,
            threshold=p.threshold,
            padding=p.padding,
            top_k=p.top_k,
            batch_norm=p.batch_norm,
            boxes=self.box_generator,
            plan=self.plan,
        )

    def batches(self, images: TrainingImages) -> Callable[[], Batch]:
        """Return batches of half normals, a quarter labelled, a quarter pseudo anomalies."""
        rng = generator(self.context, "batches")
        size, pseudo = self.context.batch_size, self.parameters.pseudo
        return balanced_batches(images, size, pseudo, rng, self.augmentations())

    def augmentations(self) -> int:
        """Return 2 where the second view is augmented by itself, else 1."""
        return 2 if self.parameters.view == "raw_augmented" else 1

    def loss(self, images: Tensor, kinds: Tensor) -> BatchLoss:
        """One deviation loss on the score averaged over both views (Eq. 12 with a hinge)."""
        output = self.network(*images.chunk(self.augmentations()))
        self.fallbacks += output.fallbacks.sum()
        value = self.deviation(output.scores, (kinds != NORMAL).float())
        return BatchLoss(value, output.scores, output.scores)

    def pushed(self, samples: Samples) -> NDArray[np.float32]:
        """Return the scores."""
        return self.score(samples)

    def finish(self) -> None:
        """Record how often the attention map gave no box."""
        self.context.record("crop_fallbacks_train", int(self.fallbacks))

    def evaluation(self, samples: Samples) -> Iterator[Tensor]:
        """Yield images in batches; asked again, random boxes are the same."""
        self.box_generator.manual_seed(self.context.seeds["boxes"] + 1)
        return super().evaluation(samples)

    def score(self, samples: Samples) -> NDArray[np.float32]:
        """Return the mean of both views' top-K means, (N,), >= 0."""
        with torch.inference_mode():
            outputs = [self.network(images) for images in self.evaluation(samples)]
        fallbacks = sum(int(output.fallbacks.sum()) for output in outputs)
        self.context.record("crop_fallbacks_test", fallbacks)
        return joined([output.scores for output in outputs])
