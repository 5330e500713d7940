"""`bench predict`: score your own images with a saved model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import RESULTS, ResultsOption, console, gpus, printable, say

if TYPE_CHECKING:
    from bench.execution.predict import Predictions

MAX_ROWS = 40
"""Rows of the printed table; the file has all."""


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

    Writes predictions.parquet (score, box in pixels, maps) and pictures of the maps.
    """
    import sys

    from bench.execution import predict
    from bench.planning.slots import slots_for
    from bench.store.open import open_results
    from bench.store.results import find

    stored = open_results(results.absolute())
    receipt, model = predict.saved_model(stored, find(stored, run_id))
    target = out or Path(f"predictions-{receipt.run_id}")
    files = predict.find_images(images)
    if predict.has_changed(receipt):
        print("note: the method's code has changed since the run", file=sys.stderr)
    slot = slots_for(device, 1, gpus(device), threads or receipt.provenance.threads)[0]
    predictions = predict.predict_images(receipt, model, files, slot.device, slot.threads)
    predict.write_predictions(predictions, target.absolute(), overlays=overlays)
    _print(predictions)
    has_overlays = overlays and predictions.explanation is not None
    say(f"{target}: predictions.parquet" + (" and overlays/" if has_overlays else ""))


def _print(predictions: "Predictions") -> None:
    from rich.table import Table
    from rich.text import Text

    boxes = predictions.boxes()
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("file", overflow="fold")
    for title in ("score", *(["box"] if boxes is not None else [])):
        table.add_column(title, justify="right", no_wrap=True)
    for i in range(min(MAX_ROWS, len(predictions.files))):
        box = [] if boxes is None else [" ".join(f"{v:.0f}" for v in boxes[i])]
        name = Text(printable(str(predictions.files[i])))
        table.add_row(name, f"{predictions.scores[i]:.4g}", *box)
    console().print(table)
    if len(predictions.files) > MAX_ROWS:
        say(f"... and {len(predictions.files) - MAX_ROWS} more")
