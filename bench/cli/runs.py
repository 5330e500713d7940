"""`bench run` and `status`: run suites and follow them."""

import contextlib
import re
import sys
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.cluster import ClusterOptions, cluster_engine, cluster_options, slurm_script
from bench.cli.formats import print_json
from bench.cli.options import (
    DeviceOption,
    JsonOption,
    SlotsOption,
    ThreadsOption,
    console,
    gpus,
    plan_suite,
    print_missing,
    printable,
    say,
    shared_options,
)
from bench.cli.plan_json import plan_as_json
from bench.errors import RequestError
from bench.text import counted

if TYPE_CHECKING:
    from bench.execution.campaign import Outcome
    from bench.planning.matrix import Selection
    from bench.planning.plan import Folders, Plan
    from bench.planning.rough_times import TimeLeft
    from bench.planning.slots import Slot
    from bench.planning.state import State
    from bench.planning.suite import Suite
    from bench.store.results import Results

SHORTEST_LIMIT = 0.1
"""Seconds below which a time limit is no limit that anyone means."""


@shared_options()
@cluster_options
def run_command(
    suites: list[str],
    selection: "Selection",
    folders: "Folders",
    cluster: ClusterOptions,
    device: DeviceOption = "auto",
    slots: SlotsOption = 1,
    threads: ThreadsOption = None,
    score_batch_size: Annotated[
        int, typer.Option(help="Images scored at once; affects the last digits only.", min=1)
    ] = 32,
    timeout: Annotated[
        str,
        typer.Option(
            help="Time limit of a run: seconds, or such as 90m or 24h; none for no limit.",
            metavar="TIME",
        ),
    ] = "24h",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run again what failed before.")
    ] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Run again what older method code made.")
    ] = False,
    save_models: Annotated[
        bool,
        typer.Option("--save-models", help="Keep the models; stored runs without one run again."),
    ] = False,
    save_maps: Annotated[
        bool,
        typer.Option(
            "--save-maps",
            help="Keep embeddings, maps and boxes of the test images, for the report's figures.",
        ),
    ] = False,
    keep_epochs: Annotated[
        bool,
        typer.Option(
            "--keep-epochs",
            help="Score the test images after each epoch, too, and keep the scores.",
        ),
    ] = False,
    available_only: Annotated[
        bool, typer.Option("--available-only", help="Leave out runs whose inputs are missing.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print it as JSON.")
    ] = False,
) -> None:
    """Run the missing runs of suites.

    After an interruption the same command continues.

    Exit code: 0 all wanted runs are stored, or --dry-run has printed the plan; 1 some failed; 2 the
    request cannot be met.
    """
    from bench.cli.progress import display_for
    from bench.cli.result_tables import result_tables
    from bench.execution.campaign import run_campaign
    from bench.execution.engines.here import ExecutionOptions
    from bench.planning.rough_times import known_receipts, times_for
    from bench.planning.state import compare_with_store
    from bench.planning.suite import read_suites
    from bench.store.folder import Store
    from bench.store.open import results_at

    if as_json and not dry_run:
        raise RequestError("--json prints the plan: give --dry-run, too")
    suite, limit = read_suites(suites), _time_limit(timeout)
    tell = _to_stderr if as_json else say
    with console().status("looking up data and weights"):
        plan = plan_suite(suite, selection, folders, download=not dry_run, tell=tell)
    stored = results_at(folders.results) if dry_run else Store(folders.results)
    keep = _abilities_to_keep(suite, models=save_models, maps=save_maps, epochs=keep_epochs)
    if keep_epochs and plan.timing:
        raise RequestError(
            f"--keep-epochs scores between epochs, and suite {suite.name} measures time: leave it"
            " out"
        )
    with console().status("checking stored runs"):
        state = compare_with_store(
            plan, stored, retry_failed=retry_failed, redo_stale=stale, keep=keep
        )
    _check_missing(plan, selection, suite.name, available_only or dry_run)
    needed = state.todo or (dry_run and plan.missing)
    if not cluster.local:
        _check_cluster(plan, suite.name, device, slots)
    used_slots = _slots(plan, device, slots, threads, tell) if needed and cluster.local else []
    if as_json:
        print_json(plan_as_json(state, _expected(state, stored, used_slots)[0]))
        return
    _print_plan(state, len(used_slots))
    _print_keep(state)
    _print_masks(state)
    if dry_run:
        _print_dry_run(state, stored, folders, used_slots)
        if cluster.slurm is not None:
            say(slurm_script(cluster, folders))
        return
    screen = console()
    order = ExecutionOptions(used_slots, limit, score_batch_size, state.keep, shared=cluster.shared)
    store = Store(folders.results)
    with screen.status("estimating the time"):
        known = known_receipts(state, store) if used_slots else []
        times = times_for(known, used_slots[0]) if used_slots else None
    try:
        with contextlib.ExitStack() as stack:
            engine = None
            if state.todo and not cluster.local:
                made = cluster_engine(cluster, store, folders, order, threads)
                engine = stack.enter_context(made)
            slots = max(1, len(used_slots))
            display = stack.enter_context(display_for(screen, state, slots, times))
            display.first_line()
            outcome = run_campaign(state, store, folders, order, display, engine)
    except KeyboardInterrupt:
        print("bench: stopped; the same command continues", file=sys.stderr)
        raise typer.Exit(130) from None
    for table in result_tables(plan.runs, outcome.done, screen.width):
        screen.print(table)
    say(f"results: {folders.results}")
    given_up = [] if retry_failed else state.known_failures
    if outcome.failed:
        say(f"{_runs(outcome.failed)} failed; their logs are in {store.failed}")
    if given_up:
        say(f"{_runs(given_up)} failed earlier and would again; --retry-failed tries them")
    say(f"next: {_next_step(folders, outcome)}")
    if outcome.failed or given_up:
        raise typer.Exit(1)


