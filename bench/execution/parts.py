"""Images in parts, so that memory has a bound and no number changes."""

import math
from collections.abc import Iterator
from typing import Any


def images_of_a_part(score_batch_size: int) -> int:
    """Return how many images go together, in the same batches as all at once.

    Methods take eight images at a time where a batch of more would take much memory.
    """
    return math.lcm(score_batch_size, 8)


def spans(count: int, size: int) -> Iterator[slice]:
    """Yield slices of `size` items each, the last of up to twice as many.

    A remnant is never a part: products of matrices may have other last digits for a single image.
    """
    last = max(0, count // size - 1) * size
    yield from (slice(start, start + size) for start in range(0, last, size))
    yield slice(last, count)


class OwnDraws:
    """Whether a detector draws random numbers while it scores or explains.

    Then each call draws anew, and parts would not have the numbers of all images at once. Asked are
    the generators that it owns. One that each call seeds, but does not draw from, does not count.
    """

    def __init__(self, detector: Any) -> None:
        import torch

        owned = [v for v in vars(detector).values() if isinstance(v, torch.Generator)]
        self._before = [(generator, generator.get_state()) for generator in owned]

    def drawn(self) -> bool:
        """Whether any has been drawn from since."""
        return any(
            not state.equal(now := generator.get_state())
            and not now.equal(_fresh(generator).get_state())
            for generator, state in self._before
        )

    def restore(self) -> None:
        """Bring back the states from before."""
        for generator, state in self._before:
            generator.set_state(state)


def _fresh(generator: Any) -> Any:
    """Return a generator of the same seed that nothing was drawn from."""
    return type(generator)(generator.device).manual_seed(generator.initial_seed())
