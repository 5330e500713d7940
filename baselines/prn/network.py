"""PRN's network: residuals to prototypes, two fusions, attention of several sizes, a decoder."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.blocks.frozen import Features
from baselines.blocks.weak import Seen, WeakNetwork
from baselines.prn.prototypes import centres
from bench.detector import BackboneSource

LEVELS = 3
PARTS = (1, 2, 4, 8)
"""Patches along a side of a feature map, as published."""
SCALES = ("dim", "sqrt")
TOP = 100
"""Largest values of a map whose mean is the score."""
COARSE = 56
"""Largest side of the map that explains."""


def enlarge(features: Tensor, height: int, width: int) -> Tensor:
    """Return features (B, C, h, w) brought to a size bilinearly, corners aligned.

    As two matrix products, whose gradient a GPU sums in one order too; channels last.
    """
    _, channels, rows, columns = features.shape
    down, across = _weights(rows, height, features), _weights(columns, width, features)
    wide = across @ features.permute(0, 2, 3, 1)
    large = (down @ wide.flatten(2)).unflatten(2, (width, channels))
    return large.permute(0, 3, 1, 2)


def _weights(source: int, target: int, like: Tensor) -> Tensor:
    """Return what each of `source` cells gives to each of `target`, (target, source)."""
    step = (source - 1) / max(1, target - 1)
    position = torch.arange(target, device=like.device, dtype=like.dtype) * step
    cells = torch.arange(source, device=like.device, dtype=like.dtype)
    return (1 - (position[:, None] - cells).abs()).clamp(min=0)


class Fusion(nn.Module):
    """Add to each level the deeper ones, 1x1 and enlarged, and the shallower ones, strided."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        pairs = list(itertools.permutations(range(len(widths)), 2))
        self.between = nn.ModuleDict(
            {f"{a}{b}": self._path(widths[a], widths[b], b - a) for a, b in pairs}
        )

    @staticmethod
    def _path(source: int, target: int, deeper: int) -> nn.Conv2d:
        """Return the convolution to a level that lies so much deeper."""
        if deeper < 0:
            return nn.Conv2d(source, target, 1)
        kernel = 2 * deeper + 1
        return nn.Conv2d(source, target, kernel, 2**deeper, deeper, groups=source)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return levels (B, C, h, w) of the same shapes, shallow to deep."""
        fused = list(levels)
        for name, path in self.between.items():
            source, target = map(int, name)
            given = path(levels[source])
            if source > target:
                given = enlarge(given, *levels[target].shape[2:])
            fused[target] = fused[target] + given
        return fused


class PatchAttention(nn.Module):
    """Attention between the patches of maps (B, C, S, S) -> the same shape.

    A token is a patch with all of its values, C times side times side. Query, key and value weigh
    each value of a token and shift it.
    """

    def __init__(self, channels: int, side: int, parts: int, scale: str) -> None:
        super().__init__()
        self.parts, values = parts, channels * (side // parts) ** 2
        self.scale = 1 / values if scale == "dim" else 1 / math.sqrt(values)
        self.weight = nn.Parameter(torch.empty(3, values).uniform_(-1, 1))
        self.bias = nn.Parameter(torch.empty(3, values).uniform_(-1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Return what each patch reads from all.

        The shift of the keys adds the same to all of a query's products, which softmax does not
        see, and weights that sum to 1 leave the values' weight and shift until the end.
        """
        tokens = unfold(maps, self.parts)
        (query, key, value), (shift, _, offset) = self.weight, self.bias
        read = tokens
        if self.parts > 1:  # the only token reads itself
            products = (tokens * query + shift) * key @ tokens.transpose(1, 2)
            read = (self.scale * products).softmax(2) @ tokens
        return fold(read * value + offset, self.parts, maps.shape[1])


def unfold(maps: Tensor, parts: int) -> Tensor:
    """Cut maps (B, C, S, S) into parts by parts patches: (B, parts^2, (S / parts)^2 C)."""
    tiles = maps.permute(0, 2, 3, 1).unflatten(2, (parts, -1)).unflatten(1, (parts, -1))
    return tiles.transpose(2, 3).flatten(3).flatten(1, 2)


