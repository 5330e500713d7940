"""The tables of the report, cell by cell: ours beside what is printed, and the verdict."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from bench.audit import NAMES
from bench.published import MEANS, Key, Printed, PrintedTable, averages, published
from bench.registry import METHODS
from bench.report.stored import REFERENCE, Place, Stored, Way
from bench.stats import paired_difference
from bench.verdict import LEAST_SEEDS, Verdict, verdict

TITLES = {"mean": "mean", "mean_texture": "mean of textures", "mean_object": "mean of objects"}
WORDS = ("reproduced", "differs", "inconclusive", "not comparable", "not run")
"""What can stand as a verdict, in the order of the legend."""


@dataclass(frozen=True)
class Column:
    """A method at one number of shots."""

    method: str
    shots: int
    metric: str
    """Which of a run's metrics is shown."""

    @property
    def title(self) -> str:
        """The method's name as it is written in print."""
        return NAMES.get(self.method, self.method)


@dataclass(frozen=True)
class Cell:
    """One cell of a table in print, or of a row or column that we add."""

    key: Key
    name: str
    """A name for links within the page, unique over its tables."""
    printed: Printed | None
    source: tuple[str, Printed] | None
    """Title of the table that the printed number was copied from, and the number there."""
    ours: Way | None
    """The way to run the method that departs least from the stated protocol."""
    others: tuple[Way, ...]
    margin: float
    not_comparable: str = ""
    best: bool = False
    """Whether it is above every other method of the row with as many labelled anomalies, all of
    which ran, as far as intervals allow to say so."""

    @cached_property
    def verdict(self) -> Verdict | None:
        """What our runs say of the printed number; None where there is nothing to compare."""
        if self.ours is None or self.printed is None or self.not_comparable:
            return None
        values = list(self.ours.by_seed.values())
        return verdict(values, float(self.printed.value), self.margin)

    @property
    def word(self) -> str:
        """The verdict in a word or two; nothing where nothing is printed."""
        if self.printed is None:
            return ""
        if self.ours is None:
            return "not run"
        return "not comparable" if self.verdict is None else self.verdict.word

    @property
    def difference(self) -> float | None:
        """Our mean minus the printed number, comparable or not."""
        if self.ours is None or self.printed is None:
            return None
        return self.ours.estimate.mean - float(self.printed.value)

    @property
    def basis(self) -> str:
        """On what a verdict holds."""
        if self.ours is None:
            return ""
        return "; ".join(self.ours.departures) or "as stated"


@dataclass(frozen=True)
class Row:
    """A category, its cells in the order of the table's columns."""

    title: str
    cells: tuple[Cell, ...]
    unofficial: str
    """Why our copy of the data is not the official one."""

    @property
    def ran(self) -> bool:
        """Whether anything was run."""
        return any(cell.ours for cell in self.cells)


@dataclass(frozen=True)
class MeanCell:
    """A mean over rows: as printed, and ours where no row is missing."""

    printed: Printed | None
    ours: float | None
    missing: int
    """How many of its rows have no run."""
    verdict: Verdict | None = None
    """On the means of the seeds that all rows have; None where nothing is printed or missing."""
    mixed: bool = False
    """Whether its rows were not all run in one way."""

    @property
    def word(self) -> str:
        """The verdict in a word or two; nothing where there is nothing to compare."""
        return self.verdict.word if self.verdict else ""


@dataclass(frozen=True)
class MeanRow:
    """A row of means, in the order of the table's columns."""

    title: str
    cells: tuple[MeanCell, ...]


