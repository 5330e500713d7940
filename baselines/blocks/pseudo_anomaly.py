"""Pseudo anomalies: a colour-jittered patch pasted elsewhere, and the rotation of training images.

The routine that DRA (Ding et al., CVPR 2022) calls CutMix: a patch of 2 to 15 % of the area, its
aspect ratio log-uniform in 0.3 to 1 / 0.3, cut from a uniform place, brightness, contrast,
saturation and hue jittered by 0.1, pasted at another uniform place with hard edges. All images of
a batch at once; every random number comes from a CPU generator, so devices see the same draws.

Where the description is silent: the jitters are applied in the order above, contrast about the
mean grey of the patch; a side is at most the image's.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.blocks.backbone import by_channel

AREA = (0.02, 0.15)
ASPECT = (0.3, 1 / 0.3)
JITTER = 0.1


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)


def draw_patches(n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw n patches as (n, 6) long: height, width, top and left of the source, of the target."""
    area = _uniform(n, *AREA, generator) * height * width
    aspect = torch.exp(_uniform(n, math.log(ASPECT[0]), math.log(ASPECT[1]), generator))
    h = (area * aspect).sqrt().round().clamp(1, height)
    w = (area / aspect).sqrt().round().clamp(1, width)
    shares = torch.rand(4, n, generator=generator)
    room = torch.stack([height - h + 1, width - w + 1] * 2)
    corners = (shares * room).floor().minimum(room - 1)
    return torch.stack([h, w, *corners]).long().T


def draw_pastes(n: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Draw what `paste` makes n pseudo anomalies by, on the CPU.

    (n, 6) long patches, see `draw_patches`; (n, 3) float32 factors of brightness, contrast and
    saturation; (n,) float32 turns of the hue.
    """
    patches = draw_patches(n, height, width, generator).contiguous()
    factors = 1 + _uniform(n * 3, -JITTER, JITTER, generator)
    return patches, factors.view(3, n).T.contiguous(), _uniform(n, -JITTER, JITTER, generator)


def spread(drawn: tuple[Tensor, ...], chosen: Tensor) -> tuple[Tensor, ...]:
    """Give the rows drawn to the chosen of n images, (n,) bool, and zeros to the others.

    A patch of zeros has no area: pasted, it changes nothing.
    """
    return tuple(d.new_zeros(len(chosen), *d.shape[1:]).index_put_((chosen,), d) for d in drawn)


def paste(images: Tensor, sources: Tensor, drawn: Sequence[Tensor]) -> Tensor:
    """Return images (B, 3, H, W) in [0, 1], each with one jittered patch of its source pasted in.

    `sources` has the shape of `images`; pass `images` itself for patches of the same image. What
    `draw_pastes` gave says which patches and jitters.
    """
    height, width = images.shape[2:]
    patches, factors, hue = drawn
    h, w, source_top, source_left, top, left = patches.view(-1, 6, 1, 1).unbind(1)

    y = torch.arange(height, device=images.device).view(1, -1, 1)
    x = torch.arange(width, device=images.device).view(1, 1, -1)
    target = (y >= top) & (y < top + h) & (x >= left) & (x < left + w)
    from_y = (y - top + source_top).clamp(0, height - 1)
    from_x = (x - left + source_left).clamp(0, width - 1)
    pixels = (from_y * width + from_x).flatten(1).unsqueeze(1).expand(-1, 3, -1)
    moved = sources.flatten(2).gather(2, pixels).reshape(images.shape)
    return torch.where(target.unsqueeze(1), _jitter(moved, target, factors, hue), images)


def _jitter(images: Tensor, inside: Tensor, factors: Tensor, hue: Tensor) -> Tensor:
    """Jitter brightness, contrast, saturation (factors, (B, 3)) and hue (turns, (B,))."""
    brightness, contrast, saturation = factors.view(-1, 3, 1, 1, 1).unbind(1)
    images = (images * brightness).clamp(0, 1)
    area = inside.unsqueeze(1)
    mean = (_grey(images) * area).sum((2, 3), keepdim=True) / area.sum((2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast).clamp(0, 1)
    grey = _grey(images)
    images = (grey + (images - grey) * saturation).clamp(0, 1)
    return shift_hue(images, hue)


def _grey(images: Tensor) -> Tensor:
    return (images * by_channel(images, (0.299, 0.587, 0.114))).sum(1, keepdim=True)


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the HSV hue of images (B, 3, H, W) in [0, 1] by `turns` (B,) of a full circle."""
    value, _ = images.max(1)
    chroma = value - images.min(1).values
    red, green, blue = images.unbind(1)
    safe = chroma.clamp(min=1e-8)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = hue + 6 * turns.view(-1, 1, 1)
    # Each channel falls from the value by the chroma as the hue turns away from it.
    k = (by_channel(images, (5.0, 3.0, 1.0)) + hue.unsqueeze(1)) % 6
    return value.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1)


def draw_angles(n: int, degrees: float, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Draw n uniform angles in +-degrees, (n,) float32 in radians, on the CPU."""
    return (torch.deg2rad(_uniform(n, -degrees, degrees, generator)),)


def rotate(images: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Rotate each of (B, 3, H, W) by its own uniform angle in +-degrees; corners turn black."""
    (angles,) = draw_angles(len(images), degrees, generator)
    return turn(images, angles.to(images.device))


def turn(images: Tensor, angles: Tensor) -> Tensor:
    """Rotate each of (B, 3, H, W) by its angle, (B,) in radians; corners turn black."""
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # affine_grid's coordinates span [-1, 1] on both axes, so sines carry the aspect ratio.
    ratio = images.shape[2] / images.shape[3]
    rows = [torch.stack([cos, -sin * ratio, zero], 1), torch.stack([sin / ratio, cos, zero], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
