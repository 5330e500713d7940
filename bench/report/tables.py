"""The paper's tables, cell by cell: what we measured beside what is printed, and the verdict."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from bench.labels import Labels, machine
from bench.metrics import auroc_interval
from bench.published import MEANS, Key, Printed, PrintedTable, published
from bench.receipt import Receipt
from bench.registry import METHODS, by_other_code
from bench.results import Results
from bench.spec import RunSpec
from bench.stats import Estimate, mean_interval, paired_difference
from bench.verdict import Verdict, departures, verdict

Place = tuple[str, str]
"""Dataset and category; a dataset without categories has one of its name."""
REFERENCE = "shortcut"
"""The method that stands beside every row: who does not beat it has shown nothing."""


@dataclass(frozen=True)
class RunLine:
    """One run of a cell."""

    receipt: Receipt
    interval: tuple[float, float]
    """95 % over images, by bootstrap."""
    stale: bool

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.receipt["spec"]["seed"])

    @property
    def auroc(self) -> float:
        """AUROC of the images that count."""
        return float(self.receipt["metrics"]["auroc"])

    @property
    def labelled(self) -> list[str]:
        """The anomalies that it trained on."""
        return [d["file"] for d in self.receipt["draw"][: self.receipt["spec"]["shots"]]]

    @property
    def machine(self) -> str:
        """Processor or GPU, and threads."""
        return machine(self.receipt)


@dataclass(frozen=True)
class Ours:
    """The runs of one way to run a method, which differ by their seed alone."""

    label: str
    runs: tuple[RunLine, ...]
    """In the order of their seeds."""
    departures: tuple[str, ...]
    """From the protocol of the table."""

    @cached_property
    def estimate(self) -> Estimate:
        """Mean over seeds, with a 95 % t-interval."""
        return mean_interval([r.auroc for r in self.runs])

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds."""
        return stdev(r.auroc for r in self.runs) if len(self.runs) > 1 else None

    @property
    def stale(self) -> bool:
        """Whether a run of it comes from older code of the method."""
        return any(r.stale for r in self.runs)

    @property
    def machines(self) -> list[str]:
        """On what its runs were made."""
        return sorted({r.machine for r in self.runs})

    def by_seed(self) -> dict[int, float]:
        """Return AUROC by seed."""
        return {r.seed: r.auroc for r in self.runs}


@dataclass(frozen=True)
class Cell:
    """One cell of a table in print, or of the column that we add."""

    key: Key
    printed: Printed | None
    source: tuple[str, Printed] | None
    """Title of the table that the printed number was copied from, and the number there."""
    ours: Ours | None
    """The way to run the method that departs least from the stated protocol."""
    others: tuple[Ours, ...]
    margin: float
    not_comparable: str = ""
    best: bool = False
    """Whether it is above every other method of the row, as far as intervals allow to say so."""

    @property
    def name(self) -> str:
        """A name for links within the page."""
        return f"{self.key.category}-{self.key.shots}-{self.key.method}"

    @cached_property
    def verdict(self) -> Verdict | None:
        """What our runs say of the printed number; None where there is nothing to compare."""
        if self.ours is None or self.printed is None or self.not_comparable:
            return None
        values = [r.auroc for r in self.ours.runs]
        return verdict(values, float(self.printed.value), self.margin)

    @property
    def word(self) -> str:
        """The verdict in a word or two; nothing where nothing is printed."""
        if self.ours is None:
            return "not run"
        if self.printed is None:
            return ""
        return "not comparable" if self.verdict is None else self.verdict.word


@dataclass(frozen=True)
class Row:
    """A row for one place and number of shots."""

    dataset: str
    category: str
    shots: int
    cells: tuple[Cell, ...]
    unofficial: str
    """Why our copy of the data is not the official one."""


@dataclass(frozen=True)
class MeanRow:
    """A printed mean: as printed, from the printed rows, and ours where no cell is missing."""

    title: str
    shots: int
    cells: tuple[tuple[Printed | None, float | None, int], ...]
    """Printed; ours; how many of its cells have no run."""


@dataclass(frozen=True)
class ReportTable:
    """A table of the paper as we show it."""

    printed: PrintedTable
    methods: tuple[str, ...]
    rows: tuple[Row, ...]
    means: tuple[MeanRow, ...]

    def cells(self) -> Iterable[Cell]:
        """Give all cells, row by row."""
        return (cell for row in self.rows for cell in row.cells)


