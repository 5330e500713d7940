"""What a figure is: a picture with all that is said of it."""

import re
from dataclasses import dataclass

SECTIONS = (
    "ablation", "zoom", "crops", "clusters", "scores", "shots", "defects", "ranks", "time",
)  # fmt: skip
"""Kinds of figures in the order of a page: the title's question, Figures 1, 5, 4 and 3, and what
the paper lacks."""


@dataclass(frozen=True)
class Figure:
    """One figure."""

    slug: str
    """Its name among all figures of a page: a-z, 0-9 and hyphens."""
    section: str
    """One of `SECTIONS`."""
    title: str
    note: str
    """Its numbers, and what is peculiar to it; how to read its kind is said once for all."""
    alt: str
    """What it says, in words and numbers."""
    svg: str
    """One <svg> element without styles, scripts or links, for a strict content security policy."""


def slug(*parts: object) -> str:
    """Return a name for a file or a link, made of what it is about."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, parts)).lower()).strip("-")[:80]
