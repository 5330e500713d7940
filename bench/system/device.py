"""Memory, clock and driver of a run's device, and waiting for it."""

import contextlib
import ctypes
import gc
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.system.host import available_memory, nvidia_driver, process_memory


def accelerator(device: str) -> dict[str, Any]:
    """Return the device's name, software and peak memory."""
    if not device.startswith("cuda"):
        return {"device_name": "cpu"}
    import torch

    return {
        "device_name": torch.cuda.get_device_name(device),
        "driver": nvidia_driver(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(device),
    }


def peak_memory() -> int:
    """Return the process's peak resident size in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory(device: str) -> int | None:
    """Return a device's free bytes; None if unknown."""
    if not device.startswith("cuda"):
        return available_memory()
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


class PeakMemory:
    """Peak memory of a process above its start.

    Of the GPU, or of the process itself on Linux. Pages that the system may drop and
    read again do not count: the code of libraries, which is read at its first use, and the cache of
    decoded images. Freed memory is returned to the system before counting begins.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self.restart()
        self._base = self._held("VmRSS")

    def bytes(self) -> int | None:
        """Return the peak so far; None if unknown."""
        peak = self._held("VmHWM")
        return None if peak is None or self._base is None else max(0, peak - self._base)

    def restart(self) -> bool:
        """Forget the peak; return whether that worked."""
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats(self._device)
            return True
        _trim_heap()
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        except OSError:
            return False
        return True

    def _held(self, key: str) -> int | None:
        """Return the bytes held now (VmRSS), or at most (VmHWM)."""
        if self._device.startswith("cuda"):
            import torch

            now = key == "VmRSS"
            allocated = torch.cuda.memory_allocated if now else torch.cuda.max_memory_allocated
            return int(allocated(self._device))
        held = process_memory(key)
        return None if held is None else held - _droppable()


def _droppable() -> int:
    """Return the resident bytes of mapped libraries and image arrays."""
    total, counts = 0, False
    with Path("/proc/self/smaps").open("rb") as lines:  # megabytes, which would stand in the peak
        for line in lines:
            if line.startswith(b"Rss:"):
                total += counts * int(line.split()[1]) * 1024
            elif line[:1] in b"0123456789abcdef":  # a mapping: addresses, and at the end its file
                counts = b".so" in line or line.endswith(b".npy\n")
    return total


def _trim_heap() -> None:
    """Return freed memory to the system; glibc would keep much of it."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def gpu_megahertz(device: str) -> float | None:
    """Return a GPU's clock in MHz, or None."""
    lines = _nvidia_smi(device, "gpu=clocks.sm")
    try:
        return float(lines[0]) if lines else None
    except ValueError:
        return None


def other_gpu_processes(device: str) -> int | None:
    """Count other processes on a GPU; None if unknown.

    Process ids differ in a container, so one of those listed is taken to be this process. An empty
    list says nothing, since this process is missing, too.
    """
    processes = _nvidia_smi(device, "compute-apps=pid")
    return len(processes) - 1 if processes else None


def _nvidia_smi(device: str, query: str) -> list[str] | None:
    """Return the lines of a GPU's nvidia-smi query, or None."""
    import torch

    try:
        uuid = torch.cuda.get_device_properties(device).uuid
        style = "--format=csv,noheader,nounits"
        command = ["nvidia-smi", f"--id=GPU-{uuid}", f"--query-{query}", style]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=10, check=True
        )
    except (AttributeError, OSError, subprocess.SubprocessError):
        return None
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def synchronize(device: str) -> None:
    """Wait until the device has finished its work."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
