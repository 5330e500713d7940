"""Tables of a report, filled with stored runs."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from bench.analysis.configurations import REFERENCE, Configuration, StoredRuns
from bench.analysis.selection import OURS, registered
from bench.analysis.statistics import holm, paired_p
from bench.analysis.tables import Block, Cell, Column, MeanCell, MeanRow, ReportTable, Row
from bench.analysis.timings import (
    LATENCY,
    SHAPE,
    Rows,
    TimeCell,
    TimeRow,
    TimingSetup,
    clocks,
    compared,
)
from bench.analysis.verdict import LEAST_SEEDS, Noise, differing_settings, verdict
from bench.published.audit import read_findings
from bench.published.tables import (
    MEANS,
    Key,
    PublishedTable,
    PublishedValue,
    averages,
    pixel_level,
    published_tables,
)
from bench.spec import Place, RunSpec
from bench.text import joined, listed

LEAST_P = 0.05
"""Below it a lead over all other methods of a row is marked."""
TITLES = {"mean": "mean", "mean_texture": "mean of textures", "mean_object": "mean of objects"}


def fill_table(name: str, stored: StoredRuns, methods: Container[str] | None = None) -> ReportTable:
    """Fill a published table with our runs; `shortcut` joins its columns.

    With `methods` only their columns are shown.
    """
    table = published_tables()[name]
    columns = tuple(_columns(table, methods))
    keys = [k for k in table.cells if k.metric == "image_auroc"]
    if methods is None:
        columns += tuple(_label_free(columns, {(k.dataset, k.category) for k in keys}, stored))
    datasets = dict.fromkeys(k.dataset for k in keys)
    blocks = []
    for dataset in datasets:
        categories = dict.fromkeys(k.category for k in keys if k.dataset == dataset)
        places = [(dataset, c) for c in categories if c not in MEANS]
        rows = tuple(_row(name, table, place, place[1], columns, stored) for place in places)
        means = tuple(_mean(table, dataset, c, columns, rows) for c in categories if c in MEANS)
        blocks.append(Block(dataset, rows, means))
    about = f"{table.citation}. It states: {table.states}."
    if methods is not None:
        about += " Only columns that the tables above have copied are shown."
    times = _times(table, columns, stored)
    return ReportTable(name, table.title, about, columns, starred(blocks), table.margin, times)


def source_tables(stored: StoredRuns, tables: Sequence[ReportTable]) -> list[ReportTable]:
    """Fill the sources of copied columns whose protocols runs follow better.

    The paper copied numbers of other protocols than the one it states: a run that departs less from
    such a source's is to be judged by that too. Where there is none, a table of its own would only
    repeat what the paper's shows.
    """
    shown = {table.name for table in tables}
    copied: dict[str, list[Cell]] = {}
    for table in tables:
        for source, methods in published_tables()[table.name].copied:
            if published_tables()[source].protocol and source not in shown:
                cells = (c for c in table.cells() if c.key.method in methods)
                copied.setdefault(source, []).extend(cells)
    return [
        fill_table(source, stored, {c.key.method for c in cells})
        for source, cells in copied.items()
        if any(_nearer(cell, published_tables()[source], stored) for cell in cells)
    ]


def _nearer(cell: Cell, source: PublishedTable, stored: StoredRuns) -> bool:
    """Whether a configuration follows its source's protocol better than the stated one."""
    if cell.ours is None:
        return False
    key = cell.key
    place = key.dataset, key.category
    nearest = stored.configurations(place, key.shots, key.method, cell.ours.metric, source)[0]
    stated = {c.row: c.departures for c in (cell.ours, *cell.others)}
    return len(nearest.departures) < len(stated[nearest.row])


