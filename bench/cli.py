"""The command line: parses, calls, prints. No logic, and no import of torch."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import bench
from bench.errors import BenchError, RequestError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.plan import Folders, Plan
    from bench.schedule import State

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Reproducibility harness for few-shot supervised visual anomaly detection.",
)
data_app = typer.Typer(no_args_is_help=True, help="Datasets: what there is, and prepare it.")
app.add_typer(data_app, name="data")


class Listable(StrEnum):
    """What `bench list` lists."""

    SUITES = "suites"
    METHODS = "methods"
    DATASETS = "datasets"


def _words(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(w.strip() for w in text.split(",") if w.strip())


def _numbers(text: str | None) -> tuple[int, ...] | None:
    try:
        return None if text is None else tuple(int(w) for w in _words(text) or ())
    except ValueError:
        raise RequestError(f"--shots takes whole numbers with commas, not {text!r}") from None


SuiteOption = Annotated[str, typer.Option("--suite", help="Name of a suite, or a .toml file.")]
SeedsOption = Annotated[int | None, typer.Option(help="Run seeds 0 to N-1.", metavar="N")]
MethodsOption = Annotated[str | None, typer.Option(help="Only these, with commas.")]
DatasetsOption = Annotated[str | None, typer.Option(help="Only these, with commas.")]
CategoriesOption = Annotated[str | None, typer.Option(help="Only these, with commas.")]
ShotsOption = Annotated[str | None, typer.Option(help="These numbers of shots, with commas.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Bend a run setting or parameter.", metavar="[METHOD.]KEY=VALUE"),
]
MethodOption = Annotated[
    str | None,
    typer.Option(help="Run a method of your own instead.", metavar="PACKAGE.MODULE:CLASS"),
]
DataOption = Annotated[Path, typer.Option(help="Folder of the datasets.", envvar="BENCH_DATA")]
WeightsOption = Annotated[
    Path, typer.Option(help="Folder of backbone weights.", envvar="BENCH_WEIGHTS")
]
ResultsOption = Annotated[Path, typer.Option(help="Folder of the results.", envvar="BENCH_RESULTS")]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="Folder of decoded images; by default the user's.", envvar="BENCH_CACHE"),
]
DATA, WEIGHTS, RESULTS = Path("data"), Path("weights"), Path("results")


def _console() -> "Console":
    from rich.console import Console

    return Console(soft_wrap=False)


def _print(text: str = "") -> None:
    """Print a line as it is: names from outside carry no markup."""
    _console().print(text, markup=False, highlight=False, soft_wrap=True)


def _folders(data: Path, weights: Path, results: Path, cache: Path | None) -> "Folders":
    from bench.plan import Folders

    if cache is None:
        import platformdirs

        cache = Path(platformdirs.user_cache_dir("atacnet-bench"))
    return Folders(data.absolute(), weights.absolute(), results.absolute(), cache.absolute())


def _plan(
    folders: "Folders",
    suite: str,
    seeds: int | None,
    methods: str | None,
    datasets: str | None,
    categories: str | None,
    shots: str | None,
    overrides: list[str] | None,
    method: str | None,
    *,
    download: bool = False,
) -> "Plan":
    from bench.plan import make_plan
    from bench.registry import Registry
    from bench.suite import Narrowing, expand, knows, read_suite

    narrowing = Narrowing(
        methods=_words(methods),
        datasets=_words(datasets),
        categories=_words(categories),
        shots=_numbers(shots),
        seeds=seeds,
        overrides=tuple(overrides or ()),
        outside_method=method,
    )
    cells = expand(read_suite(suite), narrowing, Registry(folders.cache), folders.data)
    for text in narrowing.overrides:
        prefix, _, name = text.partition("=")[0].strip().rpartition(".")
        methods_here = {c.method.name: c.method for c in cells if prefix in ("", c.method.name)}
        took = [m.name for m in methods_here.values() if knows(m, name)]
        _print(f"--set {text}: taken by {', '.join(took)}")
    return make_plan(cells, folders, download=download)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    if debug:
        os.environ["BENCH_DEBUG"] = "1"
    if version:
        print(f"bench {bench.__version__}")
        raise typer.Exit


@app.command()
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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (all GPUs) or cuda:i.")] = "auto",
    slots: Annotated[int, typer.Option(help="Runs at once on each device.", min=1)] = 1,
    timeout: Annotated[
        float | None, typer.Option(help="Longest time of a run.", metavar="SECONDS", min=0.1)
    ] = None,
    available_only: Annotated[
        bool, typer.Option("--available-only", help="Leave out what is missing here.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
) -> None:
    """Run what a suite wants and the results do not hold yet; the same command continues.

    Exit code: 0 all wanted runs are there, 1 some failed, 2 the request makes no sense here.
    """
    from bench.display import display_for, result_table
    from bench.engine import slots_for
    from bench.schedule import carry_out, look_up, missing_lines
    from bench.store import Store

    folders = _folders(data, weights, results, cache)
    plan = _plan(folders, suite, seeds, methods, datasets, categories, shots, set_, method,
                 download=not dry_run)  # fmt: skip
    store = Store(folders.results)
    state = look_up(plan, store)
    if plan.missing:
        for line in missing_lines(plan.missing):
            print(f"missing: {line}", file=sys.stderr)
        if not available_only and not dry_run:
            raise RequestError(
                f"{len(plan.missing)} of {len(plan.missing) + len(plan.runs)} runs cannot be done"
                " here; mend that, or leave them out with --available-only"
            )
    if not plan.runs and not dry_run:
        raise RequestError(f"nothing of suite {suite} can be run here")
    chosen = slots_for(device, slots, _gpus(device)) if state.todo else []
    _print_plan(state, len(chosen))
    if dry_run:
        return
    console = _console()
    try:
        with display_for(console, state, len(chosen)) as display:
            outcome = carry_out(state, store, folders, chosen, timeout, display)
    except KeyboardInterrupt:
        print("bench: stopped; the same command continues", file=sys.stderr)
        raise typer.Exit(130) from None
    if outcome.done:
        console.print(result_table(plan.runs, outcome.done))
    _print(f"results: {folders.results}")
    if outcome.failed:
        _print(f"{len(outcome.failed)} runs failed; their logs are in {store.failed}")
        raise typer.Exit(1)


def _print_plan(state: "State", slots: int) -> None:
    from bench.display import duration
    from bench.schedule import time_left

    _print(
        f"{len(state.plan.runs)} runs wanted, {len(state.done)} stored, {len(state.todo)} to do"
        + (f", {len(state.plan.missing)} more cannot be done here" if state.plan.missing else "")
        + (f" in {slots} slots" if slots > 1 else "")
    )
    left = time_left(state.todo, list(state.done.values()), max(1, slots))
    if state.todo and left is not None:
        _print(f"about {duration(left)}, from stored runs of the same kind")
    if state.stale:
        _print(f"{len(state.stale)} stored runs are stale: their method's code has changed since")


def _gpus(device: str) -> int:
    """Count the GPUs; torch is asked only where one may be there."""
    driver = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
    if device == "cpu" or (device == "auto" and not driver):
        return 0
    # Ask the driver, not the runtime: the command itself must not hold a CUDA context.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@app.command()
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
) -> None:
    """Say what of a suite is done, failed, stale or missing, and how long the rest takes."""
    from bench.display import duration
    from bench.schedule import look_up, missing_lines, time_left
    from bench.store import Store

    folders = _folders(data, weights, results, cache)
    plan = _plan(folders, suite, seeds, methods, datasets, categories, shots, set_, method)
    state = look_up(plan, Store(folders.results))
    left = time_left(state.todo, list(state.done.values()), 1)
    for name, count in (
        ("wanted", len(plan.runs) + len(plan.missing)),
        ("done", len(state.done)),
        ("to do", len(state.todo)),
        ("failed", len(state.failed)),
        ("stale", len(state.stale)),
        ("damaged", len(state.damaged)),
        ("missing", len(plan.missing)),
    ):
        _print(f"{name:8} {count}")
    waiting = "nothing that can run here" if plan.missing else "nothing"
    unknown = "unknown: no stored run of the kind to go by"
    time_to_go = duration(left) if left is not None else unknown
    _print(f"{'left':8} {time_to_go if state.todo else waiting}")
    for run_id, failure in state.failed.items():
        _print(f"failed {run_id}: {failure['reason'].splitlines()[0]}")
    for run in state.stale:
        _print(f"stale {run.run_id}: {run.spec}: its method's code has changed since")
    for line in missing_lines(plan.missing):
        _print(f"missing: {line}")


@app.command("list")
def list_(
    what: Listable,
    data: DataOption = DATA,
) -> None:
    """List the suites, methods or datasets."""
    if what is Listable.SUITES:
        from bench.suite import read_suite, suite_names

        for name in suite_names():
            _print(f"{name:16} {read_suite(name).description}")
    elif what is Listable.METHODS:
        from bench.registry import METHODS, SUMMARIES

        for name in METHODS:
            _print(f"{name:16} {SUMMARIES[name]}")
    else:
        from bench.data.catalog import find_datasets

        for dataset in find_datasets(data.absolute()):
            _print(f"{dataset.name:16} {', '.join(dataset.categories)}")


@app.command()
def show(run_id: str, results: ResultsOption = RESULTS) -> None:
    """Show a stored run: spec, draw, metrics, timings and provenance. A beginning will do."""
    from bench.store import Store

    store = Store(results.absolute())
    if not store.ids():
        raise RequestError(f"there are no runs in {store.runs}; name the folder with --results")
    receipt = store.read(store.find(run_id))
    _print(f"run {receipt['run_id']}")
    for group in ("spec", "metrics", "split", "facts", "timings", "provenance"):
        _print(f"\n{group}")
        for key, value in receipt[group].items():
            if isinstance(value, dict):
                value = ", ".join(f"{k}={v}" for k, v in value.items())
            _print(f"  {key:24} {value}")
    _print("\ndraw")
    for i, drawn in enumerate(receipt["draw"], 1):
        used = "labelled" if i <= receipt["spec"]["shots"] else ""
        _print(f"  {i:2} {drawn['file']:40} {drawn['defect']:20} {used}")
    for warning in receipt["warnings"]:
        _print(f"\nwarning: {warning}")


@data_app.command("list")
def data_list(data: DataOption = DATA, cache: CacheOption = None) -> None:
    """List the datasets: counts, sizes, licences, sources, and what is here."""
    from rich.table import Table

    from bench.data.catalog import find_datasets
    from bench.data.files import list_category
    from bench.errors import DataError

    folders = _folders(data, WEIGHTS, RESULTS, cache)
    table = Table(box=None, header_style="bold")
    for name in ("dataset", "category", "train", "test", "anomalous", "defects", "size", "here"):
        table.add_column(name, no_wrap=name != "here")
    notes = []
    for dataset in find_datasets(folders.data):
        notes.append(f"{dataset.name}: {dataset.title}. Licence: {dataset.licence}."
                     f" Source: {dataset.source}")  # fmt: skip
        for category, facts in dataset.categories.items():
            counts = (facts.train, facts.test_normal, facts.test_anomalous, facts.defect_types)
            try:
                files = list_category(dataset, category, folders.data, folders.cache).files
                here = f"{len(files)} images"
                if sum(counts[:3]) not in (0, len(files)):
                    here += f" of {sum(counts[:3])}: unofficial copy"
            except DataError as error:
                here = "no" if dataset.remedy else str(error)
            size = f"{facts.native_size} px" if facts.native_size else "varies"
            row = [str(c) if any(counts) else "" for c in counts]
            table.add_row(dataset.name, category, *row, size, here)
    _console().print(table)
    for note in notes:
        _print(note)


@data_app.command("prepare")
def data_prepare(
    names: Annotated[list[str], typer.Argument(help="dataset, or dataset/category")],
    image_size: Annotated[int, typer.Option(help="Side in pixels.", min=16, max=4096)] = 224,
    resize: Annotated[str, typer.Option(help="bilinear or bicubic.")] = "bilinear",
    data: DataOption = DATA,
    cache: CacheOption = None,
) -> None:
    """Decode and resize datasets into the cache ahead of the runs that need them."""
    from bench.data.catalog import find_dataset
    from bench.data.files import FingerprintCache, fingerprint, list_category
    from bench.data.images import load, prepare, why_unofficial

    folders = _folders(data, WEIGHTS, RESULTS, cache)
    digests = FingerprintCache(folders.cache)
    for name in names:
        dataset_name, _, only = name.partition("/")
        dataset = find_dataset(dataset_name, folders.data)
        if only and only not in dataset.categories:
            raise RequestError(f"{dataset_name} has no category {only!r}")
        for category in [only] if only else dataset.categories:
            listing = list_category(dataset, category, folders.data, folders.cache)
            content = fingerprint(listing, digests)
            digests.save()
            folder = prepare(listing, content, folders.cache, image_size, resize)
            reason = why_unofficial(dataset, category, content, load(folder))
            _print(
                f"{dataset.name}/{category}: {len(listing.files)} images at {image_size} px"
                + (f" (unofficial copy: {reason})" if reason else "")
            )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors on purpose become one line on stderr and exit code 2."""
    try:
        app(arguments)
    except BenchError as error:
        if os.environ.get("BENCH_DEBUG"):
            raise
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
