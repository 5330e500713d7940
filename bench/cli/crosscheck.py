"""`bench crosscheck`: our PaDiM and PatchCore beside anomalib's, in an environment of its own."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli.options import (
    DATA,
    RESULTS,
    WEIGHTS,
    CacheOption,
    CategoriesOption,
    DataOption,
    MethodsOption,
    SeedsOption,
    SetOption,
    WeightsOption,
    console,
    folders_of,
    say,
    words,
)
from bench.errors import RequestError

if TYPE_CHECKING:
    from bench.execution.crosscheck import Compared


def crosscheck(
    python: Annotated[
        Path, typer.Option(help="The interpreter that has anomalib 2.7.0.", show_default=False)
    ],
    methods: MethodsOption = None,
    datasets: Annotated[
        str | None, typer.Option(help="These, with commas; by default the synthetic one.")
    ] = None,
    categories: CategoriesOption = None,
    seeds: SeedsOption = None,
    set_: SetOption = None,
    data: DataOption = DATA,
    weights: WeightsOption = WEIGHTS,
    cache: CacheOption = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of our side; anomalib's has one.", min=1)
    ] = None,
) -> None:
    """Compare our PaDiM and PatchCore with anomalib's on the same images and weights.

    By default ResNet-18 with ImageNet weights at 256 px, anomalib's own settings; bend with --set,
    say --set weights=none. It says nothing of which is better; exit code 1 means that it failed.
    """
    from bench.execution.crosscheck import VERSION, check_interpreter, compare, make_crosscheck
    from bench.planning.matrix import Narrowing
    from bench.planning.plan import missing_lines

    folders = folders_of(data, weights, RESULTS, cache)
    interpreter = python.absolute()  # not resolved: an environment's is a link to another one
    check_interpreter(interpreter)
    narrowing = Narrowing(words(methods), words(datasets), words(categories),
                          seeds=seeds, overrides=tuple(set_ or ()))  # fmt: skip
    wanted = make_crosscheck(narrowing, folders, download=True)
    for line in missing_lines(wanted.missing):
        print(f"missing: {line}", file=sys.stderr)
    if wanted.missing:
        raise RequestError("not all of it is here; mend that, or name less")
    found: list[Compared] = []
    failed = False
    for one in compare(wanted, interpreter, folders, threads, _note):
        if isinstance(one, str):
            failed = True
            print(f"failed: {one}", file=sys.stderr)
        else:
            found += one
    if found:
        _print(found)
        say(
            f"AUROC, ours, of the raw scores of both sides, and the correlation of their ranks."
            f" anomalib {VERSION} has the same images, network and channels; PatchCore's start and"
            " projection are drawn on each side, so that its scores differ as with another seed."
        )
    if failed:
        raise typer.Exit(1)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print(found: "list[Compared]") -> None:
    from statistics import fmean

    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("data", overflow="fold")
    for title in ("method", "ours", "anomalib", "difference", "ranks"):
        justify: Literal["left", "right"] = "left" if title == "method" else "right"
        table.add_column(title, justify=justify, no_wrap=True)
    for row in found:
        table.add_row(
            Text(row.place), row.method, _over_seeds(row.ours), _over_seeds(row.theirs),
            f"{row.difference:+.4f}", f"{fmean(row.correlation):.4f}",
        )  # fmt: skip
    console().print(table)
    worst = max(found, key=lambda row: abs(row.difference))
    say(f"largest difference of AUROC: {worst.difference:+.4f}, {worst.method} on {worst.place}")


def _over_seeds(values: tuple[float, ...]) -> str:
    """Return the mean, and the standard deviation where there are several."""
    from statistics import fmean, stdev

    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")
