"""Disk space and memory that runs will need."""

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from bench.data.catalog import find_dataset
from bench.data.images import prepared_folder
from bench.planning.plan import Folders, Missing, Run
from bench.planning.rehearsal import FIXED, process_base, rehearsal_context, rehearsed, step_bytes
from bench.planning.runtime import step_key
from bench.planning.variants import Variant
from bench.registry import load_class
from bench.store.groups import Provenance
from bench.store.receipt import Receipt
from bench.store.results import Results
from bench.system.files import nearest_existing

BYTES_OF_A_RUN = 40_000
"""Receipt, scores and log of a stored run, where none can be measured."""

# Disk


@dataclass(frozen=True)
class Decoding:
    """Images that are not in the cache yet."""

    images: int
    bytes: int


def to_decode(runs: Iterable[Run], cache: Path) -> list[Decoding]:
    """Return undecoded images by category and size."""
    by_folder: dict[Path, Decoding] = {}
    for run in runs:
        spec, size = run.spec, run.spec.image_size
        needed = [(spec.fingerprint, run.listing, size)]
        if run.external is not None:
            external = run.external
            needed.append((external.fingerprint, external.listing, external.prepared_size(size)))
        for fingerprint, listing, side in needed:
            version, count = listing.data_version, len(listing.files)
            folder = prepared_folder(cache, fingerprint, version, side, spec.resize)
            if folder not in by_folder and not folder.is_dir():
                by_folder[folder] = Decoding(count, count * 3 * side * side)
    return list(by_folder.values())


def bytes_of_a_run(results: Results, done: Iterable[str]) -> int | None:
    """Return the mean bytes of stored runs, None without any."""
    folders = [folder for run_id in done if (folder := results.folder(run_id))]
    sizes = [sum(f.stat().st_size for f in folder.iterdir()) for folder in folders]
    return round(fmean(sizes)) if sizes else None


def bytes_to_write(
    decoding: Iterable[Decoding], runs: int, bytes_per_run: int = BYTES_OF_A_RUN
) -> dict[str, int]:
    """Return the bytes that runs will add, by option."""
    return {"results": runs * bytes_per_run, "cache": sum(d.bytes for d in decoding)}


def output_folders(folders: Folders) -> dict[str, Path]:
    """Return the folders that runs write to, by option."""
    return {"results": folders.results, "cache": folders.cache}


@dataclass(frozen=True)
class DiskSpace:
    """Space on one disk that runs write to."""

    options: tuple[str, ...]
    """Names of the options whose folders lie on it."""
    folder: Path
    """A folder on it that exists."""
    needed: int
    free: int


def disk_space(folders: Folders, needed: Mapping[str, int]) -> list[DiskSpace]:
    """Return the output disks with bytes needed and free.

    `needed` is by option, see `bytes_to_write`; an option that it lacks needs nothing.
    """
    by_disk: dict[int, list[tuple[str, Path]]] = {}
    for option, folder in output_folders(folders).items():
        existing = nearest_existing(folder)
        by_disk.setdefault(existing.stat().st_dev, []).append((option, existing))
    disks = []
    for members in by_disk.values():
        options, (folder, *_) = zip(*members, strict=True)
        total = sum(needed.get(option, 0) for option in options)
        disks.append(DiskSpace(options, folder, total, shutil.disk_usage(folder).free))
    return disks


# Memory


@dataclass(frozen=True)
class Memory:
    """Memory of one run of a variant, in bytes."""

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
    modules: Sequence[str],
    keep: Collection[str] = (),
) -> Memory:
    """Return a variant's memory, estimated and measured.

    On a GPU its own memory is meant. `modules` are what a run's process imports, `keep` the
    abilities whose files are wanted.
    """
    estimates = []
    if "rehearse" in variant.method.abilities:
        process_base(modules)  # before the rehearsal brings libraries that no run needs
    peak = rehearsed(variant) if "rehearse" in variant.method.abilities else None
    if peak is not None:
        images = max(image_bytes(w, data) for w in wanted)
        estimates.append(process_base(modules) + step_bytes(peak) + images)
    if "memory" in variant.method.abilities:
        estimates.append(
            process_base(modules) + max(_memory_bank(variant, w, data) for w in wanted)
        )
    if "explain" in {*keep} & variant.method.abilities:
        maps = max(map_bytes(w, data) for w in wanted)
        estimates = [estimate + maps for estimate in estimates]
    runs = [w for w in wanted if isinstance(w, Run)]
    return Memory(max(estimates, default=None), measured_bytes(runs, receipts, device, keep))


