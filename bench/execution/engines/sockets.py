"""A private folder for the Unix sockets of a command.

A socket's path has at most 107 bytes, and some file systems hold no sockets, so the folder for
temporary files does not always do.
"""

import atexit
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from multiprocessing.process import current_process
from pathlib import Path

from bench.errors import RequestError
from bench.system.untrusted import one_line, os_reason

PREFIX = "bench-socket-"
_LISTENER = "listener-12345678"
"""A name as long as those that `multiprocessing` gives."""


def open_socket_folder() -> Path:
    """Return the folder that `multiprocessing` uses, made once a process.

    It has mode 0700. Raises RequestError where no folder can hold sockets.
    """
    settings = current_process()._config  # type: ignore[attr-defined]
    if not os.path.isdir(settings.get("tempdir") or ""):
        settings["tempdir"] = str(_make_folder())
    return Path(settings["tempdir"])


def _make_folder() -> Path:
    reasons = []
    for parent in _parents():
        try:
            folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        except OSError as error:
            reasons.append(f"{one_line(parent)}: {os_reason(error)}")
            continue
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.bind(os.path.join(folder, _LISTENER))
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            reasons.append(f"{one_line(parent)}: {os_reason(error)}")
            continue
        atexit.register(_remove, folder, os.getpid())
        return Path(folder)
    raise RequestError(
        f"no folder can hold the sockets of processes ({'; '.join(reasons)}): set TMPDIR to a"
        " folder with a short path that can be written"
    )


def _parents() -> Iterator[str]:
    """Yield folders that may hold sockets, those for temporary files first."""
    with contextlib.suppress(OSError):
        yield tempfile.gettempdir()
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield runtime
    yield from ("/tmp", "/var/tmp", "/dev/shm")


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # and not a copy that a method has forked
        shutil.rmtree(folder, ignore_errors=True)
