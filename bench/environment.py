"""What actually ran: host, libraries, code, threads. Provenance, never identity; no torch."""

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import bench

LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "pyarrow")


def cpu_count() -> int:
    """Return the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def describe_host() -> dict[str, str | int]:
    """Return what stays the same for the whole command."""
    return {
        "hostname": platform.node(),
        "os": platform.platform(),
        "cpu": _cpu_model(),
        "cpu_count": cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "bench": bench.__version__,
        **{library: _version(library) for library in LIBRARIES},
        **_commit(),
    }


def load_average() -> float:
    """Return the processes that wanted to run over the last minute."""
    return os.getloadavg()[0]


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "absent"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> dict[str, str]:
    """Return the commit of the checkout that the code runs from, and whether it was changed."""
    root = Path(bench.__file__).parents[1]
    if not (root / ".git").exists():
        return {"commit": "", "dirty": ""}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        code = ("bench", "baselines", "atacnet")
        changed = git("status", "--porcelain", "--", *code)
        return {"commit": git("rev-parse", "HEAD"), "dirty": "yes" if changed else "no"}
    except (OSError, subprocess.TimeoutExpired):
        return {"commit": "", "dirty": ""}
