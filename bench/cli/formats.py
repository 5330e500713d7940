"""Rows and values as text, Markdown, CSV, LaTeX or JSON."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from bench.cli.options import console, printable
from bench.errors import RequestError

Record = Mapping[str, Any]
"""A row by column: texts, numbers, or None where it has no value."""


class Format(StrEnum):
    """How rows are printed."""

    TEXT = "text"
    MD = "md"
    CSV = "csv"
    LATEX = "latex"
    JSON = "json"


FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help="md, csv, latex, json or text.", metavar="FORMAT"),
]


def chosen_format(form: Format | None, as_json: bool, default: Format) -> Format:
    """Return the format that --format and --json ask for; raises RequestError for two."""
    if as_json and form not in (None, Format.JSON):
        raise RequestError(f"--json and --format {form} ask for two formats: leave one out")
    return Format.JSON if as_json else form or default


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=1))


def print_records(records: Sequence[Record], form: Format, title: str) -> None:
    """Print rows of equal columns."""
    if form is Format.JSON:
        print_json([dict(record) for record in records])
        return
    head = list(records[0]) if records else []
    grid = [head, *([_written(v, form) for v in record.values()] for record in records)]
    print_grid(grid, form, title)


def print_grid(grid: Sequence[Sequence[str]], form: Format, title: str) -> None:
    """Print rows of texts, the head first."""
    from bench.report.markup import as_csv, as_latex, as_markdown

    rows = [list(row) for row in grid]
    if form is Format.JSON:
        print_json([dict(zip(rows[0], row, strict=True)) for row in rows[1:]])
    elif form is Format.CSV:
        print(printable(as_csv(rows)), end="")
    elif form is Format.LATEX:
        print(printable(as_latex(rows, title)), end="")
    elif form is Format.MD:
        print(printable(as_markdown(rows)), end="")
    else:
        _print_text(rows)


def _print_text(rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows[1:]:
        table.add_row(*(Text(printable(text)) for text in row))
    console().print(table)


def _written(value: Any, form: Format) -> str:
    """Write a value; a number for people has three decimals."""
    if value is None or value is False:
        return ""
    if value is True:
        return "yes"
    if isinstance(value, float):
        return repr(value) if form is Format.CSV else f"{value:.3f}"
    return str(value)
