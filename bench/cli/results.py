"""Commands on stored runs: `show`, `table`, `times`, `verify`, `compare`, `merge`, `archive`."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import (
    DATA,
    RESULTS,
    CacheOption,
    DataOption,
    ResultsOption,
    cache_or_default,
    say,
    split_words,
)
from bench.errors import CorruptRun, RequestError
from bench.text import counted

if TYPE_CHECKING:
    from bench.spec import RunSpec
    from bench.store.failures import Failure
    from bench.store.receipt import Receipt
    from bench.store.results import Results


def show_command(
    run_id: Annotated[str, typer.Argument(help="Run id, or its first characters.")],
    results: ResultsOption = RESULTS,
) -> None:
    """Show a stored run's record, or how it failed."""
    from bench.store.open import open_results
    from bench.store.results import find

    stored = open_results(results.absolute())
    failed = [] if any(i.startswith(run_id) for i in stored.ids()) else _failures(stored, run_id)
    if failed:
        _show_failure(failed[-1], len(failed))
    else:
        _show_run(stored, find(stored, run_id))


def _failures(stored: "Results", beginning: str) -> "list[Failure]":
    folder = stored.root / "failures"
    if not beginning or not folder.is_dir():
        return []
    matches = sorted(p.name for p in folder.iterdir() if p.name.startswith(beginning))
    return stored.failures(matches[0]) if len(matches) == 1 else []


def _show_group(name: str, values: Mapping[str, Any]) -> None:
    say(f"\n{name}")
    for key, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k}={v}" for k, v in value.items())
        say(f"  {key:24} {value}")


def _show_run(stored: "Results", run_id: str) -> None:
    receipt = stored.read(run_id)
    say(f"run {receipt.run_id}")
    if receipt.started_at and receipt.finished_at:
        say(f"started {_moment(receipt.started_at)}, finished {_moment(receipt.finished_at)}")
    _show_group("spec", receipt.spec.as_dict())
    cut_short = receipt.spec.kind == "timing"
    _show_group("metrics" + ", no result: training was cut short" * cut_short, receipt.metrics)
    _show_group("split", receipt.split)
    _show_group("facts", receipt.facts)
    _show_group("timings", receipt.timings)
    _show_group("provenance", _provenance(receipt.spec, receipt.provenance))
    _show_group("keeps", dict(_artifacts(stored, receipt)) or {"nothing": "beside its scores"})
    say("\ndraw")
    for i, drawn in enumerate(receipt.draw, 1):
        used = "labelled" if i <= receipt.spec.shots else ""
        say(f"  {i:2} {drawn.file:40} {drawn.defect:20} {used}")
    for warning in receipt.warnings:
        say(f"\nwarning: {warning}")


