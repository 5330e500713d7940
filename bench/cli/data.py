"""`bench data`: list, fetch, verify and decode datasets."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.examples import epilog, paragraphs
from bench.cli.options import console, printable, say, shared_options
from bench.errors import RequestError
from bench.system.untrusted import one_line
from bench.text import meant

if TYPE_CHECKING:
    from bench.data.catalog import Dataset
    from bench.planning.plan import Folders

app = typer.Typer(no_args_is_help=True, help="List, fetch, verify and prepare datasets.")


@app.command("list")
@shared_options(folders=("data", "cache"))
def data_list(folders: "Folders") -> None:
    """List datasets with counts, licences, sources and local files."""
    from rich.table import Table

    from bench.data.catalog import find_datasets, unlisted_datasets
    from bench.data.layouts import list_category
    from bench.data.official import reasons_on_disk
    from bench.errors import DataError, MissingData
    from bench.system.digests import FingerprintCache

    digests = FingerprintCache(folders.cache)
    table = Table(box=None, header_style="bold")
    for name in ("dataset", "category", "train", "test", "anomalous", "defects", "size", "here"):
        table.add_column(name, no_wrap=name != "here")
    notes = []
    for dataset in find_datasets(folders.data):
        title = f"{dataset.name}: {dataset.title}"
        note = f"\n  {dataset.note}" if dataset.note else ""
        notes.append(f"{title}. Licence: {dataset.licence}. Source: {dataset.source}{note}")
        for category, facts in dataset.categories.items():
            counts = (facts.train, facts.test_normal, facts.test_anomalous, facts.defect_types)
            try:
                listing = list_category(dataset, category, folders.data, folders.cache)
                status = f"{len(listing.files)} images"
                if reasons := reasons_on_disk(dataset, category, listing, digests):
                    status += f", unofficial copy: {'; '.join(reasons)}"
            except DataError as error:
                status = "no" if isinstance(error, MissingData) else printable(str(error))
            size = f"{facts.native_size} px" if facts.native_size else "varies"
            row = [str(c) if any(counts) else "" for c in counts]
            table.add_row(dataset.name, category, *row, size, status)
    console().print(table)
    say("\n".join([*notes, *unlisted_datasets(folders.data)]))


@app.command("prepare")
@shared_options(folders=("data", "cache"))
def data_prepare(
    *,
    names: Annotated[list[str], typer.Argument(help="dataset, or dataset/category")],
    image_size: Annotated[int, typer.Option(help="Side in pixels.", min=16, max=4096)] = 224,
    resize: Annotated[str, typer.Option(help="bilinear or bicubic.")] = "bilinear",
    folders: "Folders",
) -> None:
    """Decode and resize datasets into the cache before runs."""
    from bench.data.images import load, prepare
    from bench.data.inspect import named_categories
    from bench.data.official import why_unofficial
    from bench.data.pixel_digests import PixelDigests
    from bench.data.present import find_category
    from bench.spec import place_name
    from bench.system.digests import FingerprintCache

    known = PixelDigests(folders.cache, FingerprintCache(folders.cache))
    for dataset, category in named_categories(names, folders.data):
        listing, content = find_category(dataset.name, category, folders.data, known)
        known.digests.save()
        folder = prepare(listing, content, folders.cache, image_size, resize)
        sizes = {(f.width, f.height) for f in load(folder).facts}
        reason = why_unofficial(dataset, category, listing.files, content, sizes)
        say(
            f"{place_name(dataset.name, category)}: {len(listing.files)} images at {image_size} px"
            + (f" (unofficial copy: {reason})" if reason else "")
        )


@app.command("verify")
@shared_options(folders=("data", "cache"))
def data_verify(
    names: Annotated[list[str], typer.Argument(help="dataset, or dataset/category")],
    folders: "Folders",
) -> None:
    """Decode every file and compare with the catalogue; exit 1 if it differs."""
    from bench.data.inspect import inspect, inspection_lines, named_categories
    from bench.system.digests import FingerprintCache

    digests = FingerprintCache(folders.cache)
    good = True
    remedies: dict[str, str] = {}
    for dataset, category in named_categories(names, folders.data):
        inspection = inspect(dataset, category, folders.data, folders.cache, digests)
        good &= inspection.good
        absent = "" if inspection.files else "".join(inspection.unusable)
        remedy = absent.replace(inspection.place, dataset.name)
        if remedy and remedy in remedies:
            say(f"{inspection.place}: cannot be used, as {remedies[remedy]}")
            continue
        remedies[remedy] = inspection.place
        for line in inspection_lines(inspection):
            say(line)
    for path in digests.corrected:
        say(f"{one_line(path)} differs from its cached digest: the cache is corrected")
    digests.save()
    if not good:
        raise typer.Exit(1)


@app.command("fetch")
@shared_options(folders=("data", "cache"))
def data_fetch(
    *,
    name: Annotated[str, typer.Argument(help="dataset")],
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licence that is shown.")
    ] = False,
    accept_license: Annotated[bool, typer.Option("--accept-license", hidden=True)] = False,
    archive: Annotated[
        Path | None, typer.Option(help="Take this archive instead of downloading it.")
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(help="Try this address first (http, https, file); repeatable.", metavar="URL"),
    ] = None,
    folders: "Folders",
) -> None:
    """Obtain a dataset: accept the licence, download, check, unpack.

    Exit code 1 for a copy that was put there by hand and is not the official one.
    """
    from bench.data.catalog import DATASETS
    from bench.data.fetch.dataset import fetch

    if name not in DATASETS:
        known = f"{meant(name, DATASETS)}: it is not one of {', '.join(DATASETS)}"
        raise RequestError(f"cannot fetch {name!r}{known}")
    dataset = DATASETS[name]
    try:
        with _download_bar() as progress:
            official = fetch(
                dataset,
                folders.data,
                folders.cache,
                accept=lambda: accept_licence or accept_license or _accepted(dataset),
                archive=archive,
                mirrors=mirror or (),
                say=say,
                progress=progress,
            )
    except KeyboardInterrupt:
        print("bench: stopped; the same command continues", file=sys.stderr)
        raise typer.Exit(130) from None
    if not official:
        raise typer.Exit(1)


def _accepted(dataset: "Dataset") -> bool:
    """Ask for consent; raises RequestError where nobody can type."""
    if sys.stdin is None or not sys.stdin.isatty():  # None where it was closed
        raise RequestError(
            f"the licence of {dataset.title} must be accepted: give --accept-licence"
        )
    return bool(typer.prompt("Type yes to accept it", default="no").strip() == "yes")


@contextmanager
def _download_bar() -> Iterator[Callable[[int, int], None]]:
    """Show a download's progress, as a bar or in tenths."""
    from rich import progress

    screen = console()
    columns = (progress.BarColumn(), progress.DownloadColumn(), progress.TransferSpeedColumn())
    bar = progress.Progress(*columns, progress.TimeRemainingColumn(), console=screen)
    task = bar.add_task("", total=None)
    tenth = 0

    def show(received: int, total: int) -> None:
        nonlocal tenth
        if screen.is_terminal:
            bar.start()
            bar.update(task, completed=received, total=total)
        elif received * 10 // total > tenth:
            tenth = received * 10 // total
            say(f"{tenth * 10} %")

    try:
        yield show
    finally:
        if bar.live.is_started:  # stopping prints an empty line
            bar.stop()


for command in app.registered_commands:
    command.help = paragraphs(command.callback.__doc__)
    command.epilog = epilog(f"data {command.name}", command.callback.__doc__)