def other_table(stored: StoredRuns, tables: Iterable[ReportTable]) -> ReportTable | None:
    """Return the runs that no table shows, or None."""
    shown = {((k := c.key).dataset, k.category, k.shots, k.method)
             for table in tables for c in table.cells() if c.ours}  # fmt: skip
    groups = sorted(g for g in stored.groups if (*g[0], g[1], g[2]) not in shown)
    if not groups:
        return None
    wanted = {(shots, registered(m), m) for _, shots, m in groups if m != REFERENCE}
    ran = [(shots, m) for shots, _, m in sorted(wanted)]
    ran += [(shots, REFERENCE) for shots in {s for _, s, m in groups if m == REFERENCE}]
    columns = tuple(
        Column(m, s, "auroc") for s, m in sorted(ran, key=lambda c: (c[0], c[1] == REFERENCE))
    )
    protocol = replace(published_tables()["atacnet_table1"], cells={}, copied=(), not_comparable={})
    blocks = []
    for dataset in dict.fromkeys(g[0][0] for g in groups):
        places = dict.fromkeys(g[0] for g in groups if g[0][0] == dataset)
        titles = {p: p[1] if p[1].startswith(p[0]) else f"{p[0]}/{p[1]}" for p in places}
        rows = tuple(
            _without(_row("other", protocol, p, title, columns, stored), shown)
            for p, title in titles.items()
        )
        blocks.append(Block(dataset, rows, ()))
    beyond = any(table.ran for table in tables)
    about = "All runs. "
    if beyond:
        about = (
            "Data, settings, methods and numbers of labelled anomalies that no published table has;"
            " departures are from Table 1's protocol. "
        )
    about += "Methods of one row are scored on the same images, those without labels too."
    title = "Beyond the published tables" if beyond else "Results"
    return ReportTable("other", title, about, columns, starred(blocks), protocol.margin)


def _without(row: Row, shown: Container[tuple[str, str, int, str]]) -> Row:
    """Empty the cells that stand in another table."""
    cells = [
        replace(c, ours=None, others=(), best=False)
        if (c.key.dataset, c.key.category, c.key.shots, c.key.method) in shown
        else c
        for c in row.cells
    ]
    return replace(row, cells=tuple(cells))


def _columns(table: PublishedTable, methods: Container[str] | None) -> Iterator[Column]:
    """Yield the published columns, `shortcut` last in each group of shots."""
    published = [c for c in table.columns() if methods is None or c[1] in methods]
    for shots in dict.fromkeys(s for s, _ in published):
        for method in (m for s, m in published if s == shots):
            yield Column(method, shots, table.metric(method))
        if shots:  # it learns which statistic to take from the labelled anomalies
            yield Column(REFERENCE, shots, "auroc")


def _label_free(
    columns: Sequence[Column], places: Container[Place], stored: StoredRuns
) -> Iterator[Column]:
    """Yield columns of methods without labels beside methods that all learn from some.

    They are scored on the same images: without the ten anomalies of each seed's draw.
    """
    ran = {(s, m) for place, s, m in stored.groups if place in places}
    beside = {(c.shots, c.method) for c in columns}
    if all(shots for shots, _ in beside) and ran & beside:
        for method in sorted({m for s, m in ran if not s} - {REFERENCE}, key=registered):
            yield Column(method, 0, "auroc")


def _row(
    name: str, table: PublishedTable, place: Place, title: str, columns: Sequence[Column],
    stored: StoredRuns,
) -> Row:  # fmt: skip
    cells = [_cell(name, table, place, column, stored) for column in columns]
    unofficial = {reason for c in cells if c.ours for reason in c.ours.unofficial_reasons}
    content, apart = _contents(next((c.ours.row for c in cells if c.ours), None), stored)
    return Row(title + content, tuple(cells), "; ".join(sorted(unofficial)), apart)


def _contents(row: RunSpec | None, stored: StoredRuns) -> tuple[str, str]:
    """Return what names the shown content beside others, and the others."""
    if row is None or not stored.place.is_preferred(row) or not stored.place.content(row):
        return "", ""  # else the place's name says it
    return f" ({stored.place.content(row)})", listed(stored.place.others(row))


