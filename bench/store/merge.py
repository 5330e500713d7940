"""Brings in runs from other results folders and archives."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.errors import CorruptRun, MethodError
from bench.store.agreement import agreement, same_source
from bench.store.artifacts import artifact_words, new_artifacts
from bench.store.embeddings import write_embeddings
from bench.store.explanations import write_explanations
from bench.store.folder import Store
from bench.store.layout import EMBEDDINGS, EXPLANATIONS
from bench.store.receipt import Receipt
from bench.store.results import Results
from bench.store.scores import write_scores
from bench.store.verify import contradictions, files_beside
from bench.system.digests import file_digest
from bench.system.files import writing


@dataclass(frozen=True)
class Merged:
    """What became of one run of a source."""

    run_id: str
    kind: str
    """`new`, `identical` or `close` (ours stays), `different` (ours stays) or `damaged`."""
    detail: str = ""


def merge_results(source: Results, store: Store) -> Iterator[Merged]:
    """Bring the runs of `source` into `store`, one after the other, and say of each what it was.

    Only what verifies is brought in, down to the metrics. Where the run is there already, the one
    that is there stays, unless it is damaged: then it moves to quarantine. It is given what an
    identical one of the same source keeps beside its scores and it does not. Raises StoreError
    where the disk refuses; what was brought in by then stays.
    """
    store.open_for_writing()
    for run_id in source.ids():
        yield _merge_one(source, store, run_id)
    store.compact()


def _merge_one(source: Results, store: Store, run_id: str) -> Merged:
    try:
        receipt, scores = source.read(run_id), source.scores(run_id)
        wrong = next(contradictions(receipt, scores, files_beside(source, run_id)), None)
        if wrong:
            return Merged(run_id, "damaged", f"run {run_id}: {wrong}")
    except CorruptRun as error:
        return Merged(run_id, "damaged", str(error))
    detail = ""
    if store.has(run_id):
        try:
            ours = store.read(run_id)
            found = agreement(ours, receipt)
            more = new_artifacts(receipt, ours)
            if found.kind != "identical" or not more or not same_source(ours, receipt):
                return Merged(run_id, found.kind, str(found))
            detail = f"the one that was here had no {artifact_words(more, 'or')}"
        except CorruptRun:
            if store.quarantine_run(run_id):
                detail = "the one that was here was damaged"
    staged = store.stage(run_id)
    try:
        with writing(staged):
            damaged = _fill(staged, source, receipt)
        if damaged:
            return Merged(run_id, "damaged", f"run {run_id}: {damaged} changed while it was read")
        there = store.publish(staged, receipt, imported=True)
        if there:  # another command was faster
            return Merged(run_id, there.kind, str(there))
    except MethodError as error:  # and had other scores
        return Merged(run_id, "different", str(error))
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Merged(run_id, "new", detail)


def _fill(staged: Path, source: Results, receipt: Receipt) -> str:
    """Copy a run's files, or write them again from an archive, which holds no files of runs.

    Returns the name of a file that is not what the receipt says.
    """
    run_id = receipt.run_id
    if not isinstance(source, Store):
        write_scores(staged / "scores.parquet", source.scores(run_id))
        embeddings, explanations = source.embeddings(run_id), source.explanations(run_id)
        if embeddings is not None:
            write_embeddings(staged / EMBEDDINGS, embeddings)
        if explanations is not None:
            write_explanations(staged / EXPLANATIONS, explanations)
        return ""
    for name, digest in receipt.files.items():
        shutil.copyfile(source.runs / run_id / name, staged / name)
        if file_digest(staged / name) != digest:
            return name
    return ""
