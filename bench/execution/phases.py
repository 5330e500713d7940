"""How long the phases of a run take."""

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta


class PhaseTimer:
    """Times a run's phases, from the command's request."""

    def __init__(self, started: float) -> None:
        self._started = self._last = started
        self.started_at = datetime.now(UTC) - timedelta(seconds=time.monotonic() - started)
        self.marks: dict[str, float] = {}
        self.first_step: float | None = None

    def mark(self, name: str) -> None:
        """End a phase that began with the last one's end."""
        now = time.monotonic()
        self.marks[name] = round(now - self._last, 4)
        self._last = now

    def pass_over(self) -> None:
        """Leave the time since the last phase out."""
        self._last = time.monotonic()

    @contextlib.contextmanager
    def aside(self, name: str) -> Iterator[None]:
        """Add the time within to a mark of its own, not to the phase under way."""
        began = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - began
            self.marks[name] = round(self.marks.get(name, 0.0) + spent, 4)
            self._last += spent

    def step(self) -> None:
        """Record when the first training step begins."""
        if self.first_step is None:
            self.first_step = round(time.monotonic() - self._started, 4)
