"""Ablation of ATAC-Net's second view on shared seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from bench.analysis.configurations import StoredRuns
from bench.analysis.labels import name_of
from bench.analysis.paired import (
    Difference,
    Runs,
    family,
    images_interval,
    seed_difference,
    written_difference,
)
from bench.analysis.selection import OURS, cells, configurations, without_parameter
from bench.report.figures.figure import Figure, Kind, Section, slug
from bench.report.figures.svg import BLUE, label_rows, panels, plotting, svg
from bench.spec import RunSpec, shots_of
from bench.text import brief

_READING = (
    "What the second pass of ATAC-Net sees, against the whole image at the same cost: seen twice,"
    " augmented for itself each time. Where no such runs are stored, against the whole image seen"
    " once. Differences of AUROC, paired by seed (same draw, same start): mean, 95 % t-interval"
    " over n shared seeds (thick), the same with test images resampled beside seeds (thin), and p"
    " after Holm over all differences of this section. The claim of the paper’s title holds only"
    " where the attention’s box lies above zero, above the random box and above the centred one."
)
ATTENTION, RANDOM, CENTRE = "attention", "random", "centre"
"""The claim's view, and the two boxes of its size that nothing has chosen."""
BASES = ("raw_augmented", "raw")
"""What views are compared with, the first that is stored: the whole image at the same cost, or
seen once."""
VIEWS = {
    ATTENTION: "box of the attention",
    CENTRE: "box of that size, centred",
    RANDOM: "box of that size, random place",
    "raw": "no second view",
    "raw_augmented": "whole image, augmented twice",
    "raw_twice": "the same tensor twice",
}
View = tuple[str, bool]
"""What the second pass sees, with the attention block or without."""


@dataclass(frozen=True)
class Comparison:
    """Two views at one place, over shared seeds."""

    label: str
    first: Runs
    second: Runs
    gap: Difference

    def with_images(self, stored: StoredRuns) -> "Comparison":
        """Return it with the interval over seeds and images."""
        span = images_interval(self.first, self.second, stored.scores)
        return replace(self, gap=replace(self.gap, with_images=span))


def intervals(comparisons: Sequence[Comparison], alt: str) -> str:
    """Draw differences with their intervals, a line each."""
    with plotting(alt) as plt:
        figure, (axis,) = panels(plt, 0.42 * len(comparisons), left=0.15)
        for y, comparison in enumerate(comparisons):
            gap = comparison.gap
            if gap.with_images is not None:
                axis.plot(gap.with_images, [y, y], color=BLUE, linewidth=0.8)
            if gap.over_seeds.interval is not None:
                axis.plot(gap.over_seeds.interval, [y, y], color=BLUE, linewidth=2.5)
            axis.plot([gap.over_seeds.mean], [y], "o", color=BLUE, markersize=4)
        axis.axvline(0, color="0.5", linewidth=0.8, zorder=0)
        label_rows(axis, [f"{c.label} (n={c.gap.over_seeds.n})" for c in comparisons])
        axis.locator_params(axis="x", nbins=5)
        axis.set_xlabel("difference of AUROC")
        return svg(figure, alt)


def plans(stored: StoredRuns) -> list[partial[Figure]]:
    """Plan paired differences from the whole image, one family of tests."""
    drawn: list[tuple[str, str, RunSpec, list[Comparison]]] = []
    for place, shots in cells(stored):
        by_rest: dict[RunSpec, dict[View, Runs]] = {}
        for configuration in configurations(stored, place, shots, OURS):
            row, view = without_parameter(configuration.row, "view")
            rest, block = without_parameter(row, "attention")
            runs = {r.spec.seed: r for r in configuration.receipts}
            by_rest.setdefault(rest, {}).setdefault((str(view), block is not False), runs)
        for rest, views in by_rest.items():
            base, comparisons = _comparisons(views)
            if comparisons:
                where = f"{name_of(place)}, {shots_of(shots)}"
                drawn.append((where, base, rest, comparisons))
    tested = {
        (i, j): comparison.gap
        for i, (*_, comparisons) in enumerate(drawn)
        for j, comparison in enumerate(comparisons)
    }
    adjusted = family(tested)
    return [
        partial(
            _figure,
            [replace(c, gap=adjusted[i, j]) for j, c in enumerate(comparisons)],
            where, base, rest, stored,
        )
        for i, (where, base, rest, comparisons) in enumerate(drawn)
    ]  # fmt: skip


def _comparisons(views: Mapping[View, Runs]) -> tuple[str, list[Comparison]]:
    """Compare views with the base, and the attention's box with the boxes not chosen."""
    base = next((b for b in BASES if (b, True) in views), BASES[-1])
    ordered = sorted(views, key=lambda view: (not view[1], view[0]))
    pairs = [(_named(view), view, (base, True)) for view in ordered if view != (base, True)]
    pairs += [
        (f"{VIEWS[ATTENTION]} against the {name} one", (ATTENTION, True), (other, True))
        for name, other in (("random", RANDOM), ("centred", CENTRE))
    ]
    return base, [
        Comparison(label, views[first], views[second], gap)
        for label, first, second in pairs
        if first in views
        and second in views
        and (gap := seed_difference(views[first], views[second]))
    ]


def _named(view: View) -> str:
    name, block = view
    return VIEWS.get(name, brief(name)) + ("" if block else ", no attention block")


def _figure(
    comparisons: Sequence[Comparison], where: str, base: str, rest: RunSpec, stored: StoredRuns
) -> Figure:
    name = slug("ablation", where, stored.label(rest))
    comparisons = [
        replace(
            c, gap=replace(c.gap, with_images=images_interval(c.first, c.second, stored.scores))
        )
        for c in comparisons
    ]
    summary = "; ".join(f"{c.label} {written_difference(c.gap)}" for c in comparisons)
    network = f"{rest.backbone} to stage {rest.stage}, {rest.image_size} px, {rest.precision}"
    note = f"{summary}. {network} ({stored.label(rest)})."
    title = f"Does the zoomed view help? {where}"
    alt = f"Differences of AUROC, from {_BASE_WORDS[base]} if not said, on {where}: {summary}."
    return Figure(name, "ablation", title, note, alt, intervals(comparisons, alt))


_BASE_WORDS = {"raw_augmented": "the whole image augmented twice", "raw": "the whole image"}


SECTION = Section(
    "ablation",
    "Does the zoomed view help?",
    _READING,
    {"ablation": Kind(20, lambda s: plans(s.stored))},
)
