"""Random numbers of training steps, drawn ahead of them and copied to the device at once.

A GPU that is handed something by the host waits for it, and a captured step cannot draw. So a step
does neither: its numbers come from the same generators, in the same order as if it drew them
itself, but before it begins.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Draw = Callable[..., tuple[Tensor, ...]]
"""Draws some of a step's numbers on the CPU; shapes and dtypes are the same in every step."""
AHEAD = 4 << 20
"""Bytes that are drawn at once, at most, unless a step takes more: Patch-SVDD's takes megabytes."""


class Plan:
    """What the steps of a training draw.

    Code that a step runs asks by `take`. Outside of steps, and in the first one, that draws on the
    spot. From the first step the plan learns what each of them draws; the others it draws ahead.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._draws: list[tuple[Draw, tuple[Any, ...]]] = []
        self._buffers: list[tuple[Tensor, ...]] = []
        """What each draw gave, (steps, ...) on the device: the same memory throughout."""
        self._taken: int | None = None
        """How many draws this step has taken; None outside of steps."""
        self._bytes, self._unused = 0, 0
        """What a step draws, and how many steps are drawn for and not yet made."""

    def take(self, draw: Draw, *arguments: Any) -> tuple[Tensor, ...]:
        """Return what `draw(*arguments)` gives, on the device.

        Every step must take the same draws with equal arguments, or RuntimeError is raised.
        """
        if self._taken is None or not self._buffers:
            drawn = draw(*arguments)
            if self._taken is not None:
                self._draws.append((draw, arguments))
                self._bytes += sum(tensor.nbytes for tensor in drawn)
            return tuple(tensor.to(self._device) for tensor in drawn)
        number, self._taken = self._taken, self._taken + 1
        if self._draws[number : number + 1] != [(draw, arguments)]:
            raise RuntimeError(f"a step takes {draw}{arguments}, which the first did not take then")
        return tuple(buffer.index_select(0, self._row)[0] for buffer in self._buffers[number])

    def prepare(self, steps: int) -> None:
        """Have the draws of the next step ready.

        `steps` counts what is left of an epoch with this one: no more is drawn ahead. The first
        call has the most.
        """
        if not self._draws:
            self._most = steps
            return
        if not self._unused:
            self._most = max(1, min(self._most, AHEAD // max(1, self._bytes)))
            self._unused = min(steps, self._most)
            self._draw_ahead(self._unused)
        self._unused -= 1

    def _draw_ahead(self, steps: int) -> None:
        drawn = [[draw(*arguments) for draw, arguments in self._draws] for _ in range(steps)]
        columns = [[*map(torch.stack, zip(*one, strict=True))] for one in zip(*drawn, strict=True)]
        if not self._buffers:
            self._row = torch.zeros(1, dtype=torch.long, device=self._device)
            self._buffers = [
                tuple(c.new_empty(self._most, *c.shape[1:], device=self._device) for c in column)
                for column in columns
            ]
        on_gpu = self._row.is_cuda
        for buffers, column in zip(self._buffers, columns, strict=True):
            for buffer, rows in zip(buffers, column, strict=True):
                # Pinned: the copy waits for nothing, and the host goes on.
                buffer[:steps].copy_(rows.pin_memory() if on_gpu else rows, non_blocking=True)
        self._row.zero_()

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Run what one step does, after `prepare`."""
        self._taken = 0
        yield
        if self._buffers:
            if self._taken < len(self._draws):
                raise RuntimeError(f"a step does not take {self._draws[self._taken][0]}")
            self._row += 1
        self._taken = None
