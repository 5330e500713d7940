"""Times by clock: texts for people, a CSV for programs.

Numbers are medians over rounds; a row is one configuration.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from bench.analysis.configurations import REFERENCE, StoredRuns
from bench.analysis.copies import copy_reasons
from bench.analysis.labels import name_of
from bench.analysis.selection import OURS
from bench.analysis.timings import (
    FROM_FILE,
    LATENCY,
    TimedConfiguration,
    TimingColumn,
    TimingSetup,
    clocks,
    compared,
    milliseconds,
    ordered,
    ratio_of_ours,
)
from bench.published.tables import published_tables
from bench.text import exact, figures

TITLE = "Inference and training time"
READING = (
    "Medians over rounds; in brackets the 95 % t-interval of their mean, of a single round that by"
    " bootstrap over its repetitions. A ResNet-18 pass is one over 16 images."
)
MIB = 1 << 20
COLUMNS = (
    TimingColumn("parameters, M", "facts", "parameters", 1e6),
    TimingColumn("bank, vectors", "facts", "bank_vectors"),
    TimingColumn("bank, MiB", "facts", "bank_bytes", MIB),
    TimingColumn("one image, ms", "timings", "latency_s"),
    TimingColumn("", "timings", "latency_low_s"),
    TimingColumn("", "timings", "latency_high_s"),
    TimingColumn("p95, ms", "timings", "latency_p95_s", 1e-3),
    TimingColumn("from file, ms", "timings", "latency_file_s"),
    TimingColumn("", "timings", "latency_file_low_s"),
    TimingColumn("", "timings", "latency_file_high_s"),
    TimingColumn("", "timings", "latency_file_p95_s"),
    TimingColumn("images a second", "timings", "throughput_per_s"),
    TimingColumn("from files", "timings", "throughput_file_per_s"),
    TimingColumn("with maps, ms", "timings", "explain_latency_s", 1e-3),
    TimingColumn("training step, ms", "timings", "step_s", 1e-3),
    TimingColumn("", "timings", "yardstick_s"),
    TimingColumn("memory of fitting, MiB", "provenance", "fit_memory_bytes", MIB),
    TimingColumn("of scoring, MiB", "provenance", "score_memory_bytes", MIB),
)
"""Numbers of receipts in both tables; in the CSV intervals of a latency are those over rounds."""
HEAD = (
    "method", *(c.title for c in COLUMNS if c.title), "\N{MULTIPLICATION SIGN} ResNet-18 pass",
    "rounds",
)  # fmt: skip
FIELDS = (
    "machine", "host", "threads", "precision", "dataset", "category", "method", "way", "shots",
    "image_size", "rounds", "rounds_left_out", "disturbed", *(c.key for c in COLUMNS),
    "yardstick_ratio", "atacnet_ratio", "atacnet_ratio_low95", "atacnet_ratio_high95",
    "published_ms", "stale", "runs",
)  # fmt: skip
STALE, DISTURBED = "\N{DAGGER}", "\N{DOUBLE DAGGER}"


@dataclass(frozen=True)
class TimeTable:
    """Timed configurations of one clock, the fastest first."""

    clock: TimingSetup
    timed: tuple[TimedConfiguration, ...]

    @property
    def title(self) -> str:
        """The table's title, with its clock."""
        return f"{TITLE}: {self.clock}"

    @cached_property
    def ours(self) -> TimedConfiguration | None:
        """ATAC-Net with the most rounds, then the paper's configuration."""
        return max(
            (t for t in self.timed if t.row.method == OURS),
            key=lambda t: (len(t.rounds), t.row.parameters.get("view") == "attention"),
            default=None,
        )

    @property
    def comparison(self) -> str:
        """ATAC-Net's time against other methods'; nothing where either lacks."""
        others = [t for t in self.timed if t.row.method not in (OURS, REFERENCE)]
        return compared(self.ours, others) if self.ours and others else ""

    @property
    def remarks(self) -> Iterator[str]:
        """Notes on data, clock rate and disturbances of the rounds."""
        rounds = [r for t in self.timed for r in t.rounds]
        for copy in copy_reasons(rounds):
            yield f"Unofficial copy of {name_of(self.clock.place)}: {copy}."
        ends_seen = (e for r in rounds for e in (r.provenance.mhz_low, r.provenance.mhz_high))
        clocks = [end for end in ends_seen if end is not None]
        if clocks:
            what = "GPU" if self.clock.machine.host else "processor"
            ends = dict.fromkeys(f"{end:.0f}" for end in (min(clocks), max(clocks)))
            yield f"The {what} ran at {' to '.join(ends)} MHz."
        shares = [v for r in rounds if (v := r.provenance.other_cpu_share) is not None]
        if shares:
            yield f"Other programs used at most {100 * max(shares):.1f} % of the processor."
        for timed in self.timed:
            if timed.left_out:
                number = f"{timed.left_out} round" + "s" * (timed.left_out > 1)
                yield f"{timed.label}: {number} left out as disturbed by other work."
            if timed.disturbed:
                why = "; ".join(timed.disturbed)
                yield f"{DISTURBED} {timed.label}, every round disturbed: {why}."

    @property
    def rows(self) -> list[list[str]]:
        """Texts below `HEAD`."""
        return [list(_texts(timed)) for timed in self.timed]

    @property
    def values(self) -> list[list[str]]:
        """Values of `FIELDS`, with all digits."""
        return [list(_values(self, timed)) for timed in self.timed]


