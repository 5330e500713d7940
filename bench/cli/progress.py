"""Progress of a command: matrix, log lines, result tables."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.analysis.configurations import grouped
from bench.analysis.labels import ConfigurationNames, hardware
from bench.analysis.timings import Machine, TimingColumn, machine_of, timed_configurations
from bench.planning.plan import Run
from bench.planning.runtime import RuntimeModel
from bench.planning.state import State
from bench.spec import RunSpec, place_name, place_of, shots_of
from bench.store.receipt import Receipt
from bench.text import compact, duration

LIVE_COLUMNS = 8
"""Most columns of the live matrix; more do not fit a terminal."""


class PlainDisplay:
    """Progress as lines, for logs and pipes."""

    def __init__(self, console: Console, state: State, slots: int) -> None:
        self.console, self.slots = console, slots
        self.label = ConfigurationNames(r.spec for r in state.plan.runs)
        self.total = len(state.plan.runs)
        self.runtimes = RuntimeModel(state.done.values())
        self.left = {r.run_id: r for r in state.todo}
        self.expected = self._time_left()

    def _time_left(self) -> float | None:
        return self.runtimes.time_left(self.left.values(), max(1, self.slots))

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _name(self, run: Run) -> str:
        s = run.spec
        return f"{self.label(s)} {s.place} {shots_of(s.shots)} seed {s.seed}"

    def started(self, run: Run) -> None:
        """Print nothing before there is a result."""

    def epoch(self, run: Run, epoch: int, epochs: int, loss: str) -> None:
        """Print nothing; live display and log show epochs."""

    def finished(self, run: Run, receipt: Receipt) -> None:
        """Print a run's result, time and time left."""
        self._over(run)
        self.runtimes.add(receipt)
        self.expected = self._time_left()
        self._line(
            f"{self._name(run)}: {_result(run, receipt)} in {duration(receipt.timings.phases_s)}"
            + (f", {duration(self.expected)} left" if self.left else "")
            + f"  {run.run_id[:8]}"
        )
        if receipt.provenance.disturbed:
            self.note(f"  disturbed: {receipt.provenance.disturbed}")
        for warning in receipt.warnings:
            self.note(f"  warning: {warning}")

    def failed(self, run: Run, reason: str) -> None:
        """Print why a run failed."""
        self._over(run)
        self._line(f"{self._name(run)}: FAILED: {reason.splitlines()[0] if reason else '?'}")

    def put_back(self, run: Run) -> None:
        """Print nothing: a note says why."""

    def note(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _over(self, run: Run) -> None:
        self.left.pop(run.run_id, None)

    def _line(self, text: str) -> None:
        done = self.total - len(self.left)
        self.note(f"[{done}/{self.total}] {text}")


def _result(run: Run, receipt: Receipt) -> str:
    """Return a run's result in words: AUROC or latency."""
    if run.spec.kind == "accuracy":
        return f"auroc {receipt.metrics.auroc:.3f}"
    return f"{compact(1000 * (receipt.timings.latency_s or 0))} ms an image"


class LiveDisplay(PlainDisplay):
    """Progress as a live matrix of categories against methods."""

    def __init__(self, console: Console, state: State, slots: int) -> None:
        super().__init__(console, state, slots)
        self.runs = state.plan.runs
        self.done = set(state.done)
        self.bad: set[str] = set()
        self.under_way: dict[str, tuple[Run, float, str]] = {}
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=4)

    def __enter__(self) -> "LiveDisplay":
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def started(self, run: Run) -> None:
        """Show the run as under way."""
        self.under_way[run.run_id] = (run, time.monotonic(), "starting")

    def put_back(self, run: Run) -> None:
        """Show the run as under way no more."""
        self.under_way.pop(run.run_id, None)

    def epoch(self, run: Run, epoch: int, epochs: int, loss: str) -> None:
        """Show a run's epoch and time left."""
        _, started, _ = self.under_way[run.run_id]
        text = "first step" if not epoch else f"epoch {epoch}/{epochs}  loss {loss}"
        if epoch:
            left = (time.monotonic() - started) / epoch * (epochs - epoch)
            text += f"  {duration(left)} left"
        self.under_way[run.run_id] = (run, started, text)

    def finished(self, run: Run, receipt: Receipt) -> None:
        """Mark the run in the matrix."""
        self.done.add(run.run_id)
        super().finished(run, receipt)

    def failed(self, run: Run, reason: str) -> None:
        """Mark the run in the matrix."""
        self.bad.add(run.run_id)
        super().failed(run, reason)

    def _over(self, run: Run) -> None:
        super()._over(run)
        self.under_way.pop(run.run_id, None)

    def _picture(self) -> Group:
        lines = [
            Text(f"▶ {self._name(run)}  {text}", style="cyan")
            for run, _, text in list(self.under_way.values())  # another thread draws
        ]
        summary = f"{self.total - len(self.left)}/{self.total} runs"
        if self.left and self.expected is not None:
            summary += f", about {duration(self.expected)} left"
        if self.bad:
            summary += f", {len(self.bad)} failed"
        return Group(self._matrix(), *lines, Text(summary, style="bold"))

    def _matrix(self) -> Table | Text:
        cells: dict[tuple[str, str], list[str]] = defaultdict(list)
        columns: dict[str, None] = {}
        rows: dict[str, None] = {}
        for run in self.runs:
            column = f"{self.label(run.spec)} {run.spec.shots}"
            columns[column] = rows[run.spec.place] = None
            cells[run.spec.place, column].append(run.run_id)
        if len(columns) > LIVE_COLUMNS:
            return Text("")
        table = Table(box=None, header_style="bold")
        table.add_column("")
        for column in columns:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(row, *(self._cell(cells[row, column]) for column in columns))
        return table

    def _cell(self, ids: Sequence[str]) -> Text:
        done = sum(i in self.done for i in ids)
        style = "green" if done == len(ids) else ""
        if any(i in self.under_way for i in ids):
            style = "cyan"
        if any(i in self.bad for i in ids):
            style = "red"
        return Text(f"{done}/{len(ids)}" if ids else "", style=style)


def display_for(console: Console, state: State, slots: int) -> PlainDisplay:
    """Return a live display on a terminal, else plain."""
    kind = LiveDisplay if console.is_terminal else PlainDisplay
    return kind(console, state, slots)


def result_tables(runs: Sequence[Run], done: Mapping[str, Receipt]) -> Iterator[Table]:
    """Yield a table of finished runs of each kind."""
    for kind, table in (("accuracy", result_table), ("timing", timing_table)):
        chosen = [r for r in runs if r.spec.kind == kind]
        if any(r.run_id in done for r in chosen):
            yield table(chosen, done)


def result_table(runs: Sequence[Run], done: Mapping[str, Receipt]) -> Table:
    """Return a table of means and standard deviations over seeds."""
    wanted = Counter(r.spec.row for r in runs)
    table = Table(box=None, header_style="bold")
    for name in ("data", "method", "shots", "AUROC", "sd", "AP", "seeds", "fit", "per image"):
        left = name in ("data", "method")
        table.add_column(name, justify="left" if left else "right", no_wrap=not left)
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
            escape(data) + "*" * bool(reasons),
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
