"""Square patches: draw pairs, cut them out, spread their values over pixels.

A corner is the position of a patch's upper left pixel, down and right. All random numbers come from
a given CPU generator.
"""

import torch
from torch import Tensor

DIRECTIONS = torch.tensor([[-1, -1], [-1, 0], [-1, 1], [0, -1], [0, 1], [1, -1], [1, 0], [1, 1]])
"""(8, 2): down and right."""


def position_pairs(
    count: int, side: int, size: int, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw patches and their displaced ones: corners (B, 2) each, and directions (B,)."""
    last = size - side
    first = torch.randint(last + 1, (count, 2), generator=rng)
    direction = torch.randint(len(DIRECTIONS), (count,), generator=rng)
    distance = 3 * side // 4 + torch.randint(side // 4, (count, 2), generator=rng)
    return first, (first + DIRECTIONS[direction] * distance).clamp(0, last), direction


def near_pairs(count: int, side: int, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw patches and slightly displaced ones: corners (B, 2) each, never equal."""
    last, reach = size - side, side // 32
    first = torch.randint(last + 1, (count, 2), generator=rng)
    steps = torch.arange(-reach, reach + 1)
    every = torch.cartesian_prod(steps, steps)
    zero = len(every) // 2
    drawn = torch.randint(len(every) - 1, (count,), generator=rng)
    shift = every[drawn + (drawn >= zero).long()]
    inside = (first + shift >= 0) & (first + shift <= last)
    return first, first + torch.where(inside, shift, -shift)


def cut(images: Tensor, which: Tensor, corners: Tensor, side: int) -> Tensor:
    """Cut patches (B, 3, K, K) out of images (N, 3, S, S) at corners (B, 2): down and right."""
    windows = images.unfold(2, side, 1).unfold(3, side, 1)
    down, right = corners.to(images.device).unbind(1)
    return windows[which.to(images.device), :, down, right]


def draw_noise(count: int, side: int, deviation: float, rng: torch.Generator) -> tuple[Tensor, ...]:
    """Draw normal noise of patches, (B, 3, K, K): one draw a channel, and one a pixel."""
    colour = torch.randn(count, 3, 1, 1, generator=rng)
    noise = torch.randn(count, 3, side, side, generator=rng)
    return (noise.add_(colour).mul_(deviation),)


def spreading(size: int, side: int, stride: int) -> Tensor:
    """Return (n, size) weights of n patches in the pixels of one axis.

    With P the values of n x n patches, W' P W holds for each pixel the mean over the patches that
    cover it; 0 where none does.
    """
    first = torch.arange(0, size - side + 1, stride).unsqueeze(1)
    pixels = torch.arange(size)
    covers = ((first <= pixels) & (pixels < first + side)).float()
    return covers / covers.sum(0).clamp(min=1)
