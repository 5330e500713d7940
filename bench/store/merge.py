"""Brings in runs from other results folders and archives."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.errors import CorruptRun, MethodError
from bench.store.agreement import agreement, same_source
from bench.store.artifacts import artifact_words, new_artifacts
from bench.store.folder import Store
from bench.store.parquet import packed
from bench.store.receipt import Receipt
from bench.store.results import Results, read_artifacts
from bench.store.scores import write_scores
from bench.store.verify import contradictions, files_beside
from bench.system.digests import file_digest
from bench.system.files import write_synced, writing


@dataclass(frozen=True)
class Merged:
    """What became of one run of a source."""

    run_id: str
    kind: str
    """`new`, `identical` or `close` (ours stays), `different` (ours stays) or `damaged`."""
    detail: str = ""


def merge_results(source: Results, store: Store) -> Iterator[Merged]:
    """Merge runs into `store` one by one, yielding each outcome.

    Only runs that verify are merged, down to the metrics. A run that is stored already stays, and
    gains the artifacts of an identical run of the same source; a damaged one moves to quarantine.
    Raises StoreError where the disk refuses; runs merged by then stay.
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
            match = agreement(ours, receipt)
            more = new_artifacts(receipt, ours)
            if match.kind != "identical" or not more or not same_source(ours, receipt):
                return Merged(run_id, match.kind, str(match))
            detail = f"the one that was here had no {artifact_words(more, 'or')}"
        except CorruptRun:
            if store.quarantine_run(run_id):
                detail = "the one that was here was damaged"
    staged = store.stage(run_id)
    try:
        with writing(staged):
            damaged = _copy_files(source, receipt, staged)
        if damaged:
            return Merged(run_id, "damaged", f"run {run_id}: {damaged} changed while it was read")
        stays = store.publish(staged, receipt, imported=True)
        if stays:  # another command was faster
            return Merged(run_id, stays.kind, str(stays))
    except MethodError as error:  # and had other scores
        return Merged(run_id, "different", str(error))
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Merged(run_id, "new", detail)


def _copy_files(source: Results, receipt: Receipt, staged: Path) -> str:
    """Copy a run's files; return the name of a damaged one.

    An archive has no files of runs: they are written anew from its tables.
    """
    folder = source.folder(receipt.run_id)
    if folder is None:
        write_scores(staged / "scores.parquet", source.scores(receipt.run_id))
        for name, artifact in read_artifacts(source, receipt.run_id).items():
            write_synced(staged / name, packed(artifact.table()))
        return ""
    for name, digest in receipt.files.items():
        shutil.copyfile(folder / name, staged / name)
        if file_digest(staged / name) != digest:
            return name
    return ""
