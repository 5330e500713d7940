"""Files of a category and their fingerprint."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import DataError
from bench.system.digests import FingerprintCache
from bench.system.files import cannot_read
from bench.system.untrusted import is_one_line, one_line

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})


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
    """A category's root folder and sorted files."""

    root: Path
    files: tuple[File, ...]
    data_version: int = 1
    """Of the dataset's card."""
    near_copies: bool = False
    """Whether near copies count as one picture, see `bench.data.near_copies`."""
    copies_by_hand: tuple[tuple[str, ...], ...] = ()
    """Groups of paths that show one picture, whatever their likeness."""


def check_names(root: Path, paths: Iterable[str]) -> None:
    """Raise DataError for a path with control characters."""
    for path in paths:
        if not is_one_line(path):
            raise DataError(
                f"{one_line(root)} holds {path!r}: rename it,"
                " names of images and folders are UTF-8 without control characters"
            )


def images_below(folder: Path) -> Iterable[Path]:
    """Yield images in and below a folder; raises OSError.

    Hidden folders are left out, links to folders not followed.
    """
    for parent, folders, names in os.walk(folder, onerror=raised):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from filter(_is_image, (Path(parent, name) for name in names))


def images_in(folder: Path) -> Iterable[Path]:
    """Yield the images directly in `folder`."""
    return filter(_is_image, folder.iterdir())


def raised(error: OSError) -> None:
    """Raise what `os.walk` would pass over."""
    raise error


def _is_image(path: Path) -> bool:
    """Whether a path is an image, and not hidden (macOS leaves `._*`)."""
    named = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    return named and path.is_file()


def fingerprint(listing: Listing, cache: FingerprintCache) -> str:
    """Return a category's content fingerprint; raises DataError."""
    digests = content_digests([listing.root / file.path for file in listing.files], cache)
    return content_fingerprint(listing.files, digests)


def content_digests(paths: Iterable[Path], cache: FingerprintCache) -> list[str]:
    """Return the sha256 of each file's bytes; raises DataError."""
    digests = []
    for path in paths:
        try:
            digests.append(cache.sha256(path))
        except OSError as error:
            raise DataError(cannot_read(path, error)) from error
    return digests


def content_fingerprint(files: Sequence[File], digests: Sequence[str]) -> str:
    """Return the sha256 of sorted paths and digests."""
    digest = hashlib.sha256()
    for file, content in zip(files, digests, strict=True):
        digest.update(f"{file.path}\0{content}\n".encode())
    return digest.hexdigest()