def measured_bytes(
    runs: Iterable[Run], receipts: Iterable[Receipt], device: str, keep: Collection[str] = ()
) -> int | None:
    """Return the most bytes that stored runs of a step took.

    The steps are those of `runs`. None without such a stored run.
    """
    runs, gpu = [*runs], device != "cpu"
    specs = {step_key(run.spec) for run in runs}
    images = max((len(run.listing.files) for run in runs), default=0)
    measured = [
        peak + (0 if gpu else _more_images(r, images))
        for r in receipts
        if step_key(r.spec) in specs and (r.provenance.device_name != "cpu") == gpu
        if (peak := _peak(r.provenance, gpu=gpu, artifacts=bool(keep)))
    ]
    return max(measured, default=None)


def _peak(about: Provenance, *, gpu: bool, artifacts: bool) -> int | None:
    """Return the measured peak of a run, with any artifacts."""
    peak = about.peak_gpu_memory_bytes if gpu else about.peak_memory_bytes
    artifacts_peak = (
        about.artifacts_peak_gpu_memory_bytes if gpu else about.artifacts_peak_memory_bytes
    )
    return max(peak or 0, (artifacts_peak or 0) if artifacts else 0) or None


def _more_images(receipt: Receipt, images: int) -> int:
    """Return the bytes of images that a stored run lacks."""
    if receipt.split.train_normal is None:
        return 0
    more = images - receipt.split.train_normal - receipt.split.scored
    return max(0, more) * 2 * 3 * receipt.spec.image_size**2


def _memory_bank(variant: Variant, wanted: Run | Missing, data: Path) -> int:
    """Return the bytes of a memory bank and the images."""
    cls = load_class(variant.method.path)
    detector = cls(cls.Parameters(**variant.parameters()))
    context = rehearsal_context(variant)
    bank = int(
        detector.memory(_normals(wanted, data), int(variant.settings["image_size"]), context)
    )
    return FIXED + bank + image_bytes(wanted, data)


def _normals(wanted: Run | Missing, data: Path) -> int:
    """Return the number of a category's normal training images."""
    if isinstance(wanted, Run):
        return sum(f.fold == "train" for f in wanted.listing.files)
    facts = find_dataset(wanted.planned.dataset, data).categories[wanted.planned.category]
    return facts.train if facts else 0


def image_bytes(wanted: Run | Missing, data: Path) -> int:
    """Return the bytes of a run's images and their copies.

    External images are included. The catalogue gives the number for a category that is not here.
    """
    size = int(wanted.planned.settings["image_size"])
    count = 0
    if isinstance(wanted, Run):
        count = len(wanted.listing.files)
        if wanted.external is not None:
            tiles = (wanted.external.prepared_size(size) // size) ** 2
            count += tiles * len(wanted.external.listing.files)
    else:
        facts = find_dataset(wanted.planned.dataset, data).categories[wanted.planned.category]
        count = facts.images if facts else 0
    return 2 * count * 3 * size * size


def map_bytes(wanted: Run | Missing, data: Path) -> int:
    """Return the bytes of a run's maps and pixel metrics.

    That is at most, of a test image, a map on a grid of 4 pixels in float32, four times on its way
    to a file and back, a mask, and the scores of half of the pixels.
    """
    size = int(wanted.planned.settings["image_size"])
    if isinstance(wanted, Run):
        tested = sum(f.fold != "train" for f in wanted.listing.files)
    else:
        facts = find_dataset(wanted.planned.dataset, data).categories[wanted.planned.category]
        tested = facts.images - facts.train if facts else 0
    return 4 * tested * size * size
