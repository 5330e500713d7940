"""Finished runs on disk: staged, published by one rename, checked on every read.

results/runs/<run_id>/run.json        the receipt, see `bench.store.receipt`
results/runs/<run_id>/scores.parquet  one row an image: file, label, defect, role, score
results/runs/<run_id>/log.txt         what the run printed
results/runs/<run_id>/repetitions.parquet   every single time that a timing run took
results/runs/<run_id>/model.safetensors     the saved model, with --save-models
results/runs/<run_id>/embeddings.parquet    where the method sees each image, with --save-maps
results/runs/<run_id>/explanations.parquet  maps, boxes, parts of the scores, with --save-maps
results/failures/<run_id>/<n>/        failure.json and log.txt of what did not finish
results/quarantine/                   runs whose digests do not agree
results/superseded/                   runs whose place another run of the same id has taken
results/staging/                      runs under way
results/runs.parquet                  one row a run, rebuilt from the receipts
"""

import contextlib
import errno
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import CorruptRun, MethodError, StoreError
from bench.spec import RunSpec
from bench.store.agreement import Agreement, agreement, same_source
from bench.store.artifacts import FILES, merged_unsupported, new_artifacts, stored_artifacts
from bench.store.failures import Failure, add_record, records, strip
from bench.store.groups import Provenance
from bench.store.layout import DISPUTED, EMBEDDINGS, EXPLANATIONS, MANIFEST, RUN_ID
from bench.store.receipt import Receipt, read_artifact, read_run, seal_again, seal_run
from bench.store.results import receipts
from bench.store.staging import in_use, is_abandoned, is_ours, staging_name
from bench.store.table import table_bytes
from bench.system.digests import file_digest
from bench.system.files import locked, sync_folder, write_atomically, writing
from bench.system.untrusted import os_reason

