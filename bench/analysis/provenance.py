"""Facts about the runs of a report, counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.analysis.configurations import StoredRuns, code_standing
from bench.analysis.copies import copy_reasons
from bench.analysis.labels import hardware
from bench.data.catalog import is_own
from bench.store.receipt import Receipt

LIBRARIES = ("bench", "python", "torch", "torchvision", "numpy", "pillow", "cuda", "driver", "os")
MOST_LINES = 40
"""On a page longer lists end with how many lines are left out."""


@dataclass(frozen=True)
class Facts:
    """A table of provenance."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def shown(self) -> tuple[tuple[str, ...], ...]:
        """The rows that a page has room for."""
        return self.rows[:MOST_LINES]

    @property
    def left_out(self) -> int:
        """How many rows a page leaves out."""
        return max(0, len(self.rows) - MOST_LINES)


def provenance(stored: StoredRuns) -> list[Facts]:
    """Return tables of where the numbers come from, without empty ones."""
    runs = stored.receipts
    tables = [
        _counted("Machines", ("machine", "precision", "runs"), runs,
                 lambda r: (hardware(r), str(r.spec.precision or "\N{EN DASH}"))),
        _counted("Data", ("data", "content", "copy", "training normals", "tested normals",
                          "tested anomalies", "duplicates out of training",
                          "duplicates out of test", "near copies", "runs"), runs, _data),
        _counted("Weights", ("weights", "sha256", "backbone", "runs"), runs, _weights),
        _counted("Code", ("commit", "method", "version", "made by", "runs"), runs, _code),
        _libraries(runs),
        _counted("Warnings", ("method", "warning", "runs"),
                 (r for r in runs if r.warnings), lambda r: (r.spec.method, "; ".join(r.warnings))),
        _failures(stored),
    ]  # fmt: skip
    return [facts for facts in tables if facts.rows]


def _counted(
    title: str,
    columns: tuple[str, ...],
    runs: Iterable[Receipt],
    facts_of: Callable[[Receipt], tuple[str, ...] | None],
) -> Facts:
    """Count the runs with the same facts; None has none."""
    counts = Counter(facts for run in runs if (facts := facts_of(run)) is not None)
    return Facts(title, columns, tuple((*facts, str(n)) for facts, n in sorted(counts.items())))


def _data(run: Receipt) -> tuple[str, ...]:
    split = run.split
    return (
        run.spec.place,
        run.spec.fingerprint[:12],
        "own dataset" if is_own(run.spec.dataset) else "".join(copy_reasons([run])) or "official",
        _count(split.train_normal),
        _count(split.test_normal),
        _count(split.test_anomalous),
        str(split.train_left_out or 0),
        str(split.test_duplicates_left_out or 0),
        _near_copies(run),
    )


def _near_copies(run: Receipt) -> str:
    """Return how many of both kinds of duplicates are near copies; empty where none is."""
    split = run.split
    near = (split.train_near_copies or 0, split.test_near_copies or 0)
    return f"{near[0]} + {near[1]} of {_count(split.pictures)} pictures" * any(near)


def _count(number: int | None) -> str:
    return "?" if number is None else str(number)


def _weights(run: Receipt) -> tuple[str, ...] | None:
    spec = run.spec
    if spec.backbone is None:
        return None
    title = run.provenance.weights_title or "none: random initialisation"
    return title, (spec.weights or "")[:12], f"{spec.backbone} to stage {spec.stage}"


def _code(run: Receipt) -> tuple[str, ...]:
    about, spec = run.provenance, run.spec
    commit = (about.commit or "no checkout")[:12]
    changed = ", changed" if about.dirty == "yes" else ""
    standing = code_standing(run)
    by = "older code \N{DAGGER}" if standing.stale else "today's code"
    if standing.proved_on:
        by = f"other code, the same numbers as proved on {standing.proved_on}"
    if spec.method_source:
        by = f"outside, source {spec.method_source[:12]}"
    return commit + changed, spec.method, str(spec.method_version), by


def _libraries(runs: Sequence[Receipt]) -> Facts:
    versions = {n: sorted({str(r.provenance.get(n, "")) for r in runs} - {""}) for n in LIBRARIES}
    rows = tuple((name, ", ".join(several)) for name, several in versions.items() if several)
    return Facts("Libraries", ("library", "versions"), rows)


def _failures(stored: StoredRuns) -> Facts:
    """List the runs that have failed and have no result."""
    rows = []
    for run_id in stored.results.failed_ids():
        failures = [] if stored.results.has(run_id) else stored.results.failures(run_id)
        if failures:
            last = failures[-1]
            rows.append((run_id, str(last.spec or "?"), last.kind, _first_line(last.reason)))
    return Facts("Failed runs", ("run", "what", "kind", "reason"), tuple(rows))


def _first_line(reason: str) -> str:
    return (reason.splitlines() or ["?"])[0]
