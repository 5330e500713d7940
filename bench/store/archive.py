"""Archives: results packed into a few committable files.

archive.json       schema, number of runs, sha256 of every other file; sealed
receipts.parquet   run_id, receipt: every run.json, without the digests of the files left behind
scores.parquet     run_id and the columns of a run's scores.parquet, all runs below each other
runs.parquet       one row a run, made from the receipts

Where any run keeps them, also what figures and other tables are made from:

embeddings.parquet     run_id and the columns of a run's embeddings.parquet, a row group a run
explanations.parquet   run_id and the columns that any run's explanations.parquet has, null in
                       others; where they differ, `columns` names those of the run in their order; a
                       row group a run
epochs.parquet         run_id and the columns of a run's epochs.parquet, a row group a run

The same results give the same bytes. Logs and models stay behind.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from bench.errors import CorruptRun, RequestError, StoreError
from bench.store.artifacts import EMBEDDINGS, EPOCHS, EXPLANATIONS
from bench.store.embeddings import Embeddings
from bench.store.epochs import ScoresByEpoch
from bench.store.explanations import Explanations
from bench.store.failures import Failure
from bench.store.parquet import RunRows, concat_runs, packed, packed_runs, run_columns, unpacked
from bench.store.receipt import Receipt, parse, seal
from bench.store.results import MANIFEST, Results, read_artifacts
from bench.store.scores import Scores
from bench.store.table import table_bytes
from bench.system.files import sealed, staged_folder, unsealed, write_synced, writing
from bench.system.untrusted import one_line, os_reason

Artifact = TypeVar("Artifact")

ARCHIVE_SCHEMA = 1
FILES = ("receipts.parquet", "scores.parquet", "runs.parquet")
OPTIONAL = (EMBEDDINGS, EXPLANATIONS, EPOCHS)


class Archive:
    """Reads an archive like a `Store`.

    Raises StoreError where a newer bench wrote it, CorruptRun where a file does not agree with its
    digest: then no run of it can be trusted.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            manifest = unsealed("archive", (root / MANIFEST).read_bytes().removesuffix(b"\n"))
            if manifest["schema"] != ARCHIVE_SCHEMA:
                raise StoreError(
                    f"{root} is an archive of schema {manifest['schema']}, this bench reads"
                    f" {ARCHIVE_SCHEMA}: a newer bench wrote it; update"
                )
            self._digests: dict[str, str] = manifest["files"]
            self._bytes = {}
            for name in (*FILES, *(n for n in OPTIONAL if n in self._digests)):
                self._bytes[name] = (root / name).read_bytes()
                if hashlib.sha256(self._bytes[name]).hexdigest() != self._digests[name]:
                    raise ValueError(f"{name} does not agree with its digest")
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = os_reason(error) if isinstance(error, OSError) else one_line(error)
            raise CorruptRun(f"archive {root} is damaged: {reason}") from error

    @cached_property
    def _receipts(self) -> dict[str, str]:
        with self._reading("receipts.parquet"):
            columns = unpacked(self._bytes["receipts.parquet"]).to_pydict()
            receipts = dict(zip(columns["run_id"], columns["receipt"], strict=True))
            if not all(type(text) is str for pair in receipts.items() for text in pair):
                raise ValueError("its columns are no texts")
            return receipts

    @cached_property
    def _scores(self) -> tuple[Any, dict[str, tuple[int, int]]]:
        """Scores of all runs; (start, length) by run id."""
        with self._reading("scores.parquet"):
            rows = unpacked(self._bytes["scores.parquet"])
            ends = pc.run_end_encode(rows["run_id"].combine_chunks())
            spans, start = {}, 0
            for run_id, end in zip(ends.values.to_pylist(), ends.run_ends.to_pylist(), strict=True):
                spans[run_id] = (start, end - start)
                start = end
            return rows.drop_columns("run_id"), spans

    @cached_property
    def _artifacts(self) -> dict[str, RunRows]:
        """The artifacts of all runs by file name; only run ids are decoded.

        All files are opened at once: where one is damaged, none is to be trusted.
        """
        rows = {}
        for name in self._bytes.keys() & {*OPTIONAL}:
            with self._reading(name):
                rows[name] = RunRows(self._bytes[name])
        return rows

    def _artifact(self, run_id: str, name: str, read: Callable[[Any], Artifact]) -> Artifact | None:
        """Read one artifact of a run; None without one."""
        if run_id not in self._artifacts.get(name, ()):
            return None
        with self._reading(name):
            return read(run_columns(self._artifacts[name].read(run_id)))

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Raise CorruptRun, one clear line, for an unreadable file."""
        try:
            yield
        except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
            reason = one_line(error).splitlines()[0]
            raise CorruptRun(f"archive {self.root} is damaged: {name}: {reason}") from error

    def ids(self) -> list[str]:
        """Return the ids of all runs, sorted."""
        return sorted(self._receipts)

    def has(self, run_id: str) -> bool:
        """Whether a run is stored."""
        return run_id in self._receipts

    def read(self, run_id: str) -> Receipt:
        """Return a receipt, its own digest checked; raises CorruptRun.

        `files` is what the archive holds of the run beside its scores, with the digest of the file
        of all runs that it lies in.
        """
        if run_id not in self._receipts:
            raise CorruptRun(f"archive {self.root} has no run {run_id}")
        receipt = parse(self._receipts[run_id].encode(), run_id, exact=False)
        names = [name for name in OPTIONAL if run_id in self._artifacts.get(name, ())]
        return replace(receipt, files={name: self._digests[name] for name in names})

    def scores(self, run_id: str) -> Scores:
        """Return a run's scores; raises CorruptRun."""
        rows, spans = self._scores
        if run_id not in spans:
            raise CorruptRun(f"archive {self.root} has no scores of run {run_id}")
        with self._reading("scores.parquet"):
            return Scores.from_table(rows.slice(*spans[run_id]))

    def embeddings(self, run_id: str) -> Embeddings | None:
        """Return a run's embeddings or None; raises CorruptRun."""
        return self._artifact(run_id, EMBEDDINGS, Embeddings.from_table)

    def explanations(self, run_id: str) -> Explanations | None:
        """Return a run's explanations or None; raises CorruptRun."""
        return self._artifact(run_id, EXPLANATIONS, Explanations.from_table)

    def epoch_scores(self, run_id: str) -> ScoresByEpoch | None:
        """Return a run's scores by epoch or None; raises CorruptRun."""
        return self._artifact(run_id, EPOCHS, ScoresByEpoch.from_table)

    def folder(self, run_id: str) -> None:
        """Return None: an archive has no folders of runs."""

    def failures(self, run_id: str) -> list[Failure]:
        """Return nothing: an archive holds results only."""
        return []

    def failed_ids(self) -> list[str]:
        """Return nothing: an archive holds results only."""
        return []

    def table_bytes(self) -> bytes:
        """Return runs.parquet as it is stored."""
        return self._bytes["runs.parquet"]


