"""Decode one image file; any damage ends in a one-line error."""

import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from bench.errors import DataError
from bench.system.digests import FingerprintCache
from bench.system.files import cannot_read
from bench.system.host import cpu_count
from bench.system.untrusted import one_line, os_reason, read_regular

MAX_PIXELS = 64_000_000
MAX_SCANS = 100
"""Scans of a progressive JPEG with MAX_PIXELS; a smaller one may have more."""
MAX_BYTES = 8 * MAX_PIXELS
"""Largest file: no encoding of MAX_PIXELS needs more."""
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else some of its errors are printed


@dataclass(frozen=True)
class ImageFacts:
    """Header facts and pixel digest of an image file."""

    path: str
    width: int
    height: int
    mode: str
    bytes: int
    pixels: str
    """sha256 of the decoded RGB pixels at native size: equal for duplicates in other encodings."""


@contextmanager
def decoding_pool() -> Iterator[ThreadPoolExecutor]:
    """Give threads for decoding, with Pillow's warnings silenced.

    Filters of warnings belong to the process, not to a thread, so they are set here, once, by the
    thread that opens the pool: in `decode_image` threads would put back each other's.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        with ThreadPoolExecutor(cpu_count()) as pool:
            yield pool


def read(path: Path, digests: FingerprintCache) -> tuple[bytes, str]:
    """Return a file's bytes and digest; raises DataError."""
    try:
        return digests.read(path, MAX_BYTES)
    except OSError as error:
        raise DataError(cannot_read(path, error)) from error


def decode_image(path: Path, content: bytes | None = None) -> tuple[Image.Image, str]:
    """Return a file's RGB image and its mode.

    Alpha is composed on black. `content` are its bytes where they are read already. Of the several
    pictures in a phone's JPEG (MPO: a preview, depth, a gain map) the first is meant, as every
    reader takes it; other files of several pictures are refused. Raises DataError naming the file
    where it is not one whole 8-bit image.
    """
    try:
        if content is None:
            content = read_regular(path, MAX_BYTES)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            mode = image.mode
            problem = _problem(image, content)
            if problem:
                raise DataError(f"{one_line(path)} has {problem}")
            image.load()
            if "A" in mode or "transparency" in image.info:
                rgba = image.convert("RGBA")
                black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
                return Image.alpha_composite(black, rgba).convert("RGB"), mode
            return image.convert("RGB"), mode
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{one_line(path)} has too many pixels: more than {MAX_PIXELS}") from None
    except Exception as error:
        # Whatever: besides errors of its own Pillow lets through what struct, zlib, an index or a
        # failed allocation raise on bytes that nobody foresaw.
        if content == b"":
            reason = "is empty"
        elif isinstance(error, UnidentifiedImageError):
            reason = "is not a PNG, JPEG, BMP or TIFF image"
        elif isinstance(error, OSError):
            reason = os_reason(error)
        else:
            reason = one_line(error) or type(error).__name__
        raise DataError(
            f"{one_line(path)} does not decode ({reason[:200]}); replace or remove it"
        ) from error


def _problem(image: ImageFile, content: bytes) -> str:
    """Return why an image's header is refused; nothing is decompressed yet."""
    if image.width * image.height > MAX_PIXELS:
        return f"{image.width}x{image.height} pixels: too many, more than {MAX_PIXELS}"
    # Pillow would cut colours of 16 bits to 8; the tiles name what lies in the file.
    if image.mode not in _MODES or ";16" in repr(image.tile[:1]):
        depth = f"mode {image.mode}" + (" of 16 bits" if image.mode in _MODES else "")
        return f"{depth}; save it as 8-bit grey, RGB or RGBA"
    if getattr(image, "is_animated", False) and image.format != "MPO":
        return "several frames or pages; save the one that is meant as a file of its own"
    # Each scan of a progressive JPEG goes over all pixels, and takes but a few bytes.
    scans = content.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 0
    if scans * image.width * image.height > MAX_SCANS * MAX_PIXELS:
        return f"{scans} scans: too many; save it as a plain JPEG"
    return ""


def facts_of(path: str, content: bytes, rgb: Image.Image, mode: str) -> ImageFacts:
    """Return the facts of a decoded file."""
    pixels = hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()
    return ImageFacts(path, rgb.width, rgb.height, mode, len(content), pixels)
