"""Result of one of the doctor's checks."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Diagnosis:
    """Result of one check."""

    group: str
    state: Literal["ok", "note", "bad"]
    what: str
    found: str
    todo: str = ""
    """What to do if the state is not ok."""


def diagnose(group: str, what: str, found: str, todo: str, bad: bool = False) -> Diagnosis:
    """Return a diagnosis, ok if nothing is to do."""
    return Diagnosis(group, "ok" if not todo else "bad" if bad else "note", what, found, todo)
