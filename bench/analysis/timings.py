"""Times of timing runs, never compared across clocks.

Seeds of timing runs are rounds: the same measured again, methods in turns. The AUROC of such a run
is of a model that was hardly trained, and nothing here reads it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Any, NamedTuple

from bench.analysis.configurations import REFERENCE, StoredRuns, grouped, is_stale
from bench.analysis.labels import method_name, name_of
from bench.analysis.selection import order, ranked
from bench.analysis.statistics import Estimate, mean_interval, paired_ratio
from bench.published.tables import PublishedValue
from bench.spec import Place, RunSpec
from bench.store.configuration_names import ConfigurationNames
from bench.store.receipt import Receipt
from bench.text import brief, figures, listed, spanned

SHAPE = ("image_size", "backbone", "stage", "view", "attention", "scales")
"""Settings and parameters that published tables state and that set a pass's time."""
LENGTHS = ("epochs", "steps_per_epoch")
"""Parameters that say for how long a method is trained; a timed one is trained for a few steps."""
LATENCY, FROM_FILE = "latency", "latency_file"
"""One image at a time, from decoded pixels and from its file to the score."""


@dataclass(frozen=True, order=True)
class Machine:
    """What comparable times share, beside the images."""

    device: str
    """Name of the GPU or the processor."""
    host: str
    """The processor beside a GPU, else nothing."""
    threads: int
    precision: str

    def __str__(self) -> str:
        threads = f"{self.threads} thread" + "s" * (self.threads > 1)
        host = f"{self.host}, {threads}" if self.host else threads
        return f"{self.device} ({host}), {self.precision}"


@dataclass(frozen=True)
class TimingSetup:
    """One machine and one category."""

    machine: Machine
    place: Place

    def __str__(self) -> str:
        return f"{self.machine}, {name_of(self.place)}"


@dataclass(frozen=True)
class Span:
    """The median of a time or ratio over rounds."""

    middle: float
    interval: tuple[float, float] | None
    """95 %: of the rounds' mean by Student's t; of a single round by bootstrap over repetitions."""
    rounds: int


@dataclass(frozen=True)
class TimedConfiguration:
    """Times of a configuration on one clock."""

    row: RunSpec
    label: str
    rounds: tuple[Receipt, ...]
    """In the order of their numbers; disturbed ones only where all are."""
    left_out: int
    """How many disturbed rounds are left out."""

    @property
    def disturbed(self) -> list[str]:
        """What disturbed its rounds, where all were."""
        return sorted({r.provenance.disturbed or "" for r in self.rounds} - {""})

    @cached_property
    def stale(self) -> bool:
        """Whether older code of the method made a round."""
        return any(is_stale(r) for r in self.rounds)

    def by_round(self, name: str) -> dict[int, float]:
        """Return a timing by round, where it was measured."""
        values = {r.spec.seed: r.timings.number(name) for r in self.rounds}
        return {number: float(value) for number, value in values.items() if value is not None}

    def span(self, name: str) -> Span | None:
        """Return `latency` or `latency_file` in seconds, with its interval."""
        values = self.by_round(f"{name}_s")
        if not values:
            return None
        (first, *_) = (r.timings for r in self.rounds if f"{name}_s" in r.timings)
        low, high = (first.number(f"{name}_{end}_s") for end in ("low", "high"))
        ends = None if low is None or high is None else (low, high)
        return over_rounds(list(values.values()), ends)

    @property
    def of_yardstick(self) -> float | None:
        """Its latency over the yardstick's, measured in turns."""
        return self.over_yardstick("latency_s")

    def over_yardstick(self, name: str) -> float | None:
        """Return the median over rounds of a timing over the yardstick's; None for none."""
        yardstick = self.by_round("yardstick_s")
        values = [v / yardstick[n] for n, v in self.by_round(name).items() if n in yardstick]
        return median(values) if values else None


class TimingColumn(NamedTuple):
    """A number of timing runs in tables."""

    title: str
    """With its unit; empty where it stands in the CSV alone."""
    group: str
    """`facts`, `timings` or `provenance` of a receipt."""
    key: str
    unit: float = 1.0

    def middle(self, timed: TimedConfiguration) -> float | None:
        """Return the median over rounds; None where none has it."""
        groups = (getattr(receipt, self.group) for receipt in timed.rounds)
        numbers = [value for group in groups if (value := group.number(self.key)) is not None]
        return float(median(numbers)) if numbers else None


def over_rounds(values: Sequence[float], within: tuple[float, float] | None) -> Span:
    """Return the median over rounds; `within` is a single round's interval."""
    interval = mean_interval(values).interval if len(values) > 1 else within
    return Span(median(values), interval, len(values))


Rows = Mapping[RunSpec, TimedConfiguration]
"""What was timed on a clock, by spec without the seed."""


