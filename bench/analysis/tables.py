"""Tables of a report: published numbers, ours, and the verdict."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from bench.analysis.configurations import REFERENCE, Configuration
from bench.analysis.timings import TimeRow
from bench.analysis.verdict import Noise, Verdict, verdict
from bench.published.tables import NAMES, Key, PublishedValue

Entry = TypeVar("Entry")
WORDS = ("reproduced", "differs", "inconclusive", "not comparable", "not run")
"""What can stand as a verdict, in the order of the legend; the first three compare."""
GLYPHS = {
    "reproduced": "=", "differs": "\N{NOT EQUAL TO}", "inconclusive": "?",
    "not comparable": "\N{CIRCLED DIVISION SLASH}",
}  # fmt: skip
"""A verdict as one character, where cells are narrow."""
STEPS = (0.01, 0.03, 0.1)
"""Differences from a published number from which a cell is coloured, ever stronger."""


@dataclass(frozen=True)
class Column:
    """A method at one number of shots."""

    method: str
    shots: int
    metric: str
    """Which of a run's metrics is shown."""

    @property
    def title(self) -> str:
        """The method's published name."""
        return named(self.method)


@dataclass(frozen=True)
class Cell:
    """A cell of a published table, or one that we add."""

    key: Key
    name: str
    """A name for links within the page, unique over its tables."""
    published: PublishedValue | None
    source: tuple[str, PublishedValue] | None
    """Title of the table that the published number was copied from, and the number there."""
    ours: Configuration | None
    """The configuration that departs least from the stated protocol."""
    others: tuple[Configuration, ...]
    margin: float
    noise: Noise | None = None
    """Spread of the published number over its runs, where it or its source reports one."""
    not_comparable: str = ""
    pixel_level: tuple[str, PublishedValue] | None = None
    """Title of a table that prints its pixel AUROC, and the number there."""
    best: bool = False
    """Whether it is above every other method of the row with as many labelled anomalies, all of
    which ran: by paired t-tests, Holm-adjusted over the rows of the table."""

    @cached_property
    def verdict(self) -> Verdict | None:
        """Our verdict on the published number; None without a comparison."""
        if self.ours is None or self.published is None or self.not_comparable:
            return None
        return verdict(
            list(self.ours.by_seed.values()),
            self.published,
            self.margin,
            noise=self.noise,
            images=self.ours.images,
            seedless=self.ours.seedless,
        )

    @property
    def same_test(self) -> Configuration | None:
        """Ours without the images that train ATAC-Net."""
        return self.ours.with_metric("auroc") if self.ours else None

    @property
    def pixels(self) -> Configuration | None:
        """Ours by pixel AUROC, where runs have measured it."""
        return self.ours.with_metric("pixel_auroc") if self.ours else None

    @property
    def word(self) -> str:
        """The verdict in words; empty without a published number."""
        if self.published is None:
            return ""
        if self.ours is None:
            return "not run"
        return "not comparable" if self.verdict is None else self.verdict.word

    @property
    def difference(self) -> float | None:
        """Our mean minus the published number, comparable or not."""
        if self.ours is None or self.published is None:
            return None
        return self.ours.estimate.mean - float(self.published.value)

    @property
    def step(self) -> str:
        """How far ours is from the published number: `low2`, `high1`; empty within the margin."""
        if self.difference is None:
            return ""
        steps = sum(abs(self.difference) > least for least in STEPS)
        return f"{'low' if self.difference < 0 else 'high'}{steps}" if steps else ""

    @property
    def basis(self) -> str:
        """On what a verdict holds."""
        if self.ours is None:
            return ""
        return "; ".join(self.ours.departures) or "as stated"

    @property
    def departs(self) -> bool:
        """Whether a verdict is of runs that depart from the stated protocol."""
        return self.verdict is not None and bool(self.ours and self.ours.departures)


@dataclass(frozen=True)
class Row:
    """A category, its cells in the order of the table's columns."""

    title: str
    cells: tuple[Cell, ...]
    unofficial: str
    """Why our copy of the data is not the official one."""
    apart: str = ""
    """Other contents of the place that runs saw, which stand in rows of their own."""

    @property
    def ran(self) -> bool:
        """Whether anything was run."""
        return any(cell.ours for cell in self.cells)

    @cached_property
    def highest(self) -> frozenset[str]:
        """Names of the highest cells at each number of shots.

        Where two methods ran or more: to be above one image statistic alone is no lead.
        """
        names: set[str] = set()
        for shots in {cell.key.shots for cell in self.cells}:
            cells = [cell for cell in self.cells if cell.ours and cell.key.shots == shots]
            means = {cell.name: round(cell.ours.mean, 3) for cell in cells if cell.ours}
            if sum(cell.key.method != REFERENCE for cell in cells) > 1:
                names |= {name for name, mean in means.items() if mean == max(means.values())}
        return frozenset(names)


