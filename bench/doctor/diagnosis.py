"""What the doctor says of one thing."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was checked."""

    group: str
    state: Literal["ok", "note", "bad"]
    what: str
    found: str
    todo: str = ""
    """What to do, for all that is not ok."""


def diagnose(group: str, what: str, found: str, todo: str, bad: bool = False) -> Diagnosis:
    """Return a finding that is ok where nothing is to be done."""
    return Diagnosis(group, "ok" if not todo else "bad" if bad else "note", what, found, todo)
