"""Tables as CSV, Markdown and LaTeX."""

import re

from bench.report.markup import as_csv, as_latex, as_markdown


def test_no_text_in_csv_is_taken_for_a_formula():
    texts = ["=1+1", "@sum", "+1", "-cmd", "-0.235", "-.5", "plain"]
    assert as_csv([texts]).strip() == "'=1+1,'@sum,'+1,'-cmd,-0.235,-.5,plain"


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
