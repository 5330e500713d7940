"""What a campaign asks of an engine: to start runs, say what becomes of them, and stop."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.execution.messages import Message
from bench.planning.slots import Slot
from bench.store.groups import Provenance
from bench.text import hours

if TYPE_CHECKING:
    from bench.planning.plan import Run

TIME_LIMIT = "time limit"
_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT}


@dataclass(frozen=True)
class Order:
    """A run to make."""

    run: "Run"
    staged: Path
    """A folder of this run alone, from which it is published."""
    keep: frozenset[str] = frozenset()
    """The abilities whose files the run keeps beside its scores, see `bench.store.artifacts`."""
    replaces: str = ""
    """Digest of the stale receipt to supersede, or empty."""


@dataclass(frozen=True)
class Ended:
    """A run that is over."""

    key: str
    exit_code: int | None
    seconds: float
    stopped: str = ""
    """Why the engine ended it: `time limit` or the reason given to `stop`; else empty."""
    lost: str = ""
    """With what it was lost, so that nothing is known of it; else empty."""
    limit: float = 0.0
    """The time limit in seconds, where that ended it."""
    missing: str = ""
    """What no machine has that the run needs, with the remedy; else empty."""

    @property
    def kind(self) -> str:
        """Cause of the end: `method`, `time limit` or `killed`."""
        if self.stopped:
            return "time limit" if self.stopped == TIME_LIMIT else "method"
        return "killed" if self.lost or self.exit_code in _FROM_OUTSIDE else "method"

    @property
    def reason(self) -> str:
        """How the run ended, for its failure record."""
        if self.stopped == TIME_LIMIT:
            longer = hours(2 * self.limit).replace(" ", "")
            return (
                f"ran into the time limit: stopped after {hours(self.limit)}; run again with"
                f" `--timeout {longer} --retry-failed`"
            )
        if self.stopped:
            return self.stopped
        if self.lost:
            return f"was lost with {self.lost}"
        if self.exit_code is not None and self.exit_code < 0:
            name = signal.strsignal(-self.exit_code) or f"signal {-self.exit_code}"
            hint = "; out of memory?" if self.exit_code == -signal.SIGKILL else ""
            return f"was ended by a signal ({name}{hint})"
        return f"ended with exit code {self.exit_code} without a result"


class Engine(Protocol):
    """Makes runs in slots, wherever these are."""

    @property
    def free(self) -> Sequence[Slot]:
        """Slots that wait for work."""

    @property
    def running(self) -> bool:
        """Whether any run is under way."""

    @property
    def pids(self) -> Sequence[int]:
        """Ids of this machine's processes under way."""

    def about(self, run: "Run", slot: Slot) -> Provenance:
        """Return the provenance known before a run begins."""

    def start(self, order: Order, slot: Slot, meanwhile: Callable[[], None]) -> Provenance:
        """Start a run in a free slot; return what is known of it by then.

        While that lasts, `meanwhile` is called now and then. Raises DataError.
        """

    def events(self, timeout: float) -> Iterator[tuple[str, Message] | Ended]:
        """Yield messages and ends of runs within `timeout` seconds."""

    def stop(self, key: str, why: str) -> Ended:
        """End a run that has gone wrong."""
