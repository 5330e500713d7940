"""Stored runs as a report asks for them: by place, shots and method, then by how they were made."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import stdev
from typing import Any

from bench.analysis.labels import ConfigurationNames, hardware
from bench.analysis.statistics import Estimate, mean_interval
from bench.analysis.verdict import departures
from bench.errors import CorruptRun
from bench.metrics import auroc_interval
from bench.published.tables import PrintedTable
from bench.registry import METHODS
from bench.spec import Place, RunSpec, place_of
from bench.store.receipt import Receipt
from bench.store.results import Results
from bench.store.scores import Scores

REFERENCE = "shortcut"
"""The method that stands beside every row: who does not beat it has shown nothing."""


@dataclass(frozen=True)
class Configuration:
    """One way to run a method: runs that differ by their seed alone."""

    row: RunSpec
    """The spec that its runs share, with seed 0."""
    label: str
    receipts: tuple[Receipt, ...]
    """In the order of their seeds."""
    metric: str
    """Which metric of the receipts counts: `auroc`, or `auroc_full` over the whole test set."""
    departures: tuple[str, ...]
    """From the protocol of the table."""

    @cached_property
    def by_seed(self) -> Mapping[int, float]:
        """AUROC by seed."""
        return {r.spec.seed: r.metrics.share(self.metric) for r in self.receipts}

    @cached_property
    def estimate(self) -> Estimate:
        """Mean over seeds, with a 95 % t-interval."""
        return mean_interval(list(self.by_seed.values()))

    def by(self, metric: str) -> "Configuration | None":
        """Return it by another metric, with the runs that have that; None for none."""
        there = tuple(r for r in self.receipts if r.metrics.number(metric) is not None)
        return replace(self, receipts=there, metric=metric) if there else None

    @property
    def seedless(self) -> bool:
        """Whether no seed touches its values: nothing is random in the method or drawn to test on.

        Runs that do not say so of their method are taken to be random.
        """
        says = all(r.provenance.seedless for r in self.receipts)
        return says and self.metric == "auroc_full"

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds."""
        return stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None

    def run(self, seed: int) -> Receipt:
        """Return the run of a seed."""
        return next(r for r in self.receipts if r.spec.seed == seed)

    def keeping(self, file: str) -> "Configuration | None":
        """Return the runs of it that keep such a file beside their scores; None for none."""
        there = tuple(r for r in self.receipts if file in r.files)
        return replace(self, receipts=there) if there else None

    @cached_property
    def stale(self) -> bool:
        """Whether a run of it comes from older code of the method."""
        return any(is_stale(r) for r in self.receipts)

    @property
    def variant(self) -> RunSpec:
        """What it shares with the same way at another place."""
        return replace(self.row, dataset="", category="", fingerprint="", external=None)

    @property
    def copies(self) -> set[str]:
        """Why the data of its runs is not official, where it is not."""
        return {r.provenance.unofficial_copy for r in self.receipts} - {""}

    @property
    def machines(self) -> list[str]:
        """On what its runs were made; more than one is worth saying."""
        return sorted({hardware(r) for r in self.receipts})


@dataclass(frozen=True)
class RunLine:
    """One run of a cell."""

    receipt: Receipt
    auroc: float
    interval: tuple[float, float]
    """95 % over images, by bootstrap."""
    ap: float
    """Over the same images."""

    @property
    def stale(self) -> bool:
        """Whether older code of the method has made it."""
        return is_stale(self.receipt)

    @property
    def labelled(self) -> list[str]:
        """The anomalies that it trained on."""
        return [d.file for d in self.receipt.draw[: self.receipt.spec.shots]]

    @property
    def hardware(self) -> str:
        """Processor or GPU, and threads."""
        return hardware(self.receipt)


@dataclass(frozen=True)
class StoredRuns:
    """All runs of some results, and what is asked of them more than once."""

    results: Results
    receipts: tuple[Receipt, ...]

    @cached_property
    def groups(self) -> Mapping[tuple[Place, int, str], Mapping[RunSpec, list[Receipt]]]:
        """Accuracy runs by place, shots and method, and then by all of their spec but the seed."""
        found: dict[Any, dict[RunSpec, list[Receipt]]] = defaultdict(lambda: defaultdict(list))
        for receipt in self.receipts:
            spec = receipt.spec
            if spec.kind == "accuracy":
                found[place_of(spec), spec.shots, spec.method][spec.row].append(receipt)
        return found

    @cached_property
    def label(self) -> ConfigurationNames:
        """Names of the ways to run a method."""
        return ConfigurationNames(row for group in self.groups.values() for row in group)

    @cached_property
    def timing(self) -> Sequence[Receipt]:
        """Timing runs."""
        return [r for r in self.receipts if r.spec.kind == "timing"]

    @cached_property
    def timing_label(self) -> ConfigurationNames:
        """Names of the ways that a method was timed."""
        return ConfigurationNames(r.spec.row for r in self.timing)

    def ways(
        self, place: Place, shots: int, method: str, metric: str, table: PrintedTable
    ) -> list[Configuration]:
        """Return the ways that a method was run, the one to show first.

        That is the one of the newest data and method version; of these, the one that departs least
        from a table; then one by today's code; then that with the most seeds.
        """
        protocol = {**table.protocol, **table.methods.get(method, {})}
        found = []
        for row, receipts in self.groups.get((place, shots, method), {}).items():
            runs = tuple(sorted(receipts, key=lambda r: r.spec.seed))
            if not all(metric in r.metrics for r in runs):
                continue
            departs = list(departures(runs[0], protocol))
            if row.method_source is not None:
                departs.insert(0, f"method from outside: {row.method_source.partition('@')[0]}")
            if method != REFERENCE and place[0] in table.datasets:
                departs.append(table.datasets[place[0]])
            way = Configuration(row, self.label(row), runs, metric, tuple(departs))
            version = (-row.data_version, -row.method_version)
            found.append(((*version, len(departs), way.stale, -len(runs), row.run_id), way))
        return [way for _, way in sorted(found, key=lambda f: f[0])]

    def scores(self, receipt: Receipt) -> Scores:
        """Return the scores of a run; raises CorruptRun where they are not its receipt's."""
        scores = self.results.scores(receipt.run_id)
        if scores.digest() != receipt.metrics.scores_sha256:
            raise CorruptRun(
                f"run {receipt.run_id} is damaged: its scores are not those of its receipt;"
                " `bench verify` looks at all runs"
            )
        return scores

    def lines(self, way: Configuration) -> list[RunLine]:
        """Return the runs of a way, each with its interval over images."""
        return [self._line(r, way.metric) for r in way.receipts]

    def _line(self, receipt: Receipt, metric: str) -> RunLine:
        scores = self.scores(receipt)
        counted = scores.counted() | (metric == "auroc_full")
        interval = auroc_interval(scores.score[counted], scores.label[counted])
        precision = receipt.metrics.share("ap_full" if metric == "auroc_full" else "ap")
        return RunLine(receipt, receipt.metrics.share(metric), interval, precision)


def is_stale(receipt: Receipt) -> bool:
    """Whether older code of a method of the project has made a run."""
    entry = METHODS.get(receipt.spec.method)
    return entry is not None and receipt.provenance.standing(entry.path).stale
