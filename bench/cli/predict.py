"""`bench predict`: score your own images with a saved model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.formats import Format, FormatOption, chosen_format, print_records
from bench.cli.options import RESULTS, JsonOption, ResultsOption, console, gpus, printable, say
from bench.text import counted

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
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:i.", metavar="DEVICE")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; by default those of the run.", min=1)
    ] = None,
    overlays: Annotated[bool, typer.Option(help="Also draw maps and boxes as PNG.")] = True,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Call a defect what is above the score that this share of the run's normal test"
            " images passes, or above a score.",
            metavar="fpr=SHARE|score=NUMBER",
        ),
    ] = None,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score images with a run's model, saved by --save-models.

    Writes predictions.parquet (score, rank among the run's normal test images, verdict, box in
    pixels, maps) and pictures of the maps, and prints the highest scores; --format csv or json
    prints all.

    Exit code: 0, or 1 where a file does not decode: it is named and left out.
    """
    import sys

    from bench.data.unused import passed_over
    from bench.execution import predict
    from bench.execution.predictions import check_new, records, write_predictions
    from bench.execution.thresholds import OwnScores, too_fine
    from bench.planning.slots import slots_for
    from bench.store.open import open_results
    from bench.store.results import find

    print_form = chosen_format(form, as_json, Format.TEXT)
    stored = open_results(results.absolute())
    run = find(stored, run_id)
    files = predict.find_images(images)
    test = OwnScores.of_run(stored.scores(run), threshold)
    target = out or Path(f"predictions-{run}")
    check_new(target.absolute())
    slot = slots_for(device, 1, gpus(device), threads)[0]
    receipt, model = predict.saved_model(stored, run)
    if unused := passed_over([path for path in images if path.is_dir()], files):
        print(f"note: {unused}", file=sys.stderr)
    if predict.method_changed(receipt):
        print("note: the method's code has changed since the run", file=sys.stderr)
    if doubt := too_fine(threshold, test):
        print(f"note: {doubt}", file=sys.stderr)
    each = threads or receipt.provenance.threads or slot.threads
    parts = predict.predict_images(receipt, model, files, slot.device, each)
    summary = write_predictions(files, parts, target.absolute(), test, overlays=overlays)
    written = f"{target}: predictions.parquet" + (" and overlays/" if summary.overlays else "")
    if print_form is Format.TEXT:
        _print(summary)
        if threshold is not None:
            say(f"{counted(summary.defects, 'defect')} of {counted(summary.images, 'image')}")
            say(test.reading)
        say(written)
    else:
        rows = list(records(target.absolute() / "predictions.parquet"))
        print_records(rows, print_form, f"Predictions of run {receipt.run_id}")
        print(written, file=sys.stderr)
    for problem in summary.problems:
        print(f"left out: {problem}", file=sys.stderr)
    if summary.problems:
        raise typer.Exit(1)


def _print(summary: "Summary") -> None:
    from rich.table import Table
    from rich.text import Text

    boxed = any(row.box is not None for row in summary.highest)
    judged = any(row.verdict for row in summary.highest)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("file", overflow="fold")
    titles = ["score", "above normals", *["verdict"] * judged, *["box"] * boxed]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for row in summary.highest:
        cells = [f"{row.score:.4g}", f"{row.rank:.1%}", *[str(row.verdict)] * judged]
        cells += [] if row.box is None else [" ".join(f"{v:.0f}" for v in row.box)]
        table.add_row(Text(printable(str(row.file))), *cells)
    console().print(table)
    if summary.images > len(summary.highest):
        say(f"... and {summary.images - len(summary.highest)} more with lower scores")