@dataclass(frozen=True)
class Block:
    """The rows of one dataset, and the means over them that are printed below."""

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
    times: tuple[Printed | None, ...] = ()
    """Printed inference times in ms, by column, where the table has them."""

    @property
    def groups(self) -> list[tuple[int, tuple[Column, ...]]]:
        """Columns that stand side by side under one number of shots."""
        shots = dict.fromkeys(c.shots for c in self.columns)
        return [(s, tuple(c for c in self.columns if c.shots == s)) for s in shots]

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
        """How many printed cells have each verdict."""
        said = [cell.word for cell in self.cells() if cell.printed is not None]
        return {word: said.count(word) for word in WORDS}

    @cached_property
    def departures(self) -> Mapping[str, int]:
        """What the shown runs depart in from the stated protocol, and in how many cells."""
        found: dict[str, int] = {}
        for cell in self.cells():
            if cell.ours and cell.printed:
                for text in cell.ours.departures:
                    found[text] = found.get(text, 0) + 1
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def labelled(shots: int) -> str:
    """Say how many labelled anomalies a method learns from."""
    words = {0: "no labelled anomaly", 1: "one labelled anomaly", 10: "ten labelled anomalies"}
    return words.get(shots, f"{shots} labelled anomalies")


def printed_table(name: str, stored: Stored) -> ReportTable:
    """Fill a table in print with our runs, in its own order; `shortcut` is added to its columns."""
    table = published()[name]
    columns = tuple(_columns(table))
    keys = [k for k in table.cells if k.metric == "image_auroc"]
    datasets = dict.fromkeys(k.dataset for k in keys)
    blocks = []
    for dataset in datasets:
        there = dict.fromkeys(k.category for k in keys if k.dataset == dataset)
        places = [(dataset, c) for c in there if c not in MEANS]
        rows = tuple(_row(name, table, place, place[1], columns, stored) for place in places)
        means = tuple(_mean(table, dataset, c, columns, rows) for c in there if c in MEANS)
        blocks.append(Block(dataset, rows, means))
    about = f"{table.citation}. It states: {table.states}."
    times = _times(table, columns)
    return ReportTable(name, table.title, about, columns, tuple(blocks), table.margin, times)


def other_table(stored: Stored, tables: Iterable[ReportTable]) -> ReportTable | None:
    """Return what was run and stands in none of the tables, or None."""
    shown = {((k := c.key).dataset, k.category, k.shots, k.method)
             for table in tables for c in table.cells() if c.ours}  # fmt: skip
    groups = sorted(g for g in stored.groups if (*g[0], g[1], g[2]) not in shown)
    if not groups:
        return None
    order = {name: i for i, name in enumerate(METHODS)}
    wanted = {(shots, order.get(m, len(order)), m) for _, shots, m in groups if m != REFERENCE}
    ran = [(shots, m) for shots, _, m in sorted(wanted)]
    ran += [(shots, REFERENCE) for shots in {s for _, s, m in groups if m == REFERENCE}]
    columns = tuple(
        Column(m, s, "auroc") for s, m in sorted(ran, key=lambda c: (c[0], c[1] == REFERENCE))
    )
    protocol = replace(published()["atacnet_table1"], cells={}, copied=(), not_comparable={})
    blocks = []
    for dataset in dict.fromkeys(g[0][0] for g in groups):
        places = dict.fromkeys(g[0] for g in groups if g[0][0] == dataset)
        titles = {p: p[1] if p[1].startswith(p[0]) else f"{p[0]}/{p[1]}" for p in places}
        rows = tuple(
            _without(_row("other", protocol, p, title, columns, stored), shown)
            for p, title in titles.items()
        )
        blocks.append(Block(dataset, rows, ()))
    about = (
        "Data, settings, methods and numbers of labelled anomalies that no table in print has;"
        " departures are from Table 1's protocol."
    )
    return ReportTable("other", "Beyond print", about, columns, tuple(blocks), protocol.margin)


def _without(row: Row, shown: Container[tuple[str, str, int, str]]) -> Row:
    """Empty the cells that stand in another table."""
    cells = [
        replace(c, ours=None, others=(), best=False)
        if (c.key.dataset, c.key.category, c.key.shots, c.key.method) in shown
        else c
        for c in row.cells
    ]
    return replace(row, cells=tuple(cells))


def _columns(table: PrintedTable) -> Iterator[Column]:
    """Give the printed columns, each group of shots with `shortcut` at its end."""
    printed = list(table.columns())
    for shots in dict.fromkeys(s for s, _ in printed):
        for method in (m for s, m in printed if s == shots):
            yield Column(method, shots, table.metric(method))
        if shots:  # it learns which statistic to take from the labelled anomalies
            yield Column(REFERENCE, shots, "auroc")


