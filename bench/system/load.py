"""What else a machine did while something was measured on it."""

import time
from typing import Any

from bench.system.device import gpu_megahertz, other_gpu_processes
from bench.system.host import busy_seconds, load_average, machine_cores, megahertz, own_seconds

BUSY = 0.1
"""Share of the machine's cores that others may use before they count as a disturbance."""
CROWDED = 1.25
"""Load average per core, likewise, before it began: a run before this one may have used all."""
SHORTEST = 0.5
"""Seconds of a stretch that tell anything: the kernel counts in hundredths of a second."""


class Watch:
    """Looks at the machine over stretches of time, the first of which begins at once."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._load = load_average()
        self._shares: list[float] = []
        self._clocks: list[float] = []
        self._begin()

    def _begin(self) -> None:
        self._since, self._busy, self._own = time.monotonic(), busy_seconds(), own_seconds()

    def lap(self) -> None:
        """End a stretch and begin the next."""
        seconds, busy = time.monotonic() - self._since, busy_seconds()
        if busy is not None and self._busy is not None and seconds >= SHORTEST:
            others = busy - self._busy - (own_seconds() - self._own)
            self._shares.append(max(0.0, others / seconds / machine_cores()))
        self._begin()

    def look_at_clock(self) -> None:
        """Read how fast the processor runs, or the GPU."""
        cuda = self._device.startswith("cuda")
        read = gpu_megahertz(self._device) if cuda else megahertz()
        if read is not None:
            self._clocks.append(read)

    def told(self) -> dict[str, Any]:
        """Return the provenance: what was seen, and by what the measurement was disturbed."""
        found: dict[str, Any] = {}
        reasons = []
        cores = machine_cores()
        if self._shares:
            found["other_cpu_share"] = share = round(max(self._shares), 4)
            if share > BUSY:
                reasons.append(f"other processes used {share * cores:.1f} of {cores} cores")
        if self._clocks:
            found |= {"mhz_low": min(self._clocks), "mhz_high": max(self._clocks)}
        others = other_gpu_processes(self._device) if self._device.startswith("cuda") else None
        if others is not None:
            found["other_gpu_processes"] = others
            if others:
                reasons.append(f"{others} other process{'es' * (others > 1)} used the GPU")
        if self._load > CROWDED * cores:
            reasons.append(f"load average {self._load:.1f} on {cores} cores before it began")
        return {**found, "disturbed": "; ".join(reasons)}
