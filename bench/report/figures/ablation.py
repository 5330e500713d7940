"""Ablation of ATAC-Net's second view on shared seeds."""

import math
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
    written_family,
)
from bench.analysis.selection import OURS, cells, configurations, without_parameter
from bench.report.figures.figure import Figure, Kind, Numbers, Section, slug
from bench.report.figures.svg import BLUE, label_rows, panels, plotting, svg
from bench.spec import RunSpec, shots_of
from bench.text import brief, p_text, signed

_READING = (
    "What the second pass of ATAC-Net sees, against the whole image at the same cost: seen twice,"
    " augmented for itself each time. Where no such runs are stored, against the whole image seen"
    " once. Differences of AUROC, paired by seed (same draw, same start): mean, 95 % t-interval"
    " over n shared seeds (thick), the same with test images resampled beside seeds (thin), and p"
    " of all differences of this section together (Holm), of each view from the base and of the"
    " attention’s box from the others. The claim of the paper’s title holds only"
    " where the attention’s box lies above zero, above the random box and above the centred one."
)
ATTENTION, RANDOM, CENTRE = "attention", "random", "centre"
"""The claim's view, and the two boxes of its size that nothing has chosen."""
BASES = ("raw_augmented", "raw")
"""What views are compared with, the first that is stored: the whole image at the same cost, or
seen once."""
BASE_WORDS = {"raw_augmented": "the whole image augmented twice", "raw": "the whole image"}
VIEWS = {
    ATTENTION: "box of the attention",
    CENTRE: "box of that size, centred",
    RANDOM: "box of that size, random place",
    "raw": "no second view",
    "raw_augmented": "whole image, augmented twice",
}
IDENTITY = "raw_twice"
"""A view whose loss and gradient are those of `raw`: its older runs compare nothing."""
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


@dataclass(frozen=True)
class Ablation:
    """All comparisons of ATAC-Net's views at one place, by one network."""

    where: str
    """Place and shots in words."""
    base: str
    """Of `BASES`, what views are compared with."""
    rest: RunSpec
    """What the runs share, without view and attention block."""
    comparisons: Sequence[Comparison]


def ablations(stored: StoredRuns) -> list[Ablation]:
    """Return all ablations; their p values are one family."""
    planned = []
    for place, shots in cells(stored):
        by_rest: dict[RunSpec, dict[View, Runs]] = {}
        for configuration in configurations(stored, place, shots, OURS):
            row, view = without_parameter(configuration.row, "view")
            if view == IDENTITY:
                continue
            rest, block = without_parameter(row, "attention")
            runs = {r.spec.seed: r for r in configuration.receipts}
            by_rest.setdefault(rest, {}).setdefault((str(view), block is not False), runs)
        where = f"{name_of(place)}, {shots_of(shots)}"
        for rest, views in by_rest.items():
            base, comparisons = _comparisons(views)
            if comparisons:
                planned.append(Ablation(where, base, rest, comparisons))
    adjusted = family({
        (i, j): comparison.gap
        for i, ablation in enumerate(planned)
        for j, comparison in enumerate(ablation.comparisons)
    })  # fmt: skip
    return [
        replace(
            ablation,
            comparisons=[
                replace(c, gap=adjusted[i, j]) for j, c in enumerate(ablation.comparisons)
            ],
        )
        for i, ablation in enumerate(planned)
    ]


def family_of(several: Sequence[Ablation]) -> str:
    """Say of how many differences the p values are, as `bench table --against` does."""
    gaps = [comparison.gap for one in several for comparison in one.comparisons]
    return written_family(gaps)


def plans(stored: StoredRuns) -> list[partial[Figure]]:
    """Plan paired differences from the whole image."""
    several = ablations(stored)
    return [partial(_figure, ablation, family_of(several), stored) for ablation in several]


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


def _figure(ablation: Ablation, together: str, stored: StoredRuns) -> Figure:
    where, rest = ablation.where, ablation.rest
    comparisons = [c.with_images(stored) for c in ablation.comparisons]
    summary = "; ".join(f"{c.label} {written_difference(c.gap)}" for c in comparisons)
    network = f"{rest.backbone} to stage {rest.stage}, {rest.image_size} px, {rest.precision}"
    base = BASE_WORDS[ablation.base]
    note = f"Minus {base} if not said; {together}. {network} ({stored.label(rest)})."
    alt = f"Differences of AUROC, from {base} if not said, on {where}: {summary}."
    return Figure(
        slug("ablation", where, stored.label(rest)),
        "ablation",
        f"Does the zoomed view help? {where}",
        note,
        alt,
        intervals(comparisons, alt),
        (Numbers(_COLUMNS, tuple(_row(c) for c in comparisons)),),
    )


_COLUMNS = ("views", "difference", "over seeds", "with images", "p", "seeds")


def _row(comparison: Comparison) -> tuple[str, ...]:
    """Return a comparison as a row of numbers."""
    gap = comparison.gap
    spans = [
        "" if span is None else f"[{signed(span[0])}, {signed(span[1])}]"
        for span in (gap.over_seeds.interval, gap.with_images)
    ]
    n = gap.over_seeds.n
    p = "" if gap.over_seeds.interval is None or math.isnan(gap.p) else p_text(gap.p)
    return comparison.label, signed(gap.over_seeds.mean), *spans, p, str(n)


SECTION = Section(
    "ablation",
    "Does the zoomed view help?",
    _READING,
    {"ablation": Kind(20, lambda s: plans(s.stored))},
)
