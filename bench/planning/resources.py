"""What runs will need, known before the first one: room on disk and memory."""

import functools
import importlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from bench.data.catalog import find_dataset
from bench.data.images import cache_folder
from bench.detector import BackboneSource, Context, Seeds
from bench.planning.plan import Folders, Missing, Run
from bench.planning.runtime import LENGTHS, RATES, step
from bench.planning.variants import Variant
from bench.registry import load_class
from bench.store.receipt import Receipt
from bench.store.results import Results

BYTES_OF_A_RUN = 40_000
"""Receipt, scores and log of a stored run, where none can be measured."""
MARGIN = 1.25
"""What a step really takes above its tensors: buffers of the libraries, gaps of the allocator.

Measured with ResNet-18 and ResNet-50 on a CPU: tests/planning/test_resources.py says how."""
FIXED = 64 << 20
"""Bytes that the libraries take for themselves however small the step."""


# Disk


@dataclass(frozen=True)
class Decoding:
    """Images that are not in the cache yet."""

    images: int
    bytes: int


def to_decode(runs: Iterable[Run], cache: Path) -> list[Decoding]:
    """Return what has to be decoded for runs: each category and size, and external images."""
    found: dict[Path, Decoding] = {}
    for run in runs:
        spec, size = run.spec, run.spec.image_size
        needed = [(spec.fingerprint, size, len(run.listing.files))]
        if run.external is not None:
            other = run.external
            side = other.prepared_size(size)
            needed.append((other.fingerprint, side, len(other.listing.files)))
        for fingerprint, side, count in needed:
            folder = cache_folder(cache, fingerprint, side, spec.resize)
            if folder not in found and not folder.is_dir():
                found[folder] = Decoding(count, count * 3 * side * side)
    return list(found.values())


def bytes_of_a_run(results: Results, done: Iterable[str]) -> int | None:
    """Return the mean size of the stored runs of these ids; None where no folder is there."""
    sizes = []
    for run_id in done:
        folder = results.root / "runs" / run_id
        if folder.is_dir():  # an archive has none
            sizes.append(sum(f.stat().st_size for f in folder.iterdir()))
    return round(fmean(sizes)) if sizes else None


@dataclass(frozen=True)
class Room:
    """One disk with what is going to be written to it."""

    options: tuple[str, ...]
    """Names of the options whose folders lie on it."""
    needed: int
    free: int


def rooms(folders: Folders, needed: Mapping[str, int]) -> list[Room]:
    """Return the disks of folders with the bytes that each is going to take.

    `needed` is by option: `cache`, `results`.
    """
    on: dict[int, list[str]] = {}
    places = {}
    for option in needed:
        folder = getattr(folders, option)
        places[option] = next(f for f in (folder, *folder.parents) if os.path.exists(f))
        on.setdefault(places[option].stat().st_dev, []).append(option)
    return [
        Room(tuple(o), sum(needed[n] for n in o), shutil.disk_usage(places[o[0]]).free)
        for o in on.values()
    ]


# Memory


@dataclass(frozen=True)
class Memory:
    """What one run of a variant takes, in bytes."""

    estimated: int | None
    """None where the method cannot rehearse a step."""
    measured: int | None
    """The most that a stored run which made the same step has taken."""

    @property
    def likely(self) -> int | None:
        """The larger of the two."""
        return max((b for b in (self.estimated, self.measured) if b is not None), default=None)


def memory_of(
    variant: Variant,
    wanted: Sequence[Run | Missing],
    receipts: Iterable[Receipt],
    device: str,
    data: Path,
) -> Memory:
    """Estimate the memory of a run of a variant, and look up what stored ones took.

    On a GPU its own memory is meant.
    """
    peak = rehearsed(variant)
    told = []
    if peak is not None:
        images = max(image_bytes(w, data) for w in wanted)
        told.append(process_base() + step_bytes(peak) + images)
    if "memory" in variant.method.abilities:
        told.append(max(remembered(variant, w, data) for w in wanted))
    estimated = max(told, default=None)
    specs = {step(w.spec) for w in wanted if isinstance(w, Run)}
    gpu = device != "cpu"
    where = [r.provenance for r in receipts if step(r.spec) in specs]
    taken = [
        p.peak_gpu_memory_bytes if gpu else p.peak_memory_bytes
        for p in where
        if (p.device_name != "cpu") == gpu
    ]
    return Memory(estimated, max((b for b in taken if b), default=None))


