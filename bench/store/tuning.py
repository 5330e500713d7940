"""Tuned settings: values that the results of some seeds have chosen, by some criterion.

What was chosen by a run is not tested on it: analyses give differences without these seeds, too.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from bench.store.receipt import Receipt


@dataclass(frozen=True)
class Tuned:
    """How the value of a setting was chosen."""

    seeds: tuple[int, ...]
    """Whose results chose it."""
    by: str
    """The criterion, say `training loss of the last epoch`."""


def tuned_text(tuned: Mapping[str, Tuned]) -> str:
    """Return tuned settings by name as the JSON of a receipt; empty for none."""
    return json.dumps({k: asdict(tuned[k]) for k in sorted(tuned)}) if tuned else ""


def tuned_settings(receipt: Receipt) -> dict[str, Tuned]:
    """Return a run's tuned settings by name; none where they cannot be read."""
    try:
        stored = json.loads(receipt.provenance.tuned or "{}")
        return {
            str(name): Tuned(tuple(map(int, one["seeds"])), str(one["by"]))
            for name, one in stored.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def tuning_seeds(receipt: Receipt) -> frozenset[int]:
    """Return the seeds that chose any setting of a run."""
    return frozenset(seed for one in tuned_settings(receipt).values() for seed in one.seeds)
