"""Tables as CSV, Markdown and LaTeX."""

import csv
import io
import re
from collections.abc import Callable

Grid = list[list[str]]
"""Rows of texts, the head first."""
_MARKDOWN = {c: f"\\{c}" for c in "\\|*_`[]<>"}
_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}",  # which a row may not begin with
    "±": r"$\pm$", "★": r"$\star$", "†": r"$\dagger$", "‡": r"$\ddagger$", "−": "$-$", "–": "--",
}  # fmt: skip


def as_csv(rows: Grid) -> str:
    """Write CSV by RFC 4180 with plain line ends.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows(map(_inert, row) for row in rows)
    return sink.getvalue()


def _inert(text: str) -> str:
    return f"'{text}" if re.match(r"[=+@\t\r]|-(?![\d.])", text) else text


def as_markdown(rows: Grid) -> str:
    """Write a Markdown table with escaped cells."""
    head, *body = ([escape_markdown(text) for text in row] for row in rows)
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_latex(rows: Grid, title: str) -> str:
    """Write a LaTeX table for booktabs, with its caption."""
    head, *body = ([_latex(text) for text in row] for row in rows)
    lines = [
        r"\begin{table}",
        rf"\caption{{{_latex(title)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(line) + r" \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "".join(f"{line}\n" for line in lines)


def escape_markdown(text: str) -> str:
    """Return a text in which nothing is taken for Markdown."""
    return _escaped(text, _MARKDOWN.get)


def _latex(text: str) -> str:
    return _escaped(text, _LATEX.get)


def _escaped(text: str, special: Callable[[str], str | None]) -> str:
    return "".join(special(c) or c for c in " ".join(text.split()))
