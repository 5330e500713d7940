"""Tables of a command's runs, printed at its end."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.analysis.configurations import grouped
from bench.analysis.labels import hardware
from bench.analysis.timings import Machine, TimingColumn, machine_of, timed_configurations
from bench.planning.plan import Run
from bench.spec import RunSpec, place_name, place_of
from bench.store.configuration_names import ConfigurationNames
from bench.store.receipt import Receipt
from bench.text import compact, duration


def result_tables(
    runs: Sequence[Run], done: Mapping[str, Receipt], width: int = 10_000
) -> Iterator[Table]:
    """Yield a table of finished runs of each kind."""
    accuracy, timing = ([r for r in runs if r.spec.kind == k] for k in ("accuracy", "timing"))
    if any(r.run_id in done for r in accuracy):
        table = result_table(accuracy, done)
        yield table if fits(table, width) else result_table(accuracy, done, short=True)
    if any(r.run_id in done for r in timing):
        yield timing_table(timing, done)


def fits(table: Table, width: int) -> bool:
    """Whether a table keeps its words in so many columns."""
    return Console(width=10_000).measure(table).maximum <= width


def short_place(place: str) -> str:
    """Return a place without its dataset, where it has a category: that tells rows apart."""
    dataset, slash, category = place.partition("/")
    return f"\N{HORIZONTAL ELLIPSIS}/{category}" if slash else dataset


def result_table(runs: Sequence[Run], done: Mapping[str, Receipt], *, short: bool = False) -> Table:
    """Return a table of means and standard deviations over seeds.

    `short` leaves datasets out before categories, where they do not fit.
    """
    wanted = Counter(r.spec.row for r in runs)
    table = Table(box=None, header_style="bold")
    for name in ("data", "method", "shots", "AUROC", "sd", "AP", "seeds", "fit", "per image"):
        left = name in ("data", "method")
        justify: Literal["left", "right"] = "left" if left else "right"
        table.add_column(name, justify=justify, no_wrap=name != "method", overflow="fold")
    notes: dict[str, None] = {}
    mixed = False
    label = ConfigurationNames(r.spec for r in runs)
    for configuration in grouped(_finished(runs, done), label):
        row, receipts = configuration.row, configuration.receipts
        reasons = configuration.unofficial_reasons
        data = place_name(*place_of(row))
        notes |= {f"* unofficial copy of {data}: {reason}": None for reason in reasons}
        several = len({(r.provenance.device_name, r.provenance.threads) for r in receipts}) > 1
        mixed |= several
        deviation = configuration.deviation
        per_image = fmean(r.timings.score_s for r in receipts) / max(1, receipts[0].split.scored)
        table.add_row(
            escape(short_place(data) if short else data) + "*" * bool(reasons),
            escape(configuration.label),
            str(row.shots),
            f"{configuration.mean:.3f}" + "†" * several,
            "-" if deviation is None else f"{deviation:.3f}",
            f"{fmean(r.metrics.ap for r in receipts):.3f}",
            f"{len(receipts)}/{wanted[row]}",
            duration(fmean(r.timings.fit_s for r in receipts)),
            f"{1000 * per_image:.1f} ms",
        )
    several_devices = "† seeds from several devices or thread counts: the last digits differ"
    return _captioned(table, [*sorted(notes), *[several_devices] * mixed])


def _finished(runs: Sequence[Run], done: Mapping[str, Receipt]) -> list[Receipt]:
    """Return receipts in the order of the wanted configurations."""
    order = {row: i for i, row in enumerate(dict.fromkeys(r.spec.row for r in runs))}
    receipts = (done[r.run_id] for r in runs if r.run_id in done)
    return sorted(receipts, key=lambda receipt: order[receipt.spec.row])


def _captioned(table: Table, notes: Sequence[str]) -> Table:
    table.caption = Text("\n".join(notes))
    table.caption_justify = "left"
    return table


TIMES = (
    TimingColumn("ms/image", "timings", "latency_s", 1e-3),
    TimingColumn("p95", "timings", "latency_p95_s", 1e-3),
    TimingColumn("with file", "timings", "latency_file_s", 1e-3),
    TimingColumn("images/s", "timings", "throughput_per_s"),
    TimingColumn("ms/step", "timings", "step_s", 1e-3),
    TimingColumn("MiB", "provenance", "score_memory_bytes", 2**20),
)


def timing_table(runs: Sequence[Run], done: Mapping[str, Receipt]) -> Table:
    """Return a table of medians over rounds.

    Disturbed rounds count only where all are. Other processors, GPUs or numbers of threads have
    rows of their own.
    """
    label, wanted = ConfigurationNames(r.spec for r in runs), Counter(r.spec.row for r in runs)
    by_clock: dict[tuple[RunSpec, Machine], list[Receipt]] = defaultdict(list)
    for receipt in _finished(runs, done):
        by_clock[receipt.spec.row, machine_of(receipt)].append(receipt)
    timed = [t for receipts in by_clock.values() for t in timed_configurations(receipts, label)]
    places = {t.row: place_name(*place_of(t.row)) for t in timed}
    several = len({*places.values()}) > 1
    machines = dict.fromkeys(hardware(t.rounds[0]) for t in timed)
    table = Table(box=None, header_style="bold")
    table.add_column("method")
    for title in (*(column.title for column in TIMES), "rounds"):
        table.add_column(title, justify="right", no_wrap=True)
    for t in timed:
        name = [f"{places[t.row]}:"] * several + [t.label + "‡" * bool(t.disturbed)]
        name += [f"({hardware(t.rounds[0])})"] * (len(machines) > 1)
        cells = [_scaled(c.middle(t), c.unit) for c in TIMES]
        table.add_row(escape(" ".join(name)), *cells, f"{len(t.rounds)}/{wanted[t.row]}")
    notes = [f"{', '.join(dict.fromkeys(places.values()))} on {', '.join(machines)}"]
    if any(t.disturbed for t in timed):
        notes.append("‡ all rounds were disturbed by other work")
    return _captioned(table, notes)


def _scaled(value: float | None, unit: float) -> str:
    return "-" if value is None else compact(value / unit)
