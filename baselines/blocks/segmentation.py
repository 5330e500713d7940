"""How MemSeg segments anomalies: fused stages with spatial weights, a U-Net decoder, its losses.

Yang et al., "MemSeg" (arXiv 2205.00908), here for stages of any number of channels. What is trained
is enlarged by nearest neighbour, whose gradient a GPU sums in one order too.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEM = 48
"""Channels of the decoder at half the input's resolution."""


def convolution(channels: int, width: int) -> nn.Sequential:
    """Return a 3x3 convolution with batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
    )


def enlarge(features: Tensor, like: Tensor) -> Tensor:
    """Bring features to the height and width of others by nearest neighbour."""
    return F.interpolate(features, like.shape[2:], mode="nearest")


class CoordinateAttention(nn.Module):
    """Weigh features (B, C, h, w) by their row and their column, channel by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 32)
        self.shared = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.Hardswish()
        )
        self.row, self.column = nn.Conv2d(hidden, channels, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the weighted features."""
        height, width = features.shape[2:]
        rows, columns = features.mean(3, keepdim=True), features.mean(2, keepdim=True)
        both = self.shared(torch.cat([rows, columns.transpose(2, 3)], 2))
        rows, columns = both.split([height, width], 2)
        weights = self.row(rows).sigmoid() * self.column(columns.transpose(2, 3)).sigmoid()
        return features * weights


class Fusion(nn.Module):
    """Fuse what the memory read gives of three stages, each of twice the stage's channels."""

    def __init__(self, channels: tuple[int, ...], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(2 * c, 2 * w, 1, bias=False) if c != w else nn.Identity(),
                nn.Conv2d(2 * w, 2 * w, 3, padding=1),
                CoordinateAttention(2 * w),
                convolution(2 * w, w),
                convolution(w, w),
            )
            for c, w in zip(channels, widths, strict=True)
        )
        pairs = zip(widths[1:], widths[:-1], strict=True)
        self.down = nn.ModuleList(convolution(deep, shallow) for deep, shallow in pairs)

    def forward(self, joined: list[Tensor], gates: list[Tensor]) -> list[Tensor]:
        """Return (B, w, h, w) of each stage, weighted by its gate (B, 1, h, w)."""
        fused = [stage(j) for stage, j in zip(self.stages, joined, strict=True)]
        for i in reversed(range(len(self.down))):
            fused[i] = fused[i] + self.down[i](enlarge(fused[i + 1], fused[i]))
        return [f * gate for f, gate in zip(fused, gates, strict=True)]


def spatial_gates(differences: list[Tensor]) -> list[Tensor]:
    """Return the channel mean of each stage's difference times those of all deeper stages.

    (B, C, h, w), shallow to deep -> (B, 1, h, w) each.
    """
    gates = [differences[-1].mean(1, keepdim=True)]
    for difference in reversed(differences[:-1]):
        size = difference.shape[2:]
        deeper = F.interpolate(gates[0], size, mode="bilinear", align_corners=False)
        gates.insert(0, difference.mean(1, keepdim=True) * deeper)
    return gates


class Decoder(nn.Module):
    """From the deepest features up over the fused stages and the stem to two channels."""

    def __init__(self, deepest: int, skips: tuple[int, ...]) -> None:
        """Take the channels of the deepest features and of what is met, shallow to deep."""
        super().__init__()
        widths = (STEM, *skips[1:])
        steps = list(zip((deepest, *widths[:0:-1]), widths[::-1], skips[::-1], strict=True))
        self.up = nn.ModuleList(convolution(above, width) for above, width, _ in steps)
        self.meet = nn.ModuleList(
            nn.Sequential(convolution(width + skip, width), convolution(width, width))
            for _, width, skip in steps
        )
        self.last = nn.Conv2d(STEM, 2, 3, padding=1)

    def forward(self, deepest: Tensor, skips: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits (B, 2, *size); `skips` go from shallow to deep."""
        x = deepest
        for up, meet, skip in zip(self.up, self.meet, reversed(skips), strict=True):
            x = meet(torch.cat([up(enlarge(x, skip)), skip], 1))
        return self.last(F.interpolate(x, size, mode="nearest"))


def anomaly_maps(logits: Tensor) -> Tensor:
    """Return the probability of the second of two channels: (B, 2, H, W) -> (B, H, W)."""
    return logits.softmax(1)[:, 1]


def l1_loss(logits: Tensor, anomalous: Tensor) -> Tensor:
    """Return the mean absolute error of the anomaly maps of (B, 2, H, W) against (B, H, W) bool."""
    return (anomaly_maps(logits) - anomalous.float()).abs().mean()


def focal_loss(logits: Tensor, anomalous: Tensor, gamma: float) -> Tensor:
    """Return the mean of -(1 - p)^gamma log p, p being the probability of the right channel."""
    normal, other = logits.log_softmax(1).unbind(1)
    right = torch.where(anomalous, other, normal)
    return -((1 - right.exp()) ** gamma * right).mean()
