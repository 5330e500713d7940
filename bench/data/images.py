"""A category's images, decoded and resized once into a memory-mapped array."""

import contextlib
import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from bench.data.decode import MAX_BYTES, ImageFacts, decode_image, decoding_pool, facts_of, read
from bench.data.listing import File, Listing, content_fingerprint
from bench.detector import Samples
from bench.errors import DataError, RequestError, StoreError
from bench.system.digests import FingerprintCache
from bench.system.files import cannot_read, locked, sealed, staged_folder, unsealed, write_synced
from bench.system.untrusted import one_line, open_regular, os_reason, read_regular

RESIZE_RULES = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
"""To a square, aspect ratio not kept, with Pillow's antialiasing filter of that name."""

_KIND = "prepared images"
_STAGING = ".staging-"


@dataclass(frozen=True)
class CategoryImages:
    """Prepared images of one category; `facts[i]` belongs to `pixels[i]`."""

    pixels: NDArray[np.uint8]
    """(N, 3, S, S), memory-mapped, read-only."""
    facts: tuple[ImageFacts, ...]

    def samples(self, chosen: Sequence[int]) -> Samples:
        """Return chosen images, copied from the memory map."""
        return _samples(self.pixels[list(chosen)], [self.facts[i] for i in chosen])


class _Damaged(DataError):
    """Prepared images are not as they were written."""


def _samples(pixels: NDArray[np.uint8], facts: Sequence[ImageFacts]) -> Samples:
    return Samples(
        images=pixels,
        names=tuple(f.path for f in facts),
        width=np.array([f.width for f in facts], dtype=np.int64),
        height=np.array([f.height for f in facts], dtype=np.int64),
        mode=tuple(f.mode for f in facts),
        bytes=np.array([f.bytes for f in facts], dtype=np.int64),
    )


def _identity(fingerprint: str, data_version: int, size: int, resize: str) -> dict[str, Any]:
    """Return everything that prepared images depend on."""
    return {
        "fingerprint": fingerprint,
        "data_version": data_version,
        "size": size,
        "resize": resize,
        "pillow": PIL.__version__,
    }


def _name(identity: Mapping[str, Any]) -> str:
    template = "{fingerprint:.32}-v{data_version}-{size}-{resize}-pillow{pillow}"
    return template.format_map(identity)


def prepared_folder(
    cache: Path, fingerprint: str, data_version: int, size: int, resize: str
) -> Path:
    """Return a category's cache folder at one size."""
    return cache / "images" / _name(_identity(fingerprint, data_version, size, resize))


