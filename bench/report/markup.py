"""Tables as CSV, Markdown and LaTeX."""

import csv
import io
import re
from collections.abc import Callable, Sequence

Grid = list[list[str]]
"""Rows of texts, the head first."""
LONG = 60
"""Characters of a cell that LaTeX is to break into lines."""


class Leading(str):
    """A cell that begins with the best number of its row."""

    __slots__ = ()

    @property
    def number(self) -> str:
        """The number, which is set in bold."""
        return self.partition(" ")[0].rstrip("\N{BLACK STAR}\N{DAGGER}")


_MARKDOWN = {c: f"\\{c}" for c in "\\|*_`[]<>"}
_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "★": r"$\star$", "†": r"$\dagger$", "‡": r"$\ddagger$", "−": "$-$", "–": "--",
}  # fmt: skip


def as_csv(rows: Grid) -> str:
    """Write CSV by RFC 4180 with plain line ends.

    A text that a spreadsheet would take for a formula begins with an apostrophe; numbers do not.
    """
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows(map(_inert, row) for row in rows)
    return sink.getvalue()


def _inert(text: str) -> str:
    formula = re.match(r"[=+@\t\r-]", text) and not re.fullmatch(r"[+-][\d.]+(e-?\d+)?", text)
    return f"'{text}" if formula else text


def as_markdown(rows: Grid) -> str:
    """Write a Markdown table with escaped cells."""
    head, *body = ([escape_markdown(text) for text in row] for row in rows)
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_latex(rows: Grid, title: str, name: str = "") -> str:
    """Write a LaTeX table for booktabs, with its caption, and a label where it has a name."""
    head, *body = ([_latex(text) for text in row] for row in rows)
    label = rf" \label{{tab:{re.sub('[^A-Za-z0-9]+', '-', name)}}}" if name else ""
    lines = [
        r"\begin{table}",
        rf"\caption{{{_latex(title)}}}{label}",
        rf"\begin{{tabular}}{{{_alignment(rows)}}}",
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


def _alignment(rows: Grid) -> str:
    """Return a letter per column: numbers right, texts left, long ones in lines."""
    columns = list(zip(*rows[1:], strict=True)) or [()] * len(rows[0])
    longest = [max(map(len, column), default=0) for column in columns]
    wide = sum(length > LONG for length in longest) or 1
    paragraph = rf"p{{{0.8 / wide:.2f}\linewidth}}"
    return "".join(
        paragraph if length > LONG else "r" if i and _are_numbers(column) else "l"
        for i, (length, column) in enumerate(zip(longest, columns, strict=True))
    )


def _are_numbers(column: Sequence[str]) -> bool:
    return all(
        not text or re.match(r"[-+\N{MINUS SIGN}]?[\d.]|not run|\[", text) for text in column
    )


def _latex(text: str) -> str:
    written = _escaped(text, _LATEX.get)
    if written.startswith("["):  # which a row may not begin with
        written = "{[}" + written[1:]
    if isinstance(text, Leading):
        number = _escaped(text.number, _LATEX.get)
        written = rf"\textbf{{{number}}}{written.removeprefix(number)}"
    return written


def _escaped(text: str, special: Callable[[str], str | None]) -> str:
    return "".join(special(c) or c for c in " ".join(text.split()))
