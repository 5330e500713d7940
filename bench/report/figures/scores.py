"""Figure 3: histograms of scores with their overlap; ROC curves."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.analysis import selection as choice
from bench.analysis.configurations import REFERENCE, StoredRuns
from bench.analysis.labels import method_name, name_of
from bench.analysis.selection import ScoreCache, Tested
from bench.metrics import auroc
from bench.report.figures.figure import Figure, Kind, Numbers, Section, Sources, slug
from bench.report.figures.svg import (
    ANOMALOUS,
    NORMAL,
    PALETTE,
    WIDTH,
    legend,
    marks,
    panels,
    plotting,
    svg,
)
from bench.spec import Place, shots_of
from bench.text import listed

_READING = (
    "Scores: the share of test images that score up to a value, normal ones blue and solid,"
    " anomalous ones vermilion and dashed, without the labelled anomalies; of the lowest seed that"
    " ran. Where a few scores are far above the others, the axis is logarithmic beyond the middle"
    " half of them. Overlap is one minus the largest gap between both lines: the least sum of false"
    " positive and false negative rate that a threshold can reach, 0 where one"
    " parts the classes, 1 where none tells anything. ROC: each curve is the mean of its seeds’"
    " curves at each false positive rate, so the area under it is their mean AUROC; of at most the"
    f" first {choice.MOST_SEEDS} seeds. Thin lines are single seeds of the first method, the grey"
    f" diagonal is chance. {choice.RULE}"
)
MOST_PANELS = 6
LONG_TAIL = 30.0
"""Range of scores over that of their middle half, from which a linear axis shows but a spike."""
MOST_POINTS = 200
"""Points of a ROC curve; only test sets with more normal images are thinned."""


def overlap(score: NDArray[np.float32], label: NDArray[np.bool_]) -> float:
    """Return the classes' overlap in [0, 1]; 0 where a threshold parts them.

    One minus the largest distance of their distribution functions (Kolmogorov and Smirnov), which
    no width of bins enters: the least sum of false positive and false negative rate.
    """
    x, y = roc_points(score, label)
    return float(1 - (y - x).max())


def roc_points(
    score: NDArray[np.float32], label: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return false and true positive rates over all thresholds."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)
    hits = np.cumsum(label[order])[last]
    taken = np.flatnonzero(last) + 1
    rates = (taken - hits) / (~label).sum(), hits / label.sum()
    return np.insert(rates[0], 0, 0.0), np.insert(rates[1], 0, 0.0)


def mean_roc(
    runs: Sequence[Tested], points: int = MOST_POINTS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average ROC curves vertically, at each false positive rate.

    A rate at which curves rise is there twice, before and after the rise, so the area under the
    mean curve is the mean of the areas, unless it has more than twice `points` points.
    """
    curves = [roc_points(*run) for run in runs]
    x = np.unique(np.concatenate([c[0] for c in curves]))
    if x.size > points:
        x = x[np.linspace(0, x.size - 1, points).round().astype(int)]
    nearly = 1e-9  # beside a rise, not on it
    before, after = (
        np.mean([np.interp(x + side, *curve) for curve in curves], axis=0)
        for side in (-nearly, nearly)
    )
    return np.repeat(x, 2), np.stack([before, after], 1).ravel()


def distributions(by_method: Mapping[str, Tested], alt: str) -> str:
    """Draw cumulative shares of test scores, a panel per method."""
    across = min(2, len(by_method))
    down = -(-len(by_method) // across)
    kinds = (("normal", NORMAL, "-"), ("anomalous", ANOMALOUS, "--"))
    with plotting(alt) as plt:
        figure, axes = panels(plt, 1.15, down, across, top=0.25, above=0.2)
        for axis in axes[len(by_method) :]:
            axis.set_axis_off()
        for axis, (method, (score, label)) in zip(axes, by_method.items(), strict=False):
            for anomalous, (kind, colour, line) in enumerate(kinds):
                axis.ecdf(
                    score[label == bool(anomalous)], color=colour, linestyle=line, linewidth=1.2,
                    label=kind,
                )  # fmt: skip
            axis.set_title(f"{method}: overlap {overlap(score, label):.2f}")
            axis.set(xlabel="", ylabel="")
            axis.set_yticks([0, 0.5, 1])
            middle = _middle_half(score)
            if np.ptp(score) > LONG_TAIL * middle > 0:
                axis.set_xscale("symlog", linthresh=middle)
                power = np.floor(np.log10(np.abs(score).max()))
                axis.set_xticks([0.0, 10 ** (power - 2), 10**power])
                axis.xaxis.set_major_formatter("{x:g}")
                axis.minorticks_off()
            else:
                axis.locator_params(axis="x", nbins=4)
        for axis in axes[max(0, len(by_method) - across) : len(by_method)]:
            axis.set_xlabel("anomaly score")
        for axis in axes[::across]:
            axis.set_ylabel("share of images")
        legend(figure, axes[0], 2)
        return svg(figure, alt)


def _middle_half(score: NDArray[np.float32]) -> float:
    """Return how far the middle half of the scores lie from zero at most."""
    low, high = np.quantile(score.astype(float), (0.25, 0.75))
    return float(max(abs(low), abs(high)))


def roc(by_method: Mapping[str, Sequence[Tested]], alt: str) -> str:
    """Draw mean ROC curves; the first method's seeds thin."""
    with plotting(alt) as plt:
        figure, (axis,) = panels(plt, WIDTH - 0.6)
        for i, ((method, runs), mark) in enumerate(
            zip(by_method.items(), marks(by_method), strict=True)
        ):
            style = {**mark, "marker": ""}
            if i == 0 and len(runs) > 1:
                for one in runs:
                    axis.plot(*mean_roc([one]), **{**style, "linewidth": 0.5, "alpha": 0.5})
            axis.plot(*mean_roc(runs), label=_area(method, runs), linewidth=1.4, **style)
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.7)
        axis.set(xlabel="false positive rate", ylabel="true positive rate")
        axis.legend(loc="lower right")
        return svg(figure, alt)


