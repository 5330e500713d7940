"""`bench crosscheck`: our methods beside anomalib's."""

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli.options import console, print_missing, say, shared_options
from bench.errors import RequestError

if TYPE_CHECKING:
    from bench.execution.crosscheck import Compared
    from bench.planning.matrix import Selection
    from bench.planning.plan import Folders


@shared_options(
    selection=("methods", "datasets", "categories", "seeds", "set"),
    folders=("data", "weights", "cache"),
)
def crosscheck_command(
    python: Annotated[
        Path, typer.Option(help="The interpreter that has anomalib 2.7.0.", show_default=False)
    ],
    selection: "Selection",
    folders: "Folders",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of our side; anomalib's side uses one.", min=1)
    ] = None,
) -> None:
    """Compare our PaDiM, PatchCore, FastFlow and CFlow with anomalib's on equal inputs.

    By default the synthetic dataset, ResNet-18 with ImageNet weights at 256 px and anomalib's own
    settings; flows are trained shortly, by our side. Override with --set, say --set weights=none.
    It does not say which is better; exit code 1 means that it failed.
    """
    from bench.execution.crosscheck import (
        VERSION,
        check_interpreter,
        compare_sides,
        make_crosscheck,
    )

    interpreter = python.absolute()  # not resolved: an environment's is a link to another one
    check_interpreter(interpreter)
    plan = make_crosscheck(selection, folders, download=True)
    if print_missing(plan):
        raise RequestError("some inputs are missing; provide them, or select less")
    rows: list[Compared] = []
    failed = False
    note = functools.partial(print, file=sys.stderr, flush=True)
    for outcome in compare_sides(plan, interpreter, folders, threads, note):
        if isinstance(outcome, str):
            failed = True
            print(f"failed: {outcome}", file=sys.stderr)
        else:
            rows += outcome
    if rows:
        _print(rows)
        say(
            f"AUROC of each side's raw scores by our code, and their rank correlation. anomalib"
            f" {VERSION} uses the same images, network and channels, and the flows that our side"
            " trained. Each side draws PatchCore's start and projection itself, so its scores"
            " differ as with another seed."
        )
    if failed:
        raise typer.Exit(1)


def _print(rows: "list[Compared]") -> None:
    from statistics import fmean

    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("data", overflow="fold")
    for title in ("method", "ours", "anomalib", "difference", "ranks"):
        justify: Literal["left", "right"] = "left" if title == "method" else "right"
        table.add_column(title, justify=justify, no_wrap=True)
    for row in rows:
        sides = (_over_seeds(row.ours), _over_seeds(row.theirs))
        numbers = (f"{row.difference:+.4f}", f"{fmean(row.correlation):.4f}")
        table.add_row(Text(row.place), row.method, *sides, *numbers)
    console().print(table)
    worst = max(rows, key=lambda row: abs(row.difference))
    say(f"largest difference of AUROC: {worst.difference:+.4f}, {worst.method} on {worst.place}")


def _over_seeds(values: tuple[float, ...]) -> str:
    """Write the mean, and the standard deviation of several."""
    from statistics import fmean, stdev

    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")
