"""Process limits: die with the parent, cap memory, redirect output."""

import contextlib
import fcntl
import os
import resource
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from bench.system.host import available_memory, process_memory

_F_SETSIG = 10
"""Linux's fcntl command; Python names it from 3.13 on."""


def die_with_parent(lifeline: Connection) -> None:
    """End this process and its children with the command.

    On Linux the kernel does it: the end of the pipe is a signal to the whole group, so that not
    even a method that never lets go of the interpreter outlives its command. The thread does the
    same elsewhere, and where the command was gone before this line.
    """
    if sys.platform == "linux":
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    threading.Thread(target=_die_with, args=(lifeline,), daemon=True).start()


def _die_with(lifeline: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os.killpg(0, signal.SIGKILL)


def limit_memory(device: str) -> None:
    """Cap memory, so that a large run fails alone.

    Where the kernel has to choose all the same, it takes this process and not the command.
    """
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    available = available_memory()
    # CUDA reserves address space far beyond what it uses: there the kernel must do.
    if available is None or device != "cpu":
        return
    held = process_memory("VmData")
    if held is None:
        return
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (held + available, hard))


def memory_left() -> int | None:
    """Return the bytes left under the cap; None without one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    held = process_memory("VmData")
    return None if soft == resource.RLIM_INFINITY or held is None else max(0, soft - held)


def redirect_output(path: Path) -> None:
    """Append all output, of Python and C, to a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = os.fdopen(
        1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    sys.stderr = os.fdopen(
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


def exit_process(code: int) -> None:
    """Exit at once: a method's threads could block a shutdown."""
    with contextlib.suppress(OSError):  # a full disk
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
