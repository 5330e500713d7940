"""All figures of a report: what there is to draw from stored runs, and how many of it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

from bench.report.figures import ablation, scores
from bench.report.figures.choice import Reader
from bench.report.figures.drawing import SECTIONS as SECTIONS
from bench.report.figures.drawing import Drawing as Drawing
from bench.report.pictures import Pictures
from bench.report.tables import Stored

MOST: dict[str, int] = {"scores": 48, "ablation": 24}
"""How many figures of a section a page has room for; those of the paper's places come first."""


def drawings(stored: Stored, pictures: Pictures | None) -> Iterator[Drawing]:
    """Give the figures section by section; the same runs and pictures give the same bytes."""
    reader = Reader(stored)
    makers: dict[str, Callable[[], Iterator[Drawing]]] = {
        "scores": lambda: scores.drawings(stored, reader),
        "ablation": lambda: ablation.drawings(stored),
    }
    keys: set[str] = set()
    for section in SECTIONS:
        if section in makers:
            for drawing in _first(makers[section](), MOST[section]):
                yield _with_own_key(drawing, keys)


def _first(found: Iterator[Drawing], most: int) -> Iterator[Drawing]:
    for _, drawing in zip(range(most), found, strict=False):
        yield drawing


def _with_own_key(drawing: Drawing, taken: set[str]) -> Drawing:
    """Number the keys of figures whose names differ only in what a key leaves out."""
    keys = (drawing.key if i == 1 else f"{drawing.key}-{i}" for i in count(1))
    key = next(k for k in keys if k not in taken)
    taken.add(key)
    return replace(drawing, key=key)