def fold(tokens: Tensor, parts: int, channels: int) -> Tensor:
    """Undo `unfold`; the maps are channels last."""
    side = math.isqrt(tokens.shape[2] // channels)
    tiles = tokens.unflatten(2, (side, side, channels)).unflatten(1, (parts, parts))
    return tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class MultiSizeAttention(nn.Module):
    """Attention with patches of several sizes, brought together by a residual block."""

    def __init__(self, channels: int, side: int, scale: str) -> None:
        super().__init__()
        self.sizes = nn.ModuleList(
            PatchAttention(channels, side, parts, scale) for parts in parts_of(side)
        )
        wide = channels * len(self.sizes)
        self.body = nn.Sequential(
            *convolution(wide, channels),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
        )
        self.skip = nn.Conv2d(wide, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape."""
        read = torch.cat([attend(maps) for attend in self.sizes], 1)
        result: Tensor = self.body(read) + self.skip(read)
        return result


def parts_of(side: int) -> list[int]:
    """Return into how many patches a side is cut: 1, 2, 4 and 8, or what divides it.

    For each of them the least divisor of the side that is as large, and less than twice as large.
    """
    divisors = [d for d in range(1, 2 * PARTS[-1]) if side % d == 0]
    least = (next((d for d in divisors if p <= d < 2 * p), 0) for p in PARTS)
    return [parts for parts in least if parts]


def convolution(channels: int, width: int) -> nn.Sequential:
    """Return a 3x3 convolution with batch normalisation and ReLU."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())


class Decoder(nn.Module):
    """From the deepest features up over the levels to one logit a pixel."""

    def __init__(self, deepest: int, skips: Sequence[int]) -> None:
        """Take the channels of the deepest features and of the levels, shallow to deep."""
        super().__init__()
        widths = [skip // 2 for skip in skips]
        above = [deepest, *widths[:0:-1]]
        self.up = nn.ModuleList(map(convolution, above, widths[::-1]))
        self.meet = nn.ModuleList(
            nn.Sequential(convolution(width + skip, width), convolution(width, width))
            for width, skip in zip(widths[::-1], skips[::-1], strict=True)
        )
        narrow = widths[0]
        self.last = nn.Sequential(convolution(narrow, narrow), nn.Conv2d(narrow, 1, 3, padding=1))

    def forward(self, deepest: Tensor, levels: Sequence[Tensor], size: torch.Size) -> Tensor:
        """Return logits (B, *size)."""
        x = deepest
        for up, meet, level in zip(self.up, self.meet, reversed(levels), strict=True):
            x = meet(torch.cat([up(enlarge(x, *level.shape[2:])), level], 1))
        logits: Tensor = self.last(enlarge(x, *size))
        return logits.squeeze(1)


def sides_of(size: int) -> list[int]:
    """Return the sides of the maps of stages 1 to 3."""
    return [-(-size // stride) for stride in (4, 8, 16)]


class Head(nn.Module):
    """All that is trained; the decoder is called by itself."""

    def __init__(
        self, channels: Sequence[int], side: int, width: int, blocks: int, scale: str
    ) -> None:
        """Take the channels of stages 1 to 3 and of the deepest, and the side of images.

        `width` is that of the first level, `blocks` the number of attentions one behind another.
        """
        super().__init__()
        *read, deepest = channels
        widths = [width << i for i in range(LEVELS)]
        joined = [2 * w for w in widths]
        self.narrow = nn.ModuleList(
            nn.Identity() if c == w else nn.Conv2d(c, w, 1)
            for c, w in zip(read, widths, strict=True)
        )
        self.first, self.second = Fusion(widths), Fusion(joined)
        self.attention = nn.ModuleList(
            nn.Sequential(*(MultiSizeAttention(c, s, scale) for _ in range(blocks)))
            for c, s in zip(joined, sides_of(side), strict=True)
        )
        self.decoder = Decoder(deepest, joined)

    def forward(self, stages: Sequence[Tensor], residuals: Sequence[Tensor]) -> list[Tensor]:
        """Return the levels (B, C, h, w) before the decoder, shallow to deep."""
        pair = (
            self.first([narrow(m) for narrow, m in zip(self.narrow, maps, strict=True)])
            for maps in (stages, residuals)
        )
        joined = [torch.cat(both, 1) for both in zip(*pair, strict=True)]
        return self.second([a(level) for a, level in zip(self.attention, joined, strict=True)])


class Output(NamedTuple):
    """What the network makes of B images."""

    logits: Tensor
    """(B, H, W), higher = anomalous."""
    fused: list[Tensor]
    """(B, C, h, w) of each level, before the decoder."""
    residuals: list[Tensor]
    """(B, C, h, w) of each level, squared differences to the nearest prototype."""


class Network(WeakNetwork):
    """The frozen backbone, the prototypes of its stages, and what is trained."""

    prototypes: list[Tensor]
    """(K, h, w, C) of stages 1 to 3."""

    def __init__(self, source: BackboneSource, precision: str, head: Head) -> None:
        super().__init__()
        self.frozen = Features(source, precision, tuple(range(1, source.stage + 1)))
        self.head = head

    @torch.no_grad()
    def remember(
        self, images: Iterable[Tensor], total: int, count: int, rng: torch.Generator
    ) -> None:
        """Make prototypes of so many normalised images, which come in batches."""
        held: list[Tensor] = []
        start = 0
        for batch in images:
            maps = [m.permute(0, 2, 3, 1) for m in self.frozen(batch)[:LEVELS]]
            held = held or [m.new_empty(total, *m.shape[1:]) for m in maps]
            for level, m in zip(held, maps, strict=True):
                level[start : start + len(m)] = m
            start += len(batch)
        self.prototypes = [
            centres(level.flatten(1), count, rng).unflatten(1, level.shape[1:]) for level in held
        ]
        self.remembered()

    def remembered(self) -> None:
        """Take the squared norms of the prototypes."""
        self.norms = [p.flatten(1).square().sum(1) for p in self.prototypes]

    def residuals(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Return the squared differences of stages (B, C, h, w) to their nearest prototypes."""
        differences = []
        for stage, stored, norms in zip(stages, self.prototypes, self.norms, strict=True):
            flat = stage.permute(0, 2, 3, 1).flatten(1)
            nearest = (norms - 2 * flat @ stored.flatten(1).T).argmin(1)
            differences.append((stage - stored[nearest].permute(0, 3, 1, 2)) ** 2)
        return differences

    def forward(self, images: Tensor) -> Output:
        """Return what the network makes of normalised images (B, 3, H, W)."""
        with torch.no_grad():
            maps = self.frozen(images)
            residuals = self.residuals(maps[:LEVELS])
        fused = self.head(maps[:LEVELS], residuals)
        return Output(self.head.decoder(maps[-1], fused, images.shape[2:]), fused, residuals)

    def scores(self, images: Tensor) -> Tensor:
        """Return (B,) scores in [0, 1]."""
        return top_mean(self(images).logits.sigmoid())

    def embed(self, images: Tensor) -> Tensor:
        """Return the pooled levels, (B, sum of their channels)."""
        return torch.cat([level.mean((2, 3)) for level in self(images).fused], 1)

    def explain(self, images: Tensor) -> Seen:
        """Return the map, the residual of stage 1, and the distance to the prototypes."""
        output = self(images)
        maps = output.logits.sigmoid()
        height, width = (min(COARSE, side) for side in maps.shape[1:])
        coarse = F.adaptive_avg_pool2d(maps.unsqueeze(1), (height, width)).squeeze(1)
        distances = [residual.mean((1, 2, 3)) for residual in output.residuals]
        return Seen(
            {"score": coarse, "residual": output.residuals[0].mean(1)},
            {"distance": torch.stack(distances).sum(0)},
        )


def top_mean(maps: Tensor) -> Tensor:
    """Return the mean of the 100 largest values of each map, or of all where they are fewer."""
    flat = maps.flatten(1)
    return flat.topk(min(TOP, flat.shape[1]), dim=1).values.mean(1)
