"""Contents of a report, for the page and exported files."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.analysis.accuracies import accuracy_table
from bench.analysis.configurations import Configuration, StoredRuns, is_stale
from bench.analysis.epochs import epochs_table
from bench.analysis.filling import fill_table, other_table, source_tables
from bench.analysis.provenance import Facts, provenance
from bench.analysis.sections import TableSection
from bench.analysis.selection import ScoreCache
from bench.analysis.spread import spread_table
from bench.analysis.tables import ReportTable
from bench.analysis.timing_tables import TimeTable, time_tables
from bench.published.audit import findings
from bench.published.findings import Finding
from bench.report.answers import Answer, answers
from bench.report.claims import Claim, claims
from bench.report.figures import agreement
from bench.report.figures.figure import Figure, Sources
from bench.report.gallery import draw_figures
from bench.report.pictures import Pictures
from bench.store.results import Results, receipts

PAPER_TABLES = ("atacnet_table1", "atacnet_table2")
"""The tables of the paper, by their names in `bench/published/`."""


@dataclass(frozen=True)
class Contents:
    """Tables, figures, findings and provenance of stored runs.

    Tables of which nothing was run stand behind the others.
    """

    stored: StoredRuns
    tables: tuple[ReportTable, ...]
    figures: tuple[Figure, ...]
    findings: tuple[Finding, ...]
    provenance: tuple[Facts, ...]
    claims: tuple[Claim, ...]
    """What the paper says in words, tested; none without accuracy runs."""
    times: tuple[TimeTable, ...]
    """What was timed, a table for each machine and category."""
    sections: tuple[TableSection, ...] = ()
    """Tables that only some results have runs for."""
    answers: tuple[Answer, ...] = ()
    """What the runs say, for the top of the page."""

    @cached_property
    def judges(self) -> bool:
        """Whether the page is about published numbers: some were run, or nothing was."""
        ran = [table for table in self.tables if table.ran]
        return not ran or any(table.is_published for table in ran)

    @property
    def leading(self) -> tuple[ReportTable, ...]:
        """Tables that stand first: all, or those of runs where nothing published was run."""
        return tuple(table for table in self.tables if self.judges or table.ran)

    @property
    def trailing(self) -> tuple[ReportTable, ...]:
        """Published tables behind the figures, where nothing of them was run."""
        return tuple(table for table in self.tables if table not in self.leading)

    @cached_property
    def stale(self) -> int:
        """How many shown runs older code made."""
        scored = (c.ours.receipts for table in self.tables for c in table.cells() if c.ours)
        timed = (t.rounds for table in self.times for t in table.timed)
        shown = {run.run_id: run for runs in (*scored, *timed) for run in runs}
        return sum(map(is_stale, shown.values()))

    @cached_property
    def damaged(self) -> int:
        """How many damaged runs are left out."""
        return len(self.stored.results.ids()) - len(self.stored.receipts)

    @cached_property
    def failed(self) -> int:
        """How many runs have failed and have no result."""
        results = self.stored.results
        return sum(not results.has(run_id) for run_id in results.failed_ids())

    def settings(self, configuration: Configuration) -> dict[str, Any]:
        """Return settings and parameters that its runs share."""
        spec = configuration.receipts[0].spec
        left_out = ("kind", "method", "dataset", "category", "shots", "seed", "parameters")
        asked = {k: v for k, v in spec.as_dict().items() if k not in left_out and v is not None}
        return {**asked, **spec.parameters}


def contents(results: Results, data: Path | None = None, cache: Path | None = None) -> Contents:
    """Gather what a report shows of stored results.

    Pictures of images are drawn from `data`, where it holds what the runs saw, and from the
    embedded synthetic dataset; else there are none. `cache` has the known digests of `data`.
    """
    pictures = Pictures(data, cache)
    stored = StoredRuns(results, tuple(receipts(results)), pictures.content)
    tables = [fill_table(name, stored) for name in PAPER_TABLES]
    tables += source_tables(stored, tables)
    other = other_table(stored, tables)
    sources = Sources(stored, ScoreCache(stored), pictures)
    shown = sorted((*tables, other) if other else tables, key=lambda table: not table.ran)
    return Contents(
        stored,
        tuple(shown),
        (*agreement.draw(shown), *draw_figures(sources)),
        tuple(findings()),
        tuple(provenance(stored)),
        tuple(claims(sources) if stored.accuracy else ()),
        tuple(time_tables(stored)),
        tuple(filter(None, (accuracy_table(stored), spread_table(stored), epochs_table(stored)))),
        tuple(answers(stored, shown)),
    )
