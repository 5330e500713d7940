"""External images, for methods that also learn from other sources.

They are named by a source and fingerprinted like a category. An image of the dataset is never among
them, be it a link, a copy, or saved otherwise with the same pixels.
"""

import contextlib
import functools
import importlib.util
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.data.catalog import OWN_VERSION, Dataset, find_dataset
from bench.data.decode import is_turned
from bench.data.images import load
from bench.data.layouts import list_category
from bench.data.listing import File, Listing, check_names, fingerprint, images_below
from bench.data.present import as_seen
from bench.errors import DataError, MissingData
from bench.system.digests import FingerprintCache
from bench.system.untrusted import is_one_line, one_line, os_reason

Item = TypeVar("Item")

SOURCES = ("none", "textures", "mvtec_ad")
"""`textures`: brick, grass and gravel as they come with scikit-image, in tiles, or the images of a
folder that the user names; `mvtec_ad`: normal training images of the other categories here."""

TEXTURES = ("brick.png", "grass.png", "gravel.png")
TILES = 4
"""Along each side of a texture of 512 px."""
PER_CATEGORY = 32
"""Images taken of a category, evenly over its sorted names."""
PER_FOLDER = 1000
"""Images taken of a folder of textures, as evenly."""


@dataclass(frozen=True)
class External:
    """External images of a source, not decoded yet."""

    source: str
    """One of SOURCES, or the name of a folder of textures."""
    listing: Listing
    fingerprint: str
    tiles: int = 1
    """Tiles that an image is cut into, along each side."""
    turned: bool = False
    """Whether EXIF turns any of them, which older runs left undone."""

    @property
    def identity(self) -> str:
        """The part of a run's identity that names them."""
        return f"{self.source}:{self.fingerprint}" + ":turned" * self.turned

    def prepared_size(self, image_size: int) -> int:
        """Return their prepared side in pixels."""
        return image_size * self.tiles


def find_external(
    source: str,
    dataset: str,
    category: str,
    data: Path,
    cache: Path,
    digests: FingerprintCache,
    textures: Path | None = None,
) -> External | None:
    """Return a source's images; None for `none`.

    `textures` is a folder that takes the place of the textures of scikit-image. Raises MissingData
    with the remedy where they are not here, DataError for a folder that is the dataset's own or
    whose name cannot name them.
    """
    if source == "none":
        return None
    tiles, turned = 1, False
    if source == "mvtec_ad":
        mvtec = find_dataset(source, data)
        listing = _other_categories(mvtec, dataset, category, data, cache)
        listing = as_seen(mvtec, listing, fingerprint(listing, digests))
        turned = listing.data_version != mvtec.data_version
    elif textures is None:
        listing, tiles = _textures(), TILES
    else:
        listing, source = _folder(textures, data / dataset, digests), textures.name
        turned = _any_turned(listing, fingerprint(listing, digests))
    return External(source, listing, fingerprint(listing, digests), tiles, turned)


@functools.lru_cache(maxsize=16)
def _any_turned(listing: Listing, content: str) -> bool:
    """Whether EXIF turns any image of this content."""
    return any(is_turned(listing.root / file.path) for file in listing.files)


def check_apart(
    external: External,
    external_pixels: Sequence[str],
    listing: Listing,
    pixels: Sequence[str],
    dataset: str,
) -> None:
    """Raise DataError where external images show images of a category.

    Each has a digest of its pixels. For what the user names only; the other sources never do.
    """
    if external.source in SOURCES:
        return
    own = dict(zip(pixels, listing.files, strict=True))
    for file, digest in zip(external.listing.files, external_pixels, strict=True):
        if match := own.get(digest):
            problem = _among(dataset, match.fold == "test")
            raise DataError(
                f"textures of {one_line(external.listing.root)}: {problem}: {one_line(file.path)}"
                f" shows {one_line(match.path)}"
            )


def _among(dataset: str, tested: bool) -> str:
    """Return what is among the textures and must not be."""
    return (
        f"test images are among them, of {dataset}"
        if tested
        else f"images of {dataset} are among them"
    )


