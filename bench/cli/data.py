"""`bench data`: the datasets, and their way into the cache."""

from typing import Annotated

import typer

from bench.cli.options import (
    DATA,
    RESULTS,
    WEIGHTS,
    CacheOption,
    DataOption,
    console,
    folders_of,
    say,
)
from bench.errors import RequestError

app = typer.Typer(no_args_is_help=True, help="Datasets: what there is, and prepare it.")


@app.command("list")
def data_list(data: DataOption = DATA, cache: CacheOption = None) -> None:
    """List the datasets: counts, sizes, licences, sources, and what is here."""
    from rich.table import Table

    from bench.data.catalog import find_datasets
    from bench.data.files import list_category
    from bench.errors import DataError

    folders = folders_of(data, WEIGHTS, RESULTS, cache)
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
    console().print(table)
    for note in notes:
        say(note)


@app.command("prepare")
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

    folders = folders_of(data, WEIGHTS, RESULTS, cache)
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
            say(
                f"{dataset.name}/{category}: {len(listing.files)} images at {image_size} px"
                + (f" (unofficial copy: {reason})" if reason else "")
            )
