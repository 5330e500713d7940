"""Figures of the report as SVG: the same inputs give the same bytes."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.scores import Scores

NORMAL, ANOMALOUS = "#0072b2", "#d55e00"
"""Blue and vermilion of Okabe and Ito's palette, told apart by all common kinds of sight."""
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_STYLE = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}


def counted(scores: Scores) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return scores and labels of the images that count."""
    test = np.array([role == "test" for role in scores.role])
    return scores.score[test], scores.label[test]


def overlap(score: NDArray[np.float32], label: NDArray[np.bool_]) -> float:
    """Return how far the two classes overlap, in [0, 1]; 0 where a threshold parts them.

    One minus the largest distance of their distribution functions (Kolmogorov and Smirnov), which
    no width of bins enters: the least sum of false positive and false negative rate.
    """
    x, y = roc_points(score, label)
    return float(1 - (y - x).max())


def histograms(by_method: Mapping[str, Scores], title: str) -> str:
    """Draw the scores of normal and anomalous test images, a panel for each method (Figure 3)."""
    import seaborn as sns

    plt = _pyplot()
    across = min(3, len(by_method))
    down = -(-len(by_method) // across)
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(
            down, across, figsize=(2.6 * across, 1.9 * down), squeeze=False, layout="constrained"
        )
        for axis in axes.flat[len(by_method) :]:
            axis.set_axis_off()
        for axis, (method, scores) in zip(axes.flat, by_method.items(), strict=False):
            score, label = counted(scores)
            edges = np.histogram_bin_edges(score, 30)
            for kind, colour in ((0, NORMAL), (1, ANOMALOUS)):
                sns.histplot(
                    x=score[label == kind], stat="probability", bins=edges, color=colour,
                    alpha=0.55, linewidth=0, ax=axis,
                )  # fmt: skip
            axis.set_title(f"{method}: overlap {overlap(score, label):.2f}")
            axis.set_xlabel("anomaly score")
            axis.set_ylabel("share of images")
        return _svg(figure, title)


def roc(by_method: Mapping[str, Scores], title: str) -> str:
    """Draw the ROC curve of each method."""
    plt = _pyplot()
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(2.9, 2.6), layout="constrained")
        for (method, scores), colour in zip(by_method.items(), PALETTE, strict=False):
            x, y = roc_points(*counted(scores))
            axis.plot(x, y, label=method, color=colour, linewidth=1.3)
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.7, linestyle=":")
        axis.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        axis.legend(frameon=False, fontsize=7, loc="lower right")
        return _svg(figure, title)


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


def intervals(rows: Sequence[tuple[str, float, tuple[float, float] | None]], title: str) -> str:
    """Draw differences with their intervals, a line each, beside zero."""
    plt = _pyplot()
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(5.2, 0.5 + 0.32 * len(rows)), layout="constrained")
        for y, (_, mean, interval) in enumerate(rows):
            if interval is not None:
                axis.plot(interval, [y, y], color=NORMAL, linewidth=2)
            axis.plot([mean], [y], "o", color=NORMAL, markersize=4)
        axis.axvline(0, color="0.6", linewidth=0.8)
        axis.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axis.invert_yaxis()
        axis.set_xlabel("difference of AUROC")
        return _svg(figure, title)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    return plt


def _svg(figure: Any, title: str) -> str:
    """Return a figure as an SVG element that keeps to a strict content security policy.

    Matplotlib writes style attributes; they become presentation attributes.
    """
    from html import escape

    import matplotlib.pyplot as plt

    sink = io.StringIO()
    plt.rcParams["svg.hashsalt"] = title  # ids are of this figure alone
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' style="([^"]*)"', _attributes, text)
    text = re.sub(r' id="[a-z0-9.]+_\d+"', "", text)  # alike in every figure, and never referred to
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", text)
    text = re.sub(r"\s*\n\s*", " ", text)
    head = f'<svg role="img" aria-label="{escape(title)}" stroke-linejoin="round"'
    return re.sub(r"^<svg", head, text)


def _attributes(found: re.Match[str]) -> str:
    """Turn `fill: none; font: 8px 'x', y` into attributes."""
    pairs = [part.partition(":")[::2] for part in found[1].split(";") if part.strip()]
    said: dict[str, str] = {}
    for name, value in ((n.strip(), v.strip()) for n, v in pairs):
        if name == "font":
            size, _, family = value.partition(" ")
            said |= {"font-size": size, "font-family": family}
        else:
            said[name] = value
    return "".join(f' {name}="{value}"' for name, value in said.items())