@dataclass(frozen=True)
class MeanCell:
    """A published mean over rows, and ours where all ran."""

    published: PublishedValue | None
    ours: float | None
    missing: int
    """How many of its rows have no run."""
    verdict: Verdict | None = None
    """On the means of the seeds that all rows have; None where nothing is published or missing."""
    mixed: bool = False
    """Whether its rows ran in several configurations."""
    same_test: float | None = None
    """Ours without the images that train ATAC-Net."""
    basis: str = ""
    """Departures of any of its rows, or `as stated`."""

    @property
    def departs(self) -> bool:
        """Whether runs of a row depart from the stated protocol."""
        return self.basis not in ("", "as stated")

    @property
    def word(self) -> str:
        """The verdict in words; empty without a comparison."""
        return self.verdict.word if self.verdict else ""


@dataclass(frozen=True)
class MeanRow:
    """A row of means, in the order of the table's columns."""

    title: str
    cells: tuple[MeanCell, ...]


@dataclass(frozen=True)
class Block:
    """The rows of a dataset with their published means."""

    dataset: str
    rows: tuple[Row, ...]
    means: tuple[MeanRow, ...]


@dataclass(frozen=True)
class ReportTable:
    """A table of the report."""

    name: str
    title: str
    about: str
    """What it is, and what its source states of how its numbers were made."""
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    margin: float
    """By how much AUROC a mean of ours may differ from print and still reproduce it."""
    times: TimeRow | None = None
    """Its row of inference times, where one is published."""

    @property
    def groups(self) -> list[tuple[int, tuple[Column, ...]]]:
        """Columns that stand side by side under one number of shots."""
        shots = dict.fromkeys(c.shots for c in self.columns)
        return [(s, tuple(c for c in self.columns if c.shots == s)) for s in shots]

    def of_group(self, shots: int, cells: Sequence[Entry]) -> list[Entry]:
        """Return the cells of a row that stand under one number of shots."""
        return [c for column, c in zip(self.columns, cells, strict=True) if column.shots == shots]

    @cached_property
    def usual_seeds(self) -> int:
        """The number of seeds that most of its cells have; 0 where nothing was run."""
        counts = Counter(c.ours.estimate.n for c in self.cells() if c.ours and not c.ours.seedless)
        return max(counts, key=lambda n: (counts[n], n), default=0)

    @property
    def sparse(self) -> bool:
        """Whether some of it was run, but less than half of its rows at each number of shots."""
        ran = [any(cell.ours for cell in self.of_group(shots, row.cells))
               for row in self.rows for shots, _ in self.groups]  # fmt: skip
        return 0 < sum(ran) < len(ran) / 2

    @property
    def is_published(self) -> bool:
        """Whether it holds published numbers."""
        return any(cell.published for cell in self.cells())

    @property
    def whole_sets(self) -> bool:
        """Whether some columns are scored on whole test sets."""
        return any(c.metric == "auroc_full" for c in self.columns)

    @property
    def has_sources(self) -> bool:
        """Whether numbers were copied from other sources."""
        return any(cell.source for cell in self.cells())

    @property
    def rows(self) -> Iterator[Row]:
        """All rows but means."""
        return (row for block in self.blocks for row in block.rows)

    @property
    def ran(self) -> bool:
        """Whether anything of it was run."""
        return any(row.ran for row in self.rows)

    def cells(self) -> Iterator[Cell]:
        """Give all cells but means, row by row."""
        return (cell for row in self.rows for cell in row.cells)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """How many published cells have each verdict."""
        words = [cell.word for cell in self.cells() if cell.published is not None]
        return {word: words.count(word) for word in WORDS}

    @cached_property
    def as_stated(self) -> Mapping[str, int]:
        """How many of these verdicts are of runs as stated."""
        words = [c.word for c in self.cells() if c.verdict is not None and not c.departs]
        return {word: words.count(word) for word in WORDS}

    @cached_property
    def departures(self) -> Mapping[str, int]:
        """Departures of shown runs with their number of cells."""
        shown = (cell.ours for cell in self.cells() if cell.ours and cell.published)
        counts = Counter(text for configuration in shown for text in configuration.departures)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def each_once(cells: Iterable[Cell]) -> list[Cell]:
    """Return one cell for each published number, which several tables may hold."""
    return list({(c.key, c.published): c for c in cells}.values())


def named(method: str) -> str:
    """Return a method's published name."""
    return NAMES.get(method, method)


def labelled(shots: int) -> str:
    """Say how many labelled anomalies a method learns from."""
    words = {0: "no labelled anomaly", 1: "one labelled anomaly", 10: "ten labelled anomalies"}
    return words.get(shots, f"{shots} labelled anomalies")
