"""Tables of a report as CSV, Markdown and LaTeX; figures as SVG, PDF and PNG.

A CSV table has one row a cell with everything that is known of it; the two others have the layout
of the page, with the published number in brackets behind ours.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.analysis.tables import Cell, MeanCell, ReportTable, labelled
from bench.analysis.timing_tables import DISTURBED, FIELDS, HEAD, STALE, TimeTable
from bench.analysis.timings import LATENCY, TimeCell, milliseconds
from bench.report.content import Contents
from bench.report.markup import Grid, Leading, as_csv, as_latex, as_markdown, escape_markdown
from bench.spec import shots_of
from bench.system.files import write_atomically
from bench.text import exact

CELL_FIELDS = (
    "dataset", "category", "shots", "method", "metric", "mean", "std", "seeds", "low95", "high95",
    "published", "source", "source_table", "difference", "difference_low90", "difference_high90",
    "published_std", "published_runs", "verdict", "seeds_needed", "basis", "not_comparable",
    "unofficial_copy", "best_of_row", "stale", "way",
    "machines", "runs", "mean_without_drawn", "std_without_drawn", "pixel_auroc", "pixel_seeds",
    "pixel_published", "pixel_source",
)  # fmt: skip
Prints = Mapping[str, Mapping[str, bytes]]
FINDING_FIELDS = ("about", "finding", "evidence", "source", "confidence")


def write_exports(contents: Contents, folder: Path, prints: Prints | None = None) -> int:
    """Write all tables and figures; return the number of files.

    `prints` has figures as PDF and PNG, by their SVG; pictures of images have none.
    Files of the same names are replaced, others left alone. Raises StoreError where the folder
    cannot be written.
    """
    files = dict(exports(contents))
    for name, text in files.items():
        write_atomically(folder / name, text.encode(errors="backslashreplace"))
    count = len(files)
    for figure in contents.figures:
        for form, content in (prints or {}).get(figure.svg, {}).items():
            write_atomically(folder / f"{figure.slug}.{form}", content)
            count += 1
    return count


def exports(contents: Contents) -> Iterator[tuple[str, str]]:
    """Give the files by name."""
    for table in contents.tables:
        cells = [list(CELL_FIELDS), *(list(_values(c)) for c in table.cells())]
        groups = [(shots, grid(table, shots)) for shots, _ in table.groups]
        yield f"{table.name}.csv", as_csv(cells)
        yield f"{table.name}.md", as_markdown(grid(table))
        latex = (
            as_latex(layout, f"{table.title}: {labelled(n)}", f"{table.name}-{n}")
            for n, layout in groups
        )
        yield f"{table.name}.tex", "\n".join(latex)
    findings = [
        [f.about, f.text, " | ".join(f.evidence), f.source, f.confidence] for f in contents.findings
    ]
    yield from _forms("findings", "Audit of the published numbers", FINDING_FIELDS, findings)
    for facts in contents.provenance:
        rows = [list(row) for row in facts.rows]
        name = facts.title.lower().replace(" ", "_")
        yield from _forms(name, facts.title, facts.columns, rows)
    for section in contents.sections:
        rows = [list(row) for row in section.rows]
        yield from _forms(section.key, section.title, section.columns, rows)
    yield from _times(contents.times)
    for figure in contents.figures:
        yield f"{figure.slug}.svg", f"{figure.svg}\n"
        for number, numbers in enumerate(figure.numbers, 1):
            name = figure.slug if number == 1 else f"{figure.slug}-{number}"
            rows = [[value.replace("\N{MINUS SIGN}", "-") for value in row] for row in numbers.rows]
            yield f"{name}.csv", as_csv([list(numbers.columns), *rows])
        if figure.points:
            columns, points = figure.points()
            yield f"{figure.slug}-points.csv", as_csv([list(columns), *map(list, points)])


def _forms(name: str, title: str, head: Sequence[str], rows: Grid) -> Iterator[tuple[str, str]]:
    grid = [list(head), *rows]
    yield f"{name}.csv", as_csv(grid)
    yield f"{name}.md", as_markdown(grid)
    yield f"{name}.tex", as_latex(grid, title, name)


def _times(tables: Sequence[TimeTable]) -> Iterator[tuple[str, str]]:
    """Yield the tables of times, all in one file of each form."""
    if not tables:
        return
    layouts = [(t.title, [list(HEAD), *t.rows]) for t in tables]
    yield "times.csv", as_csv([list(FIELDS), *(row for t in tables for row in t.values)])
    sections = (f"{escape_markdown(title)}\n\n{as_markdown(layout)}" for title, layout in layouts)
    yield "times.md", "\n".join(sections)
    yield "times.tex", "\n".join(as_latex(layout, title) for title, layout in layouts)


def _values(cell: Cell) -> Iterator[str]:
    """Yield a cell's values of `CELL_FIELDS`, with all digits."""
    key, ours, verdict = cell.key, cell.ours, cell.verdict
    yield from (key.dataset, key.category, str(key.shots), key.method)
    if ours:
        interval = ours.estimate.interval
        yield from (ours.metric, repr(ours.estimate.mean), exact(ours.deviation))
        yield from (str(ours.estimate.n), *(map(repr, interval) if interval else ("", "")))
    else:
        yield from ("", "", "", "0", "", "")
    yield str(cell.published.value) if cell.published else ""
    yield from (str(cell.source[1].value), cell.source[0]) if cell.source else ("", "")
    yield exact(cell.difference)
    yield from map(repr, verdict.interval) if verdict and verdict.interval else ("", "")
    yield from (repr(cell.noise.std), str(cell.noise.runs)) if cell.noise else ("", "")
    yield cell.word
    yield str(verdict.seeds_needed or "") if verdict else ""
    yield from (cell.basis, cell.not_comparable)
    yield "; ".join(ours.unofficial_reasons) if ours else ""
    yield from ("yes" if cell.best else "no", "yes" if ours and ours.stale else "no")
    yield from (ours.label, "; ".join(ours.machines)) if ours else ("", "")
    yield " ".join(r.run_id for r in ours.receipts) if ours else ""
    same, pixels, published = cell.same_test, cell.pixels, cell.pixel_level
    yield from (repr(same.estimate.mean), exact(same.deviation)) if same else ("", "")
    yield from (repr(pixels.estimate.mean), str(pixels.estimate.n)) if pixels else ("", "")
    yield from (str(published[1].value), published[0]) if published and pixels else ("", "")


