"""Images in parts, so that memory has a bound and no number changes."""

import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
_Access = tuple[Callable[[], Any], Callable[[Any], None]]
"""What reads and what sets the state of a generator."""


def images_of_a_part(score_batch_size: int) -> int:
    """Return how many images make a part.

    Its batches are those of all images at once. Methods take eight images at a
    time where a batch of more would take much memory.
    """
    return math.lcm(score_batch_size, 8)


def in_parts(
    items: Iterable[T], size: int, counts: Callable[[T], bool] = lambda _: True
) -> Iterator[list[T]]:
    """Yield lists of `size` items that count.

    The last has up to twice as many. A remnant is never a part: products of
    matrices may have other last digits for a single image.
    """
    held: list[T] = []
    ends: list[int] = []
    for item in items:
        held.append(item)
        if counts(item):
            ends.append(len(held))
        if len(ends) == 2 * size:
            end = ends[size - 1]
            yield held[:end]
            held, ends = held[end:], [e - end for e in ends[size:]]
    if held:
        yield held


def spans(count: int, size: int) -> Iterator[slice]:
    """Yield the slices of `count` items that `in_parts` makes."""
    for part in in_parts(range(count), size):
        yield slice(part[0], part[-1] + 1)


class OwnDraws:
    """Whether a detector draws random numbers while it scores or explains.

    Then each call draws anew, and parts would not have the numbers of all images at once. Asked are
    the global generators of torch, numpy and Python, and those that the detector or one of its
    attributes owns. One of torch that each call seeds, but does not draw from, does not count.
    """

    def __init__(self, detector: Any) -> None:
        import torch

        values = [*getattr(detector, "__dict__", {}).values()]
        values += [v for value in values for v in getattr(value, "__dict__", {}).values()]
        owned = [v for v in values if isinstance(v, torch.Generator)]
        everywhere = [torch.default_generator, *torch.cuda.default_generators]
        self._before = [(generator, generator.get_state()) for generator in everywhere + owned]
        states: list[_Access] = [
            (np.random.get_state, np.random.set_state),
            (random.getstate, random.setstate),
            *(access for v in values if (access := _state_of(v))),
        ]
        self._others = [(read, write, read()) for read, write in states]

    def drawn(self) -> bool:
        """Whether any has been drawn from since."""
        return any(repr(state) != repr(read()) for read, _, state in self._others) or any(
            not state.equal(now := generator.get_state())
            and not now.equal(_fresh(generator).get_state())
            for generator, state in self._before
        )

    def restore(self) -> None:
        """Bring back the states from before."""
        for generator, state in self._before:
            generator.set_state(state)
        for _, write, state in self._others:
            write(state)


def _state_of(value: Any) -> _Access | None:
    """Return how a generator's state is read and set."""
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator
        return lambda: bits.state, lambda state: setattr(bits, "state", state)
    if isinstance(value, np.random.RandomState):
        return value.get_state, value.set_state
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return value.getstate, value.setstate
    return None


def _fresh(generator: Any) -> Any:
    """Return an unused generator of the same seed."""
    return type(generator)(generator.device).manual_seed(generator.initial_seed())
