"""`bench audit`: findings about published numbers."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import say, text_width
from bench.errors import RequestError
from bench.text import wrapped

if TYPE_CHECKING:
    from bench.published.findings import Finding
    from bench.published.tables import PublishedTable

INTRODUCTION = (
    "Published numbers, checked against their own rows and sources; none is from our runs. In "
    "brackets: the source, and how a finding is known."
)


def audit_command(
    about: Annotated[
        str | None,
        typer.Argument(
            help="Only findings with this in their title, such as 'table 2', DRA or text.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check published numbers against their rows and sources.

    Means are computed again, copied columns compared with their sources, claims with the tables.
    Each finding says what it rests on and how it is known. It takes no runs and no data.
    """
    say("\n".join(_page(about, text_width())))


def _page(about: str | None, width: int) -> Iterator[str]:
    """Yield findings and tables; raises RequestError if no title contains `about`."""
    from bench.published.audit import findings
    from bench.published.tables import published_tables

    by_title: dict[str, list[Finding]] = {}
    for finding in findings():
        by_title.setdefault(finding.about, []).append(finding)
    selected = [t for t in by_title if about is None or about.casefold() in t.casefold()]
    if not selected:
        raise RequestError(f"nothing is about {about!r}; it is about: {'; '.join(by_title)}")
    yield from wrapped(INTRODUCTION, width)
    for title in selected:
        yield from ("", title, "-" * min(len(title), width))
        for finding in by_title[title]:
            yield from _finding_lines(finding, width)
    tables = [t for t in published_tables().values() if about is None or t.title in selected]
    if tables:
        yield from ("", "The tables", "----------")
    for table in tables:
        yield from _table_lines(table, width)


def _finding_lines(finding: "Finding", width: int) -> Iterator[str]:
    yield from wrapped(finding.text, width, "* ", "  ")
    for line in finding.evidence:
        yield from wrapped(line, width, "    ", "      ")
    source = "" if finding.source == finding.about else f"{finding.source}: "
    yield from wrapped(f"[{source}{finding.confidence}]", width, "  ", "   ")


def _table_lines(table: "PublishedTable", width: int) -> Iterator[str]:
    summary = f"{table.title}: {len(table.cells)} numbers, {table.confidence}"
    yield from wrapped(summary, width, "* ", "  ")
    key, published = next(iter(table.cells.items()))
    example = f"For example {published.value}: {table.place(key)}"
    for line in (table.citation, f"It states: {table.states}", example):
        yield from wrapped(line, width, "    ", "      ")
