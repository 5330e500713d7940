"""What of this machine stands in the way of runs, and what to do about it. Never imports torch.

What torch can do is asked of `bench.probe`.
"""

import os
import re
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from bench.data.catalog import Dataset, find_datasets
from bench.data.files import list_category
from bench.data.images import cache_folder
from bench.digests import FingerprintCache
from bench.environment import (
    available_memory,
    control_groups,
    cpu_count,
    describe_host,
    load_average,
)
from bench.errors import BenchError, DataError, WeightsError
from bench.files import sync_folder, write_synced
from bench.plan import Folders, make_plan
from bench.probe import ask
from bench.registry import METHODS, Registry
from bench.schedule import State, look_up
from bench.store import Store
from bench.suite import Cell, Narrowing, Suite, expand
from bench.weights import BACKBONES, STAGES, find_weights

DISTRIBUTION = "atacnet-bench"
LITTLE_MEMORY = 4 * 2**30
LITTLE_DISK = 10**9
BYTES_OF_A_RUN = 40_000
"""Receipt, scores and log of a stored run."""
FILE_SYSTEMS = {
    **dict.fromkeys(
        ("tmpfs", "ramfs"), "this is memory: gone after a restart, and runs have less of it"
    ),
    **dict.fromkeys(
        ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "fuse.sshfs", "fuse.gcsfuse"),
        "over the network renames and flushes are as sound as the server: prefer a local disk",
    ),
}
"""Kinds of file systems that want a word."""


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    group: str
    state: Literal["ok", "note", "bad"]
    what: str
    found: str
    todo: str = ""
    """What to do, for all that is not ok."""


def _judge(group: str, what: str, found: str, todo: str, bad: bool = False) -> Finding:
    """Return a finding that is ok where nothing is to be done."""
    return Finding(group, "ok" if not todo else "bad" if bad else "note", what, found, todo)


def examine(folders: Folders, suite: Suite | None) -> Iterator[Finding]:
    """Check everything; with a suite, also whether what it wants is there and fits."""
    yield from check_libraries()
    yield from check_machine()
    methods = {*METHODS, *(m for block in suite.blocks for m in block.methods)} if suite else set()
    answer = ask([str(folders.cache), *sorted(methods)] if suite else [])
    yield from check_torch(answer)
    yield from check_arithmetic(answer.get("checks", ()))
    looked_up = _look_up(suite, folders, answer) if suite else None
    state = looked_up if isinstance(looked_up, State) else None
    for name, folder in _written(folders).items():
        yield check_write_access(name, folder)
    yield from check_disk(folders, bytes_needed(state, folders.cache) if state else {})
    cells = _cells(state) if state else None
    yield from check_datasets(folders, cells)
    yield from check_weights(folders, cells)
    if suite and state:
        yield check_suite(suite, state)
    elif isinstance(looked_up, Finding):
        yield looked_up


def _cells(state: State) -> list[Cell]:
    return [run.cell for run in state.plan.runs] + [gap.cell for gap in state.plan.missing]


# Software


def check_libraries() -> Iterator[Finding]:
    """Compare what is installed with what the project asks for."""
    try:
        asked = metadata.requires(DISTRIBUTION) or []
        least_python = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    except metadata.PackageNotFoundError:
        found = f"{DISTRIBUTION} is not installed, so no versions are compared"
        yield Finding("software", "note", "libraries", found, "pip install -e . in its checkout")
        return
    python = ".".join(map(str, sys.version_info[:3]))
    old = _release(python) < _release(least_python)
    todo = f"make a virtual environment with python {least_python}" if old else ""
    yield _judge("software", "python", python, todo, bad=True)
    good = []
    for requirement in asked:
        name, least = re.split(r"[^\w.-]", requirement, maxsplit=1)
        optional = "extra ==" in requirement
        if optional and name != "scikit-learn":
            continue
        there = _installed(name)
        if there and _release(there) >= _release(least):
            good.append(f"{name} {there}")
        elif there or not optional:
            found = f"{there} is too old" if there else "is not installed"
            todo = f"pip install '{requirement.partition(';')[0].strip()}'"
            yield _judge("software", name, found, todo, bad=not optional)
    yield Finding("software", "ok", "libraries", ", ".join(good))