if TYPE_CHECKING:
    from bench.store.embeddings import Embeddings
    from bench.store.explanations import Explanations
    from bench.store.scores import Scores


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
        """Make the folders and clear what dead commands left in staging.

        What was sealed there when its command died is a finished run, and is published. Raises
        StoreError where the folder cannot be written, or is an archive.
        """
        if (self.root / MANIFEST).exists():
            raise StoreError(
                f"{self.root} is an archive: name another folder with --results and bring its runs"
                f" in with `bench merge {self.root}`"
            )
        with writing(self.root):
            for folder in (self.runs, self.staging, self.failed):
                folder.mkdir(parents=True, exist_ok=True)
            for left in self.staging.iterdir():
                if is_abandoned(left):
                    self._rescue(left)
                    shutil.rmtree(left, ignore_errors=True)

    def _rescue(self, staged: Path) -> None:
        run_id = staged.name.partition("@")[0]
        with contextlib.suppress(CorruptRun, OSError):
            read_run(staged, run_id)
            os.rename(staged, self.runs / run_id)  # which refuses where the run is there

    def stage(self, run_id: str) -> Path:
        """Return a new empty folder for a run under way, named by this host and process."""
        folder = self.staging / staging_name(run_id)
        with writing(self.staging):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        return folder

    def keep_alive(self, staged: Path) -> None:
        """Show other commands that a run is still under way."""
        with contextlib.suppress(OSError):
            os.utime(staged)

    def claimed(self, run_id: str) -> bool:
        """Whether another command has this run under way: its process lives, its heart beats."""
        return any(in_use(f) for f in self.staging.glob(f"{run_id}@*") if not is_ours(f))

    def publish(
        self, staged: Path, receipt: Receipt, *, replaces: str = "", imported: bool = False
    ) -> Agreement | None:
        """Seal a staged folder with its receipt and rename it into `runs/`.

        Where the run is there already, the stored one stays, the staged one is dropped and how far
        they agree is returned; but the one whose receipt has the digest `replaces` gives way, and
        moves to `superseded/`. So does one beside which the staged one keeps more, see
        `bench.store.artifacts`; unless it is close and would take with it what only it keeps. Of
        two that are identical and of the same source, one run is made that keeps what either does:
        it has the receipt and log of the later one, or where the staged one was `imported` from
        elsewhere those of the stored one. What was imported never takes a place otherwise.

        Raises MethodError where the two differ and nothing in their environments explains it,
        StoreError where the disk is full or cannot be written.
        """
        receipt = seal_run(staged, receipt)
        try:
            with self._locked():  # from reading the stored run until it has given way
                found = self._resolve_conflict(staged, receipt, replaces, imported)
            if found is None:
                sync_folder(self.runs)
        except OSError as error:
            raise StoreError(f"cannot publish run {receipt.run_id}: {os_reason(error)}") from error
        if found:
            shutil.rmtree(staged, ignore_errors=True)
        return found

    def _resolve_conflict(
        self, staged: Path, receipt: Receipt, replaces: str, imported: bool
    ) -> Agreement | None:
        """Place a sealed folder, or say how far it agrees with the stored run that stays."""
        stored = self._publish_or_read(staged, receipt.run_id)
        if stored is None:
            return None
        if stored.digest() == replaces:
            self._swap(staged, stored)
            return None
        found = agreement(stored, receipt)
        if found.kind == "different":
            remedy = "; run it with those of the stored one" if found.environment else ""
            raise MethodError(
                f"run {receipt.run_id} {DISPUTED} with different scores: the stored one stays;"
                f" {found}{remedy}"
            )
        alike = same_source(stored, receipt)
        one = alike and found.kind == "identical"
        lost = (
            stored_artifacts(stored) - stored_artifacts(receipt)
            if found.kind == "close"
            else frozenset()
        )
        if not new_artifacts(receipt, stored) or (not one and (imported or lost)):
            return found
        if one:
            self._merge_artifacts(staged, stored, receipt, imported)
        elif alike:
            seal_again(staged, merged_unsupported(receipt, stored, receipt.files))
        older = self._swap(staged, stored)
        if one:  # all that it alone kept is in the new one
            shutil.rmtree(older, ignore_errors=True)
        return None

    def _publish_or_read(self, staged: Path, run_id: str) -> Receipt | None:
        """Rename a sealed folder into `runs/`, or return the receipt of the sound run there."""
        if self.has(run_id):
            try:
                return self.read(run_id)
            except CorruptRun:
                self._move(self.runs / run_id, self.quarantine)
        try:
            os.rename(staged, self.runs / run_id)
        except OSError as error:  # a file system without locks, and another command was faster
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return self.read(run_id)
        return None

    def _merge_artifacts(
        self, staged: Path, stored: Receipt, receipt: Receipt, imported: bool
    ) -> None:
        """Make one run of a sealed folder and the stored run of the same scores."""
        run, (whole, other) = self.runs / stored.run_id, (receipt, stored)
        taken = {n for n in FILES.values() if n in stored.files and n not in receipt.files}
        if imported:
            whole, other, taken = stored, receipt, {*stored.files}
            for name in {*receipt.files} - {*FILES.values()} - taken:
                (staged / name).unlink()
        for name in taken:
            shutil.copyfile(run / name, staged / name)
            if file_digest(staged / name) != stored.files[name]:
                raise CorruptRun(f"run {run.name} is damaged: {name} changed meanwhile")
        seal_again(staged, merged_unsupported(whole, other, {*stored.files, *receipt.files}))

    def _swap(self, staged: Path, stored: Receipt) -> Path:
        """Put a sealed folder in the place of a stored run; return where that is then."""
        target = self.runs / stored.run_id
        older = self._move(target, self.superseded)
        try:
            os.rename(staged, target)
        except OSError:
            if older:
                os.rename(older, target)
            raise
        return older or staged

    def record_failure(
        self,
        staged: Path,
        spec: RunSpec,
        *,
        kind: str,
        reason: str,
        provenance: Provenance,
        traceback: str = "",
    ) -> Path:
        """Keep a failed run's facts and log under `failures/`, apart from all results."""
        with writing(self.failed):
            strip(staged, spec, kind, reason, traceback, provenance)
            with self._locked():
                return add_record(self.failed / spec.run_id, staged)

    def quarantine_run(self, run_id: str) -> Path | None:
        """Move a run that does not verify to `quarantine/`; return where, if there was one.

        Another command may have put a good one in its place: it is looked at once more.
        """
        with writing(self.quarantine), self._locked():
            try:
                self.read(run_id)
                return None
            except CorruptRun:
                return self._move(self.runs / run_id, self.quarantine)

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep other commands from moving runs about meanwhile."""
        return locked(self.root / ".lock")

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
        with writing(self.root), self._locked():
            content = table_bytes(receipts(self))
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
        return read_run(self.runs / run_id, run_id)

    def scores(self, run_id: str) -> "Scores":
        """Return the scores of a run that `read` has passed; raises CorruptRun."""
        from bench.store.scores import read_scores

        try:
            return read_scores(self.runs / run_id / "scores.parquet")
        except ValueError as error:
            raise CorruptRun(f"run {run_id} is damaged: {error}") from error

    def embeddings(self, run_id: str) -> "Embeddings | None":
        """Return what a run keeps, its digest checked; None for nothing. Raises CorruptRun."""
        from bench.store.embeddings import read_embeddings

        return read_artifact(self.runs / run_id, run_id, EMBEDDINGS, read_embeddings)

    def explanations(self, run_id: str) -> "Explanations | None":
        """Return what a run keeps, its digest checked; None for nothing. Raises CorruptRun."""
        from bench.store.explanations import read_explanations

        return read_artifact(self.runs / run_id, run_id, EXPLANATIONS, read_explanations)

    def table_bytes(self) -> bytes | None:
        """Return runs.parquet as it is stored: None where there is none, nothing if unreadable."""
        try:
            return self.table.read_bytes()
        except FileNotFoundError:
            return None
        except OSError:
            return b""

    def failed_ids(self) -> list[str]:
        """Return the ids of all runs with a recorded failure, sorted."""
        if not self.failed.is_dir():
            return []
        return sorted(p.name for p in self.failed.iterdir() if RUN_ID.match(p.name))

    def failures(self, run_id: str) -> list[Failure]:
        """Return what is recorded of a run's failures, oldest first; `folder` says where."""
        return records(self.failed / run_id)
