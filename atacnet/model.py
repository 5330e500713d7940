"""ATAC-Net's network: features, self-attention, score map, and the two views."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from atacnet.crop import (
    boxes_from_maps,
    centre_boxes,
    draw_corners,
    random_boxes,
    whole_boxes,
    zoom,
)
from atacnet.view_norm import ViewNorm, separate_views
from baselines.blocks.backbone import Backbone
from baselines.blocks.deviation import ScoreMap, top_k_mean
from baselines.blocks.plan import Plan
from baselines.blocks.saliency import grad_cam
from baselines.blocks.weak import Seen, WeakNetwork

VIEWS = ("attention", "raw", "raw_augmented", "random", "centre", "raw_twice")
"""What the second pass sees: the attention's box, nothing, the whole image (augmented anew in
training, as it is at test), or a box of the attention's size at a random place or in the centre.
These are the rows of the ablation. `raw_twice` sees the same tensor again, whose loss and gradient
are those of `raw`: no control, only here so that older results can be used again."""

BATCH_NORMS = ("per_view", "shared")
"""Running statistics of batch normalisation: of each view by itself, or of both in turn."""


class SelfAttention(nn.Module):
    """Single-head attention over positions, (B, C, h, w) -> same; query and key at C / 8.

    The paper's reference [16] cannot be resolved; this is the form of SAGAN (Zhang et al., 2019):
    residual with a gain that starts at 0, so the first boxes come from the convolutions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """Mix each position with all others."""
        query, key, value = (
            layer(features).flatten(2) for layer in (self.query, self.key, self.value)
        )
        weights = (query.transpose(1, 2) @ key).softmax(dim=2)  # (B, from, to)
        mixed = (value @ weights.transpose(1, 2)).view_as(features)
        return features + self.gain * mixed


class Output(NamedTuple):
    """What a forward pass gives for B images."""

    raw: Tensor
    """(B,), the score of the whole image, >= 0."""
    zoomed: Tensor | None
    """(B,), the score of the second pass."""
    score_map: Tensor
    """(B, h, w), of the raw view."""
    attention: Tensor
    """(B, h, w), channel mean of the attention features of the raw view."""
    boxes: Tensor
    """(B, 4) as shares of the image, see `atacnet.crop`."""
    fallbacks: Tensor
    """(B,) bool: the attention map was constant or not finite, so its box is the whole image."""

    @property
    def scores(self) -> Tensor:
        """(B,), the mean of both views."""
        return self.raw if self.zoomed is None else (self.raw + self.zoomed) / 2


class Network(WeakNetwork):
    """Two passes of one network: over the whole image and over the zoomed view of it (Eq. 7)."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        channels: int = 64,
        attention: bool = True,
        view: str = "attention",
        threshold: float = 0.4,
        padding: float = 0.0,
        top_k: float = 0.1,
        batch_norm: str = "per_view",
        boxes: torch.Generator | None = None,
        plan: Plan | None = None,
    ) -> None:
        if view not in VIEWS:
            raise ValueError(f"view is one of {', '.join(VIEWS)}, not {view!r}")
        if batch_norm not in BATCH_NORMS:
            raise ValueError(f"batch_norm is one of {', '.join(BATCH_NORMS)}, not {batch_norm!r}")
        super().__init__()
        self.backbone = backbone
        self.convolutions = nn.Sequential(
            nn.Conv2d(backbone.channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.attention = SelfAttention(channels) if attention else nn.Identity()
        self.score_map = ScoreMap(channels)
        self.view, self.threshold, self.padding, self.top_k = view, threshold, padding, top_k
        self.box_generator, self._plan = boxes, plan or Plan()
        separate = batch_norm == "per_view" and view != "raw"
        self._norms: list[ViewNorm] = separate_views(self) if separate else []

    @contextlib.contextmanager
    def second_pass(self) -> Iterator[None]:
        """Take batches for second views, in backbone and convolutions."""
        for norm in self._norms:
            norm.second = True
        try:
            yield
        finally:
            for norm in self._norms:
                norm.second = False

    def attend(self, features: Tensor) -> Tensor:
        """Return the attention features (B, channels, h, w) of backbone features."""
        attended: Tensor = self.attention(self.convolutions(features))
        return attended

    def score(self, attended: Tensor) -> Tensor:
        """Return the score (B,) of one view."""
        return top_k_mean(self.score_map(attended), self.top_k)

    def second_view(self, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return what the second pass sees and its boxes; None where there is none.

        Random and centred boxes take their sizes from this network's own attention.
        """
        if self.view == "raw":
            return None
        if self.view in ("raw_augmented", "raw_twice"):
            return images, whole_boxes(boxes)
        if self.view == "random":
            assert self.box_generator is not None
            (corners,) = self._plan.take(draw_corners, len(boxes), self.box_generator)
            boxes = random_boxes(boxes, corners)
        elif self.view == "centre":
            boxes = centre_boxes(boxes)
        return zoom(images, boxes), boxes

    def forward(self, images: Tensor, augmented: Tensor | None = None) -> Output:
        """Score normalised images (B, 3, H, W).

        `augmented` are the same images augmented anew, of which the second view is made in
        training where the view is `raw_augmented`.
        """
        attended = self.attend(self.backbone(images))
        score_map, attention = self.score_map(attended), attended.mean(1)
        boxes, fallbacks = boxes_from_maps(attention.detach(), self.threshold, self.padding)
        raw, zoomed = top_k_mean(score_map, self.top_k), None
        second = self.second_view(images if augmented is None else augmented, boxes)
        if second:
            with self.second_pass():
                zoomed = self.score(self.attend(self.backbone(second[0])))
            boxes = second[1]
        return Output(raw, zoomed, score_map, attention, boxes, fallbacks)

    def scores(self, images: Tensor) -> Tensor:
        """Return (B,) scores, >= 0."""
        output: Output = self(images)
        return output.scores

    def embed(self, images: Tensor) -> Tensor:
        """Return the attention features' mean over positions and views, (B, channels)."""
        attended = self.attend(self.backbone(images))
        boxes, _ = boxes_from_maps(attended.mean(1), self.threshold, self.padding)
        second = self.second_view(images, boxes)
        if not second:
            return attended.mean((2, 3))
        with self.second_pass():
            zoomed = self.attend(self.backbone(second[0]))
        return (attended.mean((2, 3)) + zoomed.mean((2, 3))) / 2

    def explain(self, images: Tensor) -> Seen:
        """Return score map, attention, Grad-CAM and box of the raw view; the zoomed view's as well.

        Of the zoomed view there is no attention map. The Grad-CAM is that of a view's own score at
        the backbone's last features.
        """
        features = self.backbone(images)
        attended = self.attend(features)
        attention = attended.mean(1)
        boxes, _ = boxes_from_maps(attention, self.threshold, self.padding)
        maps = {"score": self.score_map(attended), "attention": attention}
        maps["grad_cam"] = grad_cam(features, lambda leaf: self.score(self.attend(leaf)))
        parts = {"raw": self.score(attended)}
        second = self.second_view(images, boxes)
        if not second:
            return Seen(maps, parts)
        with self.second_pass():
            features = self.backbone(second[0])
            attended = self.attend(features)
            maps["score_zoomed"] = self.score_map(attended)
            maps["grad_cam_zoomed"] = grad_cam(features, lambda leaf: self.score(self.attend(leaf)))
        return Seen(maps, {**parts, "zoomed": self.score(attended)}, second[1])
