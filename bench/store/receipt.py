"""The receipt of a finished run, `run.json`: its form, its digests, its row of the table.

A receipt holds spec, draw, split, facts, metrics, timings, warnings and provenance, the sha256 of
every other file of the run, and the sha256 of itself.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import CorruptRun, RequestError, StoreError
from bench.spec import RunSpec
from bench.store.artifacts import UNABLE
from bench.system.digests import file_digest
from bench.system.files import json_digest, sync_folder, write_synced
from bench.system.untrusted import fits_a_line, read_regular, shown, why

RECEIPT_SCHEMA = 1
"""Raised when the form changes; `parse` then brings older receipts to today's form."""

Receipt = dict[str, Any]
Kept = TypeVar("Kept")

MAX_KEPT = 4 << 30
"""Bytes of the largest file beside the scores that is read."""


def seal(content: Mapping[str, Any], files: Mapping[str, str]) -> bytes:
    """Return the bytes of run.json: the content with the digests of the files and of itself.

    `files` takes the place of what the content says of files. Raises ValueError for a number that
    is not finite.
    """
    whole = {k: v for k, v in content.items() if k != "files"} | {"files": dict(files)}
    return json.dumps({**whole, "receipt_sha256": json_digest(whole)}, indent=1).encode()


def begin(spec: RunSpec) -> Receipt:
    """Return what every receipt begins with."""
    return {"schema": RECEIPT_SCHEMA, "run_id": spec.run_id, "spec": spec.as_dict()}


def parse(data: bytes, run_id: str, *, exact: bool = True) -> Receipt:
    """Read run.json and check its own digest, its schema and that it is of this run.

    `exact` holds what stands between the values to how it was written, too: not needed where the
    bytes have a digest of their own, as in an archive, and the slower part of reading. Raises
    CorruptRun where it does not agree with itself, StoreError where a newer bench wrote it.
    """
    try:
        receipt: Receipt = json.loads(data)
        stated = receipt.pop("receipt_sha256")
        if stated != json_digest(receipt):
            raise ValueError("run.json does not agree with its own digest")
        schema = receipt["schema"]
        if type(schema) is int and schema > RECEIPT_SCHEMA:
            raise StoreError(
                f"run {run_id} has a receipt of schema {schema}, this bench reads {RECEIPT_SCHEMA}:"
                " a newer bench wrote it; update"
            )
        if type(schema) is not int or schema != RECEIPT_SCHEMA:
            raise ValueError(f"run.json has schema {schema!r:.40}")
        if receipt["run_id"] != run_id:
            raise ValueError(f"run.json is of run {shown(receipt['run_id'])[:40]}")
        _check_form(receipt)
        if exact and seal(receipt, receipt["files"]) != data:  # a stray bit counts anywhere
            raise ValueError("run.json is not as it was written")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = shown(error) if isinstance(error, ValueError) else "run.json has another form"
        raise CorruptRun(f"run {run_id} is damaged: {reason}") from error
    return receipt


_GROUPS = ("metrics", "split", "facts", "timings", "provenance")
_NUMBERS = (
    ("timings", "setup_s"), ("timings", "fit_s"), ("timings", "score_s"), ("split", "scored"),
    ("provenance", "threads"),
)  # fmt: skip
_Plain = bool | int | float | str | None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _check_form(receipt: Receipt) -> None:
    """Raise ValueError unless all is there that readers of a receipt rely on."""
    try:
        RunSpec.from_dict(receipt["spec"])
    except RequestError as error:
        raise ValueError(error) from None
    groups = [receipt[group] for group in _GROUPS]
    plain = all(isinstance(v, _Plain) for group in groups for v in group.values())
    metrics = receipt["metrics"]
    measured = all(type(metrics[m]) is float and 0 <= metrics[m] <= 1 for m in ("auroc", "ap"))
    measured &= all(_is_number(receipt[group][key]) for group, key in _NUMBERS)
    texts = [*receipt["warnings"], *receipt["files"].values(), metrics["scores_sha256"]]
    texts += [receipt["provenance"][key] for key in ("device_name", "unofficial_copy")]
    texts += [drawn[key] for drawn in receipt["draw"] for key in ("file", "defect")]
    unable = receipt.get(UNABLE, [])
    texts += unable if type(unable) is list else [None]
    if not (plain and measured and all(type(text) is str for text in texts)):
        raise ValueError("run.json has another form")
    if not all(Path(name).name == name and fits_a_line(name) for name in receipt["files"]):
        raise ValueError("run.json names files outside the run")


def read_run(folder: Path, run_id: str) -> Receipt:
    """Read the receipt in `folder` and check its digests, its id and every file that it names.

    Raises CorruptRun naming the first file that does not agree.
    """
    try:
        receipt = parse((folder / "run.json").read_bytes(), run_id)
        if "scores.parquet" not in receipt["files"]:
            raise CorruptRun(f"run {run_id} is damaged: it has no scores.parquet")
        for name, digest in receipt["files"].items():
            if file_digest(folder / name) != digest:
                raise CorruptRun(f"run {run_id} is damaged: {name} does not agree with its digest")
    except OSError as error:
        name = Path(error.filename or folder).name
        raise CorruptRun(f"run {run_id} is damaged: {name}: {why(error)}") from error
    return receipt


def read_kept(folder: Path, run_id: str, name: str, read: Callable[[bytes], Kept]) -> Kept | None:
    """Read a file kept beside the scores, its digest checked; None where there is none.

    `read` raises ValueError for what it cannot read. Raises CorruptRun.
    """
    try:
        digest = parse((folder / "run.json").read_bytes(), run_id)["files"].get(name)
        if digest is None:
            return None
        content = read_regular(folder / name, MAX_KEPT)
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError("does not agree with its digest")
        return read(content)
    except OSError as error:
        name = Path(error.filename or name).name
        raise CorruptRun(f"run {run_id} is damaged: {name}: {why(error)}") from error
    except ValueError as error:
        raise CorruptRun(f"run {run_id} is damaged: {name} {shown(error)}") from error


def seal_run(staged: Path, receipt: Receipt) -> Receipt:
    """Write run.json over what lies in a staged folder; return it with the files' digests."""
    try:
        for path in staged.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        files = {p.name: file_digest(p) for p in sorted(staged.iterdir())}
        write_synced(staged / "run.json", seal(receipt, files))
        sync_folder(staged)
    except OSError as error:
        raise StoreError(f"cannot publish run {receipt['run_id']}: {why(error)}") from error
    return {**receipt, "files": files}


def seal_again(staged: Path, receipt: Receipt, unable: Mapping[str, Any]) -> None:
    """Give a sealed folder this receipt over what lies in it now, and this in place of `unable`."""
    (staged / "run.json").unlink()
    seal_run(staged, {k: v for k, v in receipt.items() if k != UNABLE} | dict(unable))
