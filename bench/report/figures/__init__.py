"""Figures of the report as SVG, a module for each kind: what to show, what to say, how to draw."""

from collections.abc import Mapping, Sequence

from bench.report.figures import ablation, scores
from bench.report.figures.choice import counted
from bench.report.figures.scores import overlap as overlap
from bench.report.figures.scores import roc_points as roc_points
from bench.scores import Scores
from bench.stats import Estimate


def histograms(by_method: Mapping[str, Scores], title: str) -> str:
    """Draw what `bench.report.gallery` draws; for the page as it is until it takes that."""
    return scores.histograms({m: counted(s) for m, s in by_method.items()}, title, title)


def roc(by_method: Mapping[str, Scores], title: str) -> str:
    """Draw what `bench.report.gallery` draws; for the page as it is until it takes that."""
    return scores.roc({m: [counted(s)] for m, s in by_method.items()}, title, title)


def intervals(rows: Sequence[tuple[str, float, tuple[float, float] | None]], title: str) -> str:
    """Draw what `bench.report.gallery` draws; for the page as it is until it takes that."""
    return ablation.intervals([(n, Estimate(m, 0, i)) for n, m, i in rows], title, title)
