"""Agreement of two results of one run."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.source import proved_equal
from bench.store.groups import Provenance
from bench.store.receipt import Receipt

CLOSE = 0.010
"""Largest difference in AUROC that still counts as close: the margin of verdicts."""

ENVIRONMENT = (
    "source_sha256", "cpu", "cpu_features", "device_name", "cuda", "cudnn", "threads",
    "score_batch_size", "torch", "torchvision", "numpy", "pillow", "also_loaded",
    "graphed", "layout",
)  # fmt: skip
"""The provenance that can change the last digits; where all of it is equal, so are the bits."""
RECORDED = ("graphed", "layout")
"""The part of it that a method records, of its steps on a GPU."""
LATER = frozenset({"cpu_features", "layout"})
"""What older receipts do not state: it differs only where both do."""


@dataclass(frozen=True)
class Agreement:
    """How far two results of one run agree."""

    kind: str
    """`identical` bits; `close`: AUROC within `CLOSE`, and another environment; or `different`."""
    auroc_gap: float
    """Second minus first."""
    environment: tuple[str, ...]
    """What differs in the environment, as `threads 2 and 1`."""
    timing: bool = False
    """Whether both were run to be timed: the AUROC of a training cut short is nobody's result."""
    masks: tuple[str, ...] = ()
    """The beginnings of two digests where pixel metrics were made with other masks."""

    def __str__(self) -> str:
        return self._scores() + self._masks()

    def _masks(self) -> str:
        return f"; pixel metrics of other masks ({' and '.join(self.masks)})" if self.masks else ""

    def _scores(self) -> str:
        if self.kind == "identical":
            return "identical"
        cause = ", ".join(self.environment) or "the environment is the same"
        gap = "scores differ" if self.timing else f"AUROC differs by {self.auroc_gap:+.6f}"
        return f"{self.kind}: {gap} ({cause})"


def agreement(first: Receipt, second: Receipt, margin: float = CLOSE) -> Agreement:
    """Compare two receipts of one run id; within `margin` of AUROC they can be close."""
    one, other = first.provenance, second.provenance
    environment = tuple(
        f"{_NAMES.get(key, key)} {_short(one.get(key))} and {_short(other.get(key))}"
        for key in differing(one, other)
    )
    gap = second.metrics.auroc - first.metrics.auroc
    if first.metrics.scores_sha256 == second.metrics.scores_sha256:
        kind = "identical"
    else:
        kind = "close" if environment and abs(gap) <= margin else "different"
    masks = (first.metrics.masks_sha256, second.metrics.masks_sha256)
    other_masks = tuple(map(_short, masks)) if all(masks) and masks[0] != masks[1] else ()
    return Agreement(kind, gap, environment, first.spec.kind == "timing", other_masks)


def differing(one: Provenance, other: Provenance) -> list[str]:
    """Return which of `ENVIRONMENT` differ."""
    unknown = {key for key in LATER if None in (one.get(key), other.get(key))}
    return [k for k in ENVIRONMENT if k not in unknown and one.get(k) != other.get(k)]


def recorded_environment(facts: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return what of a run's facts is its environment as well.

    A step that is not captured states nothing, as in receipts from before there were captured ones.
    """
    return {k: facts[k] for k in RECORDED if device.startswith("cuda") and facts.get(k)}


def same_source(first: Receipt, second: Receipt) -> bool:
    """Whether the same method code made both, or code proved to give the same numbers."""
    one, other = first.provenance, second.provenance
    beside = one.also_loaded == other.also_loaded
    return beside and proved_equal(one.source_sha256, other.source_sha256, one.device or "")


_NAMES = {
    "source_sha256": "source", "device_name": "device", "score_batch_size": "score batch",
    "also_loaded": "files loaded beside it", "cpu_features": "CPU",
    "graphed": "captured steps",
}  # fmt: skip


def _short(value: object) -> str:
    """Write a value of provenance; shorten a hash."""
    text = "none" if value in (None, "") else str(value)
    if text.startswith("{"):  # digests of files by path
        text = hashlib.sha256(text.encode()).hexdigest()
    return text[:8] if len(text) == 64 else text
