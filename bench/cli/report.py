"""`bench report`: the page."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import RESULTS, ResultsOption, say


def report(
    results: ResultsOption = RESULTS,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("reports/report.html"),
) -> None:
    """Write one self-contained page: the paper's tables with a verdict on every printed number.

    Takes a results folder or an archive.
    """
    from bench.files import write_atomically
    from bench.report.page import render
    from bench.store import open_results

    page = render(open_results(results.absolute()))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page.encode())
    say(f"{out}: {len(page.encode()) / 1e6:.1f} MB")
