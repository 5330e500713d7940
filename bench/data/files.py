"""Which files a category consists of: each layout's rules, and the content fingerprint."""

import csv
import errno
import hashlib
import io
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bench.data.catalog import Dataset, find_dataset, has_mvtec_layout
from bench.errors import DataError, MissingData, RequestError
from bench.files import sealed, unsealed, write_atomically

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
MAX_LABELS = 1 << 20

HEAD_CT_TEST_NORMALS = frozenset(
    {100, 104, 110, 112, 118, 122, 126, 130, 131, 133, 139, 142, 144, 145, 153, 155, 169, 170,
     173, 176, 177, 180, 183, 188, 190}
)  # fmt: skip
"""The normals that the converters of DevNet, DRA and AHL leave for the test (3:1, seed 42)."""

_BREAKS_A_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line separators, and the stand-ins for bytes that are not UTF-8."""


def fits_a_line(text: str) -> bool:
    """Whether a name from outside can be printed and stored as it is."""
    return not _BREAKS_A_LINE.search(text)


def shown(text: object) -> str:
    """Return a path or a message from outside as a part of one line, what breaks it escaped."""
    return _BREAKS_A_LINE.sub(lambda found: repr(found[0])[1:-1], str(text))


def why(error: OSError) -> str:
    """Return the reason of an error of the system, as a part of one line."""
    return shown(error.strerror or error)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read; raises OSError for a folder, and for a pipe instead of waiting on it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a null byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """Return the content of a file; raises OSError for one of more than `limit` bytes."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"more than {limit >> 10} KiB", str(path))
    return content


@dataclass(frozen=True)
class File:
    """One image of a category."""

    path: str
    """Relative to the category's root folder, with forward slashes."""
    fold: str
    """`train` or `test`; the labelled anomalies are later drawn from the test fold."""
    defect: str
    """Defect type, `good` for normal images."""

    @property
    def anomalous(self) -> bool:
        """Whether the picture shows a defect."""
        return self.defect != "good"


@dataclass(frozen=True)
class Listing:
    """A category's files, sorted by path, and the folder that their paths are relative to."""

    root: Path
    files: tuple[File, ...]


def dataset_named(name: str, data: Path) -> Dataset:
    """Find a dataset as the catalogue does, with errors of one line whatever lies in `data`."""
    try:
        return find_dataset(name, data)
    except (RequestError, MissingData) as error:
        raise type(error)(shown(error)) from None
    except OSError as error:
        raise RequestError(f"cannot look for dataset {name!r:.80}: {why(error)}") from error


def list_category(dataset: Dataset, category: str, data: Path, cache: Path) -> Listing:
    """List the images of a category without opening them.

    Raises MissingData with the remedy where the folder is absent, DataError where it does not
    hold what the layout asks for.
    """
    try:
        root, files = _listed(dataset, category, data, cache)
    except OSError as error:
        place = shown(error.filename or data / dataset.name)
        raise DataError(f"cannot read {place}: {why(error)}") from error
    for file in files:
        if not fits_a_line(file.path):
            raise DataError(
                f"{shown(root)} holds {file.path!r}: rename it,"
                " names of images and folders are UTF-8 without control characters"
            )
    ordered = tuple(sorted(files, key=lambda f: f.path))
    for what, there in (
        ("normal training images", any(f.fold == "train" for f in ordered)),
        ("normal test images", any(f.fold == "test" and not f.anomalous for f in ordered)),
        ("anomalous test images", any(f.anomalous for f in ordered)),
    ):
        if not there:
            raise DataError(f"{dataset.name}/{category} at {shown(root)} has no {what}")
    return Listing(root, ordered)


def _listed(dataset: Dataset, category: str, data: Path, cache: Path) -> tuple[Path, list[File]]:
    """Return the root and the files by the rules of the dataset's layout."""
    if dataset.layout == "synthetic":
        from bench.data import synthetic

        root = synthetic.generated(cache, category)
        return root, _mvtec_files(root / category, root)
    if dataset.layout == "mvtec":
        home = dataset.folder or data / dataset.name
        whole = category == dataset.name and has_mvtec_layout(home)
        folder = home if whole else home / category
        if not (folder / "train" / "good").is_dir() or not (folder / "test").is_dir():
            raise _missing(dataset, category, data)
        return home, _mvtec_files(folder, home)
    root = data / dataset.name
    if dataset.layout == "head_ct":
        if not (root / "head_ct").is_dir():
            raise _missing(dataset, category, data)
        return root, _head_ct_files(root)
    if not (root / "yes").is_dir() or not (root / "no").is_dir():
        raise _missing(dataset, category, data)
    return root, _brain_mri_files(root)


def _missing(dataset: Dataset, category: str, data: Path) -> MissingData:
    place = dataset.name if category == dataset.name else f"{dataset.name}/{category}"
    remedy = dataset.remedy.format(data=data) or f"there is no such folder in {data}"
    return MissingData(
        shown(f"{place} is not in {data}: get it from {dataset.source} and {remedy}")
    )


def _images(folder: Path) -> Iterable[Path]:
    """Yield the images directly in `folder`; hidden files (macOS leaves `._*`) are no images."""
    for path in folder.iterdir():
        image = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        if image and path.is_file():
            yield path


def _mvtec_files(folder: Path, root: Path) -> list[File]:
    files = [
        File(p.relative_to(root).as_posix(), "train", "good")
        for p in _images(folder / "train" / "good")
    ]
    for defect in sorted((folder / "test").iterdir()):
        if defect.is_dir() and not defect.name.startswith("."):
            files += [
                File(p.relative_to(root).as_posix(), "test", defect.name) for p in _images(defect)
            ]
    return files


