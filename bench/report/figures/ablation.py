"""Ablation of ATAC-Net's second view on shared seeds."""

from collections.abc import Mapping, Sequence
from functools import partial

from bench.analysis.configurations import StoredRuns
from bench.analysis.labels import name_of
from bench.analysis.selection import OURS, cells, configurations, without_parameter
from bench.analysis.statistics import Estimate, shared_difference
from bench.report.figures.figure import Figure, Kind, Section, slug
from bench.report.figures.svg import BLUE, label_rows, panels, plotting, svg
from bench.spec import RunSpec, shots_of
from bench.text import brief, signed

_READING = (
    "What the second pass of ATAC-Net sees, against the whole image twice, which costs the same:"
    " differences of AUROC, paired by seed (same draw, same start), mean and 95 % t-interval over n"
    " shared seeds. The claim of the paper’s title holds only where the attention’s box lies above"
    " zero there and against the random box. Without its attention block the network is another"
    " one, and still looks twice."
)
ATTENTION, RANDOM, BASE = "attention", "random", "raw_twice"
"""The claim's view, and the two that it must beat: a box that nothing has chosen, and the whole
image again, which costs as much and shows nothing new."""
VIEWS = {
    ATTENTION: "box of the attention",
    "centre": "box of that size, centred",
    RANDOM: "box of that size, random place",
    "raw": "no second view",
    BASE: "whole image twice",
}
Gap = tuple[str, Estimate]
ByView = Mapping[tuple[str, bool], Mapping[int, float]]
"""AUROC by seed, of each view with the attention block and without."""


def intervals(gaps: Sequence[Gap], alt: str) -> str:
    """Draw differences with their intervals, a line each."""
    with plotting(alt) as plt:
        figure, (axis,) = panels(plt, 0.42 * len(gaps), left=0.15)
        for y, (_, gap) in enumerate(gaps):
            if gap.interval is not None:
                axis.plot(gap.interval, [y, y], color=BLUE, linewidth=2)
            axis.plot([gap.mean], [y], "o", color=BLUE, markersize=4)
        axis.axvline(0, color="0.5", linewidth=0.8, zorder=0)
        label_rows(axis, [f"{label} (n={gap.n})" for label, gap in gaps])
        axis.locator_params(axis="x", nbins=5)
        axis.set_xlabel("difference of AUROC")
        return svg(figure, alt)


def plans(stored: StoredRuns) -> list[partial[Figure]]:
    """Plan paired differences from the compute-matched view."""
    figures = []
    for place, shots in cells(stored):
        by_rest: dict[RunSpec, dict[tuple[str, bool], Mapping[int, float]]] = {}
        for configuration in configurations(stored, place, shots, OURS):
            row, view = without_parameter(configuration.row, "view")
            rest, block = without_parameter(row, "attention")
            views = by_rest.setdefault(rest, {})
            views.setdefault((str(view), block is not False), configuration.by_seed)
        for rest, views in by_rest.items():
            gaps = _gaps(views)
            if gaps:
                where = f"{name_of(place)}, {shots_of(shots)}"
                figures.append(partial(_figure, gaps, where, rest, stored))
    return figures


def _gaps(views: ByView) -> list[Gap]:
    """Compare views with the base, and attention with random."""
    base = BASE, True
    gaps = [
        (_named(view), gap)
        for view in sorted(views, key=lambda view: (not view[1], view[0]))
        if view != base and (gap := shared_difference(views[view], views.get(base, {})))
    ]
    attention, random = (views.get((view, True), {}) for view in (ATTENTION, RANDOM))
    if gap := shared_difference(attention, random):
        gaps.append((f"{VIEWS[ATTENTION]} against the random one", gap))
    return gaps


def _named(view: tuple[str, bool]) -> str:
    name, block = view
    return VIEWS.get(name, brief(name)) + ("" if block else ", no attention block")


def _figure(gaps: Sequence[Gap], where: str, rest: RunSpec, stored: StoredRuns) -> Figure:
    name = slug("ablation", where, stored.label(rest))
    summary = "; ".join(_in_words(*gap) for gap in gaps)
    network = f"{rest.backbone} to stage {rest.stage}, {rest.image_size} px, {rest.precision}"
    note = f"{summary}. {network} ({stored.label(rest)})."
    title = f"Does the zoomed view help? {where}"
    alt = f"Differences of AUROC, from the whole image twice if not said, on {where}: {summary}."
    return Figure(name, "ablation", title, note, alt, intervals(gaps, alt))


def _in_words(label: str, gap: Estimate) -> str:
    span = ""
    if gap.interval is not None:
        span = f" ({signed(gap.interval[0])} to {signed(gap.interval[1])})"
    return f"{label} {signed(gap.mean)}{span}, {gap.n} seed" + "s" * (gap.n != 1)


SECTION = Section(
    "ablation",
    "Does the zoomed view help?",
    _READING,
    {"ablation": Kind(20, lambda s: plans(s.stored))},
)
