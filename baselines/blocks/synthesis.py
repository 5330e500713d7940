"""MemSeg's anomaly synthesis: Perlin noise masks a source into the foreground of a normal image.

Yang et al., "MemSeg" (arXiv 2205.00908). A mask is Perlin noise of 2^0 to 2^5 cells along each
axis, turned by up to +-90 degrees about the centre, above 0.5, and only where the image's
foreground is. There a source is blended in, its share drawn from U(0.15, 1): half the time an image
from elsewhere, half the time the image itself after three of ten changes and a shuffle of its 8 x 8
tiles ("structural"). Without images from elsewhere all sources are structural. All images of a
batch at once; every random number comes from a CPU generator.

Where the description is silent: noise is scaled by sqrt(2), so that it spans -1 to 1, and 0 where
the turned square has left the image; the ten changes and their strengths are those of `CHANGES`,
made in its order. A mask can come out empty, the image then stays normal and its mask says so.

The published foreground is a grey threshold of each category, chosen by hand, and none for textures
and cable. A method does not know its category, so here (`foreground = "otsu"`) one threshold is
Otsu's over all training images, the background the side on which their edges lie, and what it
encloses is foreground. Where the edges lie on both sides, as on textures, or an image has next to
no foreground, there is no such bound.
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from baselines.blocks.backbone import by_channel
from baselines.blocks.batches import Stream
from baselines.blocks.plan import Plan
from baselines.blocks.pseudo_anomaly import draw_angles, shift_hue, spread, turn

FOREGROUNDS = ("otsu", "none")
EXPONENTS = 6
"""Cells along an axis are 2 ** 0 to 2 ** 5."""
CORNERS = 2 ** (EXPONENTS - 1) + 1
"""Of the cells along an axis, where they are the most."""
TURN = 90.0
LEVEL = 0.5
BLEND = (0.15, 1.0)
TILES = 8
CHANGED = 3
"""How many of `CHANGES` a structural source gets."""
GREY = (0.299, 0.587, 0.114)
ONE_SIDED = 0.9
"""Least share of the edges' pixels on one side of the threshold, for there to be a background."""
LEAST = 0.01
"""Smallest share of an image that counts as its foreground."""


# Masks


def draw_perlin(n: int, rng: torch.Generator) -> tuple[Tensor, ...]:
    """Draw what n maps of Perlin noise are made by, on the CPU.

    (2, n) long cells across and down; (2, n) cosine and sine of the turns; (2, n, corners) slopes
    across and down at the corners of the cells.
    """
    cells = 2 ** torch.randint(0, EXPONENTS, (2, n), generator=rng)
    turns = math.radians(TURN) * (2 * torch.rand(n, generator=rng) - 1)
    angles = 2 * math.pi * torch.rand(n, CORNERS**2, generator=rng)
    return cells, *(torch.stack([drawn.cos(), drawn.sin()]) for drawn in (turns, angles))


def perlin(drawn: Sequence[Tensor], height: int, width: int) -> Tensor:
    """Return n maps of Perlin noise in [-1, 1], as `draw_perlin` gave: (n, H, W)."""
    cells, turns, slopes = drawn
    n, device = cells.shape[1], cells.device
    across, down = cells.view(2, n, 1, 1)
    cos, sin = turns.view(2, n, 1, 1)

    # The noise is read at turned places: what rotating its picture would give, without resampling.
    y = ((torch.arange(height, device=device) + 0.5) / height - 0.5).view(1, -1, 1)
    x = ((torch.arange(width, device=device) + 0.5) / width - 0.5).view(1, 1, -1)
    u, v = cos * x - sin * y + 0.5, sin * x + cos * y + 0.5
    inside = (u >= 0) & (u < 1) & (v >= 0) & (v < 1)
    u, v = u.clamp(0, 1 - 1e-6) * across, v.clamp(0, 1 - 1e-6) * down
    column, row = u.floor(), v.floor()
    u, v = u - column, v - row
    first = (row * CORNERS + column).long().flatten(1)

    def ramp(right: int, below: int) -> Tensor:
        corner = first + (below * CORNERS + right)
        slope_x, slope_y = (s.gather(1, corner).view(n, height, width) for s in slopes)
        return slope_x * (u - right) + slope_y * (v - below)

    ease_u, ease_v = (t**3 * (t * (6 * t - 15) + 10) for t in (u, v))
    top = torch.lerp(ramp(0, 0), ramp(1, 0), ease_u)
    bottom = torch.lerp(ramp(0, 1), ramp(1, 1), ease_u)
    return math.sqrt(2) * torch.lerp(top, bottom, ease_v) * inside


