"""Inference and training time of what was timed on one clock: texts for people, a CSV for programs.

Numbers are medians over rounds; a row is one way to run a method.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from bench.analysis.configurations import REFERENCE, StoredRuns
from bench.analysis.labels import name_of
from bench.analysis.timings import (
    FROM_FILE,
    LATENCY,
    OURS,
    TimedConfiguration,
    TimingSetup,
    clocks,
    compared,
    milliseconds,
    ordered,
    ratio_of_ours,
)
from bench.published.tables import published
from bench.store.groups import Values
from bench.store.receipt import Receipt
from bench.text import figures

TITLE = "Inference and training time"
READING = (
    "Medians over rounds; in brackets the 95 % t-interval of their mean, of a single round that by"
    " bootstrap over its repetitions. A ResNet-18 pass is one over 16 images."
)
HEAD = (
    "method", "parameters, M", "bank, vectors", "bank, MiB", "one image, ms", "p95, ms",
    "from file, ms", "images a second", "from files", "with maps, ms", "training step, ms",
    "memory of fitting, MiB", "of scoring, MiB", "\N{MULTIPLICATION SIGN} ResNet-18 pass", "rounds",
)  # fmt: skip
SECONDS = (
    "latency_s", "latency_low_s", "latency_high_s", "latency_p95_s", "latency_file_s",
    "latency_file_low_s", "latency_file_high_s", "latency_file_p95_s", "throughput_per_s",
    "throughput_file_per_s", "explain_latency_s", "step_s", "yardstick_s",
)  # fmt: skip
"""Timings of a CSV as receipts name them; intervals of a latency are those over rounds."""
FACTS = ("parameters", "bank_vectors", "bank_bytes")
MEMORY = ("fit_memory_bytes", "score_memory_bytes")
FIELDS = (
    "machine", "host", "threads", "precision", "dataset", "category", "method", "way", "shots",
    "image_size", "rounds", "rounds_left_out", "disturbed", *FACTS, *SECONDS, *MEMORY,
    "yardstick_ratio", "atacnet_ratio", "atacnet_ratio_low95", "atacnet_ratio_high95",
    "printed_ms", "stale", "runs",
)  # fmt: skip
MIB = 1 << 20
STALE, DISTURBED = "\N{DAGGER}", "\N{DOUBLE DAGGER}"


@dataclass(frozen=True)
class TimeTable:
    """What was timed on one clock, the fastest first."""

    clock: TimingSetup
    timed: tuple[TimedConfiguration, ...]

    @property
    def title(self) -> str:
        """What it is, and where it was measured."""
        return f"{TITLE}: {self.clock}"

    @cached_property
    def ours(self) -> TimedConfiguration | None:
        """ATAC-Net; of several ways to run it that with the most rounds, then the paper's own."""
        found = [t for t in self.timed if t.row.method == OURS]
        return max(
            found,
            key=lambda t: (len(t.rounds), t.row.parameters.get("view") == "attention"),
            default=None,
        )

    @property
    def told(self) -> str:
        """How ATAC-Net stands to the other methods; nothing where it is alone or was not timed."""
        others = [t for t in self.timed if t.row.method not in (OURS, REFERENCE)]
        return compared(self.ours, others) if self.ours and others else ""

    @property
    def remarks(self) -> Iterator[str]:
        """Say what the rounds were measured under, and which were disturbed."""
        rounds = [r for t in self.timed for r in t.rounds]
        for copy in sorted({r.provenance.unofficial_copy for r in rounds} - {""}):
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
    def rows(self) -> list[tuple[str, ...]]:
        """Texts below `HEAD`."""
        return [tuple(_texts(timed)) for timed in self.timed]

    def told_in_full(self) -> Iterator[list[str]]:
        """Give the values of `FIELDS` for each row; digits are those that the runs gave."""
        for timed in self.timed:
            yield list(_values(self, timed))


def time_tables(stored: StoredRuns) -> list[TimeTable]:
    """Return a table for each clock, that of the most methods first."""
    return [TimeTable(clock, tuple(ordered(rows))) for clock, rows in clocks(stored).items()]


def _texts(timed: TimedConfiguration) -> Iterator[str]:
    yield timed.label + STALE * timed.stale + DISTURBED * bool(timed.disturbed)
    yield _scaled(timed.middle(lambda r: r.facts.number("parameters")), 1e6)
    yield _whole(timed.middle(lambda r: r.facts.number("bank_vectors")))
    yield _scaled(timed.middle(lambda r: r.facts.number("bank_bytes")), MIB)
    yield milliseconds(timed.span(LATENCY))
    yield _scaled(timed.middle(lambda r: r.timings.latency_p95_s), 1e-3)
    yield milliseconds(timed.span(FROM_FILE))
    yield _scaled(timed.middle(lambda r: r.timings.throughput_per_s))
    yield _scaled(timed.middle(lambda r: r.timings.throughput_file_per_s))
    yield _scaled(timed.middle(lambda r: r.timings.explain_latency_s), 1e-3)
    yield _scaled(timed.middle(lambda r: r.timings.step_s), 1e-3)
    yield _scaled(timed.middle(lambda r: r.provenance.fit_memory_bytes), MIB)
    yield _scaled(timed.middle(lambda r: r.provenance.score_memory_bytes), MIB)
    yield _scaled(timed.of_yardstick)
    of = f" of {len(timed.rounds) + timed.left_out}" if timed.left_out else ""
    yield f"{len(timed.rounds)}{of}"


def _scaled(value: float | None, unit: float = 1.0) -> str:
    return "" if value is None else figures(value / unit)


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _values(table: TimeTable, timed: TimedConfiguration) -> Iterator[str]:
    def middle(group: Callable[[Receipt], Values], name: str) -> float | None:
        return timed.middle(lambda r: group(r).number(name))

    machine, (dataset, category) = table.clock.machine, table.clock.place
    yield from (machine.device, machine.host, str(machine.threads), machine.precision)
    yield from (dataset, category, timed.row.method, timed.label, str(timed.row.shots))
    yield from (str(timed.row.image_size), str(len(timed.rounds)), str(timed.left_out))
    yield "; ".join(timed.disturbed)
    yield from (_count(middle(lambda r: r.facts, name)) for name in FACTS)
    ends: dict[str, float | None] = {}
    for name in (LATENCY, FROM_FILE):
        span = timed.span(name)
        ends[f"{name}_low_s"], ends[f"{name}_high_s"] = (span and span.interval) or (None, None)
    for name in SECONDS:
        yield _exact(ends.get(name, middle(lambda r: r.timings, name)))
    yield from (_count(middle(lambda r: r.provenance, name)) for name in MEMORY)
    yield _exact(timed.of_yardstick)
    ours = table.ours
    ratio = ratio_of_ours(ours, timed) if ours and timed is not ours else None
    yield _exact(ratio.mean if ratio else None)
    yield from map(_exact, (ratio and ratio.interval) or (None, None))
    yield _printed(timed)
    yield "yes" if timed.stale else "no"
    yield " ".join(r.run_id for r in timed.rounds)


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)


def _printed(timed: TimedConfiguration) -> str:
    cells = published()["atacnet_table2"].cells.items()
    found = [p for k, p in cells if (k.metric, k.method) == ("inference_ms", timed.row.method)]
    return str(found[0].value) if found else ""