def clocks(stored: StoredRuns) -> dict[TimingSetup, Rows]:
    """Return timed configurations by clock, most methods first."""
    by_clock: dict[TimingSetup, list[Receipt]] = defaultdict(list)
    for receipt in stored.timing:
        by_clock[TimingSetup(machine_of(receipt), stored.place(receipt.spec))].append(receipt)
    places = ranked(clock.place for clock in by_clock)
    label = ConfigurationNames(r.spec for r in stored.timing)

    def rank(clock: TimingSetup) -> tuple[Any, ...]:
        receipts = by_clock[clock]
        methods = {r.spec.method for r in receipts} - {REFERENCE}
        return -len(methods), -len(receipts), places.index(clock.place), clock.machine

    def named(row: RunSpec) -> str:
        return method_name(row.method) + brief(label(row).removeprefix(row.method), 200)

    return {
        clock: {timed.row: timed for timed in timed_configurations(by_clock[clock], named)}
        for clock in sorted(by_clock, key=rank)
    }


def machine_of(receipt: Receipt) -> Machine:
    """Return a run's machine; without a precision it computes in float32."""
    about = receipt.provenance
    processor, gpu = about.cpu or "CPU", about.device_name
    device, host = (processor, "") if gpu == "cpu" else (gpu, processor)
    return Machine(device, host, about.threads, receipt.spec.precision or "float32")


def timed_configurations(
    receipts: Iterable[Receipt], label: Callable[[RunSpec], str]
) -> Iterator[TimedConfiguration]:
    """Yield configurations of one clock; disturbed rounds where all are."""
    for timed in grouped(receipts, label):
        calm = tuple(r for r in timed.receipts if not r.provenance.disturbed)
        rounds = calm or timed.receipts
        yield TimedConfiguration(timed.row, timed.label, rounds, len(timed.receipts) - len(rounds))


def same_but_length(row: RunSpec) -> RunSpec:
    """Return a row's spec without length, kind and precision."""
    parameters = {k: v for k, v in row.parameters.items() if k not in LENGTHS}
    return replace(row, kind="", precision=None, parameters=parameters)


# Ratios


def ratio_of_ours(ours: TimedConfiguration, other: TimedConfiguration) -> Estimate | None:
    """Return ATAC-Net's time over another method's, paired by round."""
    mine, theirs = ours.by_round("latency_s"), other.by_round("latency_s")
    shared = sorted(mine.keys() & theirs.keys())
    if not shared:
        return None
    return paired_ratio([mine[s] for s in shared], [theirs[s] for s in shared])


def compared(ours: TimedConfiguration, others: Sequence[TimedConfiguration]) -> str:
    """Compare ATAC-Net's time with others' in two sentences."""
    ratios = [(t.label, r) for t in others if (r := ratio_of_ours(ours, t)) is not None]
    if not ratios:
        return "No other method was timed in the same rounds."
    multiples = listed([f"{_ratio(r)} times as long as {label}" for label, r in ratios])
    faster = [label for label, r in ratios if r.interval and r.interval[0] > 1]
    level = [label for label, r in ratios if not r.interval or r.interval[0] <= 1 <= r.interval[1]]
    sentence = f"{ours.label} takes {multiples}."
    if faster:
        take = "takes" if len(faster) == 1 else "take"
        return f"{sentence} So it is not the fastest of them: {listed(faster)} {take} less."
    if not any(r.interval for _, r in ratios):
        return f"{sentence} One round does not tell which of them is the fastest."
    if level:
        return (
            f"{sentence} Whether it is the fastest of them is open: {listed(level)} may take less."
        )
    return f"{sentence} So it is the fastest of them."


def _ratio(ratio: Estimate) -> str:
    if ratio.interval is None:
        return f"{figures(ratio.mean)} (one round)"
    return spanned(ratio.mean, ratio.interval)


# The row of a published table


@dataclass(frozen=True)
class TimeCell:
    """A published inference time, and ours of the same method."""

    published: PublishedValue | None
    ours: TimedConfiguration | None
    departures: tuple[str, ...]
    """From what the table states of the network and the images."""


@dataclass(frozen=True)
class TimeRow:
    """Inference times of a table, in the order of its columns."""

    cells: tuple[TimeCell, ...]
    clock: TimingSetup | None
    """What ours were taken on; None where nothing was timed."""
    comparison: str
    """Whether the published order holds, as far as it was timed."""
    remark: str
    """Where the published times come from."""


# Numbers


def milliseconds(span: Span | None) -> str:
    """Write a span in milliseconds; nothing for none."""
    if span is None:
        return ""
    ends = span.interval and (1e3 * span.interval[0], 1e3 * span.interval[1])
    return spanned(1e3 * span.middle, ends)


def ordered(rows: Rows) -> list[TimedConfiguration]:
    """Return timed configurations, fastest first, without a time last."""

    def place(timed: TimedConfiguration) -> tuple[Any, ...]:
        span = timed.span(LATENCY)
        return span is None, span.middle if span else 0.0, order(timed.row.method), timed.row.run_id

    return sorted(rows.values(), key=place)
