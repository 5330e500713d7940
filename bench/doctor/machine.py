"""Software, memory, cores and torch."""

import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.doctor.diagnosis import Diagnosis, diagnose
from bench.system.host import (
    available_memory,
    control_groups,
    cpu_count,
    describe_host,
    installed_version,
    kernel_text,
    load_average,
)
from bench.system.untrusted import one_line

DISTRIBUTION = "atacnet-bench"
LITTLE_MEMORY = 4 * 2**30


def check_libraries() -> Iterator[Diagnosis]:
    """Compare installed libraries with those required."""
    try:
        asked = metadata.requires(DISTRIBUTION) or []
        least_python = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    except metadata.PackageNotFoundError:
        text = f"{DISTRIBUTION} is not installed, so no versions are compared"
        yield Diagnosis("software", "note", "libraries", text, "pip install -e . in its checkout")
        return
    python = ".".join(map(str, sys.version_info[:3]))
    old = _release(python) < _release(least_python)
    todo = f"make a virtual environment with python {least_python}" if old else ""
    yield diagnose("software", "python", python, todo, bad=True)
    good = []
    for requirement in asked:
        if "extra ==" in requirement:
            continue
        name, least = re.split(r"[^\w.-]", requirement, maxsplit=1)
        version = installed_version(name)
        if version and _release(version) >= _release(least):
            good.append(f"{name} {version}")
        else:
            text = f"{version} is too old" if version else "is not installed"
            yield Diagnosis("software", "bad", name, text, f"pip install '{requirement}'")
    yield Diagnosis("software", "ok", "libraries", ", ".join(good))


def _release(version: str) -> tuple[int, ...]:
    """Return a version's numbers; a pre-release counts as its release."""
    match = re.search(r"\d+(\.\d+)*", version)
    return tuple(int(n) for n in match[0].split(".")) if match else ()


def check_machine() -> Iterator[Diagnosis]:
    """Check memory, cores and load."""
    host = describe_host()
    text, todo = f"{int(host['memory_bytes']) / 2**30:.1f} GiB", ""
    if (available := available_memory()) is not None:
        text += f", {available / 2**30:.1f} GiB available"
        todo = "close other programs, and keep to --slots 1" if available < LITTLE_MEMORY else ""
    yield diagnose("machine", "memory", text, todo)

    cores, quota = cpu_count(), cpu_quota()
    text, todo = f"{cores} usable, {host['cpu']}", ""
    if (threads := os.environ.get("OMP_NUM_THREADS")) is not None:
        text += f"; OMP_NUM_THREADS={threads}, but runs set their own threads"
    if quota is not None and quota < cores:
        text += f"; the container may use {quota:g}"
        most = max(1, int(quota)) - 1
        todo = f"start bench under `taskset -c 0-{most}`: more threads wait for each other"
    yield diagnose("machine", "cores", text, todo)

    load = load_average()
    todo = "wait: runs take longer, and timings mean little" if load > cores / 2 else ""
    yield diagnose("machine", "load", f"{load:.1f} over the last minute, {cores} cores", todo)


def cpu_quota() -> float | None:
    """Return the tightest CPU limit in cores."""
    quotas = []
    for folder in control_groups("cpu"):
        for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            try:
                text = " ".join(kernel_text(folder / file) for file in files)
                quota, period = map(int, text.split())  # `max` or -1 where there is none
            except (OSError, ValueError):
                continue
            if quota > 0:
                quotas.append(quota / period)
    return min(quotas, default=None)


def check_torch(answer: Mapping[str, Any]) -> Iterator[Diagnosis]:
    """Report whether torch works, and where."""
    if "error" in answer:
        todo = (
            "no run works before `python -m bench.doctor.probe` does; install versions of torch and"
            " torchvision that belong together"
        )
        yield Diagnosis("torch", "bad", "torch", answer["error"], todo)
        return
    text = f"{answer['torch']}, imported with torchvision in {answer['import_s']:.1f} s"
    yield Diagnosis("torch", "ok", "torch", text)
    for i, gpu in enumerate(answer["gpus"]):
        text = (
            f"{gpu['name']}, {gpu['free'] / 2**30:.0f} of {gpu['total'] / 2**30:.0f} GiB free,"
            f" capability {gpu['capability']}, driver {gpu['driver']}"
        )
        todo = "others use it: see nvidia-smi" if gpu["free"] < gpu["total"] / 2 else ""
        yield diagnose("torch", f"cuda:{i}", text, todo)
    if not answer["gpus"]:
        unseen = any(Path("/dev").glob("nvidia[0-9]*"))
        text = "a GPU is here, but torch does not see it" if unseen else "no GPU: runs take the CPU"
        todo = "install a torch that is built for the GPU's driver" if unseen else ""
        yield diagnose("torch", "devices", text, todo)
    speedup = answer["bfloat16_speedup"]
    text = f"a convolution on the CPU is {speedup:.1f} times as fast as in float32"
    todo = "on the CPU float32 is the faster precision" if speedup < 1 else ""
    yield diagnose("torch", "bfloat16", text, todo)


def check_processes(answer: Mapping[str, Any]) -> Iterator[Diagnosis]:
    """Report whether a run's process starts, and where its sockets are."""
    process = answer.get("process")
    if process is None:  # torch does not work, which is reported
        return
    if "error" in process:
        todo = "no run can start before that is mended"
        yield Diagnosis("machine", "bad", "processes", process["error"], todo)
        return
    parent = Path(process["sockets"]).parent
    text = f"one starts in {process['seconds']:.1f} s, sockets in {parent}"
    wanted = os.environ.get("TMPDIR")
    if wanted and Path(wanted).resolve() != parent.resolve():
        text += f", since TMPDIR={one_line(wanted)} cannot hold them"
    yield Diagnosis("machine", "ok", "processes", text)


def check_arithmetic(checks: Iterable[Mapping[str, Any]]) -> Iterator[Diagnosis]:
    """Report the probe's calculations for each device."""
    by_name: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for check in checks:
        by_name[check["device"], check["name"]].append(check)
    for (device, name), same in by_name.items():
        required = same[0]["required"]
        if all(check["right"] for check in same):
            todo = ""
        elif required:
            todo = "methods rely on it, so no result from here counts: install another torch"
        else:
            todo = "no method here calls it; in one of your own use cholesky and solve_triangular"
        measured = ", ".join(map(_measured, same))
        yield diagnose(device, f"{device} {name}", measured, todo, bad=required)


def _measured(check: Mapping[str, Any]) -> str:
    """Return one measurement as text, with its threads on a CPU."""
    threads = check["threads"]
    where = f"{threads} thread{'s' if threads > 1 else ''}" if check["device"] == "cpu" else ""
    if check["error"]:
        return f"fails ({where}{': ' if where else ''}{check['error']})"
    off = f"off by {check['residual']:.1e}" if check["residual"] else "exact"
    if not check["right"]:
        off += f" where {check['limit']:.0e} is the most" if check["limit"] else " where 0 is due"
    return off + (f" ({where})" if where else "")
