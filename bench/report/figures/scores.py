"""Figure 3 (scores of normal and anomalous images, and how far they overlap) and ROC curves."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.report.figures import choice
from bench.report.figures.choice import Reader, Tested, Way
from bench.report.figures.drawing import Drawing, key, listed, name_of, shots_of
from bench.report.figures.svg import ANOMALOUS, NORMAL, PALETTE, WIDTH, plotting, svg
from bench.report.tables import REFERENCE, Stored

MOST_PANELS = 6
MOST_POINTS = 200
"""Points of a ROC curve; only test sets with more normal images are thinned."""


def overlap(score: NDArray[np.float32], label: NDArray[np.bool_]) -> float:
    """Return how far the two classes overlap, in [0, 1]; 0 where a threshold parts them.

    One minus the largest distance of their distribution functions (Kolmogorov and Smirnov), which
    no width of bins enters: the least sum of false positive and false negative rate.
    """
    x, y = roc_points(score, label)
    return float(1 - (y - x).max())


def roc_points(
    score: NDArray[np.float32], label: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return false and true positive rates over all thresholds, from (0, 0) to (1, 1)."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)
    hits = np.cumsum(label[order])[last]
    taken = np.flatnonzero(last) + 1
    rates = (taken - hits) / (~label).sum(), hits / label.sum()
    return np.insert(rates[0], 0, 0.0), np.insert(rates[1], 0, 0.0)


def mean_roc(
    runs: Sequence[Tested], points: int = MOST_POINTS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average ROC curves vertically: the mean true positive rate at each false positive rate.

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


def histograms(by_method: Mapping[str, Tested], name: str, alt: str) -> str:
    """Draw the scores of normal and anomalous test images, a panel for each method."""
    import seaborn as sns

    across = min(2, len(by_method))
    down = -(-len(by_method) // across)
    with plotting(name) as plt:
        figure, axes = plt.subplots(
            down, across, figsize=(WIDTH, 0.35 + 1.35 * down), squeeze=False, layout="constrained"
        )
        for axis in axes.flat[len(by_method) :]:
            axis.set_axis_off()
        for axis, (method, (score, label)) in zip(axes.flat, by_method.items(), strict=False):
            edges = np.histogram_bin_edges(score, 25)
            for kind, colour in ((False, NORMAL), (True, ANOMALOUS)):
                sns.histplot(
                    x=score[label == kind].astype(float), stat="probability", bins=edges,
                    element="step", color=colour, alpha=0.45, linewidth=1,
                    linestyle="--" if kind else "-", ax=axis,
                )  # fmt: skip
            axis.set_title(f"{method}: overlap {overlap(score, label):.2f}")
            axis.set(xlabel="", ylabel="")
            axis.locator_params(nbins=4)
        figure.supxlabel("anomaly score", fontsize=8)
        figure.supylabel("share of images", fontsize=8)
        return svg(figure, alt)


def roc(by_method: Mapping[str, Sequence[Tested]], name: str, alt: str) -> str:
    """Draw the mean ROC curve of each method; the first one's seeds thin beside it."""
    with plotting(name) as plt:
        figure, axis = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
        styles = zip(PALETTE, ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), "-", ":"),
                     strict=True)  # fmt: skip
        for i, ((method, runs), (colour, line)) in enumerate(
            zip(by_method.items(), styles, strict=False)
        ):
            if i == 0 and len(runs) > 1:
                for one in runs:
                    axis.plot(*mean_roc([one]), color=colour, linewidth=0.5, alpha=0.5)
            axis.plot(*mean_roc(runs), label=method, color=colour, linestyle=line, linewidth=1.4)
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.7)
        axis.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        axis.legend(loc="lower right")
        return svg(figure, alt)


def drawings(stored: Stored, reader: Reader) -> Iterator[Drawing]:
    """Give histograms and ROC curves for each place and number of shots."""
    for place, shots in choice.cells(stored):
        found = choice.best_ways(stored, place, shots)
        if all(way.method == REFERENCE for way in found):
            continue
        where = f"{name_of(place)}, {shots_of(shots)}"
        yield _scores(found, where, reader)
        yield _roc(found, where, reader)


def _scores(found: Sequence[Way], where: str, reader: Reader) -> Drawing:
    shown = [way for way in found if way.method != REFERENCE][:MOST_PANELS]
    scores = {way.name: next(iter(reader.tested(way))) for way in shown}
    name, title = key("scores", where), f"Scores on {where}"
    told = [f"{m} {overlap(*tested):.2f}" for m, tested in scores.items()]
    normal, anomalous = _counts(next(iter(scores.values())))
    seeds = sorted({way.runs[0]["spec"]["seed"] for way in shown})
    left_out = len(found) - len(shown) - any(way.method == REFERENCE for way in found)
    note = (
        f"{normal} normal test images (blue, solid line) and {anomalous} anomalous ones"
        " (vermilion, dashed), without the labelled anomalies; each class sums to one. Overlap is"
        " the least sum of false positive and false negative rate that a threshold can reach: 0"
        " where one parts the classes, 1 where none tells anything. It is that of the seed shown,"
        f" the lowest that ran ({', '.join(map(str, seeds))}). {choice.RULE}."
        + (f" {left_out} more methods ran." if left_out else "")
    )
    alt = f"Histograms of anomaly scores on {where}. Overlap of the classes: {listed(told)}."
    return Drawing(name, "scores", title, note, alt, histograms(scores, name, alt))


def _roc(found: Sequence[Way], where: str, reader: Reader) -> Drawing:
    shown = found[: len(PALETTE)]
    runs = {way.name: list(reader.tested(way)) for way in shown}
    labels = {
        f"{m}: {choice.mean_auroc(r):.3f}" + (f" ({len(r)} seeds)" if len(r) > 1 else ""): r
        for m, r in runs.items()
    }
    name, title = key("roc", where), f"ROC on {where}"
    note = (
        "Each curve is the mean of its seeds’ curves at each false positive rate, so the area"
        " under it is their mean AUROC, in the legend; at most the first"
        f" {choice.MOST_SEEDS} seeds are read. Thin lines are single seeds of the first method. The grey diagonal is chance;"
        f" {REFERENCE} scores by one image statistic."
    )
    alt = f"ROC curves on {where}. Area under the curve: {listed(list(labels))}."
    return Drawing(name, "scores", title, note, alt, roc(labels, name, alt))


def _counts(tested: Tested) -> tuple[int, int]:
    return int((~tested[1]).sum()), int(tested[1].sum())
