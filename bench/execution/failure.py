"""Causes and records of failed runs."""

import errno
import re
import traceback

from bench.errors import CodeError, DataError, MethodError, StoreError, WeightsError
from bench.execution.job import Job
from bench.execution.process import memory_left
from bench.store.failures import DISPUTED
from bench.store.folder import Store
from bench.store.groups import Provenance
from bench.system.device import free_memory
from bench.system.files import write_synced
from bench.system.untrusted import os_reason
from bench.text import gibibytes


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


class OutOfMemoryError(MemoryError):
    """A method needs more memory than is free."""

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


_OUT_OF_MEMORY = "OutOfMemoryError|can't allocate memory|CUDA out of memory|_ALLOC_FAILED|bad_alloc"
"""How torch reports it, of a GPU and of the CPU."""
_ASKED = r"allocate (\d+(?:\.\d+)?) (bytes|[KMGTPE]iB)"
"""How numpy and torch report what was asked for."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and bool(re.search(_OUT_OF_MEMORY, reason(error)))


def memory_line(error: BaseException, who: str, device: str, remedy: str) -> str:
    """Return who asked for how much memory, and a remedy."""
    if isinstance(error, OutOfMemoryError):
        return f"MemoryError: {error}"
    asked = re.search(_ASKED, reason(error))
    more = f"{_gibibytes(*asked.groups())} more" if asked else "more memory"
    free = _free(device)
    left = "" if free is None else f" where {gibibytes(free)} are free"
    return f"MemoryError: {who} asked for {more}{left}: {remedy}"


def _gibibytes(number: str, unit: str) -> str:
    power = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB").index(unit)
    return gibibytes(round(float(number) * 1024**power))


def _free(device: str) -> int | None:
    """Return a device's free bytes; None if unknown."""
    try:
        free = free_memory(device)
    except Exception:  # CUDA may be beyond an answer
        return None
    limit = memory_left() if device == "cpu" else None
    return free if free is None or limit is None else min(free, limit)


def run_memory_line(job: Job, error: BaseException) -> str:
    """Return why a run is out of memory, and a remedy."""
    spec = job.spec
    batch = " or batch_size" if spec.batch_size is not None else ""
    options = {"explain": "--save-maps", "epochs": "--keep-epochs"}
    without = "".join(f", no {option}" for key, option in options.items() if key in job.keep)
    return memory_line(
        error,
        f"{spec}, {spec.image_size} px,",
        job.device,
        f"take a smaller image_size{batch}, fewer --slots{without}, or another machine",
    )


def _kind(job: Job, error: BaseException) -> str:
    """Return the kind of a failure; `method` would repeat."""
    if isinstance(error, DataError | WeightsError):
        return "data"
    if out_of_memory(error):
        return "memory"
    if isinstance(error, CodeError):
        return "code"
    if isinstance(error, MethodError) and DISPUTED in str(error):
        return DISPUTED
    return "method" if job.staged.is_dir() else "killed"  # its folder was taken away


def trace_of(error: BaseException) -> str:
    """Return an error's traceback as text."""
    try:
        return "".join(traceback.format_exception(error))
    except MemoryError:
        return ""
    except Exception:  # an error that cannot even be written
        return "".join(traceback.format_tb(error.__traceback__))


def record_failure(job: Job, error: BaseException) -> str | None:
    """Record a failure; return the disk's refusal, if any."""
    try:
        provenance = job.provenance
        if isinstance(error, CodeError):
            provenance = Provenance({**provenance, "source_sha256": error.source_sha256})
        Store(job.results).record_failure(
            job.staged,
            job.spec,
            kind=_kind(job, error),
            reason=reason(error),
            provenance=provenance,
            traceback=trace_of(error),
        )
    except StoreError as trouble:
        return str(trouble)
    return None
