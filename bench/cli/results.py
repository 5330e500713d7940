"""Commands on the store: `verify`, `merge`, `archive`, `forget`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.listing import SELECTION, selected
from bench.cli.options import (
    DATA,
    RESULTS,
    CacheOption,
    DataOption,
    ResultsOption,
    cache_or_default,
    say,
    shared_options,
)
from bench.errors import CorruptRun, RequestError
from bench.text import counted

if TYPE_CHECKING:
    from bench.planning.matrix import Selection
    from bench.planning.plan import Folders
    from bench.store.failures import Failure


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
    scores_only: Annotated[
        bool, typer.Option("--scores-only", help="Leave out maps, embeddings and other artifacts.")
    ] = False,
) -> None:
    """Pack all runs' numbers into a few small files."""
    from bench.store.archive import pack
    from bench.store.open import open_results
    from bench.store.results import MANIFEST

    before = " (it replaces the archive that was there)" * (out / MANIFEST).is_file()
    count = pack(open_results(results.absolute()), out.resolve(), scores_only=scores_only)
    size = sum(p.stat().st_size for p in out.iterdir())
    say(f"{counted(count, 'run')} in {out}, {size / 1e6:.2f} MB{before}")


@shared_options(selection=SELECTION, folders=("results",))
def forget_command(
    run_ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Run ids, or their first characters.", metavar="RUN_ID", show_default=False
        ),
    ] = None,
    *,
    selection: "Selection",
    folders: "Folders",
    every: Annotated[bool, typer.Option("--all", help="Forget all recorded failures.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which ones, and forget none.")
    ] = False,
) -> None:
    """Forget recorded failures that nobody wants any more.

    By id, or by what the failed runs were; with neither it lists them. Results stay as they are.
    """
    from bench.store.folder import Store
    from bench.store.open import open_results

    opened = open_results(folders.results)
    if not isinstance(opened, Store):
        raise RequestError(f"{folders.results} is an archive: it records no failures")
    last = [f for run_id in opened.failed_ids() for f in opened.failures(run_id)[-1:]]
    chosen = _chosen_failures(last, run_ids or (), selection)
    named = bool(run_ids) or every or _narrows(selection)
    for failure in chosen:
        what = failure.spec or "a run of another form"
        reason = (failure.reason.splitlines() or ["?"])[0]
        say(f"{failure.run_id} {what}, {failure.time}: {reason}")
        if named and not dry_run:
            opened.forget_failures(failure.run_id)
    done = "forgotten" if named and not dry_run else "would be forgotten" if named else "recorded"
    hint = "" if named or not chosen else ": name ids, select, or give --all to forget them"
    say(f"{counted(len(chosen), 'failed run')} {done}{hint}")


def _chosen_failures(
    failures: Sequence["Failure"], run_ids: Sequence[str], selection: "Selection"
) -> list["Failure"]:
    """Return failures of these ids and this selection; raises RequestError for an unknown id."""
    for beginning in run_ids:
        matches = sum(f.run_id.startswith(beginning) for f in failures)
        if matches != 1 or not beginning:
            what = f"{matches} failed runs begin" if matches else "no failed run begins"
            raise RequestError(f"{what} with {beginning!r:.80}")
    specs = [f.spec for f in failures if f.spec] if _narrows(selection) else []
    wanted = {spec.run_id for spec in selected(specs, selection)} if specs else set()
    return [
        f
        for f in failures
        if (not run_ids or f.run_id.startswith(tuple(run_ids)))
        and (not _narrows(selection) or f.run_id in wanted)
    ]


def _narrows(selection: "Selection") -> bool:
    return any(getattr(selection, name) is not None for name in SELECTION)
