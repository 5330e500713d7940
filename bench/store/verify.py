"""Verification of stored results; changes nothing."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from bench.errors import CorruptRun
from bench.spec import RUN_ID, RunSpec
from bench.store.failures import DISPUTED
from bench.store.folder import Store
from bench.store.groups import PIXEL_METRICS, Plain
from bench.store.parquet import unpacked
from bench.store.receipt import Receipt
from bench.store.results import Results, read_artifacts, receipts
from bench.store.scores import Scores
from bench.store.table import schema_of, table_bytes
from bench.system.untrusted import one_line


def problems(
    results: Results, masks_changed: Callable[[RunSpec, str], bool] = lambda spec, digest: False
) -> Iterator[str]:
    """Yield a line for every contradiction in the results.

    Of every run: the digests, the id against the spec, the metrics against the scores, the images
    of embeddings and explanations against those of the scores; then the table against the
    receipts, and runs that did not repeat. `masks_changed` says whether a run's images have other
    masks today than those of a digest. Raises StoreError for results of a newer bench.
    """
    for run_id in results.ids():
        try:
            receipt = results.read(run_id)
            scores = results.scores(run_id)
            beside = files_beside(results, run_id)
        except CorruptRun as error:
            yield str(error)
            continue
        yield from (f"run {run_id}: {text}" for text in contradictions(receipt, scores, beside))
        stated = receipt.metrics.masks_sha256
        if stated and masks_changed(receipt.spec, stated):
            yield (
                f"run {run_id}: masks of {receipt.spec.place} have changed since its pixel metrics"
                " were made; its `bench run` command makes them again, without training"
            )
    yield from _table_problems(results)
    yield from _disputed(results)


def files_beside(results: Results, run_id: str) -> dict[str, tuple[str, ...]]:
    """Return the images of a run's artifacts, by file name.

    Raises CorruptRun where one does not read.
    """
    return {name: artifact.file for name, artifact in read_artifacts(results, run_id).items()}


def contradictions(
    receipt: Receipt, scores: Scores, beside: Mapping[str, tuple[str, ...]] = MappingProxyType({})
) -> Iterator[str]:
    """Yield contradictions between a receipt and its spec or scores.

    `beside` is what `files_beside` returns.
    """
    for name, file in beside.items():
        if file != tuple(scores.file):
            yield f"{name} is of {len(file)} other images than its {len(scores.file)} scores"
    try:
        made = receipt.spec.run_id
        if made != receipt.run_id:
            yield f"its spec gives the id {made}"
        if scores.digest() != receipt.metrics.scores_sha256:
            yield "its scores are not those of its receipt"
        stated = {k: v for k, v in receipt.metrics.items() if k not in BEYOND_SCORES}
        threshold = receipt.facts.number("normal_threshold")
        computed = scores.metrics(full="auroc_full" in stated, threshold=threshold)
        for name in sorted(computed.keys() | stated.keys()):
            if not _equal(stated.get(name), computed.get(name)):
                yield f"{name} is {stated.get(name)}, its scores give {computed.get(name)}"
        drawn = {d.file for d in receipt.draw}
        roles = {f for f, role in zip(scores.file, scores.role, strict=True) if role == "drawn"}
        if drawn != roles:
            yield "its draw is not what its scores call drawn"
    except (TypeError, ValueError) as error:
        yield f"its receipt cannot be checked: {type(error).__name__}: {error}"


BEYOND_SCORES = ("scores_sha256", *PIXEL_METRICS)
"""What stands among a receipt's metrics and does not follow from its scores."""


def _equal(one: Plain, other: float | None) -> bool:
    """Whether metrics are equal but for another CPU's rounding."""
    if one is None or isinstance(one, str) or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-12)


def _table_problems(results: Results) -> Iterator[str]:
    """Compare runs.parquet with its runs' receipts.

    Runs that it lacks are reported by `leftovers`.
    """
    stored, path = results.table_bytes(), results.root / "runs.parquet"
    if stored is None:
        return
    try:
        table = unpacked(stored)
        listed = set(table["run_id"].to_pylist()) if table.num_rows else set()
    except (ValueError, KeyError) as error:
        yield f"{path} {one_line(error)}"
        return
    agreed = (r for r in receipts(results) if r.run_id in listed)
    rebuilt = table_bytes(agreed, schema_of(table))
    if not table.equals(unpacked(rebuilt)):
        yield f"{path} is not what the receipts give"


def _disputed(results: Results) -> Iterator[str]:
    """Yield a line for each run with two different results."""
    for run_id in results.ids():
        for failure in results.failures(run_id):
            if failure.kind == DISPUTED:
                yield f"{failure.reason} ({failure.folder})"


def leftovers(results: Results) -> Iterator[str]:
    """Yield a line for each leftover, none of it wrong."""
    if not isinstance(results, Store):
        return
    listed = 0
    with contextlib.suppress(ValueError):
        listed = unpacked(results.table_bytes() or b"").num_rows
    behind = len(results.ids()) - listed
    if behind > 0:
        yield f"runs.parquet lacks {behind} of the runs: the next `bench run` brings it up to date"
    if results.runs.is_dir():
        for path in sorted(results.runs.iterdir()):
            if not RUN_ID.match(path.name):
                yield f"runs/ holds {one_line(path.name)}, which is no run"
    for folder, what in (
        (results.staging, "under way or left by a killed command"),
        (results.quarantine, "moved away because they did not verify"),
        (
            results.superseded,
            "that were made again since: of older code or masks, or keeping less",
        ),
        (results.failed, "that failed"),
    ):
        count = len([*folder.iterdir()]) if folder.is_dir() else 0
        if count:
            yield f"{folder.name}/ holds {count} {'run' if count == 1 else 'runs'} {what}"
