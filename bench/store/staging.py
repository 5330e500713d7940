"""Owners of staged folders, `<run_id>@<host>@<process id>`, and their heartbeats.

On one host a process tells; from other hosts, where results are shared, only the heartbeat is seen:
the folder's time of change.
"""

import functools
import os
import platform
import time
from pathlib import Path

ABANDONED = 86400.0
"""Seconds without a heartbeat after which what another host has staged is cleared."""
SILENT = 120.0
"""Seconds without a heartbeat after which another command's run counts as abandoned."""


def staging_name(run_id: str) -> str:
    """Return the name of this process's staging folder."""
    return f"{run_id}@{_host()}@{os.getpid()}"


def is_ours(staged: Path) -> bool:
    """Whether this process has staged a folder."""
    return _owner(staged) == (_host(), str(os.getpid()))


def in_use(staged: Path) -> bool:
    """Whether somebody works in a staged folder."""
    return _silence(staged) < SILENT and not is_abandoned(staged)


@functools.cache
def _host() -> str:
    """Return this host's name, with its process namespace.

    Containers may share a host's name and yet count processes apart.
    """
    try:
        return f"{platform.node()}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return platform.node()


def is_abandoned(staged: Path) -> bool:
    """Whether nobody works on a staged folder any more."""
    # Why not the heartbeat alone? A stopped or swapped-out process is silent and yet comes back;
    # on its own host it can be asked whether it lives. From elsewhere only a long silence tells.
    host, pid = _owner(staged)
    if host == _host():
        return not _alive(pid)
    return _silence(staged) > ABANDONED


def _silence(staged: Path) -> float:
    """Return seconds since the heartbeat; hosts' clocks may differ."""
    try:
        return abs(time.time() - staged.stat().st_mtime)
    except FileNotFoundError:
        return float("inf")


def _owner(staged: Path) -> tuple[str, str]:
    """Return host and process id of a folder's owner.

    They stand in the name, so that a folder has an owner from the moment it exists: a file inside
    would come too late. Process ids alone identify a process on one host only.
    """
    _, host, pid = (*staged.name.split("@"), "", "")[:3]
    return host, pid


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
