"""Queue for memory: who waits, and who is tried again."""

import collections
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from bench.planning.plan import Run
from bench.planning.resources import measured_bytes
from bench.planning.runtime import step_key
from bench.store.receipt import Receipt
from bench.system.host import available_memory, oom_kills, resident_memory, total_memory
from bench.text import gibibytes

TRIES = 3
"""How often a run is started that runs out of memory."""
LONGEST_WAIT = 300.0
"""Seconds that a run waits for what other programs hold, before it is tried all the same."""


@dataclass
class Room:
    """Memory that runs need beside each other.

    It is what stored runs took, or runs reported. A run that was out of memory is
    started again by itself: others may have held what it needed. A GPU's memory is not asked here,
    since that takes a part of it.
    """

    keep: Collection[str]
    active: dict[str, tuple[Run, str, int | None]] = field(default_factory=dict)
    """Runs under way, their devices and the kernel's kills before they began."""
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    """How often a run has been out of memory."""
    needs: dict[str, int] = field(default_factory=dict)
    """What runs have reported that they need, in bytes."""
    shared: set[str] = field(default_factory=set)
    """Runs that have shared the memory of their device with another one."""
    waiting_since: dict[str, float] = field(default_factory=dict)
    """When a run began to wait for other programs, by time.monotonic()."""
    claims: dict[str, str] = field(default_factory=dict)
    """The device that a run waits for until nothing else runs there."""
    _measured: dict[object, int | None] = field(default_factory=dict)

    def started(self, run: Run, device: str) -> None:
        """Note that a run is under way."""
        others = self._others(device)
        self.shared.discard(run.run_id)
        if others:
            self.shared |= {run.run_id, *(other.run_id for other in others)}
        self.active[run.run_id] = (run, device, oom_kills())
        self.waiting_since.pop(run.run_id, None)
        self.claims.pop(run.run_id, None)

    def killed_for_memory(self, run: Run) -> bool:
        """Whether the kernel killed for memory meanwhile."""
        _, _, before = self.active[run.run_id]
        now = oom_kills()
        return before is not None and now is not None and now > before

    def ended(self, run: Run) -> None:
        """Note that a run's process is over."""
        self.active.pop(run.run_id, None)

    def reason_to_wait(
        self, run: Run, device: str, receipts: Iterable[Receipt], pids: Iterable[int]
    ) -> str:
        """Return why a run cannot be started now; empty if it can.

        `receipts` are stored runs, `pids` the processes under way.
        """
        others = self._others(device)
        free = available_memory()
        if self.failures[run.run_id]:
            if others:
                self.claims.setdefault(run.run_id, device)
                return f"ran out of memory: waits to run alone on {device}"
            need = self.need(run, receipts)
            if device != "cpu" or need is None or free is None or need <= free:
                return ""
            now = time.monotonic()
            waited = now - self.waiting_since.setdefault(run.run_id, now)
            if not self._could_fit(need) or waited > LONGEST_WAIT:
                return ""
            return (
                f"it needs about {gibibytes(need)}, and other programs leave {gibibytes(free)} of"
                f" memory: it waits for up to {LONGEST_WAIT:.0f} s"
            )
        if any(self.failures[other.run_id] for other in others):
            return "another run was short of memory, and is alone until it ends"
        if device != "cpu" or not others or free is None:
            return ""
        needs = [self.need(r, receipts) for r in (run, *others)]
        known = [need for need in needs if need is not None]
        room = free + sum(map(resident_memory, pids))
        if len(known) < len(needs) or sum(known) <= room:
            return ""
        return (
            f"it may need {gibibytes(known[0])} of memory, and those under way leave"
            f" {gibibytes(max(0, room - sum(known[1:])))}: it waits for them (fewer --slots, or a"
            " smaller image_size or batch_size, need less)"
        )

    def holds(self, run: Run, device: str) -> bool:
        """Whether a run that waits keeps all others off a device.

        It does where it waits to be alone there, and where another one is alone already.
        """
        alone = any(self.failures[other.run_id] for other in self._others(device))
        return alone or self.claims.get(run.run_id) == device

    def should_retry(
        self, run: Run, device: str, need: int | None, receipts: Iterable[Receipt]
    ) -> bool:
        """Whether a run that was out of memory is started again.

        That is so where others were under way beside it, or other programs hold what it needs now.
        """
        if need is not None:
            self.needs[run.run_id] = max(need, self.needs.get(run.run_id, 0))
        self.failures[run.run_id] += 1
        if self.failures[run.run_id] >= TRIES:
            return False
        if run.run_id in self.shared:
            return True
        need, free = self.need(run, receipts), available_memory()
        short = device == "cpu" and need is not None and free is not None and need > free
        return short and self._could_fit(need or 0)

    def need(self, run: Run, receipts: Iterable[Receipt]) -> int | None:
        """Return the bytes that a run may need, None if unknown."""
        if run.run_id in self.needs:
            return self.needs[run.run_id]
        key = (step_key(run.spec), len(run.listing.files))
        if self._measured.get(key) is None:  # there may be a stored run by now
            self._measured[key] = measured_bytes([run], receipts, "cpu", self.keep)
        return self._measured[key]

    def _others(self, device: str) -> list[Run]:
        return [run for run, where, _ in self.active.values() if where == device]

    def _could_fit(self, need: int) -> bool:
        total = total_memory()
        return total is not None and need <= total
