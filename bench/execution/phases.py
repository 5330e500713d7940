"""How long the phases of a run take."""

import time
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

    def step(self) -> None:
        """Record when the first training step begins."""
        if self.first_step is None:
            self.first_step = round(time.monotonic() - self._started, 4)
