"""A finding of the audit, and the words in which numbers in print are named."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.published.tables import NAMES, Key, PrintedTable
from bench.text import shots_in_words

CONFIDENCE = (
    "computed", "computed; in part from numbers restated by others", "read in source",
    "restated by others", "measured", "likely, not proven",
)  # fmt: skip
"""How a finding is known. What was only remembered has no word here: it is no finding."""


@dataclass(frozen=True)
class Finding:
    """One thing that a reader of a table should know."""

    key: str
    about: str
    """The title of the table, or what else it is about."""
    text: str
    evidence: tuple[str, ...]
    """The numbers behind it, a line each."""
    source: str
    confidence: str
    """One of `CONFIDENCE`."""


def computed(
    key: str, tables: Sequence[PrintedTable], text: str, evidence: Iterable[str] = ()
) -> Finding:
    """Make a finding about the first of some printed tables, derived from them alone."""
    restated = any(t.confidence == "restated by others" for t in tables)
    source = "; ".join(dict.fromkeys(t.title for t in tables))
    name = f"{tables[0].name}-{key}"
    return Finding(name, tables[0].title, text, tuple(evidence), source, CONFIDENCE[restated])


def method(key: Key) -> str:
    """Name the column of a number."""
    return NAMES[key.method] + (f", {shots_in_words(key.shots)}" if key.shots else "")


def cell(key: Key) -> str:
    """Name a number by row and column."""
    return f"{key.category}, {method(key)}"


def mean_of(key: Key) -> str:
    """Name a printed mean."""
    over = {"mean_texture": " over textures", "mean_object": " over objects"}
    return f"mean{over.get(key.category, '')} of {method(key)}"