def _provenance(spec: "RunSpec | None", provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's provenance; an own dataset is nobody's copy."""
    from bench.data.catalog import is_own

    about = dict(provenance)
    if spec is not None and is_own(spec.dataset) and "unofficial_copy" in about:
        del about["unofficial_copy"]
        about["copy"] = "own dataset"
    return about


def _moment(moment: datetime) -> str:
    return moment.isoformat(" ", "seconds").replace("+00:00", " UTC")


def _artifacts(stored: "Results", receipt: "Receipt") -> Iterator[tuple[str, str]]:
    """Yield a run's artifacts beside its scores, with a summary."""
    from bench.store.artifacts import MODEL

    if MODEL in receipt.files:
        yield "model", f"runs/{receipt.run_id}/{MODEL}"
    if embeddings := stored.embeddings(receipt.run_id):
        components, share = embeddings.values.shape[1], embeddings.kept
        yield "embeddings", f"{counted(components, 'component')}, {share:.1%} of the variance"
    if explanations := stored.explanations(receipt.run_id):
        yield "maps", ", ".join(explanations.maps)
        yield "boxes", "none" if explanations.boxes is None else "of the zoomed view"
        yield "parts of the score", ", ".join(explanations.parts) or "none"
    if by_epoch := stored.epoch_scores(receipt.run_id):
        yield "scores by epoch", counted(len(by_epoch.epochs), "epoch")


def _show_failure(failure: "Failure", times: int) -> None:
    when = f"{times} times, last" if times > 1 else "once,"
    say(f"run {failure.run_id} has no result: it failed {when} {failure.time}")
    _show_group("spec", failure.spec.as_dict() if failure.spec else {})
    _show_group("provenance", _provenance(failure.spec, failure.provenance))
    say(f"\n{failure.traceback or failure.reason}")
    say(f"log: {failure.folder}/log.txt")


def table_command(
    results: ResultsOption = RESULTS,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only runs with this value, or without (KEY!=VALUE); runs without KEY stay.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Also print each column's paired difference from this one, or from the one that"
            " differs in KEY alone.",
            metavar="COLUMN|KEY=VALUE",
        ),
    ] = None,
    tuned_by: Annotated[
        str | None,
        typer.Option(
            help="Seeds whose results chose a setting: differences are given without them, too.",
            metavar="SEED,...",
        ),
    ] = None,
    value: Annotated[
        str,
        typer.Option(
            help="Another metric, or a number that methods record, say final_loss.",
            metavar="NAME",
        ),
    ] = "auroc",
    spread: Annotated[
        bool,
        typer.Option(
            "--spread",
            help="Print what draw, initialisation and images add to it, instead.",
        ),
    ] = False,
) -> None:
    """Print stored AUROC as a Markdown table."""
    from bench.analysis.paired import written_difference
    from bench.analysis.summary import differences, markdown, tabulate
    from bench.planning.matrix import assignment
    from bench.store.open import open_results

    only: dict[str, Any] = {}
    but: dict[str, Any] = {}
    for text in where or ():
        key, wanted = assignment("--where", "key=value or key!=value", text)
        if key.endswith("!"):
            but[key[:-1].strip()] = wanted
        else:
            only[key] = wanted
    stored = open_results(results.absolute())
    if spread:
        if against is not None:
            raise RequestError("--spread compares no columns: leave --against out")
        _print_spread(stored, only, but)
        return
    summary = tabulate((stored.read(i) for i in stored.ids()), only, but, value)
    gaps = {}
    if against is not None:  # before anything is printed
        by_setting = "=" in against and against not in summary.columns
        base = assignment("--against", "key=value", against) if by_setting else against
        gaps = differences(
            summary, base, lambda receipt: stored.scores(receipt.run_id), _seeds(tuned_by)
        )
    say(markdown(summary))
    if against is None:
        return
    tested = sum(gap.over_seeds.n > 1 for gap in gaps.values())
    images = " and over seeds and test images (crossed bootstrap)" * (value == "auroc")
    say(
        f"\nMinus {against}, with 95 % intervals over shared seeds (t){images}; p of"
        f" {counted(tested, 'difference')} together (Holm):\n"
    )
    for ((place, shots), column), gap in gaps.items():
        say(f"- {place}, {counted(shots, 'shot')}, {column}: {written_difference(gap)}")


def _seeds(text: str | None) -> list[int]:
    """Read --tuned-by."""
    seeds = split_words(text) or ()
    if not all(seed.isdecimal() for seed in seeds):
        raise RequestError(f"--tuned-by takes seeds such as 0,1, not {text!r:.80}")
    return [int(seed) for seed in seeds]


def _print_spread(stored: "Results", only: Mapping[str, Any], but: Mapping[str, Any]) -> None:
    from bench.analysis.configurations import StoredRuns
    from bench.analysis.spread import spread_table
    from bench.analysis.summary import fitting
    from bench.report.markup import as_markdown

    chosen = fitting((stored.read(i) for i in stored.ids()), only, but)
    table = spread_table(StoredRuns(stored, tuple(chosen)))
    if table is None:
        raise RequestError(
            "no two seeds have run on each of two draws: `bench run --suite spread`, or draw_seeds"
            " in a suite of your own"
        )
    say(as_markdown([list(table.columns), *map(list, table.rows)]))
    say(table.reading)


def times_command(results: ResultsOption = RESULTS) -> None:
    """Print timing runs as Markdown tables by machine.

    Numbers are medians over rounds; disturbed rounds count only where all are, and are marked.
    Each number of threads has a table of its own.
    """
    from bench.analysis.configurations import StoredRuns
    from bench.analysis.timing_tables import HEAD, READING, time_tables
    from bench.report.markup import as_markdown
    from bench.store.open import open_results
    from bench.store.results import receipts

    stored = open_results(results.absolute())
    tables = time_tables(StoredRuns(stored, tuple(receipts(stored))))
    if not tables:
        raise RequestError(f"no timing run is stored in {results}: `bench run --suite timing`")
    say(f"{READING}\n")
    for table in tables:
        say(f"{table.title}\n")
        say(as_markdown([list(HEAD), *table.rows]))
        for text in filter(None, [table.comparison, *table.remarks]):
            say(f"{text}\n")


