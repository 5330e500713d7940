"""DRA: four heads that each learn one kind of abnormality, and their sum.

Reproduces: "Catching Both Gray and Black Swans: Open-set Supervised Anomaly Detection" (Ding et
al., CVPR 2022), the second column of ATAC-Net's Table 1. Over one shared backbone:

- seen:      1x1 convolution, top 10 % mean; learns normal against labelled anomalies;
- pseudo:    the same; learns normal against pseudo anomalies;
- residual:  the mean map of reference images minus the image's map, a 3x3 convolution with batch
             normalisation, 1x1 convolution, top 10 % mean; learns normal against both;
- normality: pooled features, C-256-1, absolute value; normal is its positive class.

Loss: the sum of the four deviation losses, margin 5. Score: seen + pseudo + residual - normality.

Defaults: what ATAC-Net's Table 1 fixes for all (ResNet-50, 224 px, batch 16 with half normals, 30
epochs, the rate times 0.1 every 10 epochs). Where the DRA paper and the code that its authors
released (Choubo/DRA) disagree, the code's value: Adam 2e-4 (paper, pp. 13-14: 1e-3), weight decay
1e-5 (paper 1e-2), a decay by 0.1 every 10 epochs (paper: none; the code steps one epoch early, we
do not). In the code alone: margin 5 (the paper calls it a and gives no value), gradients clipped at
norm 1. Its authors ran ResNet-18 with `scales = 2`, `sampler = "thirds"`, batch 48, 30 epochs of 20
steps, at 448 px in the code, at 448 or 224 px by the images' native size in the paper, which does
not say which had which: suite `table1-published` takes 448.

Reference images: five normals drawn once; in training rotated like the batch, at test as they are,
their mean map kept with the model (the single fixed map of the paper's p. 5). `reference_set =
"redrawn"` is the released code's: five drawn at every batch, at test too, rotated and half of them
pseudo anomalies; the paper's p. 14 says that those are mixed in on purpose. Their patches come from
the image itself whatever `patch_source` says. A score then depends on what was drawn before it, so
on the order and the batches of scoring, and `explain` draws again: its parts make up another score
than the one that `score` gave. A saved model holds the mean maps; where redrawn, all training
normals and the state of the draws, so that it goes on as it would have after training.

Chosen here: references pass the backbone together with the batch in training; one deviation
reference for each head and step; rotation within +-180 degrees, bilinear, as for all (the released
code: by the nearest pixel); with `thirds` and batch 16 five labelled anomalies (the released code:
six, alike at 48); pseudo anomalies everywhere (the medical rows in print use LAG fundus images,
which are on request only).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.blocks.backbone import Backbone, normalise, pyramid
from baselines.blocks.batches import generator
from baselines.blocks.deviation import REFERENCES, DeviationLoss, ScoreMap, top_k_mean
from baselines.blocks.pseudo_anomaly import draw_angles, draw_pastes, paste, turn
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
    balanced_batches,
    thirds_batches,
)
from bench.detector import Context, Samples, parameter


class Heads(NamedTuple):
    """What the four heads give for B images, (B,) each, >= 0."""

    seen: Tensor
    pseudo: Tensor
    residual: Tensor
    normality: Tensor

    @property
    def score(self) -> Tensor:
        """The anomaly score."""
        return self.seen + self.pseudo + self.residual - self.normality


class Network(WeakNetwork):
    """Backbone and four heads; each output is the mean over scales."""

    references: Callable[[], list[Tensor]]
    """Gives the mean reference map of each scale, (1, C, h, w), in evaluation."""

    def __init__(self, backbone: Backbone, scales: int, top_k: float, hidden: int) -> None:
        super().__init__()
        width = backbone.channels
        self.backbone = backbone
        self.seen = ScoreMap(width)
        self.pseudo = ScoreMap(width)
        self.residual = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            ScoreMap(width),
        )
        self.normality = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )
        self.scales, self.top_k = scales, top_k

    def forward(self, images: Tensor, references: Tensor) -> Heads:
        """Score a training batch (B, 3, H, W) against reference images (R, 3, H, W)."""
        scored = []
        for view in pyramid(torch.cat([references, images]), self.scales):
            features = self.backbone(view)
            mean = features[: len(references)].mean(0, keepdim=True)
            scored.append(self.heads(features[len(references) :], mean))
        return _mean(scored)

    def heads(self, features: Tensor, reference: Tensor) -> Heads:
        """Score features (B, C, h, w) of one scale against the mean reference map."""
        return Heads(
            top_k_mean(self.seen(features), self.top_k),
            top_k_mean(self.pseudo(features), self.top_k),
            top_k_mean(self.residual(reference - features), self.top_k),
            self.normality(features).abs().squeeze(1),
        )

    def reference_maps(self, references: Tensor) -> list[Tensor]:
        """Return the mean map of reference images at each scale."""
        return [self.backbone(v).mean(0, keepdim=True) for v in pyramid(references, self.scales)]

    def evaluate(self, images: Tensor, references: list[Tensor]) -> Heads:
        """Score images against the mean reference map of each scale, (1, C, h, w)."""
        views = zip(pyramid(images, self.scales), references, strict=True)
        return _mean([self.heads(self.backbone(view), reference) for view, reference in views])

    def scores(self, images: Tensor) -> Tensor:
        """Return (B,) scores of any sign."""
        return self.evaluate(images, self.references()).score

    def embed(self, images: Tensor) -> Tensor:
        """Return the pooled features of the full size, (B, C)."""
        features: Tensor = self.backbone(images)
        return features.mean((2, 3))

    def explain(self, images: Tensor) -> Seen:
        """Return the maps of the full size, their sum first, and what each head gave."""
        features, references = self.backbone(images), self.references()
        seen, pseudo = self.seen(features), self.pseudo(features)
        residual = self.residual(references[0] - features)
        maps = {"score": seen + pseudo + residual, "seen": seen, "pseudo": pseudo}
        return Seen({**maps, "residual": residual}, self.evaluate(images, references)._asdict())


def _mean(scored: list[Heads]) -> Heads:
    return Heads(*(torch.stack(head).mean(0) for head in zip(*scored, strict=True)))


class DRA(WeakMethod):
    """Seen, pseudo, latent-residual and normality heads, each with a deviation loss."""

    name = "dra"
    version = 1
    planned = True

    @dataclass(frozen=True, kw_only=True)
    class Parameters(TrainingParameters):
        """The defaults are the reading above."""

        lr: float = parameter(2e-4, above=0)
        margin: float = parameter(5.0, above=0)
        reference: str = parameter("drawn", choices=REFERENCES)
        """Of the deviation loss; not to be taken for the reference images."""
        reference_set: str = parameter("fixed", choices=("fixed", "redrawn"))
        reference_images: int = parameter(5, least=1)
        sampler: str = parameter("halves", choices=("halves", "thirds"))
        """`halves`: half normals, a quarter labelled, a quarter pseudo; `thirds`: DRA's own."""
        scales: int = parameter(1, least=1, most=2)
        top_k: float = parameter(0.1, above=0, most=1)
        hidden: int = parameter(256, least=1)

    def build(self, backbone: Backbone) -> Network:
        """Return the network."""
        p = self.parameters
        rng = generator(self.context, "reference")
        self.deviation = DeviationLoss(p.margin, "hinge", p.reference, rng, self.plan)
        return Network(backbone, p.scales, p.top_k, p.hidden)

    def batches(self, images: TrainingImages) -> Callable[[], Batch]:
        """Return batches of the chosen composition."""
        rng = generator(self.context, "batches")
        if self.parameters.sampler == "thirds":
            return thirds_batches(images, self.context.batch_size, rng)
        return balanced_batches(images, self.context.batch_size, True, rng)

    def prepare(self, images: TrainingImages) -> None:
        """Draw the reference images, or keep all normals to draw from."""
        self._draws = generator(self.context, "references")
        normals = images.images[: images.normals]
        if self.parameters.reference_set == "fixed":
            drawn = torch.randperm(images.normals, generator=self._draws)
            normals = normals[drawn[: self.parameters.reference_images].to(normals.device)]
        self._pool = normals

    def reference_images(self, *, training: bool) -> Tensor:
        """Return the reference images of one batch, (R, 3, H, W) normalised."""
        images, redrawn = self._pool, self.parameters.reference_set == "redrawn"
        if redrawn:
            drawn, turned, *patches = self.plan.take(self._draw_references)
            images = images[drawn].float() / 255
            pseudo = paste(images, images, patches)
            images = torch.where(turned.view(-1, 1, 1, 1), pseudo, images)
        else:
            images = images.float() / 255
        if redrawn or training:
            angle = self.parameters.rotation
            (angles,) = self.plan.take(draw_angles, len(images), angle, self._draws)
            images = turn(images, angles)
        return normalise(images).contiguous(memory_format=torch.channels_last)

    def _draw_references(self) -> tuple[Tensor, ...]:
        """Draw R of the normals, (R,) long, which turn pseudo, (R,) bool, and their patches."""
        drawn = torch.randperm(len(self._pool), generator=self._draws)
        drawn = drawn[: self.parameters.reference_images]
        turned = torch.rand(len(drawn), generator=self._draws) < 0.5
        height, width = self._pool.shape[2:]
        return drawn, turned, *draw_pastes(len(drawn), height, width, self._draws)

    def loss(self, images: Tensor, kinds: Tensor) -> BatchLoss:
        """Sum of the four deviation losses, each over the samples that train its head."""
        heads = self.network(images, self.reference_images(training=True))
        value = (
            self.deviation(heads.seen, (kinds == SEEN).float(), kinds != PSEUDO)
            + self.deviation(heads.pseudo, (kinds == PSEUDO).float(), kinds != SEEN)
            + self.deviation(heads.residual, (kinds != NORMAL).float())
            + self.deviation(heads.normality, (kinds == NORMAL).float())
        )
        return BatchLoss(value, heads.score, heads.seen)

    def pushed(self, samples: Samples) -> NDArray[np.float32]:
        """Return what the head of labelled anomalies gives."""
        seen = self.explain(samples).parts["seen"]
        if self.parameters.reference_set == "redrawn":
            self._draws.set_state(self._after_training)
        return seen

    def finish(self) -> None:
        """Settle the reference maps: once, or anew for every batch."""
        if self.parameters.reference_set == "redrawn":
            self._redraw(self._draws.get_state())
        else:
            with torch.inference_mode():
                images = self.reference_images(training=False)
                self._remember(self.network.reference_maps(images))

    def _remember(self, maps: list[Tensor]) -> None:
        self._maps = maps
        self.network.references = lambda: maps

    def _redraw(self, after_training: Tensor) -> None:
        """Draw on from where training left off, so that a loaded model begins there again."""
        self._after_training = after_training
        self._draws.set_state(after_training)
        self.network.references = lambda: self.network.reference_maps(
            self.reference_images(training=False)
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the network and its references: mean maps, or all normals where redrawn."""
        if self.parameters.reference_set == "redrawn":
            references = {"references.pool": self._pool, "references.draws": self._after_training}
        else:
            references = {f"references.{i}": maps for i, maps in enumerate(self._maps)}
        return {**super().state(), **{k: t.cpu().numpy() for k, t in references.items()}}

    def load_state(self, arrays: Mapping[str, NDArray[Any]], context: Context) -> None:
        """Build the network and fill it with what `state` returned."""
        references = {
            k: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("references.")
        }
        super().load_state({k: v for k, v in arrays.items() if k not in references}, context)
        if self.parameters.reference_set == "redrawn":
            self._draws = generator(context, "references")
            self._pool = references["references.pool"].to(context.device)
            self._redraw(references["references.draws"])
        else:
            self._remember([references[k].to(context.device) for k in sorted(references)])