def foregrounds(images: NDArray[np.uint8], kind: str = "otsu") -> NDArray[np.bool_]:
    """Return where images (N, 3, H, W) of one category show its object: (N, H, W).

    All of it where no background is found, or `kind` is `none`.
    """
    everything = np.ones((len(images), *images.shape[2:]), np.bool_)
    if kind == "none":
        return everything
    weights = np.array(GREY, np.float32)
    grey = np.stack([np.tensordot(weights, i, 1) for i in images]).round().astype(np.uint8)
    bright = grey > otsu(np.bincount(grey.ravel(), minlength=256))
    edges = np.concatenate([e.ravel() for e in (bright[:, [0, -1]], bright[:, :, [0, -1]])])
    share = float(edges.mean())
    if max(share, 1 - share) < ONE_SIDED:
        return everything
    background = bright if share > 0.5 else ~bright
    reached = np.zeros_like(background)
    for axis in (1, 2):  # what is background all the way to an edge, up, down, left or right
        for flipped in (background, np.flip(background, axis)):
            open_way = np.logical_and.accumulate(flipped, axis)
            reached |= open_way if flipped is background else np.flip(open_way, axis)
    objects = ~reached
    objects[objects.mean((1, 2)) < LEAST] = True
    return objects


def otsu(histogram: NDArray[np.int64]) -> int:
    """Return Otsu's threshold, the last grey of the dark side; the first of equally good ones."""
    p = histogram / histogram.sum()
    dark, partial = p.cumsum(), (p * np.arange(len(p))).cumsum()
    room = dark * (1 - dark)
    between = (partial[-1] * dark - partial) ** 2
    return int(np.divide(between, room, np.zeros_like(room), where=room > 1e-12).argmax())


# Structural sources: each change takes images (n, 3, H, W) in [0, 1] and two numbers in [0, 1) for
# each, (2, n, 1, 1, 1), that set its strength


