"""Load of the machine by others while something is measured."""

import time
from typing import Any

from bench.system.device import gpu_megahertz, other_gpu_processes
from bench.system.host import busy_seconds, load_average, machine_cores, megahertz, own_seconds

BUSY = 0.1
"""Share of all cores that others may use before it counts as a disturbance."""
CROWDED = 1.25
"""Load average per core before it began; a run before this one may have used all cores."""
SHORTEST = 0.5
"""Shortest interval to judge, in seconds; the kernel counts in hundredths."""


class LoadMonitor:
    """Monitors the machine over intervals."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._load = load_average()
        self._shares: list[float] = []
        self._clocks: list[float] = []
        self._begin()

    def _begin(self) -> None:
        self._since, self._busy, self._own = time.monotonic(), busy_seconds(), own_seconds()

    def lap(self) -> None:
        """End an interval and begin the next."""
        seconds, busy = time.monotonic() - self._since, busy_seconds()
        if busy is not None and self._busy is not None and seconds >= SHORTEST:
            others = busy - self._busy - (own_seconds() - self._own)
            self._shares.append(max(0.0, others / seconds / machine_cores()))
        self._begin()

    def look_at_clock(self) -> None:
        """Read the processor's or GPU's clock."""
        cuda = self._device.startswith("cuda")
        read = gpu_megahertz(self._device) if cuda else megahertz()
        if read is not None:
            self._clocks.append(read)

    def provenance(self) -> dict[str, Any]:
        """Return what was measured, and what disturbed it."""
        facts: dict[str, Any] = {}
        reasons = []
        cores = machine_cores()
        if self._shares:
            facts["other_cpu_share"] = share = round(max(self._shares), 4)
            if share > BUSY:
                reasons.append(f"other processes used {share * cores:.1f} of {cores} cores")
        if self._clocks:
            facts |= {"mhz_low": min(self._clocks), "mhz_high": max(self._clocks)}
        others = other_gpu_processes(self._device) if self._device.startswith("cuda") else None
        if others is not None:
            facts["other_gpu_processes"] = others
            if others:
                reasons.append(f"{others} other process{'es' * (others > 1)} used the GPU")
        if self._load > CROWDED * cores:
            reasons.append(f"load average {self._load:.1f} on {cores} cores before it began")
        return {**facts, "disturbed": "; ".join(reasons)}
