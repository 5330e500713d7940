"""Affine coupling: the invertible block of which FastFlow and CFlow build their flows.

It is the AllInOneBlock of FrEIA 0.2 (Ardizzone et al.), which the published codes of both methods
use: half of the channels scales and shifts the other half, then every channel has a scale and an
offset of its own, then a fixed permutation mixes the channels. Later FrEIA divides inside the tanh,
which is another block. A hard permutation is an index here, where it was a matrix: the same
numbers for less work.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GAIN = 0.1
"""Of what the subnet says, so that a block begins near the identity."""


class HardPermutation(nn.Module):
    """A random order of the channels: output channel i is input channel order[i]."""

    order: Tensor
    inverse: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(channels))
        self.register_buffer("inverse", torch.arange(channels))

    def draw(self, rng: torch.Generator) -> None:
        """Draw the order."""
        self.order.copy_(torch.randperm(len(self.order), generator=rng))
        self.inverse.copy_(self.order.argsort())

    def forward(self, x: Tensor, reverse: bool = False) -> Tensor:
        """Return (B, C, ...) with its channels permuted, or put back."""
        order, back = (self.inverse, self.order) if reverse else (self.order, self.inverse)
        picked: Tensor = _Picked.apply(x, order, back)
        return picked


class _Picked(torch.autograd.Function):
    """Channels by index; the gradient comes by the inverse index, not by adding up."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        x, order, inverse = given
        ctx.save_for_backward(inverse)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inverse,) = ctx.saved_tensors
        return gradients[0].index_select(1, inverse), None, None


class SoftPermutation(nn.Module):
    """A random rotation of the channels, uniform over the matrices of determinant 1."""

    matrix: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.eye(channels))

    def draw(self, rng: torch.Generator) -> None:
        """Draw the matrix: Q of a Gaussian one, its signs made unique (Mezzadri 2007)."""
        gaussian = torch.randn(self.matrix.shape, generator=rng, dtype=torch.float64)
        q, r = torch.linalg.qr(gaussian)
        q = q * r.diagonal().sign()
        q[:, 0] *= torch.linalg.slogdet(q).sign
        self.matrix.copy_(q)

    def forward(self, x: Tensor, reverse: bool = False) -> Tensor:
        """Return (B, C, ...) with its channels rotated, or turned back."""
        return torch.einsum("ij,bj...->bi...", self.matrix.T if reverse else self.matrix, x)


class Coupling(nn.Module):
    """One affine coupling of two halves of the channels.

    `subnet` maps the first half to two numbers for each channel of the other.
    """

    def __init__(self, channels: int, subnet: nn.Module, clamp: float, *, soft: bool) -> None:
        super().__init__()
        self.parts = channels - channels // 2, channels // 2
        self.subnet, self.clamp = subnet, clamp
        self.global_scale = nn.Parameter(torch.full((channels,), 2 * math.log(math.exp(5) - 1)))
        """Scale 1 behind the softplus."""
        self.global_offset = nn.Parameter(torch.zeros(channels))
        self.permutation = (SoftPermutation if soft else HardPermutation)(channels)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (B, C, ...) transformed, and log|det| of the Jacobian of each, (B,).

        `condition` (B, K, ...) is seen by the subnet beside the first half.
        """
        first, second = x.split(self.parts, 1)
        log_scale, shift = self._affine(first, condition)
        scale, offset = self._global(x)
        y = torch.cat([first, second * log_scale.exp() + shift], 1) * scale + offset
        return self.permutation(y), self._log_det(log_scale, scale)

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what `forward` was given, and log|det| of the inverse's Jacobian."""
        scale, offset = self._global(y)
        x = (self.permutation(y, reverse=True) - offset) / scale
        first, second = x.split(self.parts, 1)
        log_scale, shift = self._affine(first, condition)
        x = torch.cat([first, (second - shift) * (-log_scale).exp()], 1)
        return x, -self._log_det(log_scale, scale)

    def _affine(self, first: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = first if condition is None else torch.cat([first, condition], 1)
        raw, shift = (GAIN * self.subnet(seen)).chunk(2, 1)
        return self.clamp * torch.tanh(raw), shift

    def _global(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (x.dim() - 2))
        scale = GAIN * F.softplus(self.global_scale, beta=0.5)
        return scale.view(shape), self.global_offset.view(shape)

    def _log_det(self, log_scale: Tensor, scale: Tensor) -> Tensor:
        positions = log_scale[0, 0].numel()
        return log_scale.flatten(1).sum(1) + positions * scale.log().sum()


class Flow(nn.Module):
    """Blocks one behind the other."""

    def __init__(self, blocks: Iterable[Coupling]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return z like x (B, C, ...), and log|det| of the Jacobian of each, (B,)."""
        total = x.new_zeros(len(x))
        for block in self.blocks:
            x, log_det = block(x, condition)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what `forward` was given, and log|det| of the inverse's Jacobian."""
        total = z.new_zeros(len(z))
        for block in reversed(self.blocks):
            z, log_det = block.inverse(z, condition)  # type: ignore[operator]
            total = total + log_det
        return z, total


def initialise(module: nn.Module, rng: torch.Generator) -> None:
    """Draw permutations, and weights as torch does, from one generator."""
    for part in module.modules():
        if isinstance(part, HardPermutation | SoftPermutation):
            part.draw(rng)
        elif isinstance(part, nn.Conv2d | nn.Linear):
            bound = part.weight[0].numel() ** -0.5
            for values in part.parameters():
                nn.init.uniform_(values, -bound, bound, generator=rng)
