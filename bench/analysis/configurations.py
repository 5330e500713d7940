"""Stored runs by place, shots and method, then by configuration."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from bench.analysis.copies import copy_reasons
from bench.analysis.labels import hardware
from bench.analysis.places import Places, finished, nowhere
from bench.analysis.statistics import Estimate, deviation, mean_interval
from bench.analysis.verdict import departures
from bench.errors import CorruptRun
from bench.metrics import auroc_interval
from bench.published.tables import PublishedTable
from bench.registry import METHODS
from bench.source import Standing
from bench.spec import Place, RunSpec
from bench.store.configuration_names import ConfigurationNames, source_of
from bench.store.groups import PIXEL_METRICS
from bench.store.receipt import Receipt
from bench.store.results import Results
from bench.store.scores import Scores

REFERENCE = "shortcut"
"""The method beside every row: one that does not beat it has shown nothing."""


@dataclass(frozen=True)
class Configuration:
    """Runs of a method that differ by their seed alone."""

    row: RunSpec
    """The shared spec, with seed 0."""
    label: str
    receipts: tuple[Receipt, ...]
    """In the order of their seeds; a `draw_seed` that is not the seed is of a row of its own."""
    metric: str = "auroc"
    """`auroc`, `auroc_full` over the whole test set, or another metric of the receipts."""
    departures: tuple[str, ...] = ()
    """From the protocol of the table."""

    @cached_property
    def by_seed(self) -> Mapping[int, float]:
        """The metric by seed."""
        return {r.spec.seed: r.metrics.share(self.metric) for r in self.receipts}

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return fmean(self.by_seed.values())

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds; None for one."""
        return deviation(self.by_seed.values())

    @cached_property
    def estimate(self) -> Estimate:
        """Mean over seeds, with a 95 % t-interval."""
        return mean_interval(list(self.by_seed.values()))

    def with_metric(self, metric: str) -> "Configuration | None":
        """Return the runs that have another metric; None for none.

        Pixel metrics are averaged over one state of the masks: that of the most runs.
        """
        receipts = [r for r in self.receipts if r.metrics.number(metric) is not None]
        if metric in PIXEL_METRICS and receipts:
            states = [r.metrics.masks_sha256 for r in sorted(receipts, key=finished, reverse=True)]
            masks = max(states, key=states.count)  # of several, that of the newest run
            receipts = [r for r in receipts if r.metrics.masks_sha256 == masks]
        return replace(self, receipts=tuple(receipts), metric=metric) if receipts else None

    def with_artifact(self, file: str) -> "Configuration | None":
        """Return the runs that keep a file; None for none."""
        receipts = tuple(r for r in self.receipts if file in r.files)
        return replace(self, receipts=receipts) if receipts else None

    def run(self, seed: int) -> Receipt:
        """Return the run of a seed."""
        return next(r for r in self.receipts if r.spec.seed == seed)

    @property
    def images(self) -> tuple[int, int] | None:
        """Normal and anomalous images that count; the fewest of its runs."""
        splits = [r.split for r in self.receipts]
        normal, anomalous = ([getattr(s, n) or 0 for s in splits]
                             for n in ("test_normal", "test_anomalous"))  # fmt: skip
        return min(normal), min(anomalous)

    @property
    def seedless(self) -> bool:
        """Whether neither method nor test set is random.

        Runs that do not state it of their method are taken to be random.
        """
        return self.metric == "auroc_full" and all(r.provenance.seedless for r in self.receipts)

    @cached_property
    def stale(self) -> bool:
        """Whether older code of the method made a run."""
        return any(is_stale(r) for r in self.receipts)

    @property
    def variant(self) -> RunSpec:
        """The spec without its place."""
        row = replace(self.row, dataset="", category="", fingerprint="", data_version=0)
        return replace(row, external=source_of(row.external), masks=None)

    @property
    def unofficial_reasons(self) -> list[str]:
        """Why its data is not official, each reason once."""
        return copy_reasons(self.receipts)

    @property
    def machines(self) -> list[str]:
        """The hardware of its runs, each once."""
        return sorted({hardware(r) for r in self.receipts})


@dataclass(frozen=True)
class RunLine:
    """One run of a table's cell."""

    receipt: Receipt
    auroc: float
    interval: tuple[float, float]
    """95 % over images, by bootstrap."""
    ap: float
    """Over the same images."""

    @property
    def stale(self) -> bool:
        """Whether older code of the method made it."""
        return is_stale(self.receipt)

    @property
    def labelled(self) -> list[str]:
        """Files of the anomalies that it trained on."""
        return [d.file for d in self.receipt.draw[: self.receipt.spec.shots]]

    @property
    def hardware(self) -> str:
        """Processor or GPU, and threads."""
        return hardware(self.receipt)