def pack(results: Results, out: Path, *, scores_only: bool = False) -> int:
    """Write all runs as an archive; return their number.

    With `scores_only` maps, embeddings and what else runs keep beside their scores stays behind.
    An archive that is there is replaced as a whole, if all its runs are among the results. Raises
    CorruptRun where a run does not verify, RequestError where there is nothing to pack or
    something would be lost, StoreError where the disk refuses.
    """
    ids = results.ids()
    if not ids:
        raise RequestError(f"there are no runs in {results.root} to archive")
    _check_target(out, ids)
    receipts, sealed_receipts = [], []
    tables: dict[str, dict[str, Any]] = {name: {} for name in ("scores.parquet", *OPTIONAL)}
    for run_id in ids:
        receipt, scores = results.read(run_id), results.scores(run_id)
        if scores.digest() != receipt.metrics.scores_sha256:
            raise CorruptRun(f"run {run_id} is damaged: its scores are not those of its receipt")
        receipts.append(receipt)
        sealed_receipts.append(seal(replace(receipt, files={})).decode())  # the files stay behind
        tables["scores.parquet"][run_id] = scores.table()
        artifacts = {} if scores_only else read_artifacts(results, run_id)
        for name, artifact in artifacts.items():
            tables[name][run_id] = artifact.table()
    receipt_table = pa.table({"run_id": ids, "receipt": sealed_receipts})
    contents = {
        "receipts.parquet": packed(receipt_table, compression="zstd"),
        "scores.parquet": packed(concat_runs(tables["scores.parquet"]), compression="zstd"),
        **{name: packed_runs(tables[name]) for name in OPTIONAL if tables[name]},
        "runs.parquet": table_bytes(receipts),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = {"schema": ARCHIVE_SCHEMA, "runs": len(ids), "files": digests}
    contents[MANIFEST] = sealed("archive", manifest) + b"\n"
    with writing(out.parent), staged_folder(out, replace=True) as staging:
        for name, content in contents.items():
            write_synced(staging / name, content)
    return len(ids)


def _check_target(out: Path, ids: Sequence[str]) -> None:
    """Refuse to overwrite other files or lose runs."""
    if not out.exists():
        return
    known = {*FILES, *OPTIONAL, MANIFEST}
    foreign = {p.name for p in out.iterdir()} - known if out.is_dir() else {out.name}
    if foreign:
        raise RequestError(f"{out} holds {min(foreign)}, which is no part of an archive")
    if (out / MANIFEST).exists():
        lost = set(Archive(out).ids()) - set(ids)
        if lost:
            raise RequestError(
                f"{out} holds {len(lost)} runs that are not among the results: bring them in first"
                f" with `bench merge {out}`"
            )
