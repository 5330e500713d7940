"""`bench doctor`: check what a run needs of this machine."""

import collections
import dataclasses
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import complete
from bench.cli.cluster import ClusterOptions, cluster_options, reached_cluster
from bench.cli.options import console, printable, say, shared_options, text_width
from bench.errors import RequestError
from bench.text import wrapped

if TYPE_CHECKING:
    from rich.text import Text

    from bench.doctor import Diagnosis
    from bench.planning.plan import Folders

PATIENCE = 120.0
"""Seconds that a first node may take to come, with a queue before it."""
STYLES = {"ok": "green", "note": "yellow", "bad": "bold red"}


@shared_options()
@cluster_options
def doctor_command(
    *,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Also check what this suite needs: name or .toml file.",
            metavar="SUITE",
            autocompletion=complete.suites,
        ),
    ] = None,
    folders: "Folders",
    cluster: ClusterOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this machine's libraries, torch, disk, data and weights; or the nodes of --engine.

    Exit code: 0 nothing is bad, 1 something is.
    """
    findings: list[Diagnosis] = []
    screen = console()
    with screen.status("checking; torch takes some seconds"):
        for finding in _findings(suite, folders, cluster):
            if not as_json:
                if findings and findings[-1].group != finding.group:
                    screen.print()
                screen.print(_lines(finding, text_width()), soft_wrap=True)
            findings.append(finding)
    counts = collections.Counter(f.state for f in findings)
    if as_json:
        listed = [dataclasses.asdict(f) for f in findings]
        print(json.dumps({"ok": not counts["bad"], "findings": listed}, indent=1))
    else:
        say(f"\n{counts['ok']} ok, {counts['note']} to note, {counts['bad']} bad")
    if counts["bad"]:
        raise typer.Exit(1)


def _findings(
    suite: str | None, folders: "Folders", cluster: ClusterOptions
) -> "Iterable[Diagnosis]":
    """Return the findings of this machine, or of the nodes that are asked for."""
    from bench.doctor import examine
    from bench.planning.suite import read_suite

    if cluster.local:
        return examine(folders, read_suite(suite) if suite else None)
    from bench.doctor.cluster import check_nodes

    if suite is not None:
        raise RequestError("--suite is checked on this machine: leave --engine out")
    return check_nodes(reached_cluster(cluster, folders), PATIENCE, folders.results)


def _lines(finding: "Diagnosis", width: int) -> "Text":
    """Return a finding in three columns, paths never broken."""
    from rich.text import Text

    text = printable(finding.found + (f": {finding.todo}" if finding.todo else ""))
    head = f"{finding.state:6}{finding.what:22} "
    lines = "\n".join(wrapped(head + text, width, others=" " * len(head)))
    return Text.assemble((lines[:5], STYLES[finding.state]), lines[5:])
