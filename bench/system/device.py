"""What a run has used of its machine, and waiting for the GPU."""

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
    """Return the GPU's name, its software and the most memory the run held there."""
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
    """Return the process's largest resident size; macOS counts bytes, Linux kibibytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory(device: str) -> int | None:
    """Return the bytes that a run may still take on its device; None where nobody says."""
    if not device.startswith("cuda"):
        return available_memory()
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


class PeakMemory:
    """The most memory that a process comes to hold above what it held at first.

    Of the GPU, or of the process itself on Linux. Left out are pages that the system may drop and
    read again: the code of libraries, which are read in as they are first used, and the cache of
    decoded images. What was freed is given back to the system before counting begins.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self.restart()
        self._base = self._held("VmRSS")

    def bytes(self) -> int | None:
        """Return the peak so far; None where the system does not tell."""
        peak = self._held("VmHWM")
        return None if peak is None or self._base is None else max(0, peak - self._base)

    def restart(self) -> bool:
        """Forget the peak so far; whether the system has done so."""
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats(self._device)
            return True
        _give_back()
        try:
            Path("/proc/self/clear_refs").write_text("5")
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
    """Return the resident bytes of mapped libraries and of mapped arrays of images."""
    total, counts = 0, False
    with Path("/proc/self/smaps").open() as lines:  # megabytes, which would stand in the peak
        for line in lines:
            if line.startswith("Rss:"):
                total += counts * int(line.split()[1]) * 1024
            elif line[:1] in "0123456789abcdef":  # a mapping: addresses, and at the end its file
                counts = ".so" in line or line.endswith(".npy\n")
    return total


def _give_back() -> None:
    """Give memory that was freed back to the system; glibc would keep much of it for later."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def gpu_megahertz(device: str) -> float | None:
    """Return the clock of a GPU's processors now; None where nvidia-smi does not tell."""
    said = _nvidia_smi(device, "gpu=clocks.sm")
    try:
        return float(said[0]) if said else None
    except ValueError:
        return None


def other_gpu_processes(device: str) -> int | None:
    """Count the processes beside this one that compute on a GPU; None where it does not tell.

    In a container the numbers of processes are other ones: one of those told is taken to be us.
    Where none is told, not even we are seen.
    """
    said = _nvidia_smi(device, "compute-apps=pid")
    return len(said) - 1 if said else None


def _nvidia_smi(device: str, query: str) -> list[str] | None:
    """Return what the driver's own tool says of a GPU, a text a line; None where it fails."""
    import torch

    try:
        uuid = torch.cuda.get_device_properties(device).uuid
        form = "--format=csv,noheader,nounits"
        command = ["nvidia-smi", f"--id=GPU-{uuid}", f"--query-{query}", form]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (AttributeError, OSError, subprocess.SubprocessError):
        return None
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def wait(device: str) -> None:
    """Wait for the device, so that a station's time is its own."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
