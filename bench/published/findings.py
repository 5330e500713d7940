"""A finding of the audit, and how it names published numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.published.tables import NAMES, Key, PublishedTable
from bench.text import shots_in_words

CONFIDENCE = (
    "computed",
    "computed; in part from numbers restated by others",
    "read in source",
    "restated by others",
    "measured",
    "likely, not proven",
)
"""How a finding is known; what is only remembered is no finding."""


@dataclass(frozen=True)
class Finding:
    """What a reader of a published table should know."""

    key: str
    about: str
    """The title of the table, or what else it is about."""
    text: str
    evidence: tuple[str, ...]
    """Numbers that support it, a line each."""
    source: str
    confidence: str
    """One of `CONFIDENCE`."""


def computed(
    key: str, tables: Sequence[PublishedTable], text: str, evidence: Iterable[str] = ()
) -> Finding:
    """Return a finding about the first of its tables."""
    restated = any(t.confidence == "restated by others" for t in tables)
    source = "; ".join(dict.fromkeys(t.title for t in tables))
    name = f"{tables[0].name}-{key}"
    return Finding(name, tables[0].title, text, tuple(evidence), source, CONFIDENCE[restated])


def method(key: Key) -> str:
    """Return the name of a number's column."""
    return NAMES[key.method] + (f", {shots_in_words(key.shots)}" if key.shots else "")


def cell(key: Key) -> str:
    """Return a number's name by row and column."""
    return f"{key.category}, {method(key)}"


def mean_of(key: Key) -> str:
    """Return the name of a published mean."""
    over = {"mean_texture": " over textures", "mean_object": " over objects"}
    return f"mean{over.get(key.category, '')} of {method(key)}"