def _folder(folder: Path, own: Path, digests: FingerprintCache) -> Listing:
    """List the images in a folder of textures and below."""
    if folder.name in ("", *SOURCES) or ":" in folder.name or not is_one_line(folder.name):
        raise DataError(
            f"textures of {one_line(folder)}: its name stands for them in the results, so it cannot"
            f" be empty, {', '.join(SOURCES)} or hold a colon; rename it"
        )
    name = f"textures of {one_line(folder)}"
    for one, other in ((folder, own), (folder.resolve(), own.resolve())):
        if one.is_relative_to(other) or other.is_relative_to(one):
            tested = not one.is_relative_to(other) or "train" not in one.relative_to(other).parts
            raise DataError(f"{name}: {_among(own.name, tested)}")
    if not folder.is_dir():
        raise MissingData(f"textures: there is no folder {one_line(folder)}")
    try:
        images = sorted(images_below(folder))
        if shared := _shared_file(images, own, digests):
            image, same = (
                path.relative_to(top) for path, top in zip(shared, (folder, own), strict=True)
            )
            raise DataError(
                f"{name}: {_among(own.name, 'test' in same.parts)}: {one_line(image)} is"
                f" {one_line(same)}"
            )
        paths = sorted(p.relative_to(folder).as_posix() for p in images)
    except OSError as error:
        raise DataError(f"cannot read {one_line(folder)}: {os_reason(error)}") from error
    if not paths:
        raise MissingData(f"textures: no images in {one_line(folder)}")
    check_names(folder, paths)
    files = tuple(File(p, "train", "good") for p in _spread(paths, PER_FOLDER))
    return Listing(folder, files, OWN_VERSION)


def _shared_file(
    images: Sequence[Path], own: Path, digests: FingerprintCache
) -> tuple[Path, Path] | None:
    """Return an image and the file of `own` that it is, by a link or as a copy."""
    by_file = {(s.st_dev, s.st_ino): path for path in images for s in [path.stat()]}
    by_size: dict[int, list[Path]] = {}
    for path in images:
        by_size.setdefault(path.stat().st_size, []).append(path)
    for path in _files_below(own):
        with contextlib.suppress(OSError):  # a link to nothing, a file that cannot be read
            status = path.stat()
            if image := by_file.get((status.st_dev, status.st_ino)):
                return image, path
            for image in by_size.get(status.st_size, ()):
                if stat.S_ISREG(status.st_mode) and digests.sha256(image) == digests.sha256(path):
                    return image, path
    return None


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield files in and below a folder, links followed."""
    visited: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        visited.add(os.path.realpath(parent))
        folders[:] = [f for f in folders if os.path.realpath(Path(parent, f)) not in visited]
        yield from (Path(parent, name) for name in names)


def _textures() -> Listing:
    spec = importlib.util.find_spec("skimage")
    root = Path(spec.origin).parent / "data" if spec and spec.origin else Path("skimage")
    for name in TEXTURES:
        if not (root / name).is_file():
            raise MissingData(f"{one_line(root / name)} is not there: pip install scikit-image")
    return Listing(root, tuple(File(name, "train", "good") for name in TEXTURES))


def _other_categories(
    mvtec: Dataset, dataset: str, category: str, data: Path, cache: Path
) -> Listing:
    files: list[File] = []
    for other in mvtec.categories:
        if (dataset, category) == (mvtec.name, other):
            continue
        try:
            listing = list_category(mvtec, other, data, cache)
        except MissingData:
            continue
        files += _spread([f for f in listing.files if f.fold == "train"], PER_CATEGORY)
        root = listing.root
    if not files:
        raise MissingData(
            f"external images: no other category of mvtec_ad is in {one_line(data)};"
            " fetch one, or --set external=textures"
        )
    return Listing(root, tuple(sorted(files, key=lambda f: f.path)), mvtec.data_version)


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most `most` items, evenly spaced."""
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, min(most, len(items))).round()]


def load_external(folder: Path, image_size: int) -> NDArray[np.uint8]:
    """Return external images or tiles (M, 3, S, S); raises DataError."""
    pixels = load(folder).pixels
    count, channels, side = pixels.shape[:3]
    tiles = side // image_size
    if tiles * image_size != side:
        raise DataError(f"{one_line(folder)} holds images of {side} px, for {image_size} px")
    cut = pixels.reshape(count, channels, tiles, image_size, tiles, image_size)
    return np.ascontiguousarray(
        cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, channels, image_size, image_size)
    )
