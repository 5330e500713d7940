"""What a run has used of its machine, and waiting for the GPU."""

import re
import resource
import sys
from pathlib import Path
from typing import Any

from bench.environment import available_memory


def accelerator(device: str) -> dict[str, Any]:
    """Return the GPU's name, its software and the most memory the run held there."""
    if not device.startswith("cuda"):
        return {"device_name": "cpu"}
    import torch

    return {
        "device_name": torch.cuda.get_device_name(device),
        "driver": _driver(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(device),
    }


def _driver() -> str:
    """Return the version of the GPU's driver, as Linux tells it."""
    try:
        said = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return ""
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", said)
    return found[0] if found else ""


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


def wait(device: str) -> None:
    """Wait for the device, so that a station's time is its own."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
