"""ATAC-Net's network: features, self-attention, score map, and the two views."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from atacnet.crop import boxes_from_maps, centre_boxes, random_boxes, zoom
from baselines.blocks.backbone import Backbone
from baselines.blocks.deviation import top_k_mean

VIEWS = ("attention", "raw", "raw_twice", "random", "centre")
"""What the second pass sees: the attention's box, nothing, the whole image again, or a box of the
attention's size at a random place or in the centre (the rows of the ablation)."""


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

    scores: Tensor
    """(B,), >= 0."""
    score_map: Tensor
    """(B, h, w), of the raw view."""
    attention: Tensor
    """(B, h, w), channel mean of the attention features of the raw view."""
    boxes: Tensor
    """(B, 4) as shares of the image, see `atacnet.crop`."""
    fallbacks: Tensor
    """(B,) bool: the map was constant and the whole image was taken."""


class Network(nn.Module):
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
        boxes: torch.Generator | None = None,
    ) -> None:
        if view not in VIEWS:
            raise ValueError(f"view is one of {', '.join(VIEWS)}, not {view!r}")
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
        self.score = nn.Conv2d(channels, 1, 1)
        self.view, self.threshold, self.padding, self.top_k = view, threshold, padding, top_k
        self.box_generator = boxes

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """One pass: score map (absolute values) and attention map, both (B, h, w)."""
        features = self.attention(self.convolutions(self.backbone(images)))
        return self.score(features).abs().squeeze(1), features.mean(1)

    def forward(self, images: Tensor) -> Output:
        """Score normalised images (B, 3, H, W)."""
        score_map, attention = self.look(images)
        boxes, fallbacks = boxes_from_maps(attention.detach(), self.threshold, self.padding)
        scores = top_k_mean(score_map, self.top_k)
        if self.view == "raw":
            return Output(scores, score_map, attention, boxes, fallbacks)
        if self.view == "raw_twice":
            second = images
        else:
            if self.view == "random":
                assert self.box_generator is not None
                boxes = random_boxes(boxes, self.box_generator)
            elif self.view == "centre":
                boxes = centre_boxes(boxes)
            second = zoom(images, boxes)
        zoomed_scores = top_k_mean(self.look(second)[0], self.top_k)
        return Output((scores + zoomed_scores) / 2, score_map, attention, boxes, fallbacks)
