"""sha256 of files, cached so that each is read once."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from bench.system.files import sealed, unsealed, write_cache
from bench.system.untrusted import open_regular, read_regular

Stamp = tuple[int, int, int]
"""Size, modification and inode change time of a file, in nanoseconds.

The inode time cannot be set by hand, so it also shows a change whose maker reset the other one.
"""
SETTLED = 2_000_000_000
"""Nanoseconds after which any change moves a time, also with a coarse clock."""
_KIND = "sha256 of files"


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class FingerprintCache:
    """Digests of files by path, size and times."""

    def __init__(self, cache: Path) -> None:
        self._file = cache / "sha256.json"
        self._known = _entries(self._file)
        self._dirty = False
        self.corrected: list[Path] = []
        """Files whose bytes had changed without a change of size or times."""

    def sha256(self, path: Path) -> str:
        """Return a file's digest, read if changed; raises OSError."""
        known = self._lookup(path, _stamp(path.stat()))
        if known:
            return known
        with open_regular(path) as file:
            stamp = _stamp(os.fstat(file.fileno()))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._store(path, stamp, digest)
        return digest

    def read(self, path: Path, limit: int) -> tuple[bytes, str]:
        """Return a file's bytes and digest; correct the cache.

        Raises OSError where it cannot be read, and for more than `limit` bytes.
        """
        stamp = _stamp(path.stat())
        content = read_regular(path, limit)
        digest = hashlib.sha256(content).hexdigest()
        known = self._lookup(path, stamp)
        if known and known != digest:
            self.corrected.append(path)
        if known != digest:
            self._store(path, stamp, digest)
        return content, digest

    def _lookup(self, path: Path, stamp: Stamp) -> str | None:
        match self._known.get(str(path.absolute())):
            case [int(size), int(changed), int(moved), str(digest)]:
                return digest if (size, changed, moved) == stamp else None
        return None

    def _store(self, path: Path, stamp: Stamp, digest: str) -> None:
        if max(stamp[1:]) > time.time_ns() - SETTLED:
            return  # it could change once more without a trace in its times
        self._known[str(path.absolute())] = [*stamp, digest]
        self._dirty = True

    def save(self) -> None:
        """Save new digests where that is allowed; the last of two commands wins."""
        if self._dirty:
            write_cache(self._file, sealed(_KIND, self._known))
            self._dirty = False


def _entries(file: Path) -> dict[str, Any]:
    """Read the cache file; a damaged one is started anew."""
    try:
        with open_regular(file) as opened:
            return unsealed(_KIND, opened.read())
    except (OSError, ValueError):
        return {}


def file_digest(path: Path) -> str:
    """Return a file's sha256, read now; raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
