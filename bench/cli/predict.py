"""`bench predict`: score your own images with a saved model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import RESULTS, ResultsOption, console, gpus, printable, say

if TYPE_CHECKING:
    from bench.execution.predictions import Summary


def predict_command(
    run_id: Annotated[str, typer.Argument(help="Run id, or its first characters.")],
    images: Annotated[list[Path], typer.Argument(help="Files, or folders.", show_default=False)],
    results: ResultsOption = RESULTS,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write; by default predictions-RUN_ID.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:i.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; by default those of the run.", min=1)
    ] = None,
    overlays: Annotated[bool, typer.Option(help="Also draw maps and boxes as PNG.")] = True,
) -> None:
    """Score images with a run's model, saved by --save-models.

    Writes predictions.parquet (score, box in pixels, maps) and pictures of the maps. A file that
    does not decode is left out, named, and makes the exit code 1.
    """
    import sys

    from bench.data.unused import passed_over
    from bench.execution import predict
    from bench.execution.predictions import check_new, write_predictions
    from bench.planning.slots import slots_for
    from bench.store.open import open_results
    from bench.store.results import find

    stored = open_results(results.absolute())
    receipt, model = predict.saved_model(stored, find(stored, run_id))
    target = out or Path(f"predictions-{receipt.run_id}")
    check_new(target.absolute())
    files = predict.find_images(images)
    if unused := passed_over([path for path in images if path.is_dir()], files):
        print(f"note: {unused}", file=sys.stderr)
    if predict.method_changed(receipt):
        print("note: the method's code has changed since the run", file=sys.stderr)
    slot = slots_for(device, 1, gpus(device), threads or receipt.provenance.threads)[0]
    parts = predict.predict_images(receipt, model, files, slot.device, slot.threads)
    summary = write_predictions(files, parts, target.absolute(), overlays=overlays)
    _print(summary)
    say(f"{target}: predictions.parquet" + (" and overlays/" if summary.overlays else ""))
    for problem in summary.problems:
        print(f"left out: {problem}", file=sys.stderr)
    if summary.problems:
        raise typer.Exit(1)


def _print(summary: "Summary") -> None:
    from rich.table import Table
    from rich.text import Text

    boxed = any(box is not None for *_, box in summary.first)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("file", overflow="fold")
    for title in ("score", *(["box"] if boxed else [])):
        table.add_column(title, justify="right", no_wrap=True)
    for file, score, box in summary.first:
        cells = [] if box is None else [" ".join(f"{v:.0f}" for v in box)]
        table.add_row(Text(printable(str(file))), f"{score:.4g}", *cells)
    console().print(table)
    if summary.images > len(summary.first):
        say(f"... and {summary.images - len(summary.first)} more")
