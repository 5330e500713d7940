"""`bench regress`: have runs got worse than those of a reference?"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import plan_suite, say, shared_options, split_words
from bench.errors import RequestError
from bench.system.files import write_synced

if TYPE_CHECKING:
    from bench.analysis.regress import Regression
    from bench.analysis.slower import Night, Slower, Times
    from bench.planning.matrix import Selection
    from bench.planning.plan import Folders
    from bench.spec import RunSpec
    from bench.store.results import Results

NOTHING, WORSE, CANNOT_JUDGE, UNFIT = 0, 1, 2, 3


@shared_options(selection=("methods", "datasets", "categories", "shots", "seeds", "set"))
def regress_command(
    reference: Annotated[
        Path, typer.Option(help="Results or archive to compare with.", show_default=False)
    ],
    selection: "Selection",
    folders: "Folders",
    suite: Annotated[
        str | None,
        typer.Option(help="Suite whose runs there should be; without one, the reference's."),
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option(help="Methods that were changed on purpose, separated by commas."),
    ] = None,
    again: Annotated[
        Path | None,
        typer.Option(help="Results of the same runs made once more, to confirm what they say."),
    ] = None,
    history: Annotated[
        Path | None, typer.Option(help="JSON lines of earlier nights; this one is added.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit's XML here.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Write Markdown here.")] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Print GitHub's annotations, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, nothing else.")] = False,
) -> None:
    """Compare runs with those of a reference, and say whether they have got worse.

    Bits are compared where environment and version are the same; elsewhere the mean of a method
    over 15 runs or more, and the losses of runs of two steps. Times count once a second set of
    runs, --again, says the same. Exit code: 0 nothing, 1 a regression, 2 it cannot be judged, 3
    the machine is not fit to judge.
    """
    from bench.analysis.regress import regression
    from bench.report import regression as files
    from bench.store.open import open_results, results_at

    known, stored = open_results(reference.absolute()), results_at(folders.results)
    wanted = _wanted(suite, selection, folders) if suite else None
    check = regression(known, stored, wanted, split_words(accept) or ())
    repeated = open_results(again.absolute()) if again else None
    lines = list(_lines(history))
    now, slow = _times(known, stored, repeated, lines)
    unfit = list(_unfit(stored, repeated, now))
    code = _code(check, slow, unfit)
    about = _about(stored) if history else {}
    _keep(check, slow, code, now, about, history, junit, summary)
    if as_json:
        say(json.dumps({**files.as_json(check, slow, code), "unfit": unfit}, indent=1))
    else:
        _print(check, slow, code, unfit)
    if github:
        for line in files.annotations([*unfit, *files.troubles(check, slow)]):
            say(line)
    if code:
        raise typer.Exit(code)


def _wanted(suite: str, selection: "Selection", folders: "Folders") -> "list[RunSpec]":
    """Return the runs of a suite; raises RequestError where inputs are missing."""
    from bench.planning.plan import missing_lines
    from bench.planning.suite import read_suite

    plan = plan_suite(read_suite(suite), selection, folders)
    for line in missing_lines(plan.missing):
        print(f"missing: {line}", file=sys.stderr)
    if plan.missing:
        raise RequestError("the ids of runs follow from their inputs, and some are missing")
    return [run.spec for run in plan.runs]


def _lines(history: Path | None) -> Iterator[dict[str, Any]]:
    """Yield the nights of a history; none where there is no file yet."""
    if history is None or not history.exists():
        return
    for number, text in enumerate(history.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or not isinstance(line.get("times"), dict):
            raise RequestError(f"--history {history}, line {number} is no night: remove that line")
        yield line


def _times(
    known: "Results", stored: "Results", repeated: "Results | None", lines: list[dict[str, Any]]
) -> "tuple[Night | None, list[Slower]]":
    """Return what was timed, and what has grown since the reference and earlier nights."""
    from bench.analysis.slower import history_of, night, slower

    now = night(stored)
    if now is None:
        return None, []
    earlier: list[Times] = history_of(lines, now.machine)
    first = night(known)
    if first is not None and first.machine == now.machine:
        earlier = [first.times, *earlier]
    second = night(repeated) if repeated is not None else None
    confirming = second.times if second is not None and second.machine == now.machine else None
    return now, slower(now.times, earlier, confirming)


def _unfit(stored: "Results", repeated: "Results | None", now: "Night | None") -> Iterator[str]:
    """Yield why the machine cannot be trusted."""
    from bench.store.agreement import agreement

    for run_id in stored.ids() if repeated is not None else ():
        assert repeated is not None
        if repeated.has(run_id):
            first = stored.read(run_id)
            match = agreement(first, repeated.read(run_id))
            if (
                first.spec.kind == "accuracy"
                and match.kind != "identical"
                and not (match.environment)
            ):
                yield f"run {run_id} gave other scores the second time, in the same environment"
    for name in now.disturbed if now is not None else ():
        yield f"{name}: something else ran in every round"


def _code(check: "Regression", slow: "list[Slower]", unfit: list[str]) -> int:
    if any(line.startswith("run ") for line in unfit):
        return UNFIT  # bits that come and go say nothing of the code
    if check.faults or check.worse or any(s.confirmed for s in slow):
        return WORSE
    if unfit:
        return UNFIT
    return NOTHING if check.judged and not check.too_few else CANNOT_JUDGE


def _about(stored: "Results") -> dict[str, str | None]:
    """Return when and by what commit the newest run was made."""
    from bench.analysis.places import finished
    from bench.store.results import receipts

    newest = max(receipts(stored), key=finished, default=None)
    if newest is None:
        return {"date": None, "commit": None}
    date = newest.finished_at.isoformat(timespec="seconds") if newest.finished_at else None
    return {"date": date, "commit": newest.provenance.commit}


def _keep(
    check: "Regression", slow: "list[Slower]", code: int, now: "Night | None",
    about: dict[str, str | None], history: Path | None, junit: Path | None, summary: Path | None,
) -> None:  # fmt: skip
    """Write the files that were asked for."""
    from bench.report import regression as files

    if junit:
        write_synced(junit, files.junit(check).encode())
    if summary:
        write_synced(summary, files.summary(check, slow, code).encode())
    if history:
        times, machine = (now.times, now.machine) if now else ({}, "")
        line = files.history_line(check, times, machine, code, about)
        with history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _print(check: "Regression", slow: "list[Slower]", code: int, unfit: list[str]) -> None:
    from bench.analysis.regress import FAULTS
    from bench.report.regression import headline

    for run in check.runs:
        if run.state in FAULTS or run.state == "meant":
            say(str(run))
    for line in (*map(str, check.methods), *map(str, slow), *unfit):
        say(line)
    if check.too_few:
        say(f"fewer than 15 runs of a method: {_remedy(check)}")
    if not check.judged:
        say("the reference has none of these runs: make one on this machine, by `bench archive`")
    say(headline(check, code))


def _remedy(check: "Regression") -> str:
    """Return how many seeds would do."""
    seeds = 0
    for method in check.too_few:
        runs = [
            run for run in check.runs if run.spec.method == method.method and run.gap is not None
        ]
        places = len({(run.where, run.spec.shots) for run in runs})
        seeds = max(seeds, -(-max(method.pairs_needed or 15, 15) // max(1, places)))
    return f"run reference and suite with --seeds {seeds}"
