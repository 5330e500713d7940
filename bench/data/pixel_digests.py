"""Digests of what image files show, each decoded once."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import PIL

from bench.data.decode import MAX_BYTES, decode_image, decoding_pool, facts_of
from bench.data.images import prepared_facts
from bench.data.listing import Listing, content_digests
from bench.errors import DataError
from bench.system.digests import FingerprintCache, SealedCache
from bench.system.untrusted import read_regular

SILENT = 1.0
"""Seconds of decoding after which a line says so."""
_KIND = f"digests of upright pixels, Pillow {PIL.__version__}"


class PixelDigests:
    """Pixel digests of files, kept by the digest of their bytes."""

    def __init__(
        self,
        cache: Path,
        digests: FingerprintCache,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.cache, self.digests, self._note = cache, digests, note
        self._pixels = SealedCache(cache / "pixels.json", _KIND)

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

    def of_files(self, title: str, paths: Sequence[Path]) -> list[str]:
        """Return a pixel digest for each file, as `of_category` does."""
        contents = content_digests(paths, self.digests)
        unknown = {c: p for c, p in zip(contents, paths, strict=True) if not self._pixels.get(c)}
        if unknown:
            for content, digest in self._decoded(title, list(unknown.values())).items():
                self._pixels.put(content, digest)
        return [str(self._pixels.get(content) or content) for content in contents]

    def save(self) -> None:
        """Save new digests of pixels."""
        self._pixels.save()

    def _decoded(self, title: str, paths: Sequence[Path]) -> dict[str, str]:
        """Return pixel digests by those of the bytes; say so where it takes long."""
        pixels: dict[str, str] = {}
        started, silent = time.monotonic(), True
        with decoding_pool() as pool:
            for content, digest in pool.map(_decode, paths):
                if content:
                    pixels[content] = digest
                if silent and time.monotonic() - started > SILENT:
                    silent = False
                    self._note(
                        f"looking for duplicates: decoding {len(paths)} images of {title}, once"
                    )
        return pixels


def _decode(path: Path) -> tuple[str, str]:
    """Return a file's digest and that of its pixels: the same where it does not decode."""
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError:  # its fingerprint was taken a moment ago: its run will say what it is
        return "", ""
    digest = hashlib.sha256(content).hexdigest()
    try:
        return digest, facts_of(path.name, content, *decode_image(path, content)).pixels
    except DataError:
        return digest, digest