@dataclass(frozen=True)
class Stored:
    """All runs of some results, and what is asked of them more than once."""

    results: Results
    receipts: tuple[Receipt, ...]

    @cached_property
    def groups(self) -> Mapping[tuple[Place, int, str], Mapping[RunSpec, list[Receipt]]]:
        """Accuracy runs by place, shots and method, and then by all of their spec but the seed."""
        found: dict[Any, dict[RunSpec, list[Receipt]]] = defaultdict(lambda: defaultdict(list))
        for receipt in self.receipts:
            spec = RunSpec.from_dict(receipt["spec"])
            if spec.kind == "accuracy" and spec.setting == "general":
                key = ((spec.dataset, spec.category), spec.shots, spec.method)
                found[key][spec.row].append(receipt)
        return found

    @cached_property
    def label(self) -> Labels:
        """Names of the ways to run a method."""
        return Labels(row for group in self.groups.values() for row in group)

    def ways(self, place: Place, shots: int, method: str, table: PrintedTable) -> list[Ours]:
        """Return the ways that a method was run, those first that depart least from a table."""
        protocol = {**table.protocol, **table.methods.get(method, {})}
        found = []
        for row, receipts in self.groups.get((place, shots, method), {}).items():
            runs = tuple(sorted((self.line(r) for r in receipts), key=lambda r: r.seed))
            departs = list(departures(runs[0].receipt, protocol))
            if method != REFERENCE and place[0] in table.datasets:
                departs.append(table.datasets[place[0]])
            ours = Ours(self.label(row), runs, tuple(departs))
            found.append((len(departs), -len(runs), row.run_id, ours))
        return [ours for *_, ours in sorted(found, key=lambda f: f[:3])]

    def line(self, receipt: Receipt) -> RunLine:
        """Return a run with its interval over images and whether its code is today's."""
        scores = self.results.scores(receipt["run_id"])
        counted = [i for i, role in enumerate(scores.role) if role == "test"]
        interval = auroc_interval(scores.score[counted], scores.label[counted])
        path = METHODS.get(receipt["spec"]["method"])
        return RunLine(receipt, interval, path is not None and by_other_code(path, receipt))


def report_table(name: str, stored: Stored, shots: Sequence[int]) -> ReportTable:
    """Fill a printed table with our runs; `shortcut` is added as the last column."""
    table = published()[name]
    methods = tuple(dict.fromkeys(m for s, m in table.columns() if s in shots))
    printed = (k for k in table.cells if k.metric == "image_auroc" and k.category not in MEANS)
    places = list(dict.fromkeys((k.dataset, k.category) for k in printed))
    rows = tuple(_row(table, place, s, methods, stored) for s in shots for place in places)
    return ReportTable(table, methods, rows, tuple(_means(table, shots, methods, rows)))


def _row(
    table: PrintedTable, place: Place, shots: int, methods: Sequence[str], stored: Stored
) -> Row:
    cells = []
    for method in (*methods, REFERENCE):
        key = Key(*place, shots, method, "image_auroc")
        ways = stored.ways(place, shots, method, table)
        why_not = table.not_comparable.get(f"{place[0]} {method}", "")
        cells.append(
            Cell(key, table.cells.get(key), _source(table, key), ways[0] if ways else None,
                 tuple(ways[1:]), table.margin, why_not)
        )  # fmt: skip
    leader = _leader(cells)
    cells = [replace(c, best=c is leader) for c in cells]
    unofficial = {
        r.receipt["provenance"]["unofficial_copy"] for c in cells if c.ours for r in c.ours.runs
    } - {""}
    return Row(*place, shots, tuple(cells), "; ".join(sorted(unofficial)))


def _source(table: PrintedTable, key: Key) -> tuple[str, Printed] | None:
    for name, methods in table.copied:
        other = published()[name]
        if key.method in methods and key in other.cells:
            return other.title, other.cells[key]
    return None


def _leader(cells: Iterable[Cell]) -> Cell | None:
    """Return the cell whose paired difference from each other one is above zero at 95 %."""
    there = [(cell, cell.ours.by_seed()) for cell in cells if cell.ours]
    for cell, values in there:
        gaps = []
        for other, theirs in there:
            shared = sorted(values.keys() & theirs.keys())
            if other is cell:
                continue
            if not shared:
                break
            base = [theirs[s] for s in shared]
            gaps.append(paired_difference([values[s] for s in shared], base))
        else:
            if gaps and all(g.interval is not None and g.interval[0] > 0 for g in gaps):
                return cell
    return None


def _means(
    table: PrintedTable, shots: Sequence[int], methods: Sequence[str], rows: Sequence[Row]
) -> Iterable[MeanRow]:
    """Give the mean over MVTec AD's rows, ours only over columns that are complete."""
    for s in shots:
        within = [row for row in rows if row.shots == s and row.dataset == "mvtec_ad"]
        cells = []
        for i, method in enumerate((*methods, REFERENCE)):
            ran = [row.cells[i].ours for row in within]
            values = [ours.estimate.mean for ours in ran if ours is not None]
            missing = len(within) - len(values)
            key = Key("mvtec_ad", "mean", s, method, "image_auroc")
            cells.append((table.cells.get(key), None if missing else fmean(values), missing))
        yield MeanRow("mean of MVTec AD", s, tuple(cells))
