"""sha256 of files, cached so that each is read once."""

import hashlib
import os
import time
from functools import cached_property
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


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class SealedCache:
    """Entries of a cache file by key; a damaged file is started anew."""

    def __init__(self, file: Path, kind: str) -> None:
        self._file, self._kind = file, kind
        self._new: dict[str, Any] = {}

    @cached_property
    def _known(self) -> dict[str, Any]:
        return self._read()

    def _read(self) -> dict[str, Any]:
        try:
            with open_regular(self._file) as opened:
                return unsealed(self._kind, opened.read())
        except (OSError, ValueError):
            return {}

    def get(self, key: str) -> Any:
        """Return an entry, None if there is none."""
        return self._known.get(key)

    def put(self, key: str, entry: Any) -> None:
        """Keep an entry; `save` writes it."""
        self._known[key] = self._new[key] = entry

    def save(self) -> None:
        """Save new entries beside those on disk, where that is allowed.

        Of two commands that save at one moment the last wins.
        """
        if self._new:
            write_cache(self._file, sealed(self._kind, self._read() | self._new))
            self._new = {}


class FingerprintCache(SealedCache):
    """Digests of files by path, size and times."""

    def __init__(self, cache: Path) -> None:
        super().__init__(cache / "sha256.json", "sha256 of files")
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
        match self.get(str(path.absolute())):
            case [int(size), int(changed), int(moved), str(digest)]:
                return digest if (size, changed, moved) == stamp else None
        return None

    def _store(self, path: Path, stamp: Stamp, digest: str) -> None:
        if max(stamp[1:]) > time.time_ns() - SETTLED:
            return  # it could change once more without a trace in its times
        self.put(str(path.absolute()), [*stamp, digest])


def file_digest(path: Path) -> str:
    """Return a file's sha256, read now; raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
