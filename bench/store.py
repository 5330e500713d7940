"""Finished runs on disk: staged, published by one rename, checked on every read.

results/runs/<run_id>/run.json        the receipt: spec, draw, metrics, timings, provenance,
                                      sha256 of every other file and of itself
results/runs/<run_id>/scores.parquet  one row an image: file, label, defect, role, score
results/runs/<run_id>/log.txt         what the run printed
results/failures/<run_id>/<n>/        failure.json and log.txt of what did not finish
results/quarantine/                   runs whose digests do not agree
results/staging/                      runs under way
results/runs.parquet                  one row a run, rebuilt from the receipts
"""

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.errors import CorruptRun, RequestError, StoreError
from bench.files import sync_folder, write_atomically, write_synced
from bench.spec import RunSpec

RECEIPT_SCHEMA = 1
TABLE_SCHEMA = 1

Receipt = dict[str, Any]


class Store:
    """A results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / "runs"
        self.staging = root / "staging"
        self.failed = root / "failures"
        self.quarantine = root / "quarantine"
        self.table = root / "runs.parquet"

    # Writing

    def open_for_writing(self) -> None:
        """Make the folders and clear what dead commands of this host left in staging.

        Raises StoreError where the folder cannot be written.
        """
        try:
            for folder in (self.runs, self.staging, self.failed):
                folder.mkdir(parents=True, exist_ok=True)
            for left in self.staging.iterdir():
                _, host, pid = (*left.name.split("@"), "", "")[:3]
                if host == platform.node() and not _alive(pid):
                    shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise StoreError(f"cannot write to {self.root}: {error.strerror}") from error

    def stage(self, run_id: str) -> Path:
        """Return a new empty folder for a run under way, named by this host and process."""
        folder = self.staging / f"{run_id}@{platform.node()}@{os.getpid()}"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        except OSError as error:
            raise StoreError(f"cannot write to {self.staging}: {error.strerror}") from error
        return folder

    def publish(self, staged: Path, spec: RunSpec, receipt: Mapping[str, Any]) -> bool:
        """Seal a staged folder with its receipt and rename it into `runs/`.

        Returns False where the same run is already there with equal scores; the staged one is
        dropped. Raises StoreError where its scores differ, or the disk is full.
        """
        target = self.runs / spec.run_id
        try:
            for path in staged.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            write_synced(staged / "run.json", seal(spec, receipt, _digests(staged)))
            sync_folder(staged)
            os.rename(staged, target)
            sync_folder(self.runs)
            return True
        except OSError as error:
            if not target.is_dir():
                raise StoreError(f"cannot publish run {spec.run_id}: {error.strerror}") from error
        there = self.read(spec.run_id)["metrics"]["scores_sha256"]
        if there != receipt["metrics"]["scores_sha256"]:
            raise StoreError(
                f"run {spec.run_id} was finished twice with different scores: the stored one stays"
            )
        shutil.rmtree(staged, ignore_errors=True)
        return False

    def record_failure(self, staged: Path, spec: RunSpec, failure: Mapping[str, Any]) -> Path:
        """Keep a failed run's facts and log under `failures/`, apart from all results."""
        folder = self.failed / spec.run_id
        content = {"run_id": spec.run_id, "spec": spec.as_dict(), "time": _now(), **failure}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            staged.mkdir(exist_ok=True)
            for path in staged.iterdir():
                if path.name != "log.txt":
                    path.unlink()
            write_synced(staged / "failure.json", json.dumps(content, indent=1).encode())
            number = 1 + max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0)
            target = folder / str(number)
            os.rename(staged, target)
            sync_folder(folder)
        except OSError as error:
            raise StoreError(f"cannot write to {self.failed}: {error.strerror}") from error
        return target

    def set_aside(self, run_id: str) -> None:
        """Move a run that does not verify to `quarantine/`."""
        self.quarantine.mkdir(parents=True, exist_ok=True)
        os.rename(self.runs / run_id, self.quarantine / f"{run_id}-{time.time_ns()}")

    def compact(self) -> Path:
        """Rebuild runs.parquet from the receipts; runs that do not verify are left out."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [flat(receipt) for receipt in self.receipts()]
        table = pa.Table.from_pylist(_same_columns(rows)) if rows else pa.table({})
        table = table.replace_schema_metadata({"bench.schema": str(TABLE_SCHEMA)})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        write_atomically(self.table, sink.getvalue().to_pybytes())
        return self.table

    # Reading

    def ids(self) -> list[str]:
        """Return the ids of all stored runs, sorted."""
        if not self.runs.is_dir():
            return []
        return sorted(p.name for p in self.runs.iterdir() if p.is_dir())

    def has(self, run_id: str) -> bool:
        """Whether a run of that id is stored; says nothing of its digests."""
        return (self.runs / run_id / "run.json").is_file()

    def read(self, run_id: str) -> Receipt:
        """Read a receipt and check every digest; raises CorruptRun where one does not agree."""
        return read_run(self.runs / run_id)

    def find(self, beginning: str) -> str:
        """Return the one stored id that begins so; raises RequestError for none or several."""
        found = [i for i in self.ids() if i.startswith(beginning)] if beginning else []
        if len(found) != 1:
            what = f"{len(found)} runs begin" if found else "no run begins"
            raise RequestError(f"{what} with {beginning!r} in {self.runs}")
        return found[0]

    def receipts(self) -> Iterator[Receipt]:
        """Yield the receipts of all runs that verify."""
        for run_id in self.ids():
            try:
                yield self.read(run_id)
            except CorruptRun:
                continue

    def failures(self, run_id: str) -> list[dict[str, Any]]:
        """Return what is recorded of a run's failures, oldest first."""
        found = []
        for path in (self.failed / run_id).glob("*/failure.json"):
            try:
                found.append((int(path.parent.name), json.loads(path.read_bytes())))
            except ValueError:
                continue
        return [failure for _, failure in sorted(found, key=lambda f: f[0])]