def _head_ct_files(root: Path) -> list[File]:
    labels = _head_ct_labels(root / "labels.csv")
    files = []
    for path in _images(root / "head_ct"):
        try:
            number = int(path.stem)
        except ValueError:
            raise DataError(
                f"{shown(path)} is not one of Head-CT's numbered files; move it away"
            ) from None
        if labels.get(number, number < 100) != (number < 100):
            labels_file = shown(root / "labels.csv")
            raise DataError(f"{labels_file} disagrees with Head-CT about {shown(path.name)}")
        if number < 100:
            fold, defect = "test", "hemorrhage"
        else:
            fold, defect = ("test" if number in HEAD_CT_TEST_NORMALS else "train"), "good"
        files.append(File(path.relative_to(root).as_posix(), fold, defect))
    return files


def _head_ct_labels(path: Path) -> dict[int, bool]:
    """Read the archive's `id, hemorrhage` table; without it the file numbers alone decide."""
    if not path.is_file():
        return {}
    try:
        lines = read_regular(path, MAX_LABELS).decode().splitlines()
        rows = list(csv.reader(lines, skipinitialspace=True))[1:]
        return {int(row[0]): bool(int(row[1])) for row in rows if row}
    except (ValueError, IndexError, csv.Error):
        raise DataError(f"{shown(path)} does not hold lines of `id, hemorrhage`") from None


def _brain_mri_files(root: Path) -> list[File]:
    test = brain_mri_test_normals()
    files = [File(f"yes/{p.name}", "test", "tumor") for p in _images(root / "yes")]
    files += [
        File(f"no/{p.name}", "test" if p.name in test else "train", "good")
        for p in _images(root / "no")
    ]
    return files


def brain_mri_test_normals() -> frozenset[str]:
    """Names of the 25 test normals, from the manifest that the project ships.

    The rivals split an unsorted listing, so theirs is lost. Ours: the 98 normals sorted by name,
    grouped by equal decoded pixels, the groups shuffled with seed 42, and whole groups taken while
    they fit until 25 files are reached (`tests/test_splits.py` makes it again from the images).
    """
    text = resources.files("bench.data").joinpath("manifests/brain_mri.json").read_text()
    return frozenset(json.loads(text)["test_normals"])


Stamp = tuple[int, int, int]
"""Size, and the times of the last change of the content and of the inode, in nanoseconds.

The second time cannot be set by hand: it also tells a change whose maker put the first one back.
"""
SETTLED = 2_000_000_000
"""Nanoseconds after which a change moves a time for certain, also where clocks tick coarsely."""
_KIND = "sha256 of files"


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


class FingerprintCache:
    """sha256 of files, kept by path, size and times, so that each is read once."""

    def __init__(self, cache: Path) -> None:
        self._file = cache / "sha256.json"
        self._known = _entries(self._file)
        self._dirty = False
        self.corrected: list[Path] = []
        """Files whose bytes, when read, were not what was kept for the same size and times."""

    def sha256(self, path: Path) -> str:
        """Return the digest of a file, read only if its size or times have changed.

        Raises OSError where it cannot be read.
        """
        known = self._kept(path, _stamp(path.stat()))
        if known:
            return known
        with open_regular(path) as file:
            stamp = _stamp(os.fstat(file.fileno()))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._keep(path, stamp, digest)
        return digest

    def read(self, path: Path, limit: int) -> tuple[bytes, str]:
        """Return the bytes of a file and their digest; what was kept of it is put right.

        Raises OSError where it cannot be read, and for more than `limit` bytes.
        """
        stamp = _stamp(path.stat())
        content = read_regular(path, limit)
        digest = hashlib.sha256(content).hexdigest()
        known = self._kept(path, stamp)
        if known and known != digest:
            self.corrected.append(path)
        if known != digest:
            self._keep(path, stamp, digest)
        return content, digest

    def _kept(self, path: Path, stamp: Stamp) -> str | None:
        match self._known.get(str(path.absolute())):
            case [int(size), int(changed), int(moved), str(digest)]:
                return digest if (size, changed, moved) == stamp else None
        return None

    def _keep(self, path: Path, stamp: Stamp, digest: str) -> None:
        if max(stamp[1:]) > time.time_ns() - SETTLED:
            return  # it could change once more without a trace in its times
        self._known[str(path.absolute())] = [*stamp, digest]
        self._dirty = True

    def save(self) -> None:
        """Write what was learnt to the cache; of two commands at once, the last one's stays."""
        if self._dirty:
            write_atomically(self._file, sealed(_KIND, self._known))
            self._dirty = False


def _entries(file: Path) -> dict[str, Any]:
    """Read what is kept; a file that is damaged, or not ours, is started anew."""
    try:
        with open_regular(file) as opened:
            return unsealed(_KIND, opened.read())
    except (OSError, ValueError):
        return {}


def fingerprint(listing: Listing, known: FingerprintCache) -> str:
    """Return the content fingerprint of a category; raises DataError for an unreadable file."""
    digests = []
    for file in listing.files:
        path = listing.root / file.path
        try:
            digests.append(known.sha256(path))
        except OSError as error:
            raise DataError(f"cannot read {shown(path)}: {why(error)}") from error
    return combined(listing.files, digests)


def combined(files: Sequence[File], digests: Sequence[str]) -> str:
    """Return the sha256 over the sorted relative paths and the digests of a category's files."""
    digest = hashlib.sha256()
    for file, content in zip(files, digests, strict=True):
        digest.update(f"{file.path}\0{content}\n".encode())
    return digest.hexdigest()
