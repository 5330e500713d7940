"""Our AUROC against the published one, cell by cell."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.analysis.tables import Cell, ReportTable, each_once, named
from bench.report.figures.figure import Figure, Numbers, slug
from bench.report.figures.svg import (
    PALETTE,
    WIDTH,
    draw_interval,
    legend,
    legend_top,
    marks,
    panels,
    plotting,
    svg,
)
from bench.spec import shots_of
from bench.text import counted, signed

SECTION = "agreement"
"""Its place is the top of a page, beside the answers."""
LEAST = 2
MOST_METHODS = 2 * len(PALETTE)


def draw(tables: Sequence[ReportTable]) -> Iterator[Figure]:
    """Yield one figure where two published numbers or more were run."""
    cells = (c for table in tables for c in table.cells())
    shown = each_once(c for c in cells if c.difference is not None)
    if len(shown) < LEAST:
        return
    below = sum((c.difference or 0.0) < 0 for c in shown)
    furthest = max(shown, key=lambda c: abs(c.difference or 0.0))
    margin = tables[0].margin
    within = sum(abs(c.difference or 0.0) <= margin for c in shown)
    summary = (
        f"{below} of {len(shown)} below the published number, {within} within {margin:g} of it;"
        f" furthest {named(furthest.key.method)} on {furthest.key.category}"
        f" ({signed(furthest.difference or 0.0)})"
    )
    note = f"{summary}. Hollow marks depart from the stated protocol; lines are 95 % t-intervals."
    alt = f"Our AUROC against the published one, {counted(len(shown), 'cell')}: {summary}."
    yield Figure(
        slug(SECTION), SECTION, "Ours against published", note, alt, plot(shown, margin, alt),
        (Numbers(_COLUMNS, tuple(_row(c) for c in shown)),),
    )  # fmt: skip


_COLUMNS = ("cell", "ours", "published", "difference", "seeds")


def _row(cell: Cell) -> tuple[str, ...]:
    """Return a cell that was run and published as a row of numbers."""
    key = cell.key
    ours = (f"{cell.ours.mean:.3f}", str(cell.ours.estimate.n)) if cell.ours else ("", "")
    return (
        f"{named(key.method)}, {key.category}, {shots_of(key.shots)}",
        ours[0],
        str(cell.published.value) if cell.published else "",
        signed(cell.difference or 0.0),
        ours[1],
    )


def plot(cells: Sequence[Cell], margin: float, alt: str) -> str:
    """Draw a mark per cell, with the line of agreement and the margin beside it."""
    methods = list(dict.fromkeys(named(c.key.method) for c in cells))[:MOST_METHODS]
    ends = [float(c.published.value) for c in cells if c.published]
    ends += [c.ours.mean for c in cells if c.ours]
    low = max(0.0, min(ends) - 0.03)
    with plotting(alt) as plt:
        figure, (axis,) = panels(plt, WIDTH - 0.6, top=legend_top(len(methods)))
        axis.fill_between([low, 1], [low - margin, 1 - margin], [low + margin, 1 + margin],
                          color="0.88", linewidth=0, zorder=0)  # fmt: skip
        axis.plot([low, 1], [low, 1], color="0.5", linewidth=0.8, zorder=1)
        for method, mark in zip(methods, marks(methods), strict=True):
            _marks(axis, [c for c in cells if named(c.key.method) == method], method, mark)
        axis.set(xlabel="published AUROC", ylabel="our AUROC", xlim=(low, 1.01), ylim=(low, 1.01))
        axis.set_aspect("equal")
        legend(figure, axis, min(3, len(methods)))
        return svg(figure, alt)


def _marks(axis: Any, cells: Sequence[Cell], method: str, mark: Mapping[str, Any]) -> None:
    style = {**mark, "linestyle": "none", "markersize": 4.5, "markeredgewidth": 0.9, "zorder": 3}
    for departs in (False, True):
        points = [(float(c.published.value), c.ours.mean, c.ours.estimate.interval) for c in cells
                  if c.published and c.ours and bool(c.ours.departures) == departs]  # fmt: skip
        face = {"markerfacecolor": "none"} if departs else {}
        if points:
            axis.plot(*list(zip(*points, strict=True))[:2], label=method, **{**style, **face})
            method = "_" + method  # one line of the legend
        for x, _, interval in points:
            draw_interval(axis, x, interval, mark["color"], upright=True)
