"""The report as one HTML page: needs neither a network nor the data, and keeps a strict CSP."""

import base64
import hashlib
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import bench
from bench.analysis.configurations import REFERENCE
from bench.analysis.tables import WORDS, labelled, named
from bench.analysis.timing_tables import HEAD
from bench.analysis.timing_tables import TITLE as TIME_TITLE
from bench.analysis.timings import milliseconds
from bench.analysis.verdict import LEAST_SEEDS
from bench.published.findings import Finding
from bench.report.content import Contents
from bench.report.gallery import READING, SECTIONS, Figure
from bench.text import signed

TIMES = ("time",)
"""The sections of figures that a table stands in."""
TEMPLATES = Path(__file__).parent / "templates"
TITLES = {
    "ablation": "Does the zoomed view help?",
    "zoom": "What the zoom changes (Figure 1)",
    "crops": "What the attention crops (Figure 5)",
    "clusters": "Embeddings of three training versions (Figure 4)",
    "scores": "Scores (Figure 3) and ROC",
    "shots": "AUROC against labelled anomalies",
    "defects": "AUROC by defect type",
    "ranks": "Ranks over datasets",
    "time": "AUROC against inference time",
}
"""What the sections of figures are called; the numbers are those of the paper's figures."""


def render(contents: Contents) -> str:
    """Return the page. The same contents give the same bytes."""
    style, script = ((TEMPLATES / f).read_text() for f in ("page.css", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": number, "signed": signed, "span": span, "named": named, "labelled": labelled,
        "ms": milliseconds, "slug": lambda word: word.replace(" ", "-"), "svg": Markup,
    }  # fmt: skip
    page: str = environment.get_template("page.html").render(
        version=bench.__version__,
        style=Markup(style), script=Markup(script),
        style_hash=_csp_hash(style), script_hash=_csp_hash(script),
        contents=contents, words=WORDS, reference=REFERENCE, least=LEAST_SEEDS,
        titles=TITLES, reading=READING, time_title=TIME_TITLE, time_head=HEAD,
        figures=_by_section(contents.drawings, TIMES if contents.times else ()),
        findings=_by_subject(contents.findings),
    )  # fmt: skip
    return page


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _by_section(
    drawings: Iterable[Figure], more: Container[str]
) -> dict[str, list[Figure]]:  # fmt: skip
    """Sort figures into their sections; those that nothing fills are left out, but for `more`."""
    found: dict[str, list[Figure]] = {section: [] for section in SECTIONS}
    for drawing in drawings:
        found[drawing.section].append(drawing)
    return {section: there for section, there in found.items() if there or section in more}


def _by_subject(found: Iterable[Finding]) -> dict[str, list[Finding]]:
    subjects: dict[str, list[Finding]] = {}
    for finding in found:
        subjects.setdefault(finding.about, []).append(finding)
    return subjects


def number(value: Any) -> str:
    """Write an AUROC with three digits, as papers do."""
    return f"{float(value):.3f}"


def span(interval: tuple[float, float] | None) -> str:
    """Write an interval of AUROC, which ends at 0 and 1 whatever t says; nothing for none."""
    if interval is None:
        return ""
    low, high = (min(1.0, max(0.0, end)) for end in interval)
    return f"{low:.3f} to {high:.3f}"
