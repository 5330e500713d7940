"""Atomic files and folders, locks, and JSON sealed by its own digest."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.errors import RequestError, StoreError
from bench.system.untrusted import one_line, os_reason

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
"""How the system says that a folder may only be read."""


def sealed(kind: str, content: Mapping[str, Any]) -> bytes:
    """Return JSON with kind and sha256; raises ValueError."""
    envelope = {"kind": kind, "content": dict(content)}
    return json.dumps({**envelope, "sha256": json_digest(envelope)}).encode()


def unsealed(kind: str, data: bytes) -> dict[str, Any]:
    """Return sealed content; raises ValueError if damaged."""
    try:
        content: dict[str, Any] = json.loads(data)["content"]
        if sealed(kind, content) != data:
            raise ValueError(f"it is not a whole {kind}")
        return content
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is not a whole {kind}") from error


def json_digest(content: Mapping[str, Any]) -> str:
    """Return sorted JSON's sha256; raises ValueError for NaN."""
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise StoreError, one clear line, in place of OSError."""
    try:
        yield
    except OSError as error:
        if _was_reading(error, folder):
            raise StoreError(cannot_read(error.filename, error)) from error
        raise StoreError(f"cannot write to {one_line(folder)}: {os_reason(error)}") from error


def _was_reading(error: OSError, folder: Path) -> bool:
    """Whether a file outside of `folder` refused, which is read there, not written."""
    if not isinstance(error, PermissionError) or error.filename is None or error.filename2:
        return False
    file = Path(os.fsdecode(error.filename))
    return file.is_file() and not file.is_relative_to(folder)


def cannot_read(path: object, error: OSError) -> str:
    """Return that a file cannot be read, why, and who may change it."""
    remedy = ""
    if isinstance(error, PermissionError):
        remedy = "; its owner lets others read it with `chmod -R go+rX`"
    return f"cannot read {one_line(path)}: {os_reason(error)}{remedy}"


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a lock; call `on_wait` before waiting.

    `path` is a folder, locked as it is, or a file, made where it is missing. The kernel frees the
    lock of a dead process. A file system without locks goes without. Raises OSError where the file
    cannot be made.
    """
    descriptor = _open_lock(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    if path.is_dir():
        return os.open(path, os.O_RDONLY)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY)  # another user's: a lock needs no more


@contextlib.contextmanager
def staged_folder(target: Path, prefix: str = "", *, replace: bool = False) -> Iterator[Path]:
    """Give an empty folder that becomes `target` on success.

    It has the target's name and lies in a hidden scratch folder beside it, which is removed
    afterwards and may be used, too. A reader sees the entire folder or none. `replace` allows a
    target that exists; it comes back if the new one cannot be put in its place. Files in the folder
    are flushed by whoever writes them. Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = prefix or f".{target.name}.new-"
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))
    staged, previous = scratch / target.name, scratch / f"{target.name}.previous"
    try:
        staged.mkdir()
        yield staged
        sync_folder(staged)
        if replace and os.path.lexists(target):
            os.rename(target, previous)
        os.rename(staged, target)
        sync_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):  # else the scratch folder stays, with the previous one
            if os.path.lexists(previous) and not os.path.lexists(target):
                os.rename(previous, target)
            shutil.rmtree(scratch, ignore_errors=True)


def default_cache() -> Path:
    """Return the user's cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("atacnet-bench"))


def expanded(path: Path) -> Path:
    """Return a path with `~` expanded; raises RequestError.

    A shell leaves it in `--data=~/x` and in the value of a variable.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise RequestError(f"{one_line(path)}: there is no such user's home folder") from None


def nearest_existing(folder: Path) -> Path:
    """Return the folder or its nearest existing parent."""
    return next(f for f in (folder, *folder.parents) if os.path.exists(f))


def sync_folder(folder: Path) -> None:
    """Flush renames inside a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file, flushed to disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step; raises StoreError.

    Its mode is that of any new file: by umask, or by the folder's access list.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_synced(temporary, content)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write {one_line(path)}: {os_reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_cache(path: Path, content: bytes) -> None:
    """Replace a file of a cache, unless this user may only read it; raises StoreError."""
    try:
        write_atomically(path, content)
    except StoreError as error:
        reason = error.__cause__
        if not (isinstance(reason, OSError) and reason.errno in READ_ONLY):
            raise