def seal(spec: RunSpec, receipt: Mapping[str, Any], files: Mapping[str, str]) -> bytes:
    """Return the bytes of run.json: the receipt with the digests of the files and of itself."""
    whole = {
        "schema": RECEIPT_SCHEMA,
        "run_id": spec.run_id,
        "spec": spec.as_dict(),
        **receipt,
        "files": dict(files),
    }
    return json.dumps({**whole, "receipt_sha256": _own_digest(whole)}, indent=1).encode()


def read_run(folder: Path) -> Receipt:
    """Read the receipt in `folder` and check its digests, id and files.

    Raises CorruptRun naming the first file that does not agree.
    """
    try:
        receipt: Receipt = json.loads((folder / "run.json").read_bytes())
        own = receipt.pop("receipt_sha256")
        if own != _own_digest(receipt):
            raise ValueError("run.json does not agree with its own digest")
        if receipt["schema"] != RECEIPT_SCHEMA:
            raise ValueError(f"run.json has schema {receipt['schema']}")
        if receipt["run_id"] != folder.name:
            raise ValueError(f"run.json is of run {receipt['run_id']}")
        there = _digests(folder)
        for name, digest in receipt["files"].items():
            if there.get(name) != digest:
                raise ValueError(f"{name} does not agree with its digest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptRun(f"run {folder.name} is damaged: {error}") from error
    return receipt


def _own_digest(receipt: Mapping[str, Any]) -> str:
    text = json.dumps(receipt, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.iterdir()):
        if path.name != "run.json":
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def flat(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as one flat row of runs.parquet."""
    spec, metrics = receipt["spec"], receipt["metrics"]
    head = ("kind", "method", "method_version", "dataset", "category", "setting", "shots", "seed")
    row = {"run_id": receipt["run_id"], **{k: spec[k] for k in head}}
    row["version"] = row.pop("method_version")
    order = ["run_id", "kind", "method", "version", *head[3:]]
    row = {k: row[k] for k in order}
    row["auroc"], row["ap"] = metrics["auroc"], metrics["ap"]
    row |= {k: v for k, v in spec.items() if k not in head and k != "parameters"}
    row |= {f"metric.{k}": v for k, v in metrics.items() if k not in ("auroc", "ap")}
    for group in ("parameters", "split", "facts", "timings", "provenance"):
        values = spec["parameters"] if group == "parameters" else receipt[group]
        row |= {f"{_PREFIX[group]}.{k}": v for k, v in values.items()}
    row["warnings"] = "; ".join(receipt["warnings"])
    return row


_PREFIX = {
    "parameters": "param",
    "split": "split",
    "facts": "fact",
    "timings": "time",
    "provenance": "prov",
}


def _same_columns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give every row every column, and a column that holds several types one of them."""
    columns: dict[str, set[type]] = {}
    for row in rows:
        for key, value in row.items():
            types = columns.setdefault(key, set())
            if value is not None:
                types.add(type(value))

    def cast(key: str, value: Any) -> Any:
        types = columns[key]
        if value is None or len(types) <= 1:
            return value
        return float(value) if types <= {int, float} else str(value)

    return [{k: cast(k, row.get(k)) for k in columns} for row in rows]


def verified(store: Store, wanted: Iterable[str]) -> tuple[dict[str, Receipt], list[str]]:
    """Return the receipts of the wanted runs that are stored, and the ids that do not verify."""
    good, bad = {}, []
    for run_id in wanted:
        if (store.runs / run_id).is_dir():
            try:
                good[run_id] = store.read(run_id)
            except CorruptRun:
                bad.append(run_id)
    return good, bad


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
