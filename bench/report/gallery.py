"""All figures of a report: what there is to draw from stored runs, and how many of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count

from bench.analysis.configurations import StoredRuns
from bench.analysis.selection import ScoreCache
from bench.report.figures import ablation, clusters, ranks, saliency, scores, speed, trends
from bench.report.figures.figure import SECTIONS as SECTIONS
from bench.report.figures.figure import Figure as Figure
from bench.report.pictures import Pictures

MOST = {
    "ablation": 20, "zoom": 5, "crops": 5, "clusters": 5, "histograms": 20, "roc": 40, "shots": 20,
    "defects": 20, "ranks": 4, "time": 4,
}  # fmt: skip
"""How many figures of a kind a page has room for: first those with the most shots, and of these
the paper's places."""
READING = {
    "zoom": saliency.ZOOM, "scores": scores.READING, "clusters": clusters.READING,
    "crops": saliency.CROPS, "shots": trends.SHOTS, "defects": trends.DEFECTS,
    "ranks": ranks.READING, "ablation": ablation.READING, "time": speed.READING,
}  # fmt: skip
"""How the figures of a section are read, and what they show."""
Plan = Callable[[], Figure | None]


def drawings(stored: StoredRuns, pictures: Pictures | None) -> Iterator[Figure]:
    """Give the figures in the order of `SECTIONS`; the same runs and pictures give the same bytes.

    The same, that is, on one machine with one set of libraries.
    """
    taken: set[str] = set()
    for kind, plans in _plans(stored, pictures).items():
        # None: what the run keeps is not what such a figure shows
        drawn = [drawing for plan in plans[: MOST[kind]] if (drawing := plan())]
        if drawn and len(plans) > MOST[kind]:
            note = f"{drawn[-1].note} {_left_out(len(plans) - MOST[kind])}"
            drawn[-1] = replace(drawn[-1], note=note)
        for drawing in drawn:
            yield _with_own_key(drawing, taken)


def _plans(stored: StoredRuns, pictures: Pictures | None) -> dict[str, Sequence[Plan]]:
    """Return by kind what could be drawn, in the order of the sections; nothing is drawn yet."""
    reader = ScoreCache(stored)
    return {
        "ablation": ablation.plans(stored),
        "zoom": saliency.zooms(stored, reader, pictures),
        "crops": saliency.crops(stored, reader, pictures),
        "clusters": clusters.plans(stored, reader),
        "histograms": scores.histogram_plans(stored, reader),
        "roc": scores.roc_plans(stored, reader),
        "shots": trends.by_shots(stored),
        "defects": trends.by_defect(stored, reader),
        "ranks": ranks.plans(stored),
        "time": speed.plans(stored),
    }


def _left_out(number: int) -> str:
    figures = "figure" if number == 1 else "figures"
    return f"{number} more {figures} of this kind could be drawn of these runs and are left out."


def _with_own_key(drawing: Figure, taken: set[str]) -> Figure:
    """Number the keys of figures whose names differ only in what a key leaves out."""
    keys = (drawing.slug if i == 1 else f"{drawing.slug}-{i}" for i in count(1))
    own = next(k for k in keys if k not in taken)
    taken.add(own)
    return replace(drawing, slug=own)