def _cell(
    name: str, table: PublishedTable, place: Place, column: Column, stored: StoredRuns
) -> Cell:
    key = Key(*place, column.shots, column.method, "image_auroc")
    configurations = stored.configurations(place, column.shots, column.method, column.metric, table)
    return Cell(
        key=key,
        name="-".join(_plain(str(part)) for part in (name, *place, column.shots, column.method)),
        published=table.cells.get(key),
        source=_source(table, key),
        ours=configurations[0] if configurations else None,
        others=tuple(configurations[1:]),
        margin=table.margin,
        noise=_noise(table, key),
        not_comparable=table.not_comparable.get(f"{place[0]} {column.method}", ""),
        pixel_level=pixel_level(key),
    )


def _plain(text: str) -> str:
    """Return a text as part of a link, special characters by number."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else f".{ord(c):x}" for c in text)


def _source(table: PublishedTable, key: Key) -> tuple[str, PublishedValue] | None:
    for name, methods in table.copied:
        other = published_tables()[name]
        if key.method in methods and key in other.cells:
            return other.title, other.cells[key]
    return None


def _noise(table: PublishedTable, key: Key) -> Noise | None:
    """Return the spread of a published number, or of the equal one that it was copied from."""
    own = table.cells.get(key)
    sources = [published_tables()[name] for name, methods in table.copied if key.method in methods]
    for reports in (table, *sources):
        value = reports.cells.get(key)
        if own and value and value.value == own.value and value.std is not None and reports.runs:
            return Noise(float(value.std), reports.runs)
    return None


def starred(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Mark the cells that are above each other one of their row and shots.

    The p of a row is the largest of its leader's paired t-tests; Holm's procedure adjusts it over
    all rows of the table in which methods can be compared.
    """
    leaders = [leader for block in blocks for row in block.rows for leader in _leaders(row)]
    adjusted = holm({i: p for i, (_, p) in enumerate(leaders)})
    best = {id(leaders[i][0]) for i, p in adjusted.items() if p < LEAST_P}
    return tuple(
        replace(block, rows=tuple(
            replace(row, cells=tuple(replace(c, best=id(c) in best) for c in row.cells))
            for row in block.rows
        ))
        for block in blocks
    )  # fmt: skip


def _leaders(row: Row) -> Iterator[tuple[Cell, float]]:
    """Yield the highest cell at each number of shots, with the p of its lead.

    None where a published one has no run, for one method alone, or with too few shared seeds.
    """
    for shots in dict.fromkeys(c.key.shots for c in row.cells):
        cells = [c for c in row.cells if c.key.shots == shots]
        seeds = {seed for c in cells if c.ours for seed in c.ours.by_seed}
        ran = [(c, _of_seeds(c.ours, seeds)) for c in cells if c.ours]
        methods = [c for c, _ in ran if c.key.method != REFERENCE]
        if len(methods) < 2 or any(c.published and not c.ours for c in cells):
            continue
        leader, values = max(ran, key=lambda item: fmean(item[1].values()))
        others = [v for c, v in ran if c is not leader]
        if all(len(values.keys() & v.keys()) >= LEAST_SEEDS for v in others):
            yield leader, max(paired_p(values, v) for v in others)


def _of_seeds(configuration: Configuration, seeds: Iterable[int]) -> Mapping[int, float]:
    """Return AUROC by seed; a value without randomness counts for all."""
    value = next(iter(configuration.by_seed.values()))
    return dict.fromkeys(seeds, value) if configuration.seedless else configuration.by_seed


def _mean(
    table: PublishedTable,
    dataset: str,
    category: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
) -> MeanRow:
    """Return a row of means, ours over complete columns only."""
    cells = []
    for i, column in enumerate(columns):
        ran = [row.cells[i].ours for row in rows if averages(category, row.cells[i].key.category)]
        missing = ran.count(None)
        key = Key(dataset, category, column.shots, column.method, "image_auroc")
        ours = [configuration for configuration in ran if configuration]
        cells.append(_mean_cell(table, key, ours, missing))
    return MeanRow(TITLES[category], tuple(cells))