def _check_cluster(plan: "Plan", suite: str, device: str, slots: int) -> None:
    """Raise RequestError for what other machines do not do."""
    if plan.timing:
        raise RequestError(
            f"suite {suite} measures time, which belongs to one machine: run it there, with"
            " --engine local"
        )
    if (device, slots) != ("auto", 1):
        raise RequestError("--device and --slots are this machine's: give them to `bench worker`")


def _time_limit(text: str) -> float | None:
    """Return a time limit in seconds, None for none; raises RequestError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|)", text.strip())
    if text.strip() == "none" or (match and float(match[1]) == 0):
        return None
    seconds = float(match[1]) * {"h": 3600, "m": 60, "min": 60}.get(match[2], 1) if match else 0
    if seconds < SHORTEST_LIMIT:
        raise RequestError(
            f"--timeout takes seconds from {SHORTEST_LIMIT} on, or such as 90m or 24h, or none for"
            f" no limit; not {text!r:.80}"
        )
    return seconds


def _slots(
    plan: "Plan", device: str, per_device: int, threads: int | None, tell: Callable[[str], None]
) -> list["Slot"]:
    """Return the requested slots, a single one for timing."""
    from bench.planning.slots import slots_for

    requested = slots_for(device, per_device, gpus(device), threads)
    if not plan.timing:
        return requested
    single = slots_for(requested[0].device, 1, gpus(device), threads)
    if len(requested) > 1:
        tell(f"timing runs go one at a time: one slot on {single[0].device}, not {len(requested)}")
    return single


def _to_stderr(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


def _check_missing(plan: "Plan", selection: "Selection", suite: str, allowed: bool) -> None:
    """Print notes and missing inputs; raises RequestError unless `allowed`."""
    for line in plan.notes:
        print(f"warning: {printable(line)}", file=sys.stderr)
    print_missing(plan)
    if plan.missing and not allowed:
        total = len(plan.missing) + len(plan.runs)
        raise RequestError(
            f"{len(plan.missing)} of {total} runs cannot be done here, as said above; fix that, or"
            " leave them out with --available-only"
        )
    if not plan.runs and not plan.missing and selection.shard is None:
        raise RequestError(f"nothing of suite {suite} can be run here")


def _runs(runs: Sized) -> str:
    return counted(len(runs), "run")


def _next_step(folders: "Folders", outcome: "Outcome") -> str:
    """Return the commands that follow a finished one."""
    from bench.cli.options import RESULTS

    where = "" if folders.results == RESULTS.absolute() else f" --results {folders.results}"
    if outcome.failed:
        return f"`bench show {next(iter(outcome.failed))[:8]}{where}` says how the first one failed"
    return f"`bench table{where}`, or `bench report{where}` for the page"


def _print_plan(state: "State", slots: int) -> None:
    say(
        f"{_runs(state.plan.runs)} wanted, {len(state.done)} stored, {len(state.todo)} to do"
        + (f", {len(state.plan.missing)} more cannot be done here" if state.plan.missing else "")
        + (f" in {slots} slots" if slots > 1 else "")
    )
    if state.known_failures and not state.retry_failed:
        say(f"{_runs(state.known_failures)} failed earlier and would again: not tried")
    if state.stale and not state.redo_stale:
        say(f"{_runs(state.stale)} stale: the method's code has changed; --stale runs again")


def _abilities_to_keep(
    suite: "Suite", *, models: bool = False, maps: bool = False, epochs: bool = False
) -> frozenset[str]:
    """Return abilities whose artifacts are wanted."""
    from bench.store.artifacts import BY_EPOCH, MAPS, MODELS

    wanted = ((models, MODELS), (maps or suite.save_maps, MAPS), (epochs, BY_EPOCH))
    return frozenset().union(*(abilities for asked, abilities in wanted if asked))


def _print_keep(state: "State") -> None:
    """Print wanted artifacts that runs or methods lack."""
    from bench.registry import ABILITIES
    from bench.store.artifacts import artifact_words

    if state.missing_artifacts:
        artifacts = artifact_words(frozenset().union(*state.missing_artifacts.values()), "or")
        say(f"{_runs(state.missing_artifacts)} stored without {artifacts}: again, to keep them")
    methods = {r.planned.method.name: r.planned.method.abilities for r in state.plan.runs}
    for ability in sorted(state.keep):
        unsupported = [name for name, abilities in methods.items() if ability not in abilities]
        if unsupported:
            functions = " and ".join(f"{f}()" for f in ABILITIES[ability])
            names = ", ".join(unsupported)
            say(f"no {artifact_words([ability])} of {names}: it takes a method with {functions}")


def _print_masks(state: "State") -> None:
    """Print which categories get no pixel metrics, and which runs get new ones."""
    from bench.planning.masks import lost_mask_lines, mask_lines

    if "explain" in state.keep:
        for line in (*mask_lines(state.todo), *lost_mask_lines(state.plan.runs, state.done)):
            say(line)
    _print_other_masks(state)


def _print_other_masks(state: "State") -> None:
    if state.other_masks:
        runs = counted(len(state.other_masks), "stored run")
        say(f"masks have changed for {runs}: their pixel metrics are made again, without training")


def _print_dry_run(
    state: "State", stored: "Results", folders: "Folders", slots: list["Slot"]
) -> None:
    from bench.cli.dry_run import picture

    screen = console()
    with screen.status("estimating memory and time; torch takes some seconds"):
        for part in picture(state, stored, folders, slots, screen.width):
            if isinstance(part, str):
                say(part)
            else:
                screen.print(part)


@shared_options()
def status_command(
    suites: list[str],
    selection: "Selection",
    folders: "Folders",
    *,
    device: DeviceOption = "auto",
    slots: SlotsOption = 1,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the runs of suites by state, with time left.

    The time left is that of `bench run` with the same --device, --slots and --threads.

    Exit code: 0, or 1 where wanted runs have failed or are damaged.
    """
    from bench.planning.state import compare_with_store
    from bench.planning.suite import read_suites
    from bench.store.open import results_at

    suite = read_suites(suites)
    tell = _to_stderr if as_json else say
    with console().status("looking up data and weights"):
        plan = plan_suite(suite, selection, folders, tell=tell)
    keep = _abilities_to_keep(suite)
    if not folders.results.exists():
        _to_stderr(f"note: nothing is stored yet: there is no folder {folders.results}")
    stored = results_at(folders.results)
    with console().status("checking stored runs"):
        state = compare_with_store(plan, stored, keep=keep)
    used_slots = _slots(plan, device, slots, threads, tell) if state.todo else []
    expected, basis = _expected(state, stored, used_slots)
    if as_json:
        print_json(plan_as_json(state, expected))
    else:
        at_once = f" in {len(used_slots)} slots" if len(used_slots) > 1 else ""
        known = f"{expected}{at_once}, {basis}" if expected else basis
        nothing = "nothing that can run here" if plan.missing else "nothing"
        _print_status(state, known if state.todo else nothing)
    if state.failed or state.damaged:
        raise typer.Exit(1)


