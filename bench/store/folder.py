"""Results folder: runs are staged, published whole, checked when read.

results/runs/<run_id>/run.json        the receipt, see `bench.store.receipt`
results/runs/<run_id>/scores.parquet  one row an image: file, label, defect, role, score
results/runs/<run_id>/log.txt         what the run printed
results/runs/<run_id>/repetitions.parquet   every single time that a timing run took
results/runs/<run_id>/model.safetensors     the saved model, with --save-models
results/runs/<run_id>/embeddings.parquet    where the method sees each image, with --save-maps
results/runs/<run_id>/explanations.parquet  maps, boxes, parts of the scores, with --save-maps
results/runs/<run_id>/epochs.parquet        the scores after each epoch, with --keep-epochs
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
from bench.spec import RUN_ID, RunSpec
from bench.store.agreement import Agreement, agreement, same_source
from bench.store.artifacts import (
    EMBEDDINGS,
    EPOCHS,
    EXPLANATIONS,
    FILES,
    merged_unsupported,
    new_artifacts,
    stored_artifacts,
    with_pixel_metrics_of,
)
from bench.store.failures import DISPUTED, Failure, add_record, records, strip
from bench.store.groups import Provenance
from bench.store.receipt import Receipt, read_artifact, read_run, seal_again, seal_run
from bench.store.results import MANIFEST, receipts
from bench.store.staging import in_use, is_abandoned, is_ours, staging_name
from bench.store.table import table_bytes
from bench.system.digests import file_digest
from bench.system.files import locked, sync_folder, write_atomically, writing
from bench.system.untrusted import os_reason

if TYPE_CHECKING:
    from bench.store.embeddings import Embeddings
    from bench.store.epochs import ScoresByEpoch
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
        """Make the folders; publish or clear abandoned staged runs.

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
        """Return a new staging folder of this process."""
        folder = self.staging / staging_name(run_id)
        with writing(self.staging):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        return folder

    def keep_alive(self, staged: Path) -> None:
        """Give a staged run a heartbeat."""
        with contextlib.suppress(OSError):
            os.utime(staged)

    def claimed(self, run_id: str) -> bool:
        """Whether another live command has staged this run."""
        return any(in_use(f) for f in self.staging.glob(f"{run_id}@*") if not is_ours(f))

    def publish(
        self, staged: Path, receipt: Receipt, *, replaces: str = "", imported: bool = False
    ) -> Agreement | None:
        """Seal a staged folder and publish it, unless a stored run stays.

        Returns the agreement with the stored run that stays, None where the staged one is published
        (see `_resolve_conflict`). `replaces` is the digest of a receipt to supersede, `imported`
        says that the run was made elsewhere. Raises MethodError where the scores of two runs differ
        and their environments do not explain it, StoreError where the disk refuses.
        """
        receipt = seal_run(staged, receipt)
        try:
            with self._locked():  # from reading the stored run until it is superseded
                stays = self._resolve_conflict(staged, receipt, replaces, imported)
            if stays is None:
                sync_folder(self.runs)
        except OSError as error:
            raise StoreError(f"cannot publish run {receipt.run_id}: {os_reason(error)}") from error
        if stays:
            shutil.rmtree(staged, ignore_errors=True)
        return stays

    def publish_again(self, stored: Receipt, receipt: Receipt) -> None:
        """Publish a stored run's files under another receipt, superseding the first.

        Where another command has replaced the run meanwhile, that one stays. Raises CorruptRun,
        StoreError.
        """
        staged = self.stage(stored.run_id)
        try:
            with writing(self.root), self._locked():
                if self.read(stored.run_id) != stored:
                    return
                for name in stored.files:
                    shutil.copyfile(self.runs / stored.run_id / name, staged / name)
                seal_run(staged, receipt)
                self._swap(staged, stored)
                sync_folder(self.runs)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _resolve_conflict(
        self, staged: Path, receipt: Receipt, replaces: str, imported: bool
    ) -> Agreement | None:
        """Publish a sealed folder; return the agreement if a stored run stays."""
        # Why does the last run not simply win? Commands on several machines finish the same run,
        # even at the same time. A result that somebody has read must not change behind them, and
        # artifacts must not get lost. So the first run stays, unless it is damaged, to be replaced,
        # or has fewer artifacts than the staged one.
        stored = self._publish_or_read(staged, receipt.run_id)
        if stored is None:
            return None
        if stored.digest() == replaces:
            self._swap(staged, stored)
            return None
        match = agreement(stored, receipt)
        if match.kind == "different":
            remedy = "; run it with those of the stored one" if match.environment else ""
            raise MethodError(
                f"run {receipt.run_id} {DISPUTED} with different scores: the stored one stays;"
                f" {match}{remedy}"
            )
        same_code = same_source(stored, receipt)
        mergeable = same_code and match.kind == "identical"
        # Artifacts of close scores do not belong to both runs, so they cannot be merged.
        loses = match.kind == "close" and stored_artifacts(stored) - stored_artifacts(receipt)
        if not new_artifacts(receipt, stored) or (not mergeable and (imported or loses)):
            return match
        if mergeable:
            self._merge_artifacts(staged, stored, receipt, imported)
        elif same_code:
            seal_again(staged, merged_unsupported(receipt, stored, receipt.files))
        older = self._swap(staged, stored)
        if mergeable:  # the new run has all its artifacts
            shutil.rmtree(older, ignore_errors=True)
        return None

    def _publish_or_read(self, staged: Path, run_id: str) -> Receipt | None:
        """Publish a sealed folder, or return the stored receipt."""
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
        """Merge the stored run's artifacts into a sealed folder.

        The receipt and log are those of the later run; of an imported run, those stored. Pixel
        metrics are those of the run whose maps are kept.
        """
        base, other = receipt, stored
        copied = {n for n in FILES.values() if n in stored.files and n not in receipt.files}
        if imported:
            base, other, copied = stored, receipt, {*stored.files}
            for name in {*receipt.files} - {*FILES.values()} - copied:
                (staged / name).unlink()
        for name in copied:
            shutil.copyfile(self.runs / stored.run_id / name, staged / name)
            if file_digest(staged / name) != stored.files[name]:
                raise CorruptRun(f"run {stored.run_id} is damaged: {name} changed meanwhile")
        if EXPLANATIONS in other.files and EXPLANATIONS not in base.files:
            base = with_pixel_metrics_of(base, other)
        seal_again(staged, merged_unsupported(base, other, {*stored.files, *receipt.files}))

    def _swap(self, staged: Path, stored: Receipt) -> Path:
        """Publish a sealed folder; return the superseded run's folder."""
        target = self.runs / stored.run_id
        older = self._move(target, self.superseded)
        try:
            os.rename(staged, target)
        except BaseException:  # an interrupt, too: the run must be in its place again
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
        """Move a failed run to `failures/`; return its record."""
        with writing(self.failed):
            strip(staged, spec, kind, reason, traceback, provenance)
            with self._locked():
                return add_record(self.failed / spec.run_id, staged)

    def forget_failures(self, run_id: str) -> None:
        """Remove a run's recorded failures, with their logs."""
        with writing(self.failed), self._locked():
            shutil.rmtree(self.failed / run_id)

    def quarantine_run(self, run_id: str) -> Path | None:
        """Move a damaged run to `quarantine/`; return its folder.

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
        """Move a run away; return its new folder, None if gone."""
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{run.name}-{time.time_ns()}"
        try:
            os.rename(run, target)
        except FileNotFoundError:
            return None
        return target

    def compact(self) -> Path:
        """Rebuild runs.parquet from all receipts that verify.

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
        """Whether a run is stored, its digests unchecked."""
        run = self.runs / run_id
        if os.path.lexists(run):
            return True
        # Where other machines write, a file system may remember for a minute that a name was not
        # there; what a folder holds it asks anew.
        try:
            if run_id not in os.listdir(self.runs):
                return False
        except OSError:  # as `lexists` does
            return False
        # So the run is there and could not be read: who tries to make its folder is told, and what
        # was remembered is dropped. Should it be gone by now, an empty folder is removed.
        with contextlib.suppress(OSError):
            run.mkdir()
            run.rmdir()
        return True

    def read(self, run_id: str) -> Receipt:
        """Read a receipt and check every digest.

        Raises CorruptRun where one does not agree, StoreError where a newer bench wrote it.
        """
        return read_run(self.runs / run_id, run_id)

    def scores(self, run_id: str) -> "Scores":
        """Return the scores of a verified run; raises CorruptRun."""
        from bench.store.scores import read_scores

        try:
            return read_scores(self.runs / run_id / "scores.parquet")
        except OSError as error:
            raise CorruptRun(f"run {run_id} is damaged: {os_reason(error)}") from error
        except ValueError as error:
            raise CorruptRun(f"run {run_id} is damaged: {error}") from error

    def embeddings(self, run_id: str) -> "Embeddings | None":
        """Return a verified run's embeddings or None; raises CorruptRun."""
        from bench.store.embeddings import read_embeddings

        return read_artifact(self.runs / run_id, run_id, EMBEDDINGS, read_embeddings)

    def explanations(self, run_id: str) -> "Explanations | None":
        """Return a verified run's explanations or None; raises CorruptRun."""
        from bench.store.explanations import read_explanations

        return read_artifact(self.runs / run_id, run_id, EXPLANATIONS, read_explanations)

    def epoch_scores(self, run_id: str) -> "ScoresByEpoch | None":
        """Return a verified run's scores by epoch or None; raises CorruptRun."""
        from bench.store.epochs import read_epochs

        return read_artifact(self.runs / run_id, run_id, EPOCHS, read_epochs)

    def folder(self, run_id: str) -> Path:
        """Return the folder of a run."""
        return self.runs / run_id

    def table_bytes(self) -> bytes | None:
        """Return runs.parquet: None if missing, empty if unreadable."""
        try:
            return self.table.read_bytes()
        except FileNotFoundError:
            return None
        except OSError:
            return b""

    def failed_ids(self) -> list[str]:
        """Return the sorted ids of runs with failures."""
        if not self.failed.is_dir():
            return []
        return sorted(p.name for p in self.failed.iterdir() if RUN_ID.match(p.name))

    def failures(self, run_id: str) -> list[Failure]:
        """Return a run's recorded failures, oldest first."""
        return records(self.failed / run_id)
