"""What can be asked of results alike, whether they lie in a results folder or in an archive."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.errors import CorruptRun, RequestError
from bench.store.failures import Failure
from bench.store.receipt import Receipt

if TYPE_CHECKING:
    from bench.store.embeddings import Embeddings
    from bench.store.explanations import Explanations
    from bench.store.scores import Scores


class Results(Protocol):
    """What can be read alike from a results folder (`Store`) and from an archive (`Archive`)."""

    root: Path

    def ids(self) -> list[str]:
        """Return the ids of all runs, sorted."""

    def has(self, run_id: str) -> bool:
        """Whether a run of that id is there; says nothing of its digests."""

    def read(self, run_id: str) -> Receipt:
        """Return a receipt, its digests checked; raises CorruptRun."""

    def scores(self, run_id: str) -> "Scores":
        """Return the scores of a run that `read` has passed; raises CorruptRun."""

    def embeddings(self, run_id: str) -> "Embeddings | None":
        """Return what a run that `read` has passed keeps, None for nothing; raises CorruptRun."""

    def explanations(self, run_id: str) -> "Explanations | None":
        """Return what a run that `read` has passed keeps, None for nothing; raises CorruptRun."""

    def failures(self, run_id: str) -> list[Failure]:
        """Return what is recorded of a run's failures, oldest first."""

    def failed_ids(self) -> list[str]:
        """Return the ids of all runs with a recorded failure, sorted."""

    def table_bytes(self) -> bytes | None:
        """Return runs.parquet as it is stored."""


def find(results: Results, beginning: str) -> str:
    """Return the one id that begins so; raises RequestError for none or several."""
    found = [i for i in results.ids() if i.startswith(beginning)] if beginning else []
    if len(found) != 1:
        what = f"{len(found)} runs begin" if found else "no run begins"
        raise RequestError(f"{what} with {beginning!r} in {results.root}")
    return found[0]


def receipts(results: Results) -> Iterator[Receipt]:
    """Yield the receipts of all runs that verify, in the order of their ids."""
    for run_id in results.ids():
        try:
            yield results.read(run_id)
        except CorruptRun:
            continue


def verified(results: Results, wanted: Iterable[str]) -> tuple[dict[str, Receipt], list[str]]:
    """Return the receipts of the wanted runs that are stored, and the ids that do not verify."""
    good, bad = {}, []
    for run_id in wanted:
        if results.has(run_id):
            try:
                good[run_id] = results.read(run_id)
            except CorruptRun:
                bad.append(run_id)
    return good, bad