def _plans(
    figure: Callable[[StoredRuns, Place, int, ScoreCache], Figure], sources: Sources
) -> list[partial[Figure]]:
    """Plan a figure for each place and number of shots."""
    stored = sources.stored
    return [partial(figure, stored, *cell, sources.reader) for cell in _cells(stored)]


def _cells(stored: StoredRuns) -> list[tuple[Place, int]]:
    """Return places and shots where more than the reference ran."""
    trained = {(p, s) for p, s, m in stored.groups if m != REFERENCE}
    cells = [c for c in choice.cells(stored) if c in trained or (c[0], 0) in trained]
    return sorted(cells, key=lambda cell: -cell[1])


def _scores(stored: StoredRuns, place: Place, shots: int, reader: ScoreCache) -> Figure:
    where = f"{name_of(place)}, {shots_of(shots)}"
    configurations = [
        c for c in choice.best_configurations(stored, place, shots) if c.row.method != REFERENCE
    ]
    shown = configurations[:MOST_PANELS]
    shared = set.intersection(*({*c.by_seed} for c in shown))
    chosen = [min(shared or c.by_seed) for c in shown]
    scores = {
        method_name(c.row.method): choice.test_scores(reader.scores(c.run(seed)))
        for c, seed in zip(shown, chosen, strict=True)
    }
    name, title = slug("scores", where), f"Scores on {where}"
    overlaps = listed([f"{m} {overlap(*tested):.2f}" for m, tested in scores.items()])
    _, label = next(iter(scores.values()))
    note = (
        f"{(~label).sum()} normal and {label.sum()} anomalous test images."
        f" Seed {listed(sorted({str(s) for s in chosen}))}."
        + choice.left_out(configurations, shown)
    )
    alt = f"Distributions of anomaly scores on {where}. Overlap of the classes: {overlaps}."
    rows = tuple((m, f"{overlap(*t):.2f}", f"{auroc(*t):.3f}") for m, t in scores.items())
    numbers = Numbers(("method", "overlap", "AUROC"), rows)
    drawn = distributions(scores, alt)
    points = partial(_score_points, scores)
    return Figure(name, "scores", title, note, alt, drawn, (numbers,), points)


def _score_points(scores: Mapping[str, Tested]) -> Numbers:
    """Return every test score, with the share of its class that scores up to it."""
    rows = []
    for method, (score, label) in scores.items():
        for anomalous, kind in enumerate(("normal", "anomalous")):
            ordered = np.sort(score[label == bool(anomalous)])
            shares = np.arange(1, len(ordered) + 1) / max(1, len(ordered))
            rows += [(method, kind, repr(float(s)), f"{share:.6f}")
                     for s, share in zip(ordered, shares, strict=True)]  # fmt: skip
    return Numbers(("method", "images", "score", "share up to it"), tuple(rows))


def _roc(stored: StoredRuns, place: Place, shots: int, reader: ScoreCache) -> Figure:
    where = f"{name_of(place)}, {shots_of(shots)}"
    configurations = choice.best_configurations(stored, place, shots)
    shown = configurations[: len(PALETTE)]
    runs = {method_name(c.row.method): list(reader.tested(c)) for c in shown}
    areas = listed([_area(*item) for item in runs.items()])
    name, title = slug("roc", where), f"ROC on {where}"
    seeds = sorted({len(several) for several in runs.values()})
    note = f"Of {' or '.join(map(str, seeds))} {'seed' if seeds == [1] else 'seeds'}." + (
        choice.left_out(configurations, shown)
    )
    alt = f"ROC curves on {where}. Area under the curve: {areas}."
    rows = tuple((m, f"{choice.mean_auroc(r):.3f}", str(len(r))) for m, r in runs.items())
    numbers = Numbers(("method", "area under the mean curve", "seeds"), rows)
    points = partial(_roc_points, runs)
    return Figure(name, "scores", title, note, alt, roc(runs, alt), (numbers,), points)


def _roc_points(runs: Mapping[str, Sequence[Tested]]) -> Numbers:
    """Return the points of the mean curves, two at each rise."""
    rows = tuple(
        (method, f"{x:.6f}", f"{y:.6f}")
        for method, several in runs.items()
        for x, y in zip(*mean_roc(several), strict=True)
    )
    return Numbers(("method", "false positive rate", "true positive rate"), rows)


def _area(method: str, runs: Sequence[Tested]) -> str:
    seeds = f" ({len(runs)} seeds)" if len(runs) > 1 else ""
    return f"{method} {choice.mean_auroc(runs):.3f}{seeds}"


SECTION = Section(
    "scores",
    "Scores (Figure 3) and ROC",
    _READING,
    {"histograms": Kind(20, partial(_plans, _scores)), "roc": Kind(40, partial(_plans, _roc))},
)
