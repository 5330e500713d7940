"""Rules for the runs that figures show."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.analysis.configurations import Configuration, StoredRuns
from bench.analysis.labels import method_name
from bench.metrics import auroc
from bench.published.tables import published_tables
from bench.registry import METHODS
from bench.spec import Place, RunSpec, Value
from bench.store.receipt import Receipt
from bench.store.scores import Scores
from bench.text import joined

OURS = "atacnet"
MOST_SEEDS = 10
"""Runs of a configuration that a figure reads, the lowest seeds first."""
MOST_READ = 256
"""Runs whose scores are kept at once."""
RULE = (
    "Of each method the configuration is shown that has the newest version and departs least from"
    " the paper’s stated protocol, of equal ones that with the most seeds."
)
Tested = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Scores and labels of the images that count."""


def configurations(
    stored: StoredRuns, place: Place, shots: int, method: str
) -> list[Configuration]:
    """Return a method's configurations, the one to show first."""
    return stored.configurations(
        place, shots, method, "auroc", published_tables()["atacnet_table1"]
    )


def best_configurations(stored: StoredRuns, place: Place, shots: int) -> list[Configuration]:
    """Return each method's configuration to show, ATAC-Net first.

    Methods that train on no anomaly stand beside those that do: they are scored on the same images.
    """
    methods = {(s, m) for p, s, m in stored.groups if p == place and s in (0, shots)}
    ordered = sorted(methods, key=lambda sm: (order(sm[1]), -sm[0]))
    return [configurations(stored, place, s, m)[0] for s, m in ordered]


def left_out(ran: Sequence[Configuration], shown: Sequence[Configuration]) -> str:
    """Return a sentence that names the methods that a figure leaves out."""
    more = dict.fromkeys(method_name(c.row.method) for c in ran if c not in shown)
    return f" Also ran: {joined(more)}." if more else ""


def without_parameter(row: RunSpec, parameter: str) -> tuple[RunSpec, Value | None]:
    """Return a spec without a parameter, and the parameter's value."""
    rest = dict(row.parameters)
    value = rest.pop(parameter, None)
    return replace(row, parameters=rest), value


def order(method: str) -> tuple[bool, int, str]:
    """Sort ATAC-Net first, then registered methods, then those from outside."""
    return method != OURS, registered(method), method


def registered(method: str) -> int:
    """Return a method's place in the registry, else its length."""
    return list(METHODS).index(method) if method in METHODS else len(METHODS)


def places(stored: StoredRuns) -> Mapping[Place, list[int]]:
    """Return places with runs and their shots, most shots first.

    Those of the paper's table come first, in its order. Zero shots are there only where they are
    all: else they stand beside the others.
    """
    shots_at: dict[Place, set[int]] = {}
    for place, shots, _ in stored.groups:
        shots_at.setdefault(place, set()).add(shots)
    return {p: sorted(shots_at[p] - {0} or {0}, reverse=True) for p in ranked(shots_at)}


def ranked(places: Iterable[Place]) -> list[Place]:
    """Return distinct places, those of the paper's table first."""
    published = dict.fromkeys(
        (k.dataset, k.category) for k in published_tables()["atacnet_table1"].cells
    )
    rank = {place: i for i, place in enumerate(published)}
    return sorted(set(places), key=lambda p: (rank.get(p, len(rank)), p))


def groups_in_order(stored: StoredRuns) -> list[tuple[Place, int, str]]:
    """Return the keys of `StoredRuns.groups`: by place as `ranked`, shots and method."""
    order = {place: i for i, place in enumerate(ranked(place for place, _, _ in stored.groups))}
    return sorted(stored.groups, key=lambda group: (order[group[0]], *group[1:]))


def cells(stored: StoredRuns) -> list[tuple[Place, int]]:
    """Return places and shots with runs, ordered as `places`."""
    return [(place, s) for place, shots in places(stored).items() for s in shots]


class ScoreCache:
    """The last scores read, which several figures share."""

    def __init__(self, stored: StoredRuns) -> None:
        self._stored = stored
        self._last: dict[str, Scores] = {}

    def scores(self, receipt: Receipt) -> Scores:
        """Return a run's scores; raises CorruptRun for damaged ones."""
        scores = self._last.pop(receipt.run_id, None) or self._stored.scores(receipt)
        self._last[receipt.run_id] = scores  # the newest last
        if len(self._last) > MOST_READ:
            del self._last[next(iter(self._last))]
        return scores

    def tested(self, configuration: Configuration) -> Iterator[Tested]:
        """Yield test scores and labels of the first `MOST_SEEDS` runs."""
        for receipt in configuration.receipts[:MOST_SEEDS]:
            yield test_scores(self.scores(receipt))


def test_scores(scores: Scores) -> Tested:
    """Return scores and labels of the images that count."""
    test = scores.counted()
    return scores.score[test], scores.label[test]


def mean_auroc(tested: Sequence[Tested]) -> float:
    """Return the mean AUROC of several runs."""
    return float(np.mean([auroc(score, label) for score, label in tested]))