def _mean_cell(
    table: PublishedTable, key: Key, configurations: Sequence[Configuration], missing: int
) -> MeanCell:
    """Average rows over the seeds that all share, else over all that each has."""
    published = table.cells.get(key)
    if missing:
        return MeanCell(published, None, missing)
    by_seed = shared_means(configurations)
    outcome = None
    if published and by_seed:
        seedless = all(c.seedless for c in configurations)
        noise = _noise(table, key)
        outcome = verdict(by_seed, published, table.margin, noise=noise, seedless=seedless)
    departs = dict.fromkeys(text for c in configurations for text in c.departures)
    return MeanCell(
        published,
        fmean(by_seed or [c.mean for c in configurations]),
        0,
        outcome,
        mixed=len({c.variant for c in configurations}) > 1,
        same_test=_mean_of([c.with_metric("auroc") for c in configurations]),
        basis="; ".join(departs) or "as stated",
    )


def _mean_of(configurations: Sequence[Configuration | None]) -> float | None:
    """Return the mean of rows; None where one has no such metric."""
    known = [c for c in configurations if c]
    if len(known) < len(configurations):
        return None
    return fmean(shared_means(known) or [c.mean for c in known])


def shared_means(configurations: Sequence[Configuration]) -> list[float]:
    """Return the mean over rows of each seed that all of them have."""
    seeds = {seed for c in configurations for seed in c.by_seed}
    rows = [_of_seeds(c, seeds) for c in configurations]
    shared = sorted(set.intersection(*({*row} for row in rows)))
    return [fmean(row[seed] for row in rows) for seed in shared]


def _times(table: PublishedTable, columns: Sequence[Column], stored: StoredRuns) -> TimeRow | None:
    """Return published times with ours of the clock with most methods."""
    published = {
        (k.method, k.shots): p for k, p in table.cells.items() if k.metric == "inference_ms"
    }
    if not published:
        return None
    methods = {method for method, _ in published}
    timed = clocks(stored)

    def most(clock: TimingSetup) -> tuple[int, bool]:
        shared = {row.method for row in timed[clock]} & methods
        return len(shared), OURS in shared

    clock = max(timed, key=most, default=None)
    rows = timed[clock] if clock else {}
    cells = tuple(
        _time_cell(table, column, published.get((column.method, column.shots)), rows)
        for column in columns
    )
    (remark,) = (f.text for f in read_findings() if f.key == "table2-times")
    return TimeRow(cells, clock, _order(columns, cells), remark)


def _time_cell(
    table: PublishedTable, column: Column, published: PublishedValue | None, rows: Rows
) -> TimeCell:
    """Return the timed configuration that departs least in what takes time."""
    shape = {k: v for k, v in table.stated(column.method).items() if k in SHAPE}
    departs = {row: differing_settings(row, shape) for row, timed in rows.items()
               if row.method == column.method and timed.span(LATENCY)}  # fmt: skip

    def rank(row: RunSpec) -> tuple[bool, int, int, str]:
        rounds = len(rows[row].rounds)
        return row.shots != column.shots, len(departs[row]), -rounds, row.run_id

    row = min(departs, key=rank, default=None)
    if row is None:
        return TimeCell(published, None, ())
    return TimeCell(published, rows[row], tuple(departs[row]))


def _order(columns: Sequence[Column], cells: Sequence[TimeCell]) -> str:
    """Say whether the published order holds among timed methods."""
    published = [
        (column, cell.published.value, cell.ours)
        for column, cell in zip(columns, cells, strict=True)
        if cell.published
    ]
    fastest = min(published, key=lambda entry: entry[1])[0]
    by_method = {column.method: ours for column, _, ours in published if ours}
    if not by_method:
        return ""
    ours = by_method.pop(OURS, None)
    comparison = compared(ours, list(by_method.values())) if ours else ""
    missing = [column.title for column, _, ours in published if not ours]
    untimed = f"Not timed there: {joined(missing)}." if missing else ""
    claim = f"By the published times {fastest.title} is the fastest."
    return " ".join(filter(None, (claim, comparison, untimed)))
