"""The receipt of a finished run, `run.json`: its form, its digests, its row of the table.

A receipt holds spec, draw, split, facts, metrics, timings, warnings and provenance, the sha256 of
every other file of the run, and the sha256 of itself.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bench.digests import file_digest
from bench.errors import CorruptRun, RequestError, StoreError
from bench.files import json_digest, sync_folder, write_synced
from bench.kept import UNABLE
from bench.outside import fits_a_line, read_regular, shown, why
from bench.spec import RunSpec

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
    """Read one of `bench.kept.FILES`, its digest checked; None where the run does not keep it.

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


def flat(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as one flat row of runs.parquet.

    Of a timing run, whose training was cut short, AUROC and AP are no result: they are left out.
    """
    spec, metrics = receipt["spec"], receipt["metrics"]
    if spec["kind"] != "accuracy":
        metrics = {"scores_sha256": metrics["scores_sha256"]}
    head = ("kind", "method", "method_version", "dataset", "category", "setting", "shots", "seed")
    row = {"run_id": receipt["run_id"], **{k: spec[k] for k in head}}
    row["version"] = row.pop("method_version")
    order = ["run_id", "kind", "method", "version", *head[3:]]
    row = {k: row[k] for k in order}
    row["auroc"], row["ap"] = metrics.get("auroc"), metrics.get("ap")
    row |= {k: v for k, v in spec.items() if k not in head and k != "parameters"}
    row |= {f"metric.{k}": v for k, v in metrics.items() if k not in ("auroc", "ap")}
    for group, prefix in _PREFIX.items():
        values = spec["parameters"] if group == "parameters" else receipt[group]
        row |= {f"{prefix}.{k}": v for k, v in values.items()}
    row["warnings"] = "; ".join(receipt["warnings"])
    return row


_PREFIX = {
    "parameters": "param",
    "split": "split",
    "facts": "fact",
    "timings": "time",
    "provenance": "prov",
}


def table(receipts: Iterable[Receipt]) -> Any:
    """Return the `pyarrow.Table` of runs.parquet: one row a run, flat and typed."""
    import pyarrow as pa

    rows = [{k: _storable(v) for k, v in flat(receipt).items()} for receipt in receipts]
    found = pa.Table.from_pylist(_same_columns(rows)) if rows else pa.table({})
    return found.replace_schema_metadata({"bench.schema": str(TABLE_SCHEMA)})


TABLE_SCHEMA = 1


def _storable(value: Any) -> Any:
    """Return a value as a column can hold it: numbers of 64 bits, text that is UTF-8."""
    if type(value) is int and value.bit_length() > 63:
        return str(value)
    return value.encode(errors="backslashreplace").decode() if type(value) is str else value


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
