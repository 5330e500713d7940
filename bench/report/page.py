"""The report as one HTML page: works offline, with a strict CSP."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import bench
from bench.analysis.choices import choices
from bench.analysis.configurations import REFERENCE
from bench.analysis.selection import order
from bench.analysis.statistics import clipped
from bench.analysis.tables import GLYPHS, WORDS, labelled, named
from bench.analysis.timing_tables import HEAD
from bench.analysis.timing_tables import TITLE as TIME_TITLE
from bench.analysis.timings import milliseconds
from bench.report.content import Contents
from bench.report.figures.figure import Figure, Section
from bench.report.gallery import SECTIONS
from bench.report.run_list import COLUMNS, run_lines
from bench.text import joined, signed

TEMPLATES = Path(__file__).parent / "templates"


TITLE = "Do the published numbers hold?"
"""Of a page where some were run."""


@dataclass(frozen=True)
class Made:
    """When and by what a page was made, for its footer."""

    date: str
    command: str
    commit: str
    """Of the code; empty without a checkout."""


def render(contents: Contents, title: str | None = None, made: Made | None = None) -> str:
    """Return the page, the same bytes for the same arguments."""
    style, script = ((TEMPLATES / f).read_text(encoding="utf-8") for f in ("page.css", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": number, "signed": signed, "span": span, "named": named, "labelled": labelled,
        "spread": spread, "mark": GLYPHS.__getitem__, "ms": milliseconds,
        "slug": lambda word: word.replace(" ", "-"), "svg": Markup,
    }  # fmt: skip
    page: str = environment.get_template("page.html").render(
        version=bench.__version__, title=title or heading(contents), made=made,
        methods=sorted({r.spec.method for r in contents.stored.accuracy}, key=order),
        runs=run_lines(contents.stored), run_columns=COLUMNS,
        style=Markup(style), script=Markup(script),
        style_hash=_csp_hash(style), script_hash=_csp_hash(script),
        contents=contents, words=WORDS, glyphs=GLYPHS, choices=choices(), reference=REFERENCE,
        time_title=TIME_TITLE, time_head=HEAD, sections=_sections(contents),
        findings={about: [f for f in contents.findings if f.about == about]
                  for about in dict.fromkeys(f.about for f in contents.findings)},
    )  # fmt: skip
    return page


def heading(contents: Contents) -> str:
    """Return the title of a page: of published numbers, or of the data that were run."""
    if contents.judges:
        return TITLE
    data = list(dict.fromkeys(r.spec.dataset for r in contents.stored.accuracy))
    return f"Anomaly detection on {joined(sorted(data))}"


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _sections(contents: Contents) -> list[tuple[Section, list[Figure]]]:
    """Return sections with figures or a table of times."""
    figures = {s.key: [f for f in contents.figures if f.section == s.key] for s in SECTIONS}
    filled = {"time"} if contents.times else set()
    return [(s, figures[s.key]) for s in SECTIONS if figures[s.key] or s.key in filled]


def number(value: Any) -> str:
    """Write an AUROC with three digits, as papers do."""
    return f"{float(value):.3f}"


def spread(value: float) -> str:
    """Write a standard deviation of AUROC as narrow cells do."""
    return f"{value:.3f}".removeprefix("0")


def span(interval: tuple[float, float] | None) -> str:
    """Write an AUROC interval, clipped to [0, 1]; nothing for none."""
    if interval is None:
        return ""
    low, high = clipped(interval)
    return f"{low:.3f} to {high:.3f}"
