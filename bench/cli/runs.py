"""`bench run`, `status` and `list`: what is wanted, and what becomes of it."""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import (
    DATA,
    RESULTS,
    WEIGHTS,
    CacheOption,
    CategoriesOption,
    DataOption,
    DatasetsOption,
    MethodOption,
    MethodsOption,
    ResultsOption,
    SeedsOption,
    SetOption,
    ShotsOption,
    SuiteOption,
    TexturesOption,
    WeightsOption,
    console,
    folders_of,
    gpus,
    plan,
    say,
)
from bench.errors import RequestError

if TYPE_CHECKING:
    from bench.planning.plan import Folders, Plan
    from bench.planning.slots import Slot
    from bench.planning.state import State
    from bench.store.results import Results


class Listable(StrEnum):
    """What `bench list` lists."""

    SUITES = "suites"
    METHODS = "methods"
    DATASETS = "datasets"


def run(
    suite: SuiteOption,
    seeds: SeedsOption = None,
    methods: MethodsOption = None,
    datasets: DatasetsOption = None,
    categories: CategoriesOption = None,
    shots: ShotsOption = None,
    set_: SetOption = None,
    method: MethodOption = None,
    data: DataOption = DATA,
    weights: WeightsOption = WEIGHTS,
    results: ResultsOption = RESULTS,
    cache: CacheOption = None,
    textures: TexturesOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (all GPUs) or cuda:i.")] = "auto",
    slots: Annotated[int, typer.Option(help="Runs at once on each device.", min=1)] = 1,
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads of a run; by default its share of the cores.", min=1),
    ] = None,
    score_batch_size: Annotated[
        int, typer.Option(help="Images scored at once; touches the last digits only.", min=1)
    ] = 32,
    timeout: Annotated[
        float | None, typer.Option(help="Longest time of a run.", metavar="SECONDS", min=0.1)
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run again what has failed by itself.")
    ] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Run again what older code of a method has made.")
    ] = False,
    save_models: Annotated[
        bool,
        typer.Option("--save-models", help="Keep the models, of stored runs too: they run again."),
    ] = False,
    save_maps: Annotated[
        bool,
        typer.Option(
            "--save-maps",
            help="Keep embeddings, maps and boxes of the test images, for the report's figures.",
        ),
    ] = False,
    available_only: Annotated[
        bool, typer.Option("--available-only", help="Leave out what is missing here.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
) -> None:
    """Run what a suite wants and the results do not hold yet; the same command continues.

    Exit code: 0 all wanted runs are there, 1 some failed, 2 the request makes no sense here.
    """
    from bench.cli.progress import display_for, result_tables
    from bench.execution.campaign import Order, carry_out
    from bench.planning.state import look_up
    from bench.store.folder import Store
    from bench.store.open import results_at

    folders = folders_of(data, weights, results, cache, textures)
    wanted = plan(folders, suite, seeds, methods, datasets, categories, shots, set_, method,
                  download=not dry_run)  # fmt: skip
    stored = results_at(folders.results) if dry_run else Store(folders.results)
    state = look_up(wanted, stored, retry_failed=retry_failed, redo_stale=stale,
                    keep=_kept_by(suite, save_models, save_maps))  # fmt: skip
    _check_missing(wanted, suite, available_only or dry_run)
    needed = state.todo or (dry_run and wanted.missing)
    chosen = _slots(wanted, device, slots, threads) if needed else []
    _print_plan(state, len(chosen), with_time=not dry_run)
    _print_kept(state)
    if dry_run:
        _print_picture(state, stored, folders, chosen)
        return
    screen = console()
    order = Order(chosen, timeout, score_batch_size, state.keep)
    store = Store(folders.results)
    try:
        with display_for(screen, state, len(chosen)) as display:
            outcome = carry_out(state, store, folders, order, display)
    except KeyboardInterrupt:
        print("bench: stopped; the same command continues", file=sys.stderr)
        raise typer.Exit(130) from None
    for table in result_tables(wanted.runs, outcome.done):
        screen.print(table)
    say(f"results: {folders.results}")
    given_up = [] if retry_failed else state.given_up
    if outcome.failed:
        say(f"{_runs(len(outcome.failed))} failed; their logs are in {store.failed}")
    if given_up:
        say(f"{_runs(len(given_up))} failed earlier and would again; --retry-failed tries them")
    if outcome.failed or given_up:
        raise typer.Exit(1)


def _slots(wanted: "Plan", device: str, per_device: int, threads: int | None) -> list["Slot"]:
    """Return the slots that were asked for; timing runs get a single one, on the first device."""
    from bench.planning.slots import slots_for

    asked = slots_for(device, per_device, gpus(device), threads)
    if not wanted.timing:
        return asked
    alone = slots_for(asked[0].device, 1, gpus(device), threads)
    if len(asked) > 1:
        say(f"timing runs go one at a time: one slot on {alone[0].device}, not {len(asked)}")
    return alone


def _check_missing(wanted: "Plan", suite: str, without: bool) -> None:
    """Say what data and weights are missing, and refuse to go on unless `without` them."""
    from bench.planning.plan import missing_lines

    for line in missing_lines(wanted.missing):
        print(f"missing: {line}", file=sys.stderr)
    if wanted.missing and not without:
        total = len(wanted.missing) + len(wanted.runs)
        raise RequestError(
            f"{len(wanted.missing)} of {total} runs cannot be done here; mend that, or leave them"
            " out with --available-only"
        )
    if not wanted.runs and not wanted.missing:
        raise RequestError(f"nothing of suite {suite} can be run here")


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"


def _print_plan(state: "State", slots: int, *, with_time: bool) -> None:
    from bench.planning.runtime import time_left
    from bench.text import duration

    say(
        f"{_runs(len(state.plan.runs))} wanted, {len(state.done)} stored, {len(state.todo)} to do"
        + (f", {len(state.plan.missing)} more cannot be done here" if state.plan.missing else "")
        + (f" in {slots} slots" if slots > 1 else "")
    )
    left = time_left(state.todo, list(state.done.values()), max(1, slots)) if with_time else None
    if state.todo and left is not None:
        say(f"about {duration(left)}, from stored runs of the same kind")
    if state.given_up and not state.retry_failed:
        say(f"{_runs(len(state.given_up))} failed earlier and would again: not tried")
    if state.stale and not state.redo_stale:
        say(f"{_runs(len(state.stale))} stale: the method's code has changed; --stale runs again")


def _kept_by(suite: str, models: bool = False, maps: bool = False) -> frozenset[str]:
    """Return the abilities whose files a command wants to be kept; a suite may want maps too."""
    from bench.planning.suite import read_suite
    from bench.store.artifacts import MAPS, MODELS

    wanted = MODELS if models else frozenset()
    return wanted | MAPS if maps or read_suite(suite).save_maps else wanted


def _print_kept(state: "State") -> None:
    """Say which stored runs lack what is to be kept, and which methods do not give it."""
    from bench.registry import ABILITIES
    from bench.store.artifacts import told

    if state.lacking:
        without = told(frozenset().union(*state.lacking.values()), "or")
        say(f"{_runs(len(state.lacking))} stored without {without}: again, to keep them")
    methods = {r.cell.method.name: r.cell.method.abilities for r in state.plan.runs}
    for ability in sorted(state.keep):
        unable = [name for name, abilities in methods.items() if ability not in abilities]
        if unable:
            functions = " and ".join(f"{f}()" for f in ABILITIES[ability])
            say(f"no {told([ability])} of {', '.join(unable)}: it takes a method with {functions}")


def _print_picture(
    state: "State", stored: "Results", folders: "Folders", slots: list["Slot"]
) -> None:
    from bench.cli.dry_run import picture

    screen = console()
    for part in picture(state, stored, folders, slots, screen.width):
        if isinstance(part, str):
            say(part)
        else:
            screen.print(part)


def status(
    suite: SuiteOption,
    seeds: SeedsOption = None,
    methods: MethodsOption = None,
    datasets: DatasetsOption = None,
    categories: CategoriesOption = None,
    shots: ShotsOption = None,
    set_: SetOption = None,
    method: MethodOption = None,
    data: DataOption = DATA,
    weights: WeightsOption = WEIGHTS,
    results: ResultsOption = RESULTS,
    cache: CacheOption = None,
    textures: TexturesOption = None,
) -> None:
    """Say what of a suite is done, failed, stale or missing, and how long the rest takes."""
    from bench.planning.plan import missing_lines
    from bench.planning.runtime import time_left
    from bench.planning.state import look_up
    from bench.store.open import results_at
    from bench.text import duration

    folders = folders_of(data, weights, results, cache, textures)
    wanted = plan(folders, suite, seeds, methods, datasets, categories, shots, set_, method)
    state = look_up(wanted, results_at(folders.results), keep=_kept_by(suite))
    left = time_left(state.todo, list(state.done.values()), 1)
    for name, count in (
        ("wanted", len(wanted.runs) + len(wanted.missing)),
        ("done", len(state.done)),
        ("to do", len(state.todo)),
        ("failed", len(state.failed)),
        ("stale", len(state.stale)),
        ("damaged", len(state.damaged)),
        ("missing", len(wanted.missing)),
    ):
        say(f"{name:8} {count}")
    waiting = "nothing that can run here" if wanted.missing else "nothing"
    unknown = "unknown: no stored run of the kind to go by"
    time_to_go = duration(left) if left is not None else unknown
    say(f"{'left':8} {time_to_go if state.todo else waiting}")
    _print_kept(state)
    later = ", tried again once its code has changed, or with --retry-failed"
    given_up = {r.run_id for r in state.given_up}
    for run_id, failure in state.failed.items():
        again = later if run_id in given_up else ""
        reason = (failure.reason.splitlines() or ["?"])[0]
        say(f"failed {run_id}: {reason} ({failure.folder}{again})")
    for run in state.stale:
        say(f"stale {run.run_id}: {run.spec}: its method's code has changed since")
    for run_id in state.damaged:
        say(f"damaged {run_id}: `bench verify` says what; `bench run` sets it aside")
    for line in missing_lines(wanted.missing):
        say(f"missing: {line}")


def list_(
    what: Listable,
    data: DataOption = DATA,
) -> None:
    """List the suites, methods or datasets."""
    if what is Listable.SUITES:
        from bench.planning.suite import read_suite, suite_names

        for name in suite_names():
            say(f"{name:16} {read_suite(name).description}")
    elif what is Listable.METHODS:
        from bench.registry import METHODS, SUMMARIES

        for name in METHODS:
            say(f"{name:16} {SUMMARIES[name]}")
    else:
        from bench.data.catalog import find_datasets

        for dataset in find_datasets(data.absolute()):
            say(f"{dataset.name:16} {', '.join(dataset.categories)}")
