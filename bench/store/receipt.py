"""Receipt of a finished run, `run.json`: form, digests, reading, writing.

A receipt holds spec, draw, split, facts, metrics, timings, when the run began and ended, warnings
and provenance, the sha256 of every other file of the run, and the sha256 of itself.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import CorruptRun, RequestError, StoreError
from bench.spec import RunSpec
from bench.store.groups import OTHER_FORM, Drawn, Metrics, Provenance, SplitCounts, Timings, Values
from bench.system.digests import file_digest
from bench.system.files import cannot_read, json_digest, sync_folder, write_synced
from bench.system.untrusted import is_one_line, one_line, os_reason, read_regular

RECEIPT_SCHEMA = 2
"""Raised when the form changes; `parse` then brings older receipts to today's form.

1: without `started_at` and `finished_at`."""

Artifact = TypeVar("Artifact")

MAX_KEPT = 4 << 30
"""Bytes of the largest file beside the scores that is read."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Identity, outcome and provenance of a finished run."""

    run_id: str
    """As stored; `bench verify` holds it to the spec."""
    spec: RunSpec
    metrics: Metrics
    draw: tuple[Drawn, ...]
    """The anomalies of the draw, those that the run trained on first."""
    split: SplitCounts
    facts: Values
    """What the method recorded; the names are its own."""
    timings: Timings
    warnings: tuple[str, ...]
    provenance: Provenance
    started_at: datetime | None
    """When the command asked for the run's process, in UTC; None of schema 1."""
    finished_at: datetime | None
    """When the run was about to be published, in UTC; None of schema 1."""
    unsupported: tuple[str, ...] = ()
    """The abilities whose functions raised NotImplementedError, sorted."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The sha256 of every other file of the run, by name."""
    schema: int = RECEIPT_SCHEMA
    """That it was written in, and is written in again."""

    def __post_init__(self) -> None:
        moments = (self.started_at, self.finished_at)
        if self.schema == 1:
            if moments != (None, None):
                raise ValueError("a receipt of schema 1 does not say when its run began and ended")
        elif not all(m is not None and m.utcoffset() == timedelta(0) for m in moments):
            raise ValueError("a receipt says in UTC when its run began and ended")

    def as_dict(self) -> dict[str, Any]:
        """Return the receipt as JSON types of its schema."""
        moments = {"started_at": self.started_at, "finished_at": self.finished_at}
        return {
            "schema": self.schema,
            "run_id": self.run_id,
            "spec": self.spec.as_dict(),
            "metrics": dict(self.metrics),
            "draw": [asdict(drawn) for drawn in self.draw],
            "split": dict(self.split),
            "facts": dict(self.facts),
            "timings": dict(self.timings),
            **{name: moment_text(moment) for name, moment in moments.items() if moment},
            "warnings": list(self.warnings),
            "provenance": dict(self.provenance),
            **({_UNSUPPORTED: list(self.unsupported)} if self.unsupported else {}),
            "files": dict(self.files),
        }

    def digest(self) -> str:
        """Return the content's sha256; raises ValueError for infinite numbers."""
        return json_digest(self.as_dict())


_UNSUPPORTED = "unable"
_OPTIONAL = frozenset({_UNSUPPORTED})
_KEYS = frozenset(Receipt.__dataclass_fields__) - {"unsupported"}


def moment_text(moment: datetime) -> str:
    """Return UTC as ISO 8601 text with microseconds."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _moment(text: Any) -> datetime | None:
    """Read what `moment_text` returned; raises ValueError."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text).astimezone(UTC)
    if moment_text(moment) != text:
        raise ValueError(OTHER_FORM)
    return moment


def seal(receipt: Receipt) -> bytes:
    """Return the bytes of run.json, own digest included.

    Raises ValueError for a number that is not finite.
    """
    content = receipt.as_dict()
    return _sealed(content, json_digest(content))


def _sealed(content: Mapping[str, Any], digest: str) -> bytes:
    return json.dumps({**content, "receipt_sha256": digest}, indent=1).encode()


