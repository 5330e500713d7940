"""One interface to results folders and archives."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.errors import CorruptRun, RequestError
from bench.store.artifacts import EMBEDDINGS, EPOCHS, EXPLANATIONS
from bench.store.failures import Failure
from bench.store.receipt import Receipt

if TYPE_CHECKING:
    from bench.store.embeddings import Embeddings
    from bench.store.epochs import ScoresByEpoch
    from bench.store.explanations import Explanations
    from bench.store.scores import Scores


MANIFEST = "archive.json"
"""The file that makes a folder an archive, see `bench.store.archive`."""


class Results(Protocol):
    """Results of a folder (`Store`) or an archive (`Archive`)."""

    root: Path

    def ids(self) -> list[str]:
        """Return the ids of all runs, sorted."""

    def has(self, run_id: str) -> bool:
        """Whether a run is stored, its digests unchecked."""

    def read(self, run_id: str) -> Receipt:
        """Return a receipt, its digests checked; raises CorruptRun."""

    def scores(self, run_id: str) -> "Scores":
        """Return the scores of a verified run; raises CorruptRun."""

    def embeddings(self, run_id: str) -> "Embeddings | None":
        """Return a verified run's embeddings or None; raises CorruptRun."""

    def explanations(self, run_id: str) -> "Explanations | None":
        """Return a verified run's explanations or None; raises CorruptRun."""

    def epoch_scores(self, run_id: str) -> "ScoresByEpoch | None":
        """Return a verified run's scores by epoch or None; raises CorruptRun."""

    def failures(self, run_id: str) -> list[Failure]:
        """Return a run's recorded failures, oldest first."""

    def failed_ids(self) -> list[str]:
        """Return the sorted ids of runs with failures."""

    def table_bytes(self) -> bytes | None:
        """Return runs.parquet as it is stored."""

    def folder(self, run_id: str) -> Path | None:
        """Return the folder of a run; None in an archive."""


def find(results: Results, beginning: str) -> str:
    """Return the only id with this beginning; raises RequestError."""
    matches = [i for i in results.ids() if i.startswith(beginning)] if beginning else []
    if len(matches) != 1:
        what = f"{len(matches)} runs begin" if matches else "no run begins"
        some = f": {', '.join(matches[:5])}" + ", ..." * (len(matches) > 5) if matches else ""
        raise RequestError(f"{what} with {beginning!r} in {results.root}{some}")
    return matches[0]


def read_artifacts(
    results: Results, run_id: str
) -> "dict[str, Embeddings | Explanations | ScoresByEpoch]":
    """Return a run's artifacts of its images by file name; raises CorruptRun."""
    artifacts = {
        EMBEDDINGS: results.embeddings(run_id),
        EXPLANATIONS: results.explanations(run_id),
        EPOCHS: results.epoch_scores(run_id),
    }
    return {name: artifact for name, artifact in artifacts.items() if artifact is not None}


def receipts(results: Results) -> Iterator[Receipt]:
    """Yield the receipts that verify, ordered by id."""
    for run_id in results.ids():
        try:
            yield results.read(run_id)
        except CorruptRun:
            continue


def verified(results: Results, wanted: Iterable[str]) -> tuple[dict[str, Receipt], list[str]]:
    """Return stored receipts of wanted runs, and damaged ids."""
    good, bad = {}, []
    stored = {*results.ids()}  # listed once: a store that lacks a run lists all of them to say so
    for run_id in wanted:
        if run_id in stored:
            try:
                good[run_id] = results.read(run_id)
            except CorruptRun:
                bad.append(run_id)
    return good, bad
