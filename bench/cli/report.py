"""`bench report`: write the page, and its tables and figures as files."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import RESULTS, CacheOption, ResultsOption, cache_or_default, console, say
from bench.errors import RequestError
from bench.system.untrusted import one_line


def report_command(
    results: ResultsOption = RESULTS,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("reports/report.html"),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the datasets; without it, figures show none of their images."),
    ] = None,
    cache: CacheOption = None,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Also write each table (CSV, Markdown, LaTeX) and figure (SVG) to this folder.",
            metavar="DIR",
        ),
    ] = None,
) -> None:
    """Write one page: the paper's tables with verdicts.

    It is self-contained and judges every published number. Takes a results folder or an archive.
    """
    if data is not None and not data.is_dir():
        raise RequestError(f"--data {one_line(data)}: there is no such folder")
    from threadpoolctl import threadpool_limits

    from bench.report.content import contents
    from bench.report.export import write_exports
    from bench.report.page import render
    from bench.store.open import open_results
    from bench.system.files import write_atomically

    with threadpool_limits(limits=1):  # small matrix products, for which threads only wait
        stored = open_results(results.absolute())
        with console().status("reading the runs and drawing figures; up to half a minute"):
            report_contents = contents(stored, data and data.absolute(), cache_or_default(cache))
            text = render(report_contents)
        page = text.encode(errors="backslashreplace")  # file names need not be valid Unicode
    write_atomically(out, page)
    say(f"{out}: {len(page) / 1e6:.1f} MB, {len(report_contents.stored.receipts)} runs")
    if export is not None:
        count = write_exports(report_contents, export)
        say(f"{export}: {count} files")
