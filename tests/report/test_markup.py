"""Tables as CSV, Markdown and LaTeX."""

import re

from bench.report.markup import Leading, as_csv, as_latex, as_markdown


def test_no_text_in_csv_is_taken_for_a_formula():
    texts = ["=1+1", "@sum", "+1+cmd", "-cmd", "-1+cmd", "plain"]
    assert as_csv([texts]).strip() == "'=1+1,'@sum,'+1+cmd,'-cmd,'-1+cmd,plain"
    numbers = ["-0.235", "-.5", "+0.014", "-1e-05", "2"]
    assert as_csv([numbers]).strip() == ",".join(numbers)


def test_markdown_and_latex_escape_what_they_would_read():
    text = "[a|b] 50 % & $x_1$ \\ {~^#} <b> ±"
    (_, _, line) = as_markdown([["h"], [text]]).splitlines()
    left = re.sub(r"\\.", "", line)
    assert left.count("|") == 2
    assert not set(left) & set("<>[]_")
    latex = as_latex([["h"], [text]], "title").splitlines()
    assert latex[6] == (
        r"{[}a|b] 50 \% \& \$x\_1\$ \textbackslash{} \{\textasciitilde{}\textasciicircum{}\#\}"
        r" \textless{}b\textgreater{} $\pm$ \\"
    )


def test_a_latex_table_can_be_pasted_into_a_paper():
    best = Leading("0.912★ ± 0.010 (3) [0.746] differs")
    texts = "a sentence that is far too long to stand on one line of a table of a paper"
    rows = [["row", "n", "ours", "text"], ["bottle", "3", best, texts]]
    latex = as_latex(rows, "Title", "table_1 of 2")
    assert r"\caption{Title} \label{tab:table-1-of-2}" in latex
    assert r"\begin{tabular}{lrrp{0.80\linewidth}}" in latex
    assert r"\textbf{0.912}$\star$ $\pm$ 0.010 (3) [0.746] differs" in latex
    assert "{[}" not in latex
    assert as_csv(rows).count(",") == 6
