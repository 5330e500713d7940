"""Progress of a command: bar, matrix and log lines."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bench.cli.result_tables import fits, short_place
from bench.planning.plan import Run
from bench.planning.rough_times import RoughTimes
from bench.planning.state import State
from bench.spec import shots_of
from bench.store.configuration_names import ConfigurationNames
from bench.store.receipt import Receipt
from bench.text import compact, duration

Grid = dict[str, dict[str, list[str]]]
"""Ids of runs by row and column."""
LINES_BESIDE = 6
"""Lines of a terminal that the matrix leaves to the bar, the runs under way and the prompt."""


class PlainDisplay:
    """Progress as lines, for logs and pipes."""

    def __init__(
        self, console: Console, state: State, slots: int, times: RoughTimes | None = None
    ) -> None:
        self.console, self.slots = console, slots
        self.began = time.monotonic()
        self.label = ConfigurationNames(r.spec for r in state.plan.runs)
        self.total = len(state.plan.runs)
        self.times = times or RoughTimes(state.done.values(), "cpu")
        self.left = {r.run_id: r for r in state.todo}
        self.expected = self.times.time_left(self.left.values(), self.slots)
        self.expected_at = time.monotonic()

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _name(self, run: Run) -> str:
        s = run.spec
        return f"{self.label(s)} {s.place} {shots_of(s.shots)} seed {s.seed}"

    def started(self, run: Run) -> None:
        """Print nothing before there is a result."""

    def first_line(self) -> None:
        """Print how long it may take, and by what."""
        if not self.left or self.expected is None:
            return
        self.note(f"{self.expected}, {self.times.basis(self.left.values())}")

    def epoch(self, run: Run, epoch: int, epochs: int, loss: str) -> None:
        """Print nothing; live display and log show epochs."""

    def finished(self, run: Run, receipt: Receipt) -> None:
        """Print a run's result, time and time left."""
        self._over(run)
        self.times.add(run, receipt)
        self.expected = self.times.time_left(self.left.values(), self.slots)
        self.expected_at = time.monotonic()
        self._line(
            f"{self._name(run)}: {_result(run, receipt)} in {duration(receipt.timings.phases_s)}"
            + (f", {self._left_in_words()} left" if self.left else "")
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

    def _left_in_words(self) -> str:
        expected = self.expected
        return "?" if expected is None else str(expected).removeprefix("about ")

    def _line(self, text: str) -> None:
        done = self.total - len(self.left)
        self.note(f"[{done}/{self.total}] {text}")


def _result(run: Run, receipt: Receipt) -> str:
    """Return a run's result in words: AUROC or latency."""
    if run.spec.kind == "accuracy":
        return f"auroc {receipt.metrics.auroc:.3f}"
    return f"{compact(1000 * (receipt.timings.latency_s or 0))} ms an image"


class LiveDisplay(PlainDisplay):
    """Progress as a bar and a live matrix of categories or methods."""

    def __init__(
        self, console: Console, state: State, slots: int, times: RoughTimes | None = None
    ) -> None:
        super().__init__(console, state, slots, times)
        self.runs = state.plan.runs
        self.done = set(state.done)
        self.bad: set[str] = set()
        self.under_way: dict[str, tuple[Run, float, str]] = {}
        self._fitting: dict[ConsoleDimensions, Grid | None] = {}
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
        if self.left and not lines:
            wait = "waiting for the first run: imports, and images that are decoded once"
            lines = [Text(wait, style="cyan")]
        done = self.total - len(self.left)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(max(1, self.total), done, width=24), Text(self._summary(done)))
        return Group(self._matrix(), *lines, bar)

    def _summary(self, done: int) -> str:
        """Return runs, failures, time taken and time left."""
        now = time.monotonic()
        parts = [f"{done}/{self.total} runs"]
        if self.bad:
            parts.append(f"{len(self.bad)} failed")
        parts.append(f"{duration(now - self.began)} so far")
        if self.left and self.expected is not None:
            seconds = max(0.0, self.expected.seconds - (now - self.expected_at))
            parts.append(f"{replace(self.expected, seconds=seconds)} left")
        return ", ".join(parts)

    def _matrix(self) -> Table | Text:
        """Return the finest matrix that fits the terminal, its names whole."""
        size = self.console.size
        if size not in self._fitting:
            room = max(3, size.height - LINES_BESIDE - self.slots)
            whole = ((grid, self._table(grid, lambda ids: Text(f"{len(ids)}/{len(ids)}")))
                     for grid in self._grids())  # fmt: skip
            fitting = (g for g, t in whole if t.row_count < room and fits(t, size.width))
            self._fitting[size] = next(fitting, None)
        grid = self._fitting[size]
        return Text("") if grid is None else self._table(grid, self._cell)

    def _grids(self) -> Iterator[Grid]:
        """Yield the ids of runs by row and column, the finest grid first."""
        labels = {r.run_id: self.label(r.spec) for r in self.runs}

        def columns(run: Run) -> str:
            return f"{labels[run.run_id]} {run.spec.shots}"

        def shots(run: Run) -> str:
            return shots_of(run.spec.shots)

        layouts: list[tuple[Callable[[Run], str], Callable[[Run], str]]] = [
            (lambda run: run.spec.place, columns),
            (lambda run: short_place(run.spec.place), columns),
            (lambda run: labels[run.run_id], lambda run: f"{run.spec.dataset} {run.spec.shots}"),
            (lambda run: labels[run.run_id], shots),
            (lambda run: run.spec.method, shots),
            (lambda run: "all", shots),
        ]
        for row, column in layouts:
            grid: Grid = defaultdict(lambda: defaultdict(list))
            for run in self.runs:
                grid[row(run)][column(run)].append(run.run_id)
            yield grid

    def _table(self, grid: Grid, cell: Callable[[Sequence[str]], Text]) -> Table:
        columns = dict.fromkeys(column for cells in grid.values() for column in cells)
        table = Table(box=None, header_style="bold")
        table.add_column("", no_wrap=True)
        for title in columns:
            table.add_column(Text(title), justify="right", no_wrap=True)
        for name, cells in grid.items():
            table.add_row(Text(name), *(cell(cells.get(title, [])) for title in columns))
        return table

    def _cell(self, ids: Sequence[str]) -> Text:
        done = sum(i in self.done for i in ids)
        style = "green" if done == len(ids) else ""
        if any(i in self.under_way for i in ids):
            style = "cyan"
        if any(i in self.bad for i in ids):
            style = "red"
        return Text(f"{done}/{len(ids)}" if ids else "", style=style)


def display_for(
    console: Console, state: State, slots: int, times: RoughTimes | None = None
) -> PlainDisplay:
    """Return a live display on a terminal, else plain."""
    kind = LiveDisplay if console.is_terminal else PlainDisplay
    return kind(console, state, slots, times)
