"""A regression check as files that others read: JUnit, Markdown, GitHub's annotations, JSON."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any
from xml.etree import ElementTree

from bench.analysis.regress import FAULTS, STATES, Regression, RunOutcome
from bench.analysis.slower import Night, Slower
from bench.report.markup import as_markdown
from bench.text import counted

LONGEST = 900_000
"""Characters of a summary; GitHub drops one of 1 MiB and more."""
ANNOTATIONS = 9
"""Of ten that GitHub shows of a kind, one says how many more there are."""
LISTED = 100
"""Runs in a table of the summary."""
TITLES = {0: "No regression", 1: "A regression", 2: "Cannot be judged", 3: "Machine not fit"}


def headline(check: Regression, code: int) -> str:
    """Return the outcome and the states of all runs in a line."""
    counts = [f"{check.counts[state]} {state}" for state in STATES if check.counts[state]]
    return f"{TITLES[code]}: {', '.join(counts) or 'no runs'}"


def troubles(check: Regression, slow: Sequence[Slower]) -> list[str]:
    """Return a line for each run, method and time that is a regression."""
    grown = [s for s in slow if s.confirmed]
    return [str(one) for one in (*check.faults, *check.worse, *grown)]


def junit(check: Regression) -> str:
    """Return JUnit's XML: a suite for each method, a case for each run."""
    root = ElementTree.Element("testsuites")
    for method in sorted({run.spec.method for run in check.runs}):
        runs = [run for run in check.runs if run.spec.method == method]
        judged = [m for m in check.methods if m.method == method]
        failures = sum(run.state in FAULTS for run in runs) + sum(
            m.verdict == "worse" for m in judged
        )
        suite = ElementTree.SubElement(
            root, "testsuite", name=method, tests=str(len(runs) + len(judged)),
            failures=str(failures),
        )  # fmt: skip
        for run in runs:
            name = f"{run.spec.place} {run.spec.shots} shots seed {run.spec.seed}"
            _case(suite, method, name, run.state in FAULTS, run.state == "new", str(run))
        for judgement in judged:
            open_ = judgement.verdict in ("inconclusive", "too few")
            worse = judgement.verdict == "worse"
            _case(suite, method, "all runs that moved", worse, open_, str(judgement))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(
    suite: ElementTree.Element, method: str, name: str, failed: bool, skipped: bool, text: str
) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=method, name=_printable(name))
    if failed or skipped:
        kind = "failure" if failed else "skipped"
        ElementTree.SubElement(case, kind, message=_printable(text))


def _printable(text: str) -> str:
    """Leave out characters that XML has no place for."""
    return "".join(c for c in text if c.isprintable())


def summary(check: Regression, slow: Sequence[Slower], code: int) -> str:
    """Return Markdown for a person, short enough for GitHub."""
    parts = [f"## {headline(check, code)}\n"]
    if check.methods:
        rows = [
            [m.method, f"{m.mean:+.4f}", str(m.pairs), _verdict(m.verdict), _number(m.pairs_needed)]
            for m in check.methods
        ]
        head = ["method", "AUROC, new minus old", "pairs", "verdict", "pairs that would settle it"]
        parts.append("Runs in another environment, together:\n")
        parts.append(as_markdown([head, *rows]))
    if slow:
        rows = [[s.name, s.what, f"{s.growth:+.1%}", str(s.nights), _confirmed(s)] for s in slow]
        parts.append("Times and memory:\n")
        parts.append(as_markdown([["timed", "what", "growth", "nights", "confirmed"], *rows]))
    shown = [run for run in check.runs if run.state != "identical"]
    if shown:
        shown.sort(key=lambda run: (run.state not in FAULTS, STATES.index(run.state)))
        rows = [_row(run) for run in shown[:LISTED]]
        parts.append("Runs that are not identical:\n")
        parts.append(as_markdown([["run", "state", "old", "new", "why"], *rows]))
        if len(shown) > LISTED:
            parts.append(f"And {len(shown) - LISTED} more.\n")
    text = "\n".join(parts)
    return text if len(text) <= LONGEST else text[:LONGEST] + "\n\nCut here.\n"


def renewal(check: Regression) -> str:
    """Return old beside new as Markdown, for the review of a new reference."""
    methods = dict.fromkeys(run.spec.method for run in check.runs)
    rows = []
    for method in methods:
        runs = [run for run in check.runs if run.spec.method == method]
        old, new = ([v for v in values if v is not None]
                    for values in ([r.old for r in runs], [r.new for r in runs]))  # fmt: skip
        states = Counter(run.state for run in runs)
        counts = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
        rows.append([method, *(f"{fmean(v):.4f}" if v else "" for v in (old, new)), counts])
    return as_markdown([["method", "old AUROC, mean", "new", "runs"], *rows])


def _verdict(verdict: str) -> str:
    return f"**{verdict}**" if verdict in ("worse", "inconclusive", "too few") else verdict


def _number(number: int | None) -> str:
    return "" if number is None else str(number)


def _confirmed(slow: Slower) -> str:
    return {None: "not yet", False: "no", True: "yes"}[slow.confirmed]


def _row(run: RunOutcome) -> list[str]:
    old, new = ("" if value is None else f"{value:.4f}" for value in (run.old, run.new))
    where = f"{run.spec.place}, {run.spec.shots} shots, seed {run.spec.seed}"
    return [f"{run.spec.method}, {where}", run.state, old, new, run.detail]


def annotations(lines: Sequence[str]) -> Iterator[str]:
    """Yield GitHub's commands that show errors, as many as it shows."""
    for line in lines[:ANNOTATIONS]:
        yield f"::error title=Regression::{_escaped(line)}"
    if len(lines) > ANNOTATIONS:
        yield f"::error title=Regression::and {counted(len(lines) - ANNOTATIONS, 'more')}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def as_json(check: Regression, slow: Sequence[Slower], code: int) -> dict[str, Any]:
    """Return all of a check as plain values."""
    return {
        "outcome": code,
        "states": dict(check.counts),
        "runs": [
            {
                "id": run.run_id, "method": run.spec.method, "dataset": run.spec.dataset,
                "category": run.spec.category, "shots": run.spec.shots, "seed": run.spec.seed,
                "state": run.state, "why": run.detail, "old": run.old, "new": run.new,
            }
            for run in check.runs
        ],
        "methods": [
            {
                "method": m.method, "verdict": m.verdict, "mean": m.mean, "interval": m.interval,
                "p": m.p, "pairs": m.pairs, "pairs_needed": m.pairs_needed,
            }
            for m in check.methods
        ],
        "slower": [
            {"name": s.name, "what": s.what, "growth": s.growth, "nights": s.nights,
             "confirmed": s.confirmed}
            for s in slow
        ],
    }  # fmt: skip


def history_line(check: Regression, now: Night | None, code: int) -> dict[str, Any]:
    """Return what a night leaves for later ones."""
    aurocs: dict[str, list[float]] = {}
    for run in check.runs:
        if run.new is not None:
            aurocs.setdefault(run.spec.method, []).append(run.new)
    means = {method: round(sum(v) / len(v), 6) for method, v in sorted(aurocs.items())}
    return {
        "machine": now.machine if now else "", "outcome": code, "states": dict(check.counts),
        "auroc": means, "times": now.times if now else {},
    }  # fmt: skip
