"""sha256 of files, each read once."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from bench.system.files import sealed, unsealed, write_atomically
from bench.system.untrusted import open_regular, read_regular

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


def file_digest(path: Path) -> str:
    """Return the sha256 of a file as it is now; raises OSError, also for what is no file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
