"""What the doctor says of one thing."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    group: str
    state: Literal["ok", "note", "bad"]
    what: str
    found: str
    todo: str = ""
    """What to do, for all that is not ok."""


def judge(group: str, what: str, found: str, todo: str, bad: bool = False) -> Finding:
    """Return a finding that is ok where nothing is to be done."""
    return Finding(group, "ok" if not todo else "bad" if bad else "note", what, found, todo)