def _expected(
    state: "State", stored: "Results", slots: list["Slot"]
) -> "tuple[TimeLeft | None, str]":
    """Return how long the runs to do take in these slots, and by what."""
    from bench.planning.rough_times import TimeLeft, known_receipts, times_for

    if not slots:
        return (None if state.todo else TimeLeft(0.0, rough=False, unknown=0)), ""
    times = times_for(known_receipts(state, stored), slots[0])
    expected = times.time_left(state.todo, len(slots))
    return expected, times.basis(state.todo) if expected else "unknown: no similar run is stored"


def _print_status(state: "State", time_to_go: str) -> None:
    from bench.planning.plan import missing_lines

    plan = state.plan
    for name, count in (
        ("wanted", len(plan.runs) + len(plan.missing)),
        ("done", len(state.done)),
        ("to do", len(state.todo)),
        ("failed", len(state.failed)),
        ("stale", len(state.stale)),
        ("damaged", len(state.damaged)),
        ("missing", len(plan.missing)),
    ):
        say(f"{name:8} {count}")
    say(f"{'left':8} {time_to_go}")
    _print_keep(state)
    _print_other_masks(state)
    later = ", tried again once its code has changed, or with --retry-failed"
    given_up = {r.run_id for r in state.known_failures}
    for run_id, failure in state.failed.items():
        again = later if run_id in given_up else ""
        reason = (failure.reason.splitlines() or ["?"])[0]
        say(f"failed {run_id}: {reason} ({failure.folder}{again})")
    for run in state.stale:
        say(f"stale {run.run_id}: {run.spec}: its method's code has changed since")
    proved = [s.proved_on for s in state.standings.values() if s.proved_on]
    for device in sorted({*proved}):
        runs = [d for d in proved if d == device]
        say(f"{_runs(runs)} by other code, proved on {device} to give the same numbers as today's")
    for run_id in state.damaged:
        say(f"damaged {run_id}: `bench verify` says what; `bench run` sets it aside")
    for line in missing_lines(plan.missing):
        say(f"missing: {line}")
    for line in plan.notes:
        say(f"warning: {line}")
