"""The report as one HTML page: works offline, with a strict CSP."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import bench
from bench.analysis.choices import choices
from bench.analysis.configurations import REFERENCE
from bench.analysis.tables import WORDS, labelled, named
from bench.analysis.timing_tables import HEAD
from bench.analysis.timing_tables import TITLE as TIME_TITLE
from bench.analysis.timings import milliseconds
from bench.analysis.verdict import LEAST_SEEDS
from bench.report.content import Contents
from bench.report.figures.figure import Figure, Section
from bench.report.gallery import SECTIONS
from bench.text import signed

TEMPLATES = Path(__file__).parent / "templates"


def render(contents: Contents) -> str:
    """Return the page, the same bytes for the same contents."""
    style, script = ((TEMPLATES / f).read_text(encoding="utf-8") for f in ("page.css", "page.js"))
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
        contents=contents, words=WORDS, choices=choices(), reference=REFERENCE, least=LEAST_SEEDS,
        time_title=TIME_TITLE, time_head=HEAD, sections=_sections(contents),
        findings={about: [f for f in contents.findings if f.about == about]
                  for about in dict.fromkeys(f.about for f in contents.findings)},
    )  # fmt: skip
    return page


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


def span(interval: tuple[float, float] | None) -> str:
    """Write an AUROC interval, clipped to [0, 1]; nothing for none."""
    if interval is None:
        return ""
    low, high = (min(1.0, max(0.0, end)) for end in interval)
    return f"{low:.3f} to {high:.3f}"
