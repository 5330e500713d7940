"""Finished runs on disk: staged, published by one rename, checked on every read.

results/runs/<run_id>/run.json        the receipt, see `bench.receipt`
results/runs/<run_id>/scores.parquet  one row an image: file, label, defect, role, score
results/runs/<run_id>/log.txt         what the run printed
results/failures/<run_id>/<n>/        failure.json and log.txt of what did not finish
results/quarantine/                   runs whose digests do not agree
results/superseded/                   runs of older code that were run again
results/staging/                      runs under way
results/runs.parquet                  one row a run, rebuilt from the receipts
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.agreement import Agreement, agreement
from bench.digests import file_digest
from bench.errors import CorruptRun, MethodError, StoreError
from bench.files import sync_folder, write_atomically, write_synced, writing
from bench.outside import why
from bench.receipt import Receipt, begin, read_run, seal
from bench.results import Results, table_of
from bench.spec import RunSpec

if TYPE_CHECKING:
    from bench.scores import Scores

RUN_ID = re.compile(r"[0-9a-f]{16}\Z")
CARD = "archive.json"
"""The file that makes a folder an archive, see `bench.archive`."""
SILENT = 120.0
"""Seconds without a heartbeat after which another command's run counts as given up."""
LOG_KEPT = 1 << 20
"""Bytes of a failed run's log that are kept: the first and the last half of that."""