def _between(share: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * share


def brightness(images: Tensor, at: Tensor) -> Tensor:
    """Multiply by 0.8 to 1.2 and add -30 to 30 of 255."""
    return images * _between(at[0], 0.8, 1.2) + _between(at[1], -30 / 255, 30 / 255)


def gamma(images: Tensor, at: Tensor) -> Tensor:
    """Raise to a power of 1/2 to 2, log-uniform."""
    return images.clamp(0, 1) ** (2 ** _between(at[0], -1, 1))


def sharpness(images: Tensor, at: Tensor) -> Tensor:
    """Add up to twice the difference to a 3 x 3 mean."""
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return images + _between(at[0], 0, 2) * (images - soft)


def colour(images: Tensor, at: Tensor) -> Tensor:
    """Turn the hue by up to a fifth of the circle and multiply the saturation by 0.5 to 1.5."""
    grey = _grey(images)
    images = (grey + (images - grey) * _between(at[1], 0.5, 1.5)).clamp(0, 1)
    return shift_hue(images, _between(at[0], -0.2, 0.2).flatten())


def solarise(images: Tensor, at: Tensor) -> Tensor:
    """Invert what is brighter than 32 to 128 of 255."""
    return torch.where(images > _between(at[0], 32 / 255, 128 / 255), 1 - images, images)


def posterise(images: Tensor, at: Tensor) -> Tensor:
    """Keep 1 to 4 bits of each colour."""
    levels = 2 ** _between(at[0], 1, 5).floor()
    return (images * levels).floor() / levels


def invert(images: Tensor, at: Tensor) -> Tensor:
    """Turn each colour into its opposite."""
    return 1 - images


def stretch(images: Tensor, at: Tensor) -> Tensor:
    """Bring the least and the largest value of each colour to 0 and 1."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def equalise(images: Tensor, at: Tensor) -> Tensor:
    """Give each colour a flat histogram over 256 levels."""
    n, channels, height, width = images.shape
    values = (images * 255).round().long().flatten(2).view(n * channels, -1)
    shifted = values + 256 * torch.arange(n * channels, device=images.device).view(-1, 1)
    # Not by bincount: that has a GPU say the largest value before it goes on.
    counts = shifted.new_zeros(256 * n * channels)
    counts.scatter_add_(0, shifted.flatten(), torch.ones_like(shifted).flatten())
    reached = counts.view(-1, 256).cumsum(1).float() / (height * width)
    return reached.gather(1, values).view_as(images)


CHANGES = (brightness, gamma, sharpness, colour, solarise, posterise, invert, stretch, equalise)
"""Nine of the ten; the tenth, after them, is a rotation within +-45 degrees."""
ROTATION = 45.0


def _grey(images: Tensor) -> Tensor:
    return (images * by_channel(images, GREY)).sum(1, keepdim=True)


def replaced(
    images: Tensor,
    chosen: Tensor,
    make: Callable[[Tensor, Sequence[Tensor]], Tensor],
    sources: Tensor,
    drawn: Sequence[Tensor],
) -> Tensor:
    """Return images with what `make(sources, drawn)` gives in the place of the chosen, (n,) bool.

    All have a row for each image, and each image is made by itself. On a CPU `images` are changed.
    """
    if not images.is_cpu:
        return torch.where(chosen.view(-1, 1, 1, 1), make(sources, drawn), images)
    # Shapes may vary here: no time goes into images that are not chosen.
    if chosen.any():
        images[chosen] = make(sources[chosen], [tensor[chosen] for tensor in drawn])
    return images


def draw_changes(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw three of ten changes for each of n images, and their strengths, on the CPU.

    (n, 10) bool, the last one the rotation; (n, 9, 2) float32.
    """
    three = torch.rand(n, len(CHANGES) + 1, generator=rng).topk(CHANGED).indices
    strengths = torch.rand(len(CHANGES), 2, n, generator=rng)
    chosen = torch.zeros(n, len(CHANGES) + 1, dtype=torch.bool).scatter_(1, three, True)
    return chosen, strengths.permute(2, 0, 1).contiguous()


def changed(images: Tensor, chosen: Tensor, strengths: Tensor) -> Tensor:
    """Return images (n, 3, H, W) in [0, 1] after those of `CHANGES` that `draw_changes` chose."""
    images = images.clone(memory_format=torch.contiguous_format)
    for k, change in enumerate(CHANGES):
        make = functools.partial(_within_range, change)
        images = replaced(images, chosen[:, k], make, images, [strengths[:, k]])
    return images


def _within_range(
    change: Callable[[Tensor, Tensor], Tensor], images: Tensor, drawn: Sequence[Tensor]
) -> Tensor:
    (strengths,) = drawn
    return change(images, strengths.T[..., None, None, None]).clamp(0, 1)


def draw_structural(n: int, rng: torch.Generator) -> tuple[Tensor, ...]:
    """Draw what `structural` makes n sources by, on the CPU.

    What `draw_changes` gives; (n,) angles of the rotation; (n, 64) long, the order of the tiles.
    """
    changes, angles = draw_changes(n, rng), draw_angles(n, ROTATION, rng)
    return *changes, *angles, torch.rand(n, TILES**2, generator=rng).argsort(1)


def structural(images: Tensor, drawn: Sequence[Tensor]) -> Tensor:
    """Change images (n, 3, H, W) in [0, 1] in three of ten ways each and shuffle their tiles."""
    chosen, strengths, angles, order = drawn
    images = changed(images, chosen, strengths)
    turned = chosen[:, -1].view(-1, 1, 1, 1)
    return shuffle(torch.where(turned, turn(images, angles), images), order)


def shuffle(images: Tensor, order: Tensor) -> Tensor:
    """Fill the 8 x 8 tiles of (n, 3, H, W) with the tiles `order` (n, 64), row by row.

    Where a side is no multiple of 8, the rest at its end stays.
    """
    n, channels, height, width = images.shape
    h, w = height // TILES, width // TILES
    area = images[:, :, : TILES * h, : TILES * w]
    tiles = area.unflatten(3, (TILES, w)).unflatten(2, (TILES, h)).permute(0, 2, 4, 1, 3, 5)
    tiles = tiles.reshape(n, TILES**2, channels, h, w)
    rows = torch.arange(n, device=images.device).view(-1, 1)
    moved = tiles[rows, order].view(n, TILES, TILES, channels, h, w)
    result = images.clone()
    result[:, :, : TILES * h, : TILES * w] = moved.permute(0, 3, 1, 4, 2, 5).reshape(area.shape)
    return result


class Synthesis:
    """Turns normal images into anomalous ones, batch by batch."""

    def __init__(
        self,
        augment: torch.Generator,
        external: Tensor | None = None,
        drawn: torch.Generator | None = None,
        plan: Plan | None = None,
    ) -> None:
        """Take images from elsewhere, (M, 3, H, W) uint8, in the order that `drawn` gives."""
        self._rng, self._external, self._plan = augment, external, plan or Plan()
        if external is not None:
            self._stream = Stream(len(external), drawn or augment)

    def __call__(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (n, 3, H, W) in [0, 1] with anomalies, and where these are, (n, H, W) bool.

        `foreground`, (n, H, W) bool, says where they may be.
        """
        n, _, height, width = images.shape
        noise = perlin(self._plan.take(draw_perlin, n, self._rng), height, width)
        masks = (noise > LEVEL) & foreground
        (blend,) = self._plan.take(draw_blend, n, self._rng)
        blended = torch.lerp(images, self._sources(images), blend.view(-1, 1, 1, 1))
        return torch.where(masks.unsqueeze(1), blended, images), masks

    def _sources(self, images: Tensor) -> Tensor:
        if self._external is None:
            return structural(images, self._plan.take(draw_structural, len(images), self._rng))
        own, elsewhere, *drawn = self._plan.take(self._draw_sources, len(images))
        sources = self._external[elsewhere].float() / 255
        return replaced(sources, own, structural, images, drawn)

    def _draw_sources(self, n: int) -> tuple[Tensor, ...]:
        """Draw which of n sources are images themselves, (n,) bool, and what all are made by.

        (n,) long, the images from elsewhere; what `draw_structural` gives. Zeros where not needed.
        """
        own = torch.rand(n, generator=self._rng) < 0.5
        changes = spread(draw_structural(int(own.sum()), self._rng), own)
        return own, *spread((self._stream.take(int((~own).sum())),), ~own), *changes


def draw_blend(n: int, rng: torch.Generator) -> tuple[Tensor, ...]:
    """Draw the shares of n sources, (n,), on the CPU."""
    return (_between(torch.rand(n, generator=rng), *BLEND),)
