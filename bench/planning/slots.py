"""Slots: devices and threads for parallel runs."""

import re
from dataclasses import dataclass

from bench.errors import RequestError
from bench.system.host import cpu_count


@dataclass(frozen=True)
class Slot:
    """A device and threads for one run at a time."""

    device: str
    threads: int


def slots_for(device: str, per_device: int, gpus: int, threads: int | None = None) -> list[Slot]:
    """Return the slots of a device.

    `device` is `auto`, `cpu`, `cuda` (every visible GPU) or `cuda:i`; `gpus` is how many GPUs torch
    sees. Each slot has `threads`, or an equal share of the cores. Raises RequestError for a device
    that is not there.
    """
    if per_device < 1:
        raise RequestError(f"--slots must be at least 1, not {per_device}")
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device == "cpu":
        devices = ["cpu"]
    elif device == "cuda" and gpus:
        devices = [f"cuda:{i}" for i in range(gpus)]
    elif device in [f"cuda:{i}" for i in range(gpus)]:
        devices = [device]
    else:
        is_cuda = re.fullmatch(r"cuda(:\d+)?", device)
        reason = (
            f"torch sees {gpus or 'no'} GPU" + "s" * (gpus > 1) if is_cuda else "no such device"
        )
        raise RequestError(f"--device {device}: {reason}; use auto, cpu, cuda or cuda:i")
    names = [d for _ in range(per_device) for d in devices]
    each = threads or max(1, cpu_count() // len(names))
    return [Slot(name, each) for name in names]
