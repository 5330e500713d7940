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
    """The sub-seeds of one run, by purpose: `seeds["init"]`."""

    def __init__(self, seed: int, dataset: str, category: str) -> None:
        self.seed, self.dataset, self.category = seed, dataset, category

    def __getitem__(self, purpose: str) -> int:
        return sub_seed(self.seed, purpose, self.dataset, self.category)
