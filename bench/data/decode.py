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

from PIL import ExifTags, Image, UnidentifiedImageError
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
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by EXIF orientation; 1 is upright."""
_LYING = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))
_PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""What a PNG with an orientation holds."""

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else some of its errors are printed


@dataclass(frozen=True)
class ImageFacts:
    """Header facts and pixel digest of an image file."""

    path: str
    width: int
    """Of the upright image in pixels, see `decode_image`."""
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

    The image is upright, as viewers show it: turned as its EXIF orientation says. Alpha is composed
    on black. `content` are its bytes where they are read already. Of the several
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
            turn = _turn(image)
            rgb = _rgb(image)
            return rgb if turn is None else rgb.transpose(turn), mode
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


def _rgb(image: ImageFile) -> Image.Image:
    """Return a loaded image in RGB, alpha composed on black."""
    if "A" in image.mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return image.convert("RGB")


def _turn(image: ImageFile) -> Image.Transpose | None:
    """Return what makes an image upright, None if it is.

    Damaged EXIF is no EXIF. A TIFF is turned by Pillow when it is loaded, and upright from then on.
    """
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever Pillow lets through on bytes that nobody foresaw
        return None


def is_turned(path: Path) -> bool:
    """Whether an image's EXIF turns it; it is not decoded.

    False for a file that does not open as an image, which `decode_image` refuses.
    """
    try:
        return _header(path)[2] is not None
    except Exception:
        return False


def upright_size(path: Path) -> tuple[int, int]:
    """Return an upright image's width and height; raises DataError.

    Nothing is decoded, but for TIFFs, whose turns are Pillow's affair.
    """
    try:
        kind, (width, height), turn = _header(path)
    except Exception:
        kind = None
    if kind in (None, "TIFF"):
        return decode_image(path)[0].size
    return (height, width) if turn in _LYING else (width, height)


def _header(path: Path) -> tuple[str | None, tuple[int, int], Image.Transpose | None]:
    """Return an image's format, its size as it lies and its turn; raises anything."""
    content = read_regular(path, MAX_BYTES)
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        # Pillow would decode a PNG without EXIF to look for it behind the pixels.
        plain = image.format == "PNG" and not any(mark in content for mark in _PNG_EXIF)
        return image.format, image.size, None if plain else _turn(image)


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
