"""`bench regress`: have runs got worse than those of a reference?"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.formats import print_json
from bench.cli.options import (
    JsonOption,
    plan_suite,
    print_missing,
    printable,
    say,
    shared_options,
    split_words,
)
from bench.errors import RequestError
from bench.system.files import write_synced

if TYPE_CHECKING:
    from bench.analysis.regress import Regression
    from bench.analysis.slower import Night, Slower, Times
    from bench.planning.matrix import Selection
    from bench.planning.plan import Folders
    from bench.spec import RunSpec
    from bench.store.receipt import Receipt
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
    renew: Annotated[
        bool,
        typer.Option("--renew", help="Make these runs the reference, and show old beside new."),
    ] = False,
    github: Annotated[
        bool, typer.Option("--github", help="Print GitHub's annotations, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare runs with those of a reference, and say whether they have got worse.

    Bits are compared where environment and version are the same; elsewhere the mean of a method
    over 15 runs or more, and the losses of runs of two steps. Times count once a second set of
    runs, --again, says the same. A reference changes by --renew alone, whose table belongs to the
    review of that change. Exit code: 0 nothing, 1 a regression, 2 it cannot be judged, 3 the
    machine is not fit to judge; with --renew 0.
    """
    from bench.analysis.regress import regression
    from bench.analysis.slower import night
    from bench.report import regression as files
    from bench.store.open import open_results, results_at
    from bench.store.results import receipts

    known, stored = open_results(reference.absolute()), results_at(folders.results)
    tell = _to_stderr if as_json else say
    wanted = _wanted(suite, selection, folders, tell) if suite else None
    check = regression(known, stored, wanted, split_words(accept) or ())
    runs = list(receipts(stored))
    now = night(stored, runs)
    repeated = open_results(again.absolute()) if again else None
    runs_again = list(receipts(repeated)) if repeated is not None else []
    second = night(repeated, runs_again) if repeated is not None else None
    lines = list(_lines(history))
    slow = _slower(now, second, night(known, receipts(known)), lines) if now else []
    unsteady = list(_unsteady(runs, runs_again))
    names = now.disturbed if now else ()
    disturbed = [f"{name}: something else ran in every round" for name in names]
    unfit = [*unsteady, *disturbed]
    code = _code(check, slow, unsteady, disturbed)
    if junit:
        write_synced(junit, files.junit(check).encode())
    if summary:
        write_synced(summary, files.summary(check, slow, code).encode())
    if history:
        _append(history, {**_about(runs), **files.history_line(check, now, code)})
    if as_json:
        print_json({**files.as_json(check, slow, code), "unfit": unfit})
    else:
        _print(check, slow, code, unfit)
    if github:
        for line in files.annotations([*unfit, *files.troubles(check, slow)]):
            say(line)
    if renew:
        _renew(check, stored, reference.absolute(), tell)
    elif code:
        raise typer.Exit(code)


def _renew(
    check: "Regression", stored: "Results", reference: Path, tell: Callable[[str], None]
) -> None:
    """Replace a reference by the runs beside it; raises RequestError unless all are there."""
    import shutil

    from bench.report.regression import renewal
    from bench.store.archive import pack
    from bench.store.results import MANIFEST

    absent = {state: n for state in ("missing", "failed", "damaged") if (n := check.counts[state])}
    if absent:
        counts = ", ".join(f"{n} {state}" for state, n in absent.items())
        raise RequestError(f"a reference has all runs, and of these {counts}: run them first")
    if not (reference / MANIFEST).is_file():
        raise RequestError(f"{reference} is no archive: make one with `bench archive --out`")
    made = reference.with_name(f"{reference.name}.new")
    count = pack(stored, made, scores_only=True)
    shutil.rmtree(reference)
    made.rename(reference)
    tell(f"{reference.name} has {count} runs now; for the review of that change:\n")
    tell(renewal(check))


def _to_stderr(text: str) -> None:
    print(printable(text), file=sys.stderr)


def _wanted(
    suite: str, selection: "Selection", folders: "Folders", tell: Callable[[str], None]
) -> "list[RunSpec]":
    """Return the runs of a suite; raises RequestError where inputs are missing."""
    from bench.planning.suite import read_suite

    plan = plan_suite(read_suite(suite), selection, folders, tell=tell)
    if print_missing(plan):
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


def _slower(
    now: "Night", second: "Night | None", reference: "Night | None", lines: list[dict[str, Any]]
) -> "list[Slower]":
    """Return what has grown since the reference and earlier nights of the same machine."""
    from bench.analysis.slower import history_of, slower

    earlier: list[Times] = history_of(lines, now.machine)
    if reference is not None and reference.machine == now.machine:
        earlier = [reference.times, *earlier]
    same = second is not None and second.machine == now.machine
    return slower(now.times, earlier, second.times if second is not None and same else None)


def _unsteady(runs: "list[Receipt]", again: "list[Receipt]") -> Iterator[str]:
    """Yield runs that gave other bits the second time, in the same environment."""
    from bench.store.agreement import agreement

    seconds = {second.run_id: second for second in again if second.spec.kind == "accuracy"}
    for first in runs:
        if (second := seconds.get(first.run_id)) is None:
            continue
        match = agreement(first, second)
        if match.kind != "identical" and not match.environment:
            run = f"run {first.run_id}"
            yield f"{run} gave other scores the second time, in the same environment"


def _code(
    check: "Regression", slow: "list[Slower]", unsteady: list[str], disturbed: list[str]
) -> int:
    if unsteady:
        return UNFIT  # bits that come and go say nothing of the code
    if check.faults or check.worse or any(s.confirmed for s in slow):
        return WORSE
    if disturbed:
        return UNFIT
    return NOTHING if check.judged and not check.too_few else CANNOT_JUDGE


def _about(runs: "list[Receipt]") -> dict[str, str | None]:
    """Return when and by what commit the newest run was made."""
    from bench.analysis.places import finished

    newest = max(runs, key=finished, default=None)
    if newest is None:
        return {"date": None, "commit": None}
    date = newest.finished_at.isoformat(timespec="seconds") if newest.finished_at else None
    return {"date": date, "commit": newest.provenance.commit}


def _append(history: Path, line: dict[str, Any]) -> None:
    with history.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _print(check: "Regression", slow: "list[Slower]", code: int, unfit: list[str]) -> None:
    from bench.analysis.regress import FAULTS, LEAST_PAIRS
    from bench.report.regression import headline

    for run in check.runs:
        if run.state in FAULTS or run.state == "meant":
            say(str(run))
    for line in (*map(str, check.methods), *map(str, slow), *unfit):
        say(line)
    if check.too_few:
        say(f"fewer than {LEAST_PAIRS} runs of a method: {_remedy(check)}")
    if not check.judged:
        say("the reference has none of these runs: make one on this machine, by `bench archive`")
    say(headline(check, code))


def _remedy(check: "Regression") -> str:
    """Return how many seeds would do."""
    from bench.analysis.regress import LEAST_PAIRS

    seeds = 0
    for method in check.too_few:
        runs = [run.spec for run in check.runs if run.gap is not None]
        rows = {(spec.place, spec.shots) for spec in runs if spec.method == method.method}
        pairs = max(method.pairs_needed or LEAST_PAIRS, LEAST_PAIRS)
        seeds = max(seeds, -(-pairs // max(1, len(rows))))
    return f"run reference and suite with --seeds {seeds}"
