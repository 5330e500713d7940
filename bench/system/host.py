"""Host, libraries, code and limits of this process, without torch.

These are provenance, never part of a run's identity.
"""

import contextlib
import functools
import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
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
    """Return facts that stay constant during a command."""
    cpu = _cpu_facts()
    return {
        "hostname": platform.node(),
        "os": platform.platform(),
        "cpu": _cpu_model(cpu),
        "cpu_features": _cpu_features(cpu),
        "cpu_count": cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "bench": bench.__version__,
        **{library: installed_version(library) or "absent" for library in LIBRARIES},
        **checkout(),
    }


def kernel_text(path: Path) -> str:
    """Return the text of a file of the kernel; raises OSError."""
    return path.read_text(encoding="utf-8", errors="surrogateescape")  # names are any bytes


def load_average() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def machine_cores() -> int:
    """Return all cores of the machine."""
    return os.cpu_count() or 1


def busy_seconds(stat: Path = Path("/proc/stat")) -> float | None:
    """Return core seconds of all programs since boot.

    None where the system does not say. Steal counts, too; guests are counted among the programs
    already.
    """
    try:
        _, user, nice, system, _, _, irq, softirq, steal = kernel_text(stat).split()[:9]
        ticks = sum(map(int, (user, nice, system, irq, softirq, steal)))
    except (OSError, ValueError):
        return None
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else None


def own_seconds() -> float:
    """Return core seconds of this process and ended children."""
    return sum(os.times()[:4])


def megahertz(
    stat: Path = Path("/proc/self/stat"), cpuinfo: Path = Path("/proc/cpuinfo")
) -> float | None:
    """Return the last used core's MHz, or None."""
    try:
        core = kernel_text(stat).rpartition(")")[2].split()[36]
        blocks = kernel_text(cpuinfo).split("\n\n")
        facts = [dict(_pair(line) for line in block.splitlines()) for block in blocks]
        return next(float(f["cpu MHz"]) for f in facts if f.get("processor") == core)
    except (OSError, IndexError, KeyError, ValueError, StopIteration):
        return None


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def process_memory(key: str) -> int | None:
    """Return this process's VmRSS, VmHWM or VmData; None on macOS."""
    try:
        lines = kernel_text(Path("/proc/self/status")).splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
    except (OSError, StopIteration, ValueError):
        return None


def nvidia_driver() -> str:
    """Return the GPU driver's version; empty if unknown."""
    try:
        text = kernel_text(Path("/proc/driver/nvidia/version"))
    except OSError:
        return ""
    match = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return match[0] if match else ""


def available_memory() -> int | None:
    """Return available bytes by kernel and container; None on macOS."""
    kernel = _kernel_memory("MemAvailable")
    if kernel is None:
        return None
    return max(0, min([kernel, *(limit - used for limit, used in _group_memory())]))


def total_memory() -> int | None:
    """Return the bytes of the machine or container; None on macOS."""
    kernel = _kernel_memory("MemTotal")
    return None if kernel is None else min([kernel, *(limit for limit, _ in _group_memory())])


def resident_memory(pid: int) -> int:
    """Return a process's resident bytes, 0 if it is gone."""
    try:
        pages = int(kernel_text(Path(f"/proc/{pid}/statm")).split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def oom_kills() -> int | None:
    """Count processes that were killed for want of memory; None if unknown."""
    counts = []
    for file in (
        Path("/proc/vmstat"),
        *(folder / "memory.events" for folder in control_groups("memory")),
        *(folder / "memory.oom_control" for folder in control_groups("memory")),
    ):
        with contextlib.suppress(OSError, ValueError):
            lines = dict(line.split() for line in kernel_text(file).splitlines())
            counts += [int(lines["oom_kill"])] if "oom_kill" in lines else []
    return sum(counts) if counts else None


def _kernel_memory(name: str) -> int | None:
    try:
        lines = kernel_text(Path("/proc/meminfo")).splitlines()
        line = next(line for line in lines if line.startswith(f"{name}:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return None


def _group_memory() -> Iterator[tuple[int, int]]:
    """Yield limit and use of control groups in bytes; page cache gives way, and is not counted."""
    for folder in control_groups("memory"):
        for limit_file, used_file, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            try:
                limit = int(kernel_text(folder / limit_file))  # `max` where there is none
                used = int(kernel_text(folder / used_file))
                lines = kernel_text(folder / "memory.stat").splitlines()
                stat = dict(line.split() for line in lines)
                yield limit, used - int(stat[cached])
            except (OSError, ValueError, KeyError):
                continue


def control_groups(
    controller: str,
    root: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),
) -> Iterator[Path]:
    """Yield this process's cgroup folders, innermost first.

    In a container the kernel names folders that are not visible: some do not exist.
    """
    try:
        groups = [line.split(":", 2) for line in kernel_text(membership).splitlines()]
    except OSError:
        return
    for _, controllers, path in groups:
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        inner = base / path.lstrip("/")
        yield from (f for f in (inner, *inner.parents) if f.is_relative_to(base))


def installed_version(library: str) -> str:
    """Return a library's version; empty if absent."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def _cpu_facts() -> dict[str, str]:
    """Return what the kernel says of the first core; nothing where it says nothing."""
    facts: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in kernel_text(Path("/proc/cpuinfo")).splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    return facts


def _cpu_model(facts: Mapping[str, str]) -> str:
    if "model name" in facts:
        return facts["model name"]
    if "CPU part" in facts:  # ARM has no names
        return f"{platform.machine()} part {facts['CPU part']}"
    return platform.processor() or platform.machine()


def _cpu_features(facts: Mapping[str, str]) -> str:
    """Return what tells processors of one name apart: family, model, and a digest of abilities.

    Virtual machines often name a processor no more closely than by its maker, while libraries
    choose their instructions, and so the last digits, by its abilities.
    """
    abilities = sorted((facts.get("flags") or facts.get("Features") or "").split())
    digest = hashlib.sha256(" ".join(abilities).encode()).hexdigest()[:8]
    known = [facts[name] for name in ("cpu family", "model") if name in facts]
    return " ".join([*known, digest])


def checkout() -> dict[str, str]:
    """Return the checkout's commit, and whether the code was changed."""
    root = Path(bench.__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return (
            subprocess.run(command, capture_output=True, timeout=10)
            .stdout.decode(errors="replace")
            .strip()
        )

    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        if (root / ".git").exists():
            changed = git("status", "--porcelain", "--", "bench", "baselines", "atacnet")
            return {"commit": git("rev-parse", "HEAD"), "dirty": "yes" if changed else "no"}
    return {"commit": "", "dirty": ""}
