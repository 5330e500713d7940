"""All figures of a report, section by section."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from bench.report.figures import ablation, clusters, ranks, saliency, scores, speed, trends
from bench.report.figures.figure import Figure, Section, Sources

SECTIONS: tuple[Section, ...] = (
    ablation.SECTION,
    saliency.ZOOM,
    saliency.CROPS,
    clusters.SECTION,
    scores.SECTION,
    trends.SHOTS,
    trends.DEFECTS,
    ranks.SECTION,
    speed.SECTION,
)
"""In the order of a page: the title's question, Figures 1, 5, 4 and 3, and what the paper lacks."""


def draw_figures(sources: Sources) -> Iterator[Figure]:
    """Yield figures by section, most shots first.

    On one machine with one set of libraries, the same runs and pictures give the same bytes.
    """
    taken: set[str] = set()
    for kind in (kind for section in SECTIONS for kind in section.kinds.values()):
        plans = kind.plans(sources)
        figures = [figure for plan in plans[: kind.most] if (figure := plan())]
        if figures and len(plans) > kind.most:
            note = f"{figures[-1].note} {_left_out(len(plans) - kind.most)}"
            figures[-1] = replace(figures[-1], note=note)
        for figure in figures:
            yield _with_own_slug(figure, taken)


def _left_out(number: int) -> str:
    figures = "figure" if number == 1 else "figures"
    return f"{number} more {figures} of this kind could be drawn of these runs and are left out."


def _with_own_slug(figure: Figure, taken: set[str]) -> Figure:
    """Number slugs that would be equal."""
    slugs = (figure.slug if i == 1 else f"{figure.slug}-{i}" for i in count(1))
    own = next(slug for slug in slugs if slug not in taken)
    taken.add(own)
    return replace(figure, slug=own)
