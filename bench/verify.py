"""Looks at results and says what does not agree; changes nothing."""

import io
import math
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import CorruptRun, RequestError
from bench.receipt import Receipt
from bench.results import Results, table_of
from bench.scores import Scores
from bench.spec import RunSpec
from bench.store import Store


def problems(results: Results) -> Iterator[str]:
    """Yield one line for everything that does not agree with its digest or with itself.

    Of every run: the digests, the id against the spec, the metrics against the scores; then the
    table against the receipts. Raises StoreError for results of a newer bench.
    """
    for run_id in results.ids():
        try:
            receipt = results.read(run_id)
            scores = results.scores(run_id)
        except CorruptRun as error:
            yield str(error)
            continue
        yield from (f"run {run_id}: {text}" for text in contradictions(receipt, scores))
    yield from _table_problems(results)


def contradictions(receipt: Receipt, scores: Scores) -> Iterator[str]:
    """Yield what a receipt says that its spec or its scores do not bear out."""
    try:
        made = RunSpec.from_dict(receipt["spec"]).run_id
        if made != receipt["run_id"]:
            yield f"its spec gives the id {made}"
        if scores.digest() != receipt["metrics"]["scores_sha256"]:
            yield "its scores are not those of its receipt"
        stated = {k: v for k, v in receipt["metrics"].items() if k != "scores_sha256"}
        found = scores.metrics(full="auroc_full" in stated)
        for name in sorted(found.keys() | stated.keys()):
            if not _equal(stated.get(name), found.get(name)):
                yield f"{name} is {stated.get(name)}, its scores give {found.get(name)}"
        drawn = {d["file"] for d in receipt["draw"]}
        roles = {f for f, role in zip(scores.file, scores.role, strict=True) if role == "drawn"}
        if drawn != roles:
            yield "its draw is not what its scores call drawn"
    except (KeyError, TypeError, ValueError, RequestError) as error:
        yield f"its receipt cannot be checked: {type(error).__name__}: {error}"


def _equal(one: float | None, other: float | None) -> bool:
    """Whether two metrics are the same but for the order in which some other CPU adds."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-12)


def _table_problems(results: Results) -> Iterator[str]:
    stored, place = results.table_bytes(), results.root / "runs.parquet"
    if stored is None:
        if results.ids():
            yield f"{place} is missing: the next `bench run` makes it again"
        return
    try:
        there = pq.ParquetFile(io.BytesIO(stored)).read()
    except (pa.ArrowException, OSError) as error:
        yield f"{place} does not read: {str(error).splitlines()[0]}"
        return
    made = pq.ParquetFile(io.BytesIO(table_of(results))).read()
    if not there.equals(made):
        yield f"{place} is not what the receipts give"


def leftovers(results: Results) -> Iterator[str]:
    """Yield a line for what lies beside the runs and is no result; nothing is wrong with it."""
    if not isinstance(results, Store):
        return
    for folder, what in (
        (results.staging, "under way or left by a killed command"),
        (results.quarantine, "moved away because they did not verify"),
        (results.superseded, "of older code, run again since"),
        (results.failed, "that failed"),
    ):
        count = _entries(folder)
        if count:
            yield f"{folder.name}/ holds {count} {'run' if count == 1 else 'runs'} {what}"


def _entries(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0
