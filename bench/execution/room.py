"""Room for runs in the machine's memory: who waits, and who is started again."""

import collections
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench.planning.plan import Run
from bench.planning.resources import memory_of
from bench.planning.runtime import step_key
from bench.planning.variants import variant_of
from bench.store.receipt import Receipt
from bench.system.host import available_memory, oom_kills, resident_memory, total_memory
from bench.text import gibibytes

RUN_MODULES = ("torchvision", "bench.execution.worker")
"""What a run's process imports before it begins."""
TRIES = 3
"""How often a run is started that finds no memory."""
LONGEST_WAIT = 300.0
"""Seconds that a run waits for what other programs hold, before it is tried all the same."""


@dataclass
class Room:
    """Memory that runs need beside each other, by what is foretold and what they have told.

    A run that failed for want of memory is started again by itself: others may have held what it
    needed. Only of the CPU's memory is anything foretold; a GPU's is not asked here, since that
    takes a part of it.
    """

    data: Path
    keep: Collection[str]
    active: dict[str, tuple[Run, str, int | None]] = field(default_factory=dict)
    """Runs under way with their devices, and the kills for want of memory before they began."""
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    """How often a run has failed for want of memory."""
    needs: dict[str, int] = field(default_factory=dict)
    """What runs have told that they need, in bytes."""
    beside: set[str] = field(default_factory=set)
    """Runs that have shared the memory of their device with another one."""
    since: dict[str, float] = field(default_factory=dict)
    """When a run began to wait for other programs, by time.monotonic()."""
    _foretold: dict[object, int | None] = field(default_factory=dict)

    def started(self, run: Run, device: str) -> None:
        """Note that a run is under way."""
        others = self._others(device)
        self.beside.discard(run.run_id)
        if others:
            self.beside |= {run.run_id, *(other.run_id for other in others)}
        self.active[run.run_id] = (run, device, oom_kills())
        self.since.pop(run.run_id, None)

    def killed(self, run: Run) -> bool:
        """Whether the system has killed a process for want of memory while a run was under way."""
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
                return f"memory was short, so it waits until nothing else runs on {device}"
            need = self.need(run, receipts)
            if device != "cpu" or need is None or free is None or need <= free:
                return ""
            waited = time.monotonic() - self.since.setdefault(run.run_id, time.monotonic())
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

    def again(self, run: Run, device: str, need: int | None, receipts: Iterable[Receipt]) -> bool:
        """Whether a run that found no memory is to be started again.

        That is so where others were under way beside it, or other programs hold what it needs now.
        """
        if need is not None:
            self.needs[run.run_id] = max(need, self.needs.get(run.run_id, 0))
        self.failures[run.run_id] += 1
        if self.failures[run.run_id] >= TRIES:
            return False
        if run.run_id in self.beside:
            return True
        need, free = self.need(run, receipts), available_memory()
        short = device == "cpu" and need is not None and free is not None and need > free
        return short and self._could_fit(need or 0)

    def need(self, run: Run, receipts: Iterable[Receipt]) -> int | None:
        """Return the bytes that a run may need, None if unknown."""
        if run.run_id in self.needs:
            return self.needs[run.run_id]
        key = (step_key(run.spec), len(run.listing.files))
        if self._foretold.get(key) is None:  # a stored run may tell by now
            self._foretold[key] = self._likely(run, receipts)
        return self._foretold[key]

    def _likely(self, run: Run, receipts: Iterable[Receipt]) -> int | None:
        """Return the estimated or measured bytes of a run, whichever is larger."""
        variant = variant_of(run.planned)
        same = [r for r in receipts if step_key(r.spec) == step_key(run.spec)]
        try:
            memory = memory_of(variant, [run], same, "cpu", self.data, RUN_MODULES, self.keep)
        except Exception:  # whatever a method from outside does; its run will tell
            return None
        return memory.likely

    def _others(self, device: str) -> list[Run]:
        return [run for run, where, _ in self.active.values() if where == device]

    def _could_fit(self, need: int) -> bool:
        total = total_memory()
        return total is not None and need <= total