def time_tables(stored: StoredRuns) -> list[TimeTable]:
    """Return a table per clock, most methods first."""
    return [TimeTable(clock, tuple(ordered(rows))) for clock, rows in clocks(stored).items()]


def _texts(timed: TimedConfiguration) -> Iterator[str]:
    yield timed.label + STALE * timed.stale + DISTURBED * bool(timed.disturbed)
    yield from (_text(timed, column) for column in COLUMNS if column.title)
    yield "" if timed.of_yardstick is None else figures(timed.of_yardstick)
    total = f" of {len(timed.rounds) + timed.left_out}" if timed.left_out else ""
    yield f"{len(timed.rounds)}{total}"


def _text(timed: TimedConfiguration, column: TimingColumn) -> str:
    name = column.key.removesuffix("_s")
    if name in (LATENCY, FROM_FILE):
        return milliseconds(timed.span(name))
    value = column.middle(timed)
    if value is None:
        return ""
    return f"{value:,.0f}" if name == "bank_vectors" else figures(value / column.unit)


def _values(table: TimeTable, timed: TimedConfiguration) -> Iterator[str]:
    machine, (dataset, category) = table.clock.machine, table.clock.place
    yield from (machine.device, machine.host, str(machine.threads), machine.precision)
    yield from (dataset, category, timed.row.method, timed.label, str(timed.row.shots))
    yield from (str(timed.row.image_size), str(len(timed.rounds)), str(timed.left_out))
    yield "; ".join(timed.disturbed)
    ends: dict[str, float | None] = {}
    for name in (LATENCY, FROM_FILE):
        span = timed.span(name)
        ends[f"{name}_low_s"], ends[f"{name}_high_s"] = (span and span.interval) or (None, None)
    for column in COLUMNS:
        value = ends[column.key] if column.key in ends else column.middle(timed)
        yield exact(value) if column.group == "timings" else _count(value)
    yield exact(timed.of_yardstick)
    ours = table.ours
    ratio = ratio_of_ours(ours, timed) if ours and timed is not ours else None
    yield exact(ratio.mean if ratio else None)
    yield from map(exact, (ratio and ratio.interval) or (None, None))
    yield _printed(timed)
    yield "yes" if timed.stale else "no"
    yield " ".join(r.run_id for r in timed.rounds)


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _printed(timed: TimedConfiguration) -> str:
    cells = published_tables()["atacnet_table2"].cells.items()
    published = [p for k, p in cells if (k.metric, k.method) == ("inference_ms", timed.row.method)]
    return str(published[0].value) if published else ""
