"""Figures with their texts, and sections that hold them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.analysis.configurations import StoredRuns
from bench.analysis.selection import ScoreCache
from bench.report.pictures import Pictures


class Numbers(NamedTuple):
    """What a figure shows, as a table."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Each as long as `columns`, named by its first value."""


@dataclass(frozen=True)
class Figure:
    """One figure."""

    slug: str
    """Its name among all figures of a page: a-z, 0-9 and hyphens."""
    section: str
    """Key of its section."""
    title: str
    note: str
    """Its particulars in a sentence or two; the section says how to read it."""
    alt: str
    """Its content in words and numbers."""
    svg: str
    """One <svg> element without styles, scripts or links, for a strict content security policy."""
    numbers: tuple[Numbers, ...] = ()
    points: Callable[[], Numbers] | None = field(default=None, compare=False)
    """All points of its curves, for a file beside the page: too many to read."""


class Sources(NamedTuple):
    """What figures are drawn from."""

    stored: StoredRuns
    reader: ScoreCache
    pictures: Pictures | None


FigurePlan = Callable[[], Figure | None]
"""Draws a figure; None where the run keeps too little for it."""


class Kind(NamedTuple):
    """Figures of one kind: most on a page, and plans."""

    most: int
    plans: Callable[[Sources], Sequence[FigurePlan]]


@dataclass(frozen=True)
class Section:
    """A section of a page: figures that are read alike."""

    key: str
    title: str
    """Numbers in it are those of the paper's figures."""
    reading: str
    """How its figures are read, and what they show."""
    kinds: Mapping[str, Kind]


def slug(*parts: object) -> str:
    """Return a name for a file or link, made of the subject."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, parts)).lower()).strip("-")[:80]
