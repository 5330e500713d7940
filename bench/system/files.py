"""Files that appear whole or not at all, and JSON that knows its own digest."""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.errors import StoreError
from bench.system.untrusted import shown, why


def sealed(kind: str, content: Mapping[str, Any]) -> bytes:
    """Return JSON that names its kind and holds the sha256 of itself: no flipped bit passes.

    Raises ValueError for content that is not finite JSON.
    """
    whole = {"kind": kind, "content": dict(content)}
    return json.dumps({**whole, "sha256": json_digest(whole)}).encode()


def unsealed(kind: str, data: bytes) -> dict[str, Any]:
    """Return what was `sealed` under this kind; raises ValueError where a single bit differs."""
    try:
        whole = json.loads(data)
        content: dict[str, Any] = whole["content"]
        if sealed(kind, content) != data:
            raise ValueError(f"it is not a whole {kind}")
        return content
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is not a whole {kind}") from error


def json_digest(content: Mapping[str, Any]) -> str:
    """Return the sha256 of the content's sorted JSON; raises ValueError for NaN and infinity."""
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into one clear line; raises StoreError in place of OSError."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write to {shown(folder)}: {why(error)}") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path` against other commands; the kernel frees those of the dead.

    A file system without locks goes without. Raises OSError where the file cannot be made.
    """
    with path.open("a") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` last across a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file and flush it to the disk; for files in a folder that is not yet visible."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: a reader sees the old file or the new one, never a part.

    Raises StoreError where the folder cannot be written.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write {shown(path)}: {why(error)}") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
