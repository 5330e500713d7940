"""Images of a category, decoded and resized once, kept as one memory-mapped uint8 array."""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bench.data import DATA_VERSION
from bench.data.catalog import Dataset
from bench.data.files import File, Listing
from bench.detector import Samples
from bench.environment import cpu_count
from bench.errors import DataError, RequestError, StoreError
from bench.files import sync_folder, write_synced

RESIZE_RULES = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
"""To a square, aspect ratio not kept, with Pillow's antialiasing filter of that name."""

MAX_PIXELS = 64_000_000
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})


@dataclass(frozen=True)
class ImageFacts:
    """What one file said, and the digest of what it shows."""

    path: str
    width: int
    height: int
    mode: str
    bytes: int
    pixels: str
    """sha256 of the decoded RGB pixels at native size: equal for duplicates in other encodings."""


@dataclass(frozen=True)
class CategoryImages:
    """The cached arrays of one category at one size; `facts[i]` belongs to `pixels[i]`."""

    pixels: NDArray[np.uint8]
    """(N, 3, S, S), memory-mapped, read-only."""
    facts: tuple[ImageFacts, ...]

    def samples(self, chosen: Sequence[int]) -> Samples:
        """Return the chosen images; the array is copied out of the memory map."""
        facts = [self.facts[i] for i in chosen]
        return Samples(
            images=self.pixels[list(chosen)],
            names=tuple(f.path for f in facts),
            width=np.array([f.width for f in facts], dtype=np.int64),
            height=np.array([f.height for f in facts], dtype=np.int64),
            mode=tuple(f.mode for f in facts),
            bytes=np.array([f.bytes for f in facts], dtype=np.int64),
        )


def decode(path: Path) -> tuple[Image.Image, str]:
    """Decode one file to RGB (alpha composed on black) and return it with its own mode.

    Raises DataError naming the file where it is not a whole image of a supported mode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(f"{path} has {image.width}x{image.height} pixels: too many")
                mode = image.mode
                if mode not in _MODES:
                    raise DataError(f"{path} has mode {mode}; save it as 8-bit grey, RGB or RGBA")
                image.load()
                if "A" in mode or "transparency" in image.info:
                    rgba = image.convert("RGBA")
                    black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
                    return Image.alpha_composite(black, rgba).convert("RGB"), mode
                return image.convert("RGB"), mode
    except DataError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        reason = "is not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{path} does not decode ({reason}); replace or remove it") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{path} has too many pixels (more than {MAX_PIXELS})") from None


def cache_folder(cache: Path, fingerprint: str, size: int, resize: str) -> Path:
    """Return where the arrays of one category at one size are kept."""
    return cache / "images" / f"{fingerprint[:32]}-v{DATA_VERSION}-{size}-{resize}"


def prepare(
    listing: Listing,
    fingerprint: str,
    cache: Path,
    size: int,
    resize: str = "bilinear",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Decode and resize a category into the cache unless it is there; return its folder.

    Built beside its place and renamed, so that a reader never sees half of it; what is there but
    damaged is made again. Raises DataError for a file that does not decode, StoreError where the
    cache cannot be written.
    """
    if resize not in RESIZE_RULES:
        raise RequestError(f"resize is one of {', '.join(RESIZE_RULES)}, not {resize!r}")
    folder = cache_folder(cache, fingerprint, size, resize)
    try:
        if folder.is_dir():
            try:
                load(folder)
                return folder
            except DataError:
                shutil.rmtree(folder)  # damaged: made again from the files
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".staging-"))
    except OSError as error:
        raise StoreError(f"cannot write to the cache {cache}: {error.strerror}") from error
    try:
        _build(listing, staging, size, RESIZE_RULES[resize], progress)
        os.rename(staging, folder)
        sync_folder(folder.parent)
    except OSError as error:
        if (folder / "index.json").is_file():  # another process was faster
            return folder
        raise StoreError(f"cannot write to the cache {cache}: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _build(
    listing: Listing,
    staging: Path,
    size: int,
    resampling: Image.Resampling,
    progress: Callable[[int, int], None],
) -> None:
    files = listing.files
    array = np.lib.format.open_memmap(
        staging / "images.npy", mode="w+", dtype=np.uint8, shape=(len(files), 3, size, size)
    )

    def one(job: tuple[int, File]) -> ImageFacts:
        i, file = job
        path = listing.root / file.path
        rgb, mode = decode(path)
        resized = rgb if rgb.size == (size, size) else rgb.resize((size, size), resampling)
        array[i] = np.asarray(resized).transpose(2, 0, 1)
        shown = hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()
        return ImageFacts(file.path, *rgb.size, mode, path.stat().st_size, shown)

    facts = []
    with ThreadPoolExecutor(cpu_count()) as pool:
        for fact in pool.map(one, enumerate(files)):
            facts.append(fact)
            progress(len(facts), len(files))
    array.flush()
    with (staging / "images.npy").open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    index = {"images_sha256": digest, "files": [asdict(f) for f in facts]}
    sealed = {**index, "index_sha256": _index_digest(index)}
    write_synced(staging / "index.json", json.dumps(sealed).encode())


def _index_digest(index: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def load(folder: Path) -> CategoryImages:
    """Open a prepared category; raises DataError where the cache does not hold what it should."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
        if index.pop("index_sha256") != _index_digest(index):
            raise ValueError("digest of index.json")
        facts = tuple(ImageFacts(**f) for f in index["files"])
        with (folder / "images.npy").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != index["images_sha256"]:
            raise ValueError("digest of images.npy")
        pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cached images in {folder} are damaged ({error}); delete that folder"
        ) from error
    return CategoryImages(pixels, facts)


def why_unofficial(
    dataset: Dataset, category: str, fingerprint: str, images: CategoryImages
) -> str:
    """Say why this copy is not the official one; empty where nothing speaks against it.

    By the content fingerprint where the official one is known, else by counts and native size.
    """
    if dataset.layout == "synthetic":
        return ""
    if dataset.folder is not None:
        return "not in the catalogue"
    if dataset.fingerprint:
        return "" if fingerprint == dataset.fingerprint else "content differs"
    facts = dataset.categories[category]
    official = facts.train + facts.test_normal + facts.test_anomalous
    reasons = []
    if len(images.facts) != official:
        reasons.append(f"{len(images.facts)} of {official} images")
    sizes = {(f.width, f.height) for f in images.facts}
    if facts.native_size and sizes != {(facts.native_size, facts.native_size)}:
        width, height = min(sizes)
        reasons.append(f"{width}x{height} px, not {facts.native_size}x{facts.native_size}")
    return "; ".join(reasons)