def prepare(
    listing: Listing,
    fingerprint: str,
    cache: Path,
    size: int,
    resize: str = "bilinear",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Prepare a category in the cache; return its folder.

    Built beside its place and renamed, so that a reader never sees half of it; a damaged folder is
    made again. Raises DataError for a file that does not decode and where the files do
    not have this fingerprint, StoreError where the cache cannot be written.
    """
    if resize not in RESIZE_RULES:
        raise RequestError(f"resize is one of {', '.join(RESIZE_RULES)}, not {resize!r}")
    identity = _identity(fingerprint, listing.data_version, size, resize)
    folder = cache / "images" / _name(identity)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(folder) and _is_intact(folder):
            return folder
        _clear_leftovers(folder.parent)
        with staged_folder(folder, _STAGING) as staging:
            _build(listing, identity, FingerprintCache(cache), staging, progress)
    except OSError as error:
        if not (folder / "index.json").is_file():  # else another process was faster
            reason = f"cannot write to the cache {one_line(cache)}: {os_reason(error)}"
            raise StoreError(reason) from error
    return folder


def _is_intact(folder: Path) -> bool:
    """Whether prepared images are intact; remove damaged ones under a lock.

    Intact ones need none, so that a cache which may only be read serves.
    """
    with contextlib.suppress(_Damaged):
        load(folder)
        return True
    with locked(folder.parent / ".lock"):
        try:
            load(folder)
            return True
        except _Damaged:
            if os.path.lexists(folder):
                _remove(folder)
            return False


def _clear_leftovers(folder: Path) -> None:
    """Remove what killed commands left, once it is a day old."""
    for left in folder.glob(f"{_STAGING}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 86400:
                _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _build(
    listing: Listing,
    identity: dict[str, Any],
    digests: FingerprintCache,
    staging: Path,
    progress: Callable[[int, int], None],
) -> None:
    size, resampling = identity["size"], RESIZE_RULES[identity["resize"]]
    header = _header(len(listing.files), size)

    def one(job: tuple[int, File]) -> tuple[ImageFacts, str]:
        i, file = job
        path = listing.root / file.path
        content, digest = read(path, digests)
        rgb, mode = decode_image(path, content)
        pixels = _pixels(rgb, size, resampling).tobytes()
        _write_at(array.fileno(), len(header) + i * len(pixels), pixels)
        return facts_of(file.path, content, rgb, mode), digest

    decoded: list[tuple[ImageFacts, str]] = []
    # Written, not mapped: on a full disk a write fails with an error, a map kills the process.
    with (staging / "images.npy").open("x+b", buffering=0) as array:
        _write_at(array.fileno(), 0, header)
        try:
            with decoding_pool() as pool:
                for result in pool.map(one, enumerate(listing.files)):
                    decoded.append(result)
                    progress(len(decoded), len(listing.files))
        finally:
            if digests.corrected:
                digests.save()
        content = content_fingerprint(listing.files, [digest for _, digest in decoded])
        if content != identity["fingerprint"]:
            changed = digests.corrected[0] if digests.corrected else listing.root
            raise DataError(
                f"{one_line(changed)} does not hold what its fingerprint was taken from: it has"
                " changed or its disk is failing; check it, then run the same command again"
            )
        os.fsync(array.fileno())
        digest = hashlib.file_digest(array, "sha256").hexdigest()
    files = [asdict(facts) for facts, _ in decoded]
    index = {"of": identity, "images_sha256": digest, "files": files}
    write_synced(staging / "index.json", sealed(_KIND, index))


def _pixels(rgb: Image.Image, size: int, resampling: Image.Resampling) -> NDArray[np.uint8]:
    """Return a decoded image at the input size, (3, S, S)."""
    resized = rgb if rgb.size == (size, size) else rgb.resize((size, size), resampling)
    return np.asarray(resized).transpose(2, 0, 1)


def read_samples(
    files: Sequence[Path], size: int, resize: str, each: Callable[..., Iterable[Any]] = map
) -> Samples:
    """Decode and resize images named by their paths.

    `each` maps as `map` does, say in a `decoding_pool`. Raises DataError naming a file.
    """

    def one(path: Path) -> tuple[NDArray[np.uint8], ImageFacts]:
        rgb, mode = decode_image(path)
        facts = ImageFacts(str(path), rgb.width, rgb.height, mode, path.stat().st_size, pixels="")
        return _pixels(rgb, size, RESIZE_RULES[resize]), facts

    pixels, facts = zip(*each(one, files), strict=True)
    return _samples(np.stack(pixels), facts)


def _header(images: int, size: int) -> bytes:
    """Return the header of an .npy file of `images` images."""
    header = io.BytesIO()
    shape = (images, 3, size, size)
    entries = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, entries)
    return header.getvalue()


def _write_at(descriptor: int, offset: int, content: bytes) -> None:
    left = memoryview(content)
    while left:  # a nearly full disk takes a part, and refuses the next
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written


def prepared_facts(listing: Listing, fingerprint: str, cache: Path) -> tuple[ImageFacts, ...]:
    """Return a prepared category's facts, whatever its size; none unless prepared."""
    for folder in sorted((cache / "images").glob(f"{fingerprint:.32}-*")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            index = unsealed(_KIND, read_regular(folder / "index.json", MAX_BYTES))
            identity = index["of"]
            size, resize = identity["size"], identity["resize"]
            if identity == _identity(fingerprint, listing.data_version, size, resize):
                return tuple(ImageFacts(**f) for f in index["files"])
    return ()


def load(folder: Path) -> CategoryImages:
    """Open a prepared category; raises DataError if damaged or not readable."""
    try:
        index = unsealed(_KIND, read_regular(folder / "index.json", MAX_BYTES))
        identity = index["of"]
        if _name(identity) != folder.name:
            raise ValueError(f"it is {_name(identity)}")
        facts = tuple(ImageFacts(**f) for f in index["files"])
        header = _header(len(facts), identity["size"])
        with open_regular(folder / "images.npy") as file:
            if file.read(len(header)) != header:
                raise ValueError("header of images.npy")
            file.seek(0)
            if hashlib.file_digest(file, "sha256").hexdigest() != index["images_sha256"]:
                raise ValueError("digest of images.npy")
            shape = (len(facts), 3, identity["size"], identity["size"])
            pixels = np.memmap(file, np.uint8, "r", len(header), shape)
    except PermissionError as error:  # another user's: not damaged, and not ours to remove
        raise DataError(cannot_read(error.filename or folder, error)) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"cached images in {one_line(folder)} are damaged ({one_line(error)[:200]})"
        raise _Damaged(f"{reason}; delete that folder") from error
    return CategoryImages(pixels, facts)