def remembered(variant: Variant, wanted: Run | Missing, data: Path) -> int:
    """Return the bytes of a run of a method that says itself what it keeps of normal images."""
    cls = load_class(variant.method.path)
    detector = cls(cls.Parameters(**variant.parameters()))
    size = int(variant.told["image_size"])
    kept = int(detector.memory(_normals(wanted, data), size, _context(variant)))
    return process_base() + FIXED + kept + image_bytes(wanted, data)


def _normals(wanted: Run | Missing, data: Path) -> int:
    """Return how many normal training images a category has, by its files or the catalogue."""
    if isinstance(wanted, Run):
        return sum(f.fold == "train" for f in wanted.listing.files)
    facts = find_dataset(wanted.cell.dataset, data).categories[wanted.cell.category]
    return facts.train if facts else 0


def step_bytes(peak: int) -> int:
    """Return what a step takes of memory whose tensors take `peak` bytes."""
    return FIXED + round(MARGIN * peak)


def image_bytes(wanted: Run | Missing, data: Path) -> int:
    """Return the bytes of a category's images as a run holds them: read, and copied for training.

    External images count alike. Of a category that is not here the catalogue says how many.
    """
    size = int(wanted.cell.settings["image_size"])
    count = 0
    if isinstance(wanted, Run):
        count = len(wanted.listing.files)
        if wanted.external is not None:
            tiles = (wanted.external.prepared_size(size) // size) ** 2
            count += tiles * len(wanted.external.listing.files)
    else:
        facts = find_dataset(wanted.cell.dataset, data).categories[wanted.cell.category]
        count = facts.images if facts else 0
    return 2 * count * 3 * size * size


@functools.cache
def process_base() -> int:
    """Return what a process takes that has imported all that a run needs, and done nothing yet."""
    for module in ("torchvision", "bench.execution.worker"):
        importlib.import_module(module)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # macOS
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")


_rehearsed: dict[Any, int | None] = {}


def rehearsed(variant: Variant) -> int | None:
    """Return the bytes of tensors in one training step; None where the method cannot tell.

    Rehearsed once for all variants that make the same step.
    """
    cls = load_class(variant.method.path)
    if not hasattr(cls, "rehearse"):
        return None
    process_base()  # before the rehearsal brings libraries that no run needs
    from bench.planning.rehearsal import rehearsed_peak

    told = variant.told
    left_out = {"setting", "resize", "weights", *LENGTHS}
    if not variant.method.outside:
        left_out |= RATES
    key = (variant.method.path, tuple((k, v) for k, v in told.items() if k not in left_out))
    if key not in _rehearsed:
        detector = cls(cls.Parameters(**variant.parameters()))
        size = int(told["image_size"])
        try:
            _rehearsed[key] = rehearsed_peak(detector, size, _context(variant))
        except Exception:  # whatever a method from outside does
            _rehearsed[key] = None
    return _rehearsed[key]


def _context(variant: Variant) -> Context:
    """Return what a run would be given, without weights and with one blank external image."""
    told = variant.told
    given: dict[str, Any] = {k: told[k] for k in ("precision", "batch_size") if k in told}
    if "backbone" in told:
        # Where the strides sit, the weights file says; v1.5 is the place that takes more memory.
        given["backbone"] = BackboneSource(str(told["backbone"]), int(told["stage"]), None)
    if told.get("external", "none") != "none":
        size = int(told["image_size"])
        given["external"] = np.zeros((1, 3, size, size), np.uint8)
    return Context(device="cpu", seeds=Seeds(0, "rehearsal", "rehearsal"), **given)
