"""Causes and records of failed runs."""

import errno
import re
import traceback

from bench.errors import DataError, MethodError, StoreError, WeightsError
from bench.execution.job import Job
from bench.store.failures import DISPUTED
from bench.store.folder import Store
from bench.system.files import write_synced
from bench.system.untrusted import os_reason


def reason(error: BaseException) -> str:
    """Return an error's type and text."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # an error that cannot even be written
        return type(error).__name__


def disk_trouble(job: Job, error: BaseException) -> str | None:
    """Return how the disk stopped a run, else None.

    A method may meet full disks of its own; so the disk is asked.
    """
    if isinstance(error, StoreError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        try:
            write_synced(job.staged / "room", bytes(4096))
        except OSError as refusal:
            return f"cannot write to {job.results}: {os_reason(refusal)}"
    return None


_OUT_OF_MEMORY = "OutOfMemoryError|can't allocate memory"
"""How torch tells it, of a GPU and of the CPU."""


def _kind(job: Job, error: BaseException) -> str:
    """Return the kind of a failure; `method` would repeat."""
    if isinstance(error, DataError | WeightsError):
        return "data"
    if isinstance(error, MethodError) and DISPUTED in str(error):
        return DISPUTED
    if isinstance(error, MemoryError) or re.search(_OUT_OF_MEMORY, reason(error)):
        return "memory"
    return "method" if job.staged.is_dir() else "killed"  # its folder was taken away


def record_failure(job: Job, error: BaseException) -> str | None:
    """Record a failure; return the disk's refusal, if any."""
    try:
        trace = "".join(traceback.format_exception(error))
    except Exception:
        trace = "".join(traceback.format_tb(error.__traceback__))
    try:
        Store(job.results).record_failure(
            job.staged,
            job.spec,
            kind=_kind(job, error),
            reason=reason(error),
            provenance=job.provenance,
            traceback=trace,
        )
    except StoreError as trouble:
        return str(trouble)
    return None
