"""The report as one HTML page: needs neither a network nor the data, and keeps a strict CSP."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import bench
from bench.audit import NAMES, Finding, findings
from bench.labels import machine
from bench.report import figures
from bench.report.tables import REFERENCE, Ours, ReportTable, Stored, report_table
from bench.results import Results, receipts
from bench.stats import Estimate, paired_difference

TEMPLATES = Path(__file__).parent / "templates"
WORDS = ("reproduced", "differs", "inconclusive", "not comparable", "not run")
"""What can stand as a verdict, in the order of the legend."""


@dataclass(frozen=True)
class Drawing:
    """A figure with what it shows."""

    title: str
    note: str
    svg: Markup


@dataclass(frozen=True)
class Contrast:
    """What a change of one parameter made, on shared seeds."""

    place: str
    shots: int
    against: str
    gaps: tuple[tuple[str, Estimate], ...]
    svg: Markup


def render(results: Results) -> str:
    """Return the page. The same stored runs give the same bytes."""
    stored = Stored(results, tuple(receipts(results)))
    tables = [report_table("atacnet_table1", stored, (1, 10))]
    style, script = ((TEMPLATES / f).read_text() for f in ("page.css", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": number, "signed": signed, "span": span, "named": named}
    page: str = environment.get_template("page.html").render(
        version=bench.__version__,
        style=Markup(style), script=Markup(script),
        style_hash=_csp_hash(style), script_hash=_csp_hash(script),
        tables=tables, counts=[(t, _counts(t)) for t in tables], words=WORDS,
        runs=len(stored.receipts), machines=sorted({machine(r) for r in stored.receipts}),
        drawings=list(_drawings(tables[0], results)),
        contrasts=list(_contrasts(stored)),
        findings=_by_subject(findings()),
        libraries=_libraries(stored.receipts), REFERENCE=REFERENCE,
    )  # fmt: skip
    return page


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# Words and numbers


def named(method: str) -> str:
    """Return a method's name as it is written in print."""
    return NAMES.get(method, method)


def number(value: Any) -> str:
    """Write an AUROC with three digits, as papers do."""
    return f"{float(value):.3f}"


def signed(value: float) -> str:
    """Write a difference with its sign."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def span(interval: tuple[float, float] | None) -> str:
    """Write an interval; nothing for none."""
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


# What the page says


def _counts(table: ReportTable) -> dict[str, int]:
    """Count the verdicts of a table's printed cells."""
    said = [cell.word for cell in table.cells() if cell.printed is not None]
    return {word: said.count(word) for word in WORDS}


def _libraries(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    names = ("bench", "torch", "torchvision", "numpy", "python", "os")
    return [
        (name, ", ".join(sorted({str(r["provenance"][name]) for r in found
                                 if name in r["provenance"]})))
        for name in names
    ]  # fmt: skip


def _drawings(table: ReportTable, results: Results) -> Iterable[Drawing]:
    """Give histograms and ROC curves of the first seed of each row that has runs."""
    for row in table.rows:
        there = [(c, c.ours) for c in row.cells if c.ours and c.key.method != REFERENCE]
        if not there:
            continue
        scores = {named(c.key.method): results.scores(_first(o)) for c, o in there}
        shots = f"{row.shots} shot{'s' * (row.shots > 1)}"
        for what, draw, note in (
            ("Scores", figures.histograms,
             "Normal images blue, anomalous ones red; overlap: the least sum of both error rates."),
            ("ROC", figures.roc, "Seed by seed the curve differs; this is the first seed."),
        ):  # fmt: skip
            title = f"{what} on {row.category}, {shots}"
            yield Drawing(title, note, Markup(draw(scores, title)))


def _first(ours: Ours) -> str:
    return str(ours.runs[0].receipt["run_id"])


def _contrasts(stored: Stored) -> Iterable[Contrast]:
    """Give the paired differences of ATAC-Net's second views from the compute-matched one."""
    for (place, shots, method), rows in stored.groups.items():
        if method != "atacnet":
            continue
        by_rest: dict[Any, dict[str, dict[int, float]]] = {}
        for row, found in rows.items():
            parameters = dict(row.parameters)
            view = str(parameters.pop("view"))
            rest = (
                tuple(parameters.items()),
                row.backbone,
                row.stage,
                row.precision,
                row.image_size,
            )
            seeds = {r["spec"]["seed"]: r["metrics"]["auroc"] for r in found}
            by_rest.setdefault(rest, {})[view] = seeds
        for (_, backbone, stage, precision, size), views in by_rest.items():
            base = views.pop("raw_twice", {})
            gaps = []
            for view, values in sorted(views.items()):
                shared = sorted(values.keys() & base.keys())
                if shared:
                    gap = paired_difference([values[s] for s in shared], [base[s] for s in shared])
                    gaps.append((view, gap))
            if gaps:
                title = f"{place[1]}, {shots} shots: views against the raw view twice"
                svg = figures.intervals([(v, g.mean, g.interval) for v, g in gaps], title)
                against = f"{backbone} to stage {stage}, {size} px, {precision}"
                yield Contrast(place[1], shots, against, tuple(gaps), Markup(svg))


def _by_subject(found: Iterable[Finding]) -> dict[str, list[Finding]]:
    subjects: dict[str, list[Finding]] = {}
    for finding in found:
        subjects.setdefault(finding.about, []).append(finding)
    return subjects