# The layout of the page


def grid(table: ReportTable, shots: int | None = None) -> Grid:
    """Return a table with the columns and rows of the page.

    With `shots` only these columns.
    """
    chosen = [shots in (None, column.shots) for column in table.columns]
    head = [f"{c.title}, {shots_of(c.shots)}" if shots is None else c.title for c in table.columns]
    rows = [["category", *head]]
    for block in table.blocks:
        for row in block.rows:
            cells = [Leading(_cell(c)) if c.name in row.highest else _cell(c) for c in row.cells]
            rows.append([row.title + "*" * bool(row.unofficial), *cells])
        rows += [[mean.title, *map(_mean, mean.cells)] for mean in block.means]
    if table.times:
        where = f", on {table.times.clock}" if table.times.clock else ""
        rows.append([f"inference, ms an image{where}", *map(_time, table.times.cells)])
    return [[title, *itertools.compress(cells, chosen)] for title, *cells in rows]


def _cell(cell: Cell) -> str:
    if cell.ours is None:
        return f"not run [{cell.published.value}]" if cell.published else ""
    text = f"{cell.ours.estimate.mean:.3f}"
    if cell.ours.deviation is not None:
        text += f" ± {cell.ours.deviation:.3f} ({cell.ours.estimate.n})"
    text += "★" * cell.best + "†" * cell.ours.stale
    if cell.published is None:
        return text
    return f"{text} [{cell.published.value}] {cell.word}" + ", departs" * cell.departs


def _mean(cell: MeanCell) -> str:
    ours = f"{cell.missing} missing" if cell.ours is None else f"{cell.ours:.3f}"
    return f"{ours} [{cell.published.value}]" if cell.published else ours


def _time(cell: TimeCell) -> str:
    published = f" [{cell.published.value}]" if cell.published else ""
    span = cell.ours and cell.ours.span(LATENCY)
    if not cell.ours or not span:
        return f"not run{published}" if published else ""
    marks = STALE * cell.ours.stale + DISTURBED * bool(cell.ours.disturbed)
    return f"{milliseconds(span)}{marks}{published}"