class Store:
    """A results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / "runs"
        self.staging = root / "staging"
        self.failed = root / "failures"
        self.quarantine = root / "quarantine"
        self.superseded = root / "superseded"
        self.table = root / "runs.parquet"

    # Writing

    def open_for_writing(self) -> None:
        """Make the folders and clear what dead commands of this host left in staging.

        Raises StoreError where the folder cannot be written, or is an archive.
        """
        if (self.root / CARD).exists():
            raise StoreError(
                f"{self.root} is an archive: name another folder with --results and bring its runs"
                f" in with `bench merge {self.root}`"
            )
        with writing(self.root):
            for folder in (self.runs, self.staging, self.failed):
                folder.mkdir(parents=True, exist_ok=True)
            for left in self.staging.iterdir():
                host, pid = _owner(left)
                if host == platform.node() and not _alive(pid):
                    shutil.rmtree(left, ignore_errors=True)

    def stage(self, run_id: str) -> Path:
        """Return a new empty folder for a run under way, named by this host and process."""
        folder = self.staging / f"{run_id}@{platform.node()}@{os.getpid()}"
        with writing(self.staging):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        return folder

    def keep_alive(self, staged: Path) -> None:
        """Show other commands that a run is still under way."""
        with contextlib.suppress(OSError):
            os.utime(staged)

    def claimed(self, run_id: str) -> bool:
        """Whether another command has this run under way: its process lives, its heart beats.

        A process on another host is not seen, so there the heartbeat alone must do.
        """
        ours = (platform.node(), str(os.getpid()))
        for folder in self.staging.glob(f"{run_id}@*"):
            host, pid = _owner(folder)
            if (host, pid) == ours or (host == ours[0] and not _alive(pid)):
                continue
            with contextlib.suppress(FileNotFoundError):
                if abs(time.time() - folder.stat().st_mtime) < SILENT:
                    return True
        return False

    def publish(
        self, staged: Path, spec: RunSpec, content: Mapping[str, Any], *, replace: bool = False
    ) -> Agreement | None:
        """Seal a staged folder with its receipt and rename it into `runs/`.

        Where the run is there already, the stored one stays, the staged one is dropped and how far
        they agree is returned; with `replace` the stored one moves to `superseded/` first. Raises
        MethodError where the two differ and nothing in their environments explains it, StoreError
        where the disk is full or cannot be written.
        """
        target = self.runs / spec.run_id
        receipt = begin(spec) | dict(content)
        try:
            for path in staged.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            files = {p.name: file_digest(p) for p in sorted(staged.iterdir())}
            write_synced(staged / "run.json", seal(receipt, files))
            sync_folder(staged)
            older = self._move(target, self.superseded) if replace and target.is_dir() else None
            try:
                os.rename(staged, target)
            except OSError:
                if older:
                    os.rename(older, target)
                raise
            sync_folder(self.runs)
            return None
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise StoreError(f"cannot publish run {spec.run_id}: {why(error)}") from error
        found = agreement(self.read(spec.run_id), receipt)
        if found.kind == "different":
            raise MethodError(
                f"run {spec.run_id} was finished twice with different scores: the stored one"
                f" stays; {found}"
            )
        shutil.rmtree(staged, ignore_errors=True)
        return found

    def record_failure(self, staged: Path, spec: RunSpec, failure: Mapping[str, Any]) -> Path:
        """Keep a failed run's facts and log under `failures/`, apart from all results."""
        folder = self.failed / spec.run_id
        content = {"run_id": spec.run_id, "spec": spec.as_dict(), "time": _now(), **failure}
        with writing(self.failed):
            folder.mkdir(parents=True, exist_ok=True)
            staged.mkdir(exist_ok=True)
            for path in staged.iterdir():
                if path.name == "log.txt":
                    _shorten(path)
                elif path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            write_synced(staged / "failure.json", json.dumps(content, indent=1).encode())
            number = 1 + max(
                (int(p.name) for p in folder.iterdir() if p.name.isdecimal()), default=0
            )
            target = folder / str(number)
            os.rename(staged, target)
            sync_folder(folder)
        return target

    def set_aside(self, run_id: str) -> None:
        """Move a run that does not verify to `quarantine/`."""
        with writing(self.quarantine):
            self._move(self.runs / run_id, self.quarantine)

    def _move(self, run: Path, folder: Path) -> Path | None:
        """Move a run away; return where it is now, or None where another command was faster."""
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{run.name}-{time.time_ns()}"
        try:
            os.rename(run, target)
        except FileNotFoundError:
            return None
        return target

    def compact(self) -> Path:
        """Rebuild runs.parquet from the receipts; runs that do not verify are left out.

        One command at a time, so that the last to finish sees the runs of all. A table that says
        what it should is left alone.
        """
        with writing(self.root), (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = table_of(self)
            if self.table_bytes() != content:
                write_atomically(self.table, content)
        return self.table

    # Reading

    def ids(self) -> list[str]:
        """Return the ids of all stored runs, sorted."""
        if not self.runs.is_dir():
            return []
        return sorted(p.name for p in self.runs.iterdir() if RUN_ID.match(p.name))

    def has(self, run_id: str) -> bool:
        """Whether a run of that id is stored; says nothing of its digests."""
        return os.path.lexists(self.runs / run_id)

    def read(self, run_id: str) -> Receipt:
        """Read a receipt and check every digest.

        Raises CorruptRun where one does not agree, StoreError where a newer bench wrote it.
        """
        return read_run(self.runs / run_id)

    def scores(self, run_id: str) -> "Scores":
        """Return the scores of a run that `read` has passed; raises CorruptRun."""
        from bench.scores import read_scores

        try:
            return read_scores(self.runs / run_id / "scores.parquet")
        except ValueError as error:
            raise CorruptRun(f"run {run_id} is damaged: {error}") from error

    def table_bytes(self) -> bytes | None:
        """Return runs.parquet as it is stored: None where there is none, nothing if unreadable."""
        try:
            return self.table.read_bytes()
        except FileNotFoundError:
            return None
        except OSError:
            return b""

    def failures(self, run_id: str) -> list[dict[str, Any]]:
        """Return what is recorded of a run's failures, oldest first; `folder` says where."""
        found = []
        for path in (self.failed / run_id).glob("*/failure.json"):
            try:
                read = json.loads(path.read_bytes())
                failure = {k: read[k] if type(read.get(k)) is type(v) else v
                           for k, v in _NO_FAILURE.items()}  # fmt: skip
                failure["run_id"], failure["folder"] = run_id, str(path.parent)
                found.append((int(path.parent.name), failure))
            except (OSError, ValueError, AttributeError, RecursionError):
                continue  # a record that cannot be read keeps nobody from trying again
        return [failure for _, failure in sorted(found, key=lambda f: f[0])]


def open_results(path: Path) -> Results:
    """Return what reads a results folder or an archive; raises StoreError where there is neither.

    An archive's own digests are checked at once.
    """
    if not (path / CARD).is_file() and not (path / "runs").is_dir():
        raise StoreError(f"{path} is neither a results folder (runs/) nor an archive ({CARD})")
    return results_at(path)


def results_at(path: Path) -> Results:
    """Return what reads the archive at `path`, else a results folder that may not be there yet."""
    if not (path / CARD).is_file():
        return Store(path)
    from bench.archive import Archive

    return Archive(path)


_NO_FAILURE = {
    "kind": "", "reason": "?", "traceback": "", "time": "?", "spec": {}, "provenance": {}
}  # fmt: skip
"""What a record of a failure holds, for those that lack some of it."""


def _owner(staged: Path) -> tuple[str, str]:
    """Return host and process id of the command that a staged folder is of."""
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


def _shorten(log: Path) -> None:
    """Keep the beginning and the end of a log that has grown out of hand."""
    size = log.stat().st_size
    if size <= LOG_KEPT:
        return
    with log.open("r+b") as file:
        head = file.read(LOG_KEPT // 2)
        file.seek(size - LOG_KEPT // 2)
        tail = file.read()
        file.seek(0)
        gap = size - len(head) - len(tail)
        file.write(head + f"\n... {gap} bytes left out ...\n".encode() + tail)
        file.truncate()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
