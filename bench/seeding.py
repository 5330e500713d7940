"""Named sub-seeds: each source of randomness has its own, derived from the run's seed by a hash."""

import hashlib

PURPOSES = (
    "draw", "init", "batches", "augment", "reference", "references", "boxes", "external", "embed",
)  # fmt: skip


def sub_seed(seed: int, purpose: str, dataset: str, category: str) -> int:
    """Return the 63-bit sub-seed of one purpose.

    It depends on the seed, the purpose and the data, never on the method or the shots, so that
    every method meets the same draw of anomalies and the same order of random numbers.
    Raises ValueError for a purpose that is not in `PURPOSES`.
    """
    if purpose not in PURPOSES:
        raise ValueError(f"unknown purpose {purpose!r}; one of {', '.join(PURPOSES)}")
    text = "\x1f".join((str(int(seed)), purpose, dataset, category))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Seeds:
    """The sub-seeds of one run, by purpose: `seeds["init"]`.

    That of "draw" is derived from `draw_seed`, by default the seed.
    """

    def __init__(
        self, seed: int, dataset: str, category: str, draw_seed: int | None = None
    ) -> None:
        self.seed, self.dataset, self.category = seed, dataset, category
        self.draw_seed = seed if draw_seed is None else draw_seed

    def __getitem__(self, purpose: str) -> int:
        seed = self.draw_seed if purpose == "draw" else self.seed
        return sub_seed(seed, purpose, self.dataset, self.category)