def verify_command(
    results: ResultsOption = RESULTS, data: DataOption = DATA, cache: CacheOption = None
) -> None:
    """Check stored digests, metrics and the table; change nothing.

    Takes a results folder or an archive. Where the data folder has a run's images, their masks are
    compared with those of its pixel metrics. Exit code: 0 all agrees, 1 something does not.
    """
    from bench.data.mask_lookup import MaskLookup
    from bench.store.open import open_results
    from bench.store.verify import leftovers, problems

    try:
        stored = open_results(results.absolute())
    except CorruptRun as error:
        say(str(error))
        raise typer.Exit(1) from None
    lookup = MaskLookup(data.absolute(), cache_or_default(cache))
    faults = list(problems(stored, lookup.have_changed))
    for text in faults:
        say(text)
    for text in leftovers(stored):
        say(f"note: {text}")
    say(
        f"{counted(len(stored.ids()), 'run')}, "
        + (counted(len(faults), "problem") if faults else "everything agrees")
    )
    if faults:
        raise typer.Exit(1)


def compare_command(first: Path, second: Path) -> None:
    """Compare shared runs of two results folders or archives.

    Each is identical, close or different. Exit code: 0 all shared runs are identical or close, 1
    some are different.
    """
    from bench.store.agreement import agreement
    from bench.store.open import open_results

    one, other = open_results(first.absolute()), open_results(second.absolute())
    shared = sorted(set(one.ids()) & set(other.ids()))
    if not shared:
        raise RequestError(f"{first} and {second} share no run")
    counts = {"identical": 0, "close": 0, "different": 0}
    for run_id in shared:
        receipt = one.read(run_id)
        match = agreement(receipt, other.read(run_id))
        counts[match.kind] += 1
        if match.kind == "identical" and match.masks:
            say(f"{run_id} {receipt.spec}: {match}")
        elif match.kind != "identical":
            gap = one.scores(run_id).gap(other.scores(run_id))
            largest = "other images" if gap is None else f"scores by up to {gap:.2g}"
            say(f"{run_id} {receipt.spec}: {match}; {largest}")
    say(
        ", ".join(f"{count} {kind}" for kind, count in counts.items())
        + f"; {len(one.ids()) - len(shared)} only in {first}"
        + f", {len(other.ids()) - len(shared)} only in {second}"
    )
    if counts["different"]:
        raise typer.Exit(1)


def merge_command(
    sources: Annotated[
        list[Path], typer.Argument(help="Results folders or archives.", show_default=False)
    ],
    results: ResultsOption = RESULTS,
) -> None:
    """Import runs from other results folders or archives.

    Digests are checked. A run that is stored already stays. Exit code: 0 all are stored, 1 some
    runs were damaged, or differ from the stored ones.
    """
    from collections import Counter

    from bench.store.folder import Store
    from bench.store.merge import merge_results
    from bench.store.open import open_results

    store = Store(results.absolute())
    opened = [open_results(source.absolute()) for source in sources]
    bad = False
    for source in opened:
        counts: Counter[str] = Counter()
        for run in merge_results(source, store):
            counts[run.kind] += 1
            failed = run.kind in ("damaged", "different")
            bad |= failed
            if failed or run.detail not in ("", "identical"):
                say(f"{run.run_id}: {run.detail}")
        summary = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())) or "no runs"
        say(f"{source.root}: {summary}")
    if bad:
        raise typer.Exit(1)


def archive_command(
    out: Annotated[Path, typer.Option(help="Folder to write; it holds nothing else.")],
    results: ResultsOption = RESULTS,
) -> None:
    """Pack all runs' numbers into a few small files."""
    from bench.store.archive import pack
    from bench.store.open import open_results

    count = pack(open_results(results.absolute()), out.resolve())
    size = sum(p.stat().st_size for p in out.iterdir())
    say(f"{counted(count, 'run')} in {out}, {size / 1e6:.2f} MB")
