"""Which runs a figure shows, by rules that its note states."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bench.metrics import auroc
from bench.published import published
from bench.receipt import Receipt
from bench.registry import METHODS
from bench.report.figures.drawing import method_name
from bench.report.stored import Place, Stored
from bench.scores import Scores
from bench.spec import RunSpec, Value
from bench.verdict import departures

OURS = "atacnet"
MOST_SEEDS = 10
"""So many runs of a way to run a method are read for a figure, the lowest seeds first."""
RULE = (
    "Shown is each method’s way with the fewest departures from the paper’s stated protocol, of"
    " equal ones that with the most seeds"
)
Tested = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Scores and labels of the images that count."""


@dataclass(frozen=True)
class Way:
    """One way to run a method at one place; its runs differ by their seed alone."""

    row: RunSpec
    runs: tuple[Receipt, ...]
    """In the order of their seeds."""
    departs: int
    """How many departures from the stated protocol it has."""

    @property
    def name(self) -> str:
        """Name of the method as it is written in print."""
        return method_name(self.row.method)

    @property
    def auroc(self) -> dict[int, float]:
        """AUROC by seed."""
        return {r["spec"]["seed"]: float(r["metrics"]["auroc"]) for r in self.runs}

    def run(self, seed: int) -> Receipt:
        """Return the run of a seed."""
        return next(r for r in self.runs if r["spec"]["seed"] == seed)

    def keeping(self, file: str) -> "Way | None":
        """Return the runs of it that keep such a file beside their scores; None for none."""
        there = tuple(r for r in self.runs if file in r["files"])
        return replace(self, runs=there) if there else None


def ways(stored: Stored, place: Place, shots: int, method: str) -> list[Way]:
    """Return the ways that a method was run, the one to show first."""
    table = published()["atacnet_table1"]
    protocol = {**table.protocol, **table.methods.get(method, {})}
    found = []
    for row, receipts in stored.groups.get((place, shots, method), {}).items():
        runs = tuple(sorted(receipts, key=lambda r: int(r["spec"]["seed"])))
        found.append(Way(row, runs, len(departures(runs[0], protocol))))
    return sorted(found, key=lambda w: (w.departs, -len(w.runs), w.row.run_id))


def best_ways(stored: Stored, place: Place, shots: int) -> list[Way]:
    """Return the way to show of each method that ran there, ATAC-Net first.

    Methods that train on no anomaly stand beside those that do: they are scored on the same images.
    """
    there = {(s, m) for p, s, m in stored.groups if p == place and s in (0, shots)}
    found = sorted(there, key=lambda sm: (order(sm[1]), -sm[0]))
    return [ways(stored, place, s, m)[0] for s, m in found]


def apart(row: RunSpec, parameter: str) -> tuple[RunSpec, Value | None]:
    """Return a spec without one of its parameters, and the value of that."""
    rest = dict(row.parameters)
    value = rest.pop(parameter, None)
    return replace(row, parameters=rest), value


def order(method: str) -> tuple[bool, int, str]:
    """Sort methods: ATAC-Net, then the others as they are registered, then those from outside."""
    known = list(METHODS)
    return method != OURS, known.index(method) if method in known else len(known), method


def places(stored: Stored) -> Mapping[Place, list[int]]:
    """Return the places that have runs, each with its numbers of shots, most shots first.

    Those of the paper's table come first, in its order. Zero shots are there only where they are
    all: else they stand beside the others.
    """
    printed = dict.fromkeys((k.dataset, k.category) for k in published()["atacnet_table1"].cells)
    rank = {place: i for i, place in enumerate(printed)}
    found: dict[Place, set[int]] = {}
    for place, shots, _ in stored.groups:
        found.setdefault(place, set()).add(shots)
    ordered = sorted(found, key=lambda p: (rank.get(p, len(rank)), p))
    return {p: sorted(found[p] - {0} or {0}, reverse=True) for p in ordered}


def cells(stored: Stored) -> list[tuple[Place, int]]:
    """Return places and shots that have runs, in the order of `places`."""
    return [(place, s) for place, shots in places(stored).items() for s in shots]


class Reader:
    """Scores of runs, the last ones kept: several figures ask for the same."""

    def __init__(self, stored: Stored) -> None:
        self._scores = lru_cache(256)(stored.results.scores)

    def scores(self, receipt: Receipt) -> Scores:
        """Return the scores of a run."""
        return self._scores(str(receipt["run_id"]))

    def tested(self, way: Way) -> Iterator[Tested]:
        """Yield scores and labels of the images that count, of the first `MOST_SEEDS` runs."""
        for receipt in way.runs[:MOST_SEEDS]:
            yield counted(self.scores(receipt))


def counts(scores: Scores) -> NDArray[np.bool_]:
    """Return of each image whether it counts."""
    return np.array([role == "test" for role in scores.role], bool)


def counted(scores: Scores) -> Tested:
    """Return scores and labels of the images that count."""
    test = counts(scores)
    return scores.score[test], scores.label[test]


def mean_auroc(tested: Sequence[Tested]) -> float:
    """Return the mean AUROC of several runs."""
    return float(np.mean([auroc(score, label) for score, label in tested]))