def _installed(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def _release(version: str) -> tuple[int, ...]:
    """Return the first numbers in a version or bound; a pre-release counts as its release."""
    found = re.search(r"\d+(\.\d+)*", version)
    return tuple(int(n) for n in found[0].split(".")) if found else ()


# Machine


def check_machine() -> Iterator[Finding]:
    """Look at memory, cores, and who else uses them."""
    host = describe_host()
    found, todo = f"{int(host['memory_bytes']) / 2**30:.1f} GiB", ""
    if (available := available_memory()) is not None:
        found += f", {available / 2**30:.1f} GiB available"
        todo = "close other programs, and keep to --slots 1" if available < LITTLE_MEMORY else ""
    yield _judge("machine", "memory", found, todo)

    cores, quota = cpu_count(), cpu_quota()
    found, todo = f"{cores} usable, {host['cpu']}", ""
    if (threads := os.environ.get("OMP_NUM_THREADS")) is not None:
        found += f"; OMP_NUM_THREADS={threads}, but runs set their own threads"
    if quota is not None and quota < cores:
        found += f"; the container may use {quota:g}"
        most = max(1, int(quota)) - 1
        todo = f"start bench under `taskset -c 0-{most}`: more threads wait for each other"
    yield _judge("machine", "cores", found, todo)

    load = load_average()
    todo = "wait: runs take longer, and timings mean little" if load > cores / 2 else ""
    yield _judge("machine", "load", f"{load:.1f} over the last minute, {cores} cores", todo)


def cpu_quota() -> float | None:
    """Return how many cores' time the tightest limit of our control groups gives."""
    quotas = []
    for folder in control_groups("cpu"):
        for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            try:
                said = " ".join((folder / file).read_text() for file in files)
                quota, period = map(int, said.split())  # `max` or -1 where there is none
            except (OSError, ValueError):
                continue
            if quota > 0:
                quotas.append(quota / period)
    return min(quotas, default=None)


# torch


def check_torch(answer: Mapping[str, Any]) -> Iterator[Finding]:
    """Read the probe's answer: does torch work at all, and on which devices."""
    if "error" in answer:
        todo = (
            "no run works before `python -m bench.probe` does; install versions of torch and"
            " torchvision that belong together"
        )
        yield Finding("torch", "bad", "torch", answer["error"], todo)
        return
    found = f"{answer['torch']}, imported with torchvision in {answer['import_s']:.1f} s"
    yield Finding("torch", "ok", "torch", found)
    for i, gpu in enumerate(answer["gpus"]):
        found = (
            f"{gpu['name']}, {gpu['free'] / 2**30:.0f} of {gpu['total'] / 2**30:.0f} GiB free,"
            f" capability {gpu['capability']}, driver {gpu['driver']}"
        )
        todo = "others use it: see nvidia-smi" if gpu["free"] < gpu["total"] / 2 else ""
        yield _judge("torch", f"cuda:{i}", found, todo)
    if not answer["gpus"]:
        unseen = any(Path("/dev").glob("nvidia[0-9]*"))
        found = (
            "a GPU is here, but torch does not see it" if unseen else "no GPU: runs take the CPU"
        )
        todo = "install a torch that is built for the GPU's driver" if unseen else ""
        yield _judge("torch", "devices", found, todo)
    speedup = answer["bfloat16_speedup"]
    found = f"a convolution on the CPU is {speedup:.1f} times as fast as in float32"
    todo = "on the CPU float32 is the faster precision" if speedup < 1 else ""
    yield _judge("torch", "bfloat16", found, todo)


def check_arithmetic(checks: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Judge the probe's calculations, one finding for each calculation and device."""
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
        yield _judge(device, f"{device} {name}", measured, todo, bad=required)


def _measured(check: Mapping[str, Any]) -> str:
    """Write one measurement, with the threads where there is a choice."""
    threads = check["threads"]
    where = f"{threads} thread{'s' if threads > 1 else ''}" if check["device"] == "cpu" else ""
    if check["error"]:
        return f"fails ({where}{': ' if where else ''}{check['error']})"
    off = f"off by {check['residual']:.1e}" if check["residual"] else "exact"
    if not check["right"]:
        off += f" where {check['limit']:.0e} is the most" if check["limit"] else " where 0 is due"
    return off + (f" ({where})" if where else "")


# Folders


def _written(folders: Folders) -> dict[str, Path]:
    """Return the folders that runs write to, by the option that names them."""
    return {"results": folders.results, "cache": folders.cache}


def check_write_access(name: str, folder: Path) -> Finding:
    """Do in a folder, or where it would be made, what the store and the cache do; leave nothing."""
    parent = _existing(folder)
    found, todo = f"{folder} can be written", ""
    if parent != folder:
        found += ", but is not made yet"
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".bench-doctor-") as scratch:
            if _renames_over(Path(scratch)):
                found = f"in {parent} a folder can replace one that holds files"
                todo = f"results could vanish: name another folder with --{name}"
    except OSError as error:
        found = f"{parent} cannot be written ({error.strerror})"
        todo = f"mend that, or name another folder with --{name}"
    return _judge("folders", name, found, todo, bad=True)


def _renames_over(scratch: Path) -> bool:
    """Write, flush and rename; return whether a rename replaced a folder that was not empty."""
    for folder in ("staged", "published"):
        (scratch / folder).mkdir()
        write_synced(scratch / folder / "new", b"bench doctor")
        os.rename(scratch / folder / "new", scratch / folder / "file")
    sync_folder(scratch)
    try:
        os.rename(scratch / "staged", scratch / "published")
    except OSError:
        return False
    return True


def bytes_needed(state: State, cache: Path) -> dict[str, int]:
    """Return what the runs that are left will add to each folder."""
    images = {}
    for run in state.todo:
        size = run.spec.image_size
        folder = cache_folder(cache, run.spec.fingerprint, size, run.spec.resize)
        if not folder.is_dir():
            images[folder] = len(run.listing.files) * 3 * size * size
    return {"results": len(state.todo) * BYTES_OF_A_RUN, "cache": sum(images.values())}


def check_disk(folders: Folders, needed: Mapping[str, int]) -> Iterator[Finding]:
    """Compare free space with what a suite needs, once for each file system."""
    shared: dict[int, list[str]] = defaultdict(list)
    places = {name: _existing(folder) for name, folder in _written(folders).items()}
    for name, place in places.items():
        shared[place.stat().st_dev].append(name)
    for names in shared.values():
        free, kind = shutil.disk_usage(places[names[0]]).free, file_system(places[names[0]])
        wanted = sum(needed.get(name, 0) for name in names)
        found = f"{_size(free)} free for {' and '.join(names)}{f' on {kind}' if kind else ''}"
        found += f", {_size(wanted)} needed" if needed else ""
        todo = FILE_SYSTEMS.get(kind, "")
        if free < max(wanted, LITTLE_DISK):
            todo = f"make room, or name another folder with --{' and --'.join(names)}"
        yield _judge("folders", "disk", found, todo, bad=free < wanted)


def file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Return the kind of file system that a folder lies on; empty where that is not known."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    folder = folder.resolve()
    over = [
        (len(point.parts), kind)
        for _, where, kind, *_ in lines
        if folder.is_relative_to(point := Path(where.replace(r"\040", " ")))
    ]
    # Of several mounts on one point the last hides the others.
    return max(reversed(over), key=lambda found: found[0], default=(0, ""))[1]


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest above it that exists."""
    return next(f for f in (folder, *folder.parents) if os.path.exists(f))


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


# Data, weights and suite


def check_datasets(folders: Folders, cells: Iterable[Cell] | None) -> Iterator[Finding]:
    """Look for every known dataset, or for what the cells of a suite need."""
    needed = None if cells is None else {(c.dataset, c.category) for c in cells}
    for dataset in find_datasets(folders.data):
        categories = [
            c for c in dataset.categories if needed is None or (dataset.name, c) in needed
        ]
        if categories:
            yield _check_dataset(dataset, categories, folders, required=needed is not None)


def _check_dataset(
    dataset: Dataset, categories: list[str], folders: Folders, required: bool
) -> Finding:
    """Judge a dataset by the number of its files; none is opened."""
    if dataset.layout == "synthetic":
        return Finding("data", "ok", dataset.name, "comes with bench")
    absent, odd, images = [], [], 0
    for category in categories:
        facts = dataset.categories[category]
        official = facts.train + facts.test_normal + facts.test_anomalous
        try:
            count = len(list_category(dataset, category, folders.data, folders.cache).files)
        except (DataError, OSError) as error:
            absent.append(str(error))
            continue
        images += count
        if official not in (0, count):
            odd.append(f"{category} has {count} of {official} images")
    if absent:
        found, _, todo = absent[0].partition(": ")
        if len(absent) > 1:
            found += f", nor {len(absent) - 1} more of {len(categories)} categories"
        todo = todo or "unpack its archive again"
        return _judge("data", dataset.name, found, todo, bad=required)
    found = f"{images} images in {len(categories)} categories"
    if len(categories) == 1:
        found = f"{images} images"
    if odd:
        found += f", an unofficial copy ({', '.join(odd)})"
    return _judge("data", dataset.name, found, "results will say so" if odd else "")


def check_weights(folders: Folders, cells: Iterable[Cell] | None) -> Iterator[Finding]:
    """Look for weights of every backbone, or for what the cells of a suite need."""
    if cells is None:
        for backbone in BACKBONES:
            stages = range(STAGES, 0, -1)
            tried = [_check_weights(backbone, stage, "imagenet", folders) for stage in stages]
            yield next((f for f in tried if f.state == "ok"), tried[-1])
        return
    needed = {
        (str(s["backbone"]), int(s["stage"]), str(s["weights"]))
        for s in (c.settings for c in cells if "backbone" in c.method.settings)
    }
    for backbone, stage, weights in sorted(needed):
        yield _check_weights(backbone, stage, weights, folders, required=True)


def _check_weights(
    backbone: str, stage: int, weights: str, folders: Folders, required: bool = False
) -> Finding:
    digests = FingerprintCache(folders.cache)
    try:
        there = find_weights(backbone, stage, weights, folders.weights, folders.cache, digests)
    except WeightsError as error:
        found, _, todo = str(error).partition(": ")
        return _judge("weights", backbone, found, todo or "name other weights", bad=required)
    place = f" in {there.source.file}" if there.source.file else ""
    return Finding("weights", "ok", backbone, f"to stage {stage}: {there.title}{place}")


def _look_up(suite: Suite, folders: Folders, answer: Mapping[str, Any]) -> State | Finding:
    """Plan a suite and look it up, or say why that is not possible.

    The probe has left every method's card in the cache, so that nothing imports torch here.
    """
    broken = [error for error in answer.get("methods", {}).values() if error]
    try:
        if "error" in answer:
            raise BenchError("torch does not work")
        if broken:
            raise BenchError(broken[0])
        cells = expand(suite, Narrowing(), Registry(folders.cache), folders.data)
        return look_up(make_plan(cells, folders), Store(folders.results))
    except BenchError as error:
        found = f"cannot be planned, since {error}"
        return Finding("suite", "bad", suite.name, found, "mend that, then ask again")


def check_suite(suite: Suite, state: State) -> Finding:
    """Say how many runs there will be."""
    found = (
        f"{len(state.plan.runs) + len(state.plan.missing)} runs wanted, {len(state.done)} stored,"
        f" {len(state.todo)} to do"
    )
    todo = ""
    if state.damaged:
        found += f", {len(state.damaged)} of them since what is stored is damaged"
        todo = "bench run sets that aside"
    if state.plan.missing:
        found += f", {len(state.plan.missing)} cannot be done here"
        todo = "mend what is bad above, or leave them out with --available-only"
    return _judge("suite", suite.name, found, todo, bad=bool(state.plan.missing))