def parse(data: bytes, run_id: str, *, exact: bool = True) -> Receipt:
    """Read run.json; check its digest, schema and run id.

    `exact` holds what stands between the values to how it was written, too: not needed where the
    bytes have a digest of their own, as in an archive, and the slower part of reading. Raises
    CorruptRun where it does not agree with itself, StoreError where a newer bench wrote it.
    """
    try:
        content: dict[str, Any] = json.loads(data)
        stated = content.pop("receipt_sha256")
        if stated != json_digest(content):
            raise ValueError("run.json does not agree with its own digest")
        schema = content["schema"]
        if type(schema) is int and schema > RECEIPT_SCHEMA:
            raise StoreError(
                f"run {run_id} has a receipt of schema {schema}, this bench reads {RECEIPT_SCHEMA}:"
                " a newer bench wrote it; update"
            )
        if type(schema) is not int or schema < 1:
            raise ValueError(f"run.json has schema {schema!r:.40}")
        if content["run_id"] != run_id:
            raise ValueError(f"run.json is of run {one_line(content['run_id'])[:40]}")
        # Schema 1 lacks two moments; a receipt of it keeps its schema.
        moments = {"started_at": None, "finished_at": None} if schema == 1 else {}
        receipt = _receipt({**moments, **content})
        if exact and _sealed(content, stated) != data:  # a stray bit counts anywhere
            raise ValueError("run.json is not as it was written")
    except (
        ArithmeticError,
        LookupError,
        AttributeError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        reason = one_line(error) if isinstance(error, ValueError) else OTHER_FORM
        raise CorruptRun(f"run {run_id} is damaged: {reason}") from error
    return receipt


def _receipt(content: Mapping[str, Any]) -> Receipt:
    """Return the receipt of this content; raises ValueError."""
    if content.keys() - _OPTIONAL != _KEYS:
        raise ValueError(OTHER_FORM)
    try:
        spec = RunSpec.from_dict(content["spec"])
    except RequestError as error:
        raise ValueError(error) from None
    warnings, unsupported = content["warnings"], content.get(_UNSUPPORTED, [])
    files, draw = content["files"], content["draw"]
    texts = [*_list(warnings), *_list(unsupported), *files.values()]
    if not all(type(text) is str for text in texts):
        raise ValueError(OTHER_FORM)
    if not all(Path(name).name == name and is_one_line(name) for name in files):
        raise ValueError("run.json names files outside the run")
    return Receipt(
        run_id=content["run_id"],
        spec=spec,
        metrics=Metrics.checked(content["metrics"]),
        draw=tuple(map(_drawn, _list(draw))),
        split=SplitCounts.checked(content["split"]),
        facts=Values.checked(content["facts"]),
        timings=Timings.checked(content["timings"]),
        warnings=tuple(warnings),
        provenance=Provenance.checked(content["provenance"]),
        started_at=_moment(content["started_at"]),
        finished_at=_moment(content["finished_at"]),
        unsupported=tuple(unsupported),
        files=files,
        schema=content["schema"],
    )


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError(OTHER_FORM)
    return value


def _drawn(entry: Any) -> Drawn:
    if {*map(type, entry.values())} != {str}:
        raise ValueError(OTHER_FORM)
    return Drawn(**entry)


def read_run(folder: Path, run_id: str) -> Receipt:
    """Read a run's receipt; check it and all its files.

    Raises CorruptRun naming the first file that does not agree.
    """
    try:
        receipt = parse((folder / "run.json").read_bytes(), run_id)
        if "scores.parquet" not in receipt.files:
            raise CorruptRun(f"run {run_id} is damaged: it has no scores.parquet")
        for name, digest in receipt.files.items():
            if file_digest(folder / name) != digest:
                raise CorruptRun(f"run {run_id} is damaged: {name} does not agree with its digest")
    except PermissionError as error:  # another user's: not damaged, and not to be moved away
        raise StoreError(cannot_read(error.filename or folder, error)) from error
    except OSError as error:
        name = Path(error.filename or folder).name
        raise CorruptRun(f"run {run_id} is damaged: {name}: {os_reason(error)}") from error
    return receipt


def read_artifact(
    folder: Path, run_id: str, name: str, read: Callable[[bytes], Artifact]
) -> Artifact | None:
    """Read a run's artifact, digest checked; None without one.

    `read` raises ValueError for what it cannot read. Raises CorruptRun.
    """
    try:
        digest = parse((folder / "run.json").read_bytes(), run_id).files.get(name)
        if digest is None:
            return None
        content = read_regular(folder / name, MAX_KEPT)
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError("does not agree with its digest")
        return read(content)
    except PermissionError as error:
        raise StoreError(cannot_read(error.filename or folder / name, error)) from error
    except OSError as error:
        name = Path(error.filename or name).name
        raise CorruptRun(f"run {run_id} is damaged: {name}: {os_reason(error)}") from error
    except ValueError as error:
        raise CorruptRun(f"run {run_id} is damaged: {name} {one_line(error)}") from error


def seal_run(staged: Path, receipt: Receipt) -> Receipt:
    """Add run.json to a staged folder; return the receipt with digests."""
    try:
        for path in staged.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        files = {p.name: file_digest(p) for p in sorted(staged.iterdir())}
        receipt = replace(receipt, files=files)
        write_synced(staged / "run.json", seal(receipt))
        sync_folder(staged)
    except OSError as error:
        raise StoreError(f"cannot publish run {receipt.run_id}: {os_reason(error)}") from error
    return receipt


def seal_again(staged: Path, receipt: Receipt) -> None:
    """Replace run.json in a sealed folder."""
    (staged / "run.json").unlink()
    seal_run(staged, receipt)
