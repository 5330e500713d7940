"""Tables that a page has only where their runs exist."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TableSection:
    """A table with a section of its own."""

    key: str
    """Its anchor, and the name of its exported files."""
    title: str
    reading: str
    """How it is read, and what it says."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
