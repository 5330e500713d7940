"""What a figure is: a picture with all that is said of it."""

import hashlib
import re
from dataclasses import dataclass

from bench.finding import joined
from bench.outside import shown
from bench.published import NAMES
from bench.report.stored import Place
from bench.stats import Estimate

SECTIONS = (
    "ablation", "zoom", "crops", "clusters", "scores", "shots", "defects", "ranks", "time",
)  # fmt: skip
"""Kinds of figures in the order of a page: the title's question, Figures 1, 5, 4 and 3, and what
the paper lacks."""
LONGEST = 40
"""Characters of a name from outside that a figure has room for."""


@dataclass(frozen=True)
class Drawing:
    """One figure."""

    key: str
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


def key(*parts: object) -> str:
    """Return a name for a file or a link, made of what it is about."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, parts)).lower()).strip("-")[:80]


def name_of(place: Place) -> str:
    """Return `dataset/category`, or the dataset where it has no categories."""
    return brief(place[0] if place[0] == place[1] else f"{place[0]}/{place[1]}")


def method_name(method: str) -> str:
    """Return a method's name as it is written in print."""
    return NAMES.get(method, brief(method))


def brief(text: str, longest: int = LONGEST) -> str:
    """Return a name from outside on one line, cut where it is too long for a figure.

    Names that begin alike are told apart by what is put in place of the rest.
    """
    line = shown(text).encode(errors="backslashreplace").decode()
    if len(line) <= longest:
        return line
    mark = hashlib.sha256(line.encode()).hexdigest()[:4]
    return f"{line[: longest - 5]}\N{HORIZONTAL ELLIPSIS}{mark}"


def estimated(estimate: Estimate) -> str:
    """Write a mean of AUROC with its number of seeds and its interval, which ends at 0 and 1."""
    if estimate.interval is None:
        return f"{estimate.mean:.3f} (one seed)"
    low, high = (min(1.0, max(0.0, end)) for end in estimate.interval)
    return f"{estimate.mean:.3f} ({low:.3f} to {high:.3f}, {estimate.n} seeds)"


def signed(value: float, digits: int = 3) -> str:
    """Write a difference with its sign."""
    rounded = round(value, digits) or 0.0  # no minus zero
    return f"{rounded:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def listed(words: list[str]) -> str:
    """Write words as a list in a sentence; nothing for none."""
    return joined(words) if words else ""