def _row(
    name: str, table: PrintedTable, place: Place, title: str, columns: Sequence[Column],
    stored: Stored,
) -> Row:  # fmt: skip
    cells = [_cell(name, table, place, column, stored) for column in columns]
    best = {
        id(leader)
        for shots in dict.fromkeys(c.shots for c in columns)
        if (leader := _leader([c for c in cells if c.key.shots == shots]))
    }
    cells = [replace(c, best=id(c) in best) for c in cells]
    unofficial = {
        r["provenance"]["unofficial_copy"] for c in cells if c.ours for r in c.ours.receipts
    } - {""}
    return Row(title, tuple(cells), "; ".join(sorted(unofficial)))


def _cell(name: str, table: PrintedTable, place: Place, column: Column, stored: Stored) -> Cell:
    key = Key(*place, column.shots, column.method, "image_auroc")
    ways = stored.ways(place, column.shots, column.method, column.metric, table)
    return Cell(
        key=key,
        name="-".join(_plain(str(part)) for part in (name, *place, column.shots, column.method)),
        printed=table.cells.get(key),
        source=_source(table, key),
        ours=ways[0] if ways else None,
        others=tuple(ways[1:]),
        margin=table.margin,
        not_comparable=table.not_comparable.get(f"{place[0]} {column.method}", ""),
    )


def _plain(text: str) -> str:
    """Return a text as part of a link: what is no letter or digit by its number."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else f".{ord(c):x}" for c in text)


def _source(table: PrintedTable, key: Key) -> tuple[str, Printed] | None:
    for name, methods in table.copied:
        other = published()[name]
        if key.method in methods and key in other.cells:
            return other.title, other.cells[key]
    return None


def _leader(cells: Sequence[Cell]) -> Cell | None:
    """Return the cell whose paired difference from each other one is above zero at 95 %.

    None where a printed one has no run, and where `shortcut` is the only rival.
    """
    there = [(cell, cell.ours.by_seed) for cell in cells if cell.ours]
    rivals = [cell for cell, _ in there if cell.key.method != REFERENCE]
    if len(rivals) < 2 or any(cell.printed and not cell.ours for cell in cells):
        return None
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
            if gaps and all(g.n >= LEAST_SEEDS and g.interval and g.interval[0] > 0 for g in gaps):
                return cell
    return None


def _mean(
    table: PrintedTable, dataset: str, category: str, columns: Sequence[Column], rows: Sequence[Row]
) -> MeanRow:
    """Return a printed row of means, ours only over columns that are complete."""
    cells = []
    for i, column in enumerate(columns):
        ran = [row.cells[i].ours for row in rows if averages(category, row.cells[i].key.category)]
        there = [ours for ours in ran if ours is not None]
        key = Key(dataset, category, column.shots, column.method, "image_auroc")
        cells.append(_mean_cell(table.cells.get(key), there, len(ran) - len(there), table.margin))
    return MeanRow(TITLES[category], tuple(cells))


def _mean_cell(
    printed: Printed | None, ways: Sequence[Way], missing: int, margin: float
) -> MeanCell:
    if missing:
        return MeanCell(printed, None, missing)
    seeds = sorted(set.intersection(*({*way.by_seed} for way in ways)))
    by_seed = [fmean(way.by_seed[seed] for way in ways) for seed in seeds]
    said = verdict(by_seed, float(printed.value), margin) if printed and seeds else None
    rows = (way.row for way in ways)
    variants = {replace(r, dataset="", category="", fingerprint="", external=None) for r in rows}
    ours = fmean(way.estimate.mean for way in ways)
    return MeanCell(printed, ours, 0, said, mixed=len(variants) > 1)


def _times(table: PrintedTable, columns: Sequence[Column]) -> tuple[Printed | None, ...]:
    found = {(k.method, k.shots): p for k, p in table.cells.items() if k.metric == "inference_ms"}
    return tuple(found.get((c.method, c.shots)) for c in columns) if found else ()
