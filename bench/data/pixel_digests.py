"""Digests of what image files show, and their thumbnails, each decoded once."""

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import PIL

from bench.data.decode import MAX_BYTES, decode_image, decoding_pool, facts_of
from bench.data.images import prepared_facts
from bench.data.listing import Listing, content_digests
from bench.data.near_copies import pictures, thumbnail
from bench.errors import DataError
from bench.system.digests import FingerprintCache, SealedCache
from bench.system.untrusted import read_regular

SILENT = 1.0
"""Seconds of decoding after which a line says so."""
_KIND = f"digests of upright pixels, Pillow {PIL.__version__}"
_THUMBNAILS = f"thumbnails of 48x48 grey, Pillow {PIL.__version__}"


class PixelDigests:
    """Pixel digests and thumbnails of files, kept by the digest of their bytes."""

    def __init__(
        self,
        cache: Path,
        digests: FingerprintCache,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.cache, self.digests, self._note = cache, digests, note
        self._pixels = SealedCache(cache / "pixels.json", _KIND)
        self._thumbnails = SealedCache(cache / "thumbnails.json", _THUMBNAILS)

    def of_category(self, title: str, listing: Listing, fingerprint: str) -> list[str]:
        """Return a pixel digest for each file of a category.

        Taken from prepared images, else from the cache, else by decoding. A file that does not
        decode has the digest of its bytes: its run will name it. Raises DataError for a file that
        cannot be read.
        """
        prepared = {f.path: f.pixels for f in prepared_facts(listing, fingerprint, self.cache)}
        if prepared:
            return [prepared[file.path] for file in listing.files]
        return self.of_files(title, [listing.root / file.path for file in listing.files])

    def pictures_of(self, title: str, listing: Listing, fingerprint: str) -> tuple[str, ...]:
        """Return a key for the picture that each file shows: equal for duplicates.

        For near copies too, where the listing says that they count as one picture. Raises DataError
        for a file that cannot be read.
        """
        if not listing.near_copies:
            return tuple(self.of_category(title, listing, fingerprint))
        paths = [listing.root / file.path for file in listing.files]
        contents = content_digests(paths, self.digests)
        pixels = self.of_files(title, paths, thumbnails=True)
        return pictures(listing, pixels, [str(self._thumbnails.get(c) or "") for c in contents])

    def of_files(self, title: str, paths: Sequence[Path], *, thumbnails: bool = False) -> list[str]:
        """Return a pixel digest for each file, as `of_category` does.

        With `thumbnails` these are made in the same go.
        """
        contents = content_digests(paths, self.digests)
        caches = [self._pixels, self._thumbnails][: 1 + thumbnails]
        unknown = {
            content: path
            for content, path in zip(contents, paths, strict=True)
            if any(cache.get(content) is None for cache in caches)
        }
        if unknown:
            self._decode_all(title, list(unknown.values()), thumbnails)
        return [str(self._pixels.get(content) or content) for content in contents]

    def save(self) -> None:
        """Save new digests of pixels and thumbnails."""
        self._pixels.save()
        self._thumbnails.save()

    def _decode_all(self, title: str, paths: Sequence[Path], thumbnails: bool) -> None:
        """Decode files for the caches; say so where it takes long."""
        started, silent = time.monotonic(), True
        decode = partial(_decode, small=True) if thumbnails else _decode
        with decoding_pool() as pool:
            for content, digest, small in pool.map(decode, paths):
                if content:
                    self._pixels.put(content, digest)
                if content and thumbnails:
                    self._thumbnails.put(content, small)
                if silent and time.monotonic() - started > SILENT:
                    silent = False
                    self._note(
                        f"looking for duplicates: decoding {len(paths)} images of {title}, once"
                    )


def _decode(path: Path, *, small: bool = False) -> tuple[str, str, str]:
    """Return a file's digest, that of its pixels and, if `small`, its thumbnail.

    Where it does not decode, the second is the first and the third is empty.
    """
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError:  # its fingerprint was taken a moment ago: its run will say what it is
        return "", "", ""
    digest = hashlib.sha256(content).hexdigest()
    try:
        rgb, mode = decode_image(path, content)
    except DataError:
        return digest, digest, ""
    pixels = facts_of(path.name, content, rgb, mode).pixels
    return digest, pixels, thumbnail(rgb) if small else ""