@dataclass(frozen=True)
class StoredRuns:
    """All runs of some results, grouped for tables and figures."""

    results: Results
    receipts: tuple[Receipt, ...]
    present: Callable[[str, str], str] = nowhere
    """Return a category's fingerprint in the data folder; empty where it is not there."""

    @cached_property
    def place(self) -> Places:
        """Places of the runs, one for each content."""
        return Places(self.receipts, self.present)

    @cached_property
    def groups(self) -> Mapping[tuple[Place, int, str], Sequence[Configuration]]:
        """Configurations of accuracy runs by place, shots and method."""
        groups: dict[tuple[Place, int, str], list[Configuration]] = defaultdict(list)
        for configuration in grouped(self.accuracy, self.label):
            row = configuration.row
            groups[self.place(row), row.shots, row.method].append(configuration)
        return groups

    @cached_property
    def accuracy(self) -> Sequence[Receipt]:
        """Accuracy runs."""
        return [r for r in self.receipts if r.spec.kind == "accuracy"]

    @cached_property
    def label(self) -> ConfigurationNames:
        """Names of the configurations."""
        return ConfigurationNames(r.spec for r in self.accuracy)

    @cached_property
    def timing(self) -> Sequence[Receipt]:
        """Timing runs."""
        return [r for r in self.receipts if r.spec.kind == "timing"]

    def configurations(
        self, place: Place, shots: int, method: str, metric: str, table: PublishedTable
    ) -> list[Configuration]:
        """Return a method's configurations, the one to show first.

        That is the one of the newest method version; of these, one whose seeds draw; then the one
        that departs least from a table; then one by today's code; then that with the most seeds.
        """
        configurations = []
        for configuration in self.groups.get((place, shots, method), ()):
            row, runs = configuration.row, configuration.receipts
            if not all(metric in r.metrics for r in runs):
                continue
            departs = list(departures(runs[0], table))
            if row.method_source is not None:
                departs.insert(0, f"method from outside: {row.method_source.partition('@')[0]}")
            if method != REFERENCE and place[0] in table.datasets:
                departs.append(table.datasets[place[0]])
            if row.draw_seed is not None:
                departs.append(f"one draw of anomalies for all seeds: draw_seed {row.draw_seed}")
            if row.draw is not None:
                departs.append(f"{row.draw} anomalies drawn, not ten")
            shown = replace(configuration, metric=metric, departures=tuple(departs))
            configurations.append(shown)
        return sorted(configurations, key=_preference)

    def scores(self, receipt: Receipt) -> Scores:
        """Return a run's scores; raises CorruptRun where its receipt states others."""
        scores = self.results.scores(receipt.run_id)
        if scores.digest() != receipt.metrics.scores_sha256:
            raise CorruptRun(
                f"run {receipt.run_id} is damaged: its scores are not those of its receipt;"
                " `bench verify` looks at all runs"
            )
        return scores

    def auroc_by_epoch(self, receipt: Receipt) -> dict[int, float]:
        """Return a run's AUROC by epoch, empty where it keeps none; raises CorruptRun."""
        by_epoch = self.results.epoch_scores(receipt.run_id)
        try:
            return by_epoch.auroc(self.scores(receipt)) if by_epoch else {}
        except ValueError as error:
            raise CorruptRun(f"run {receipt.run_id} is damaged: {error}") from None

    def lines(self, configuration: Configuration) -> list[RunLine]:
        """Return the runs, each with its interval over images."""
        return [self._line(r, configuration.metric) for r in configuration.receipts]

    def _line(self, receipt: Receipt, metric: str) -> RunLine:
        scores = self.scores(receipt)
        counted = scores.counted() | (metric == "auroc_full")
        interval = auroc_interval(scores.score[counted], scores.label[counted])
        precision = receipt.metrics.share("ap_full" if metric == "auroc_full" else "ap")
        return RunLine(receipt, receipt.metrics.share(metric), interval, precision)


def _preference(configuration: Configuration) -> tuple[int, bool, int, bool, int, str]:
    row, departs = configuration.row, len(configuration.departures)
    runs = len(configuration.receipts)
    one_draw = row.draw_seed is not None
    return -row.method_version, one_draw, departs, configuration.stale, -runs, row.run_id


def grouped(receipts: Iterable[Receipt], label: Callable[[RunSpec], str]) -> list[Configuration]:
    """Return runs as configurations, in first-seen order."""
    rows: dict[RunSpec, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        rows[receipt.spec.row].append(receipt)
    return [
        Configuration(row, label(row), tuple(sorted(runs, key=lambda r: r.spec.seed)))
        for row, runs in rows.items()
    ]


def code_standing(receipt: Receipt) -> Standing:
    """Compare the code that made a run with today's; a method from outside is never stale."""
    entry = METHODS.get(receipt.spec.method)
    return receipt.provenance.standing(entry.path) if entry else Standing(stale=False)


def is_stale(receipt: Receipt) -> bool:
    """Whether older code of the method made a run."""
    return code_standing(receipt).stale
