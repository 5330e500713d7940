"""`bench report`: write the page, and its tables and figures as files."""

import shlex
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import RESULTS, CacheOption, ResultsOption, cache_or_default, console, say
from bench.errors import RequestError
from bench.system.untrusted import one_line

if TYPE_CHECKING:
    from bench.report.page import Made
    from bench.store.receipt import Receipt


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
            help="Also write each table and figure to this folder, for papers and scripts.",
            metavar="DIR",
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Title of the page.", show_default="by what was run")
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
    from bench.report.figures.svg import prints
    from bench.report.page import render
    from bench.store.open import open_results
    from bench.system.files import write_atomically

    with threadpool_limits(limits=1):  # small matrix products, for which threads only wait
        stored = open_results(results.absolute())
        with (
            console().status("reading the runs and drawing figures; up to half a minute"),
            prints() if export else nullcontext(None) as printed,
        ):
            report_contents = contents(stored, data and data.absolute(), cache_or_default(cache))
            if not report_contents.judges:
                title = title or _suite_title(report_contents.stored.accuracy)
            text = render(report_contents, title, _made())
        page = text.encode(errors="backslashreplace")  # file names need not be valid Unicode
    write_atomically(out, page)
    say(f"{out}: {len(page) / 1e6:.1f} MB, {len(report_contents.stored.receipts)} runs")
    if export is not None:
        count = write_exports(report_contents, export, printed)
        say(f"{export}: {count} files")


def _made() -> "Made":
    """Return date, command and commit for the footer."""
    from bench.report.page import Made
    from bench.system.host import checkout

    code = checkout()
    commit = code["commit"][:12] + ", changed" * (code["dirty"] == "yes")
    command = shlex.join(["bench", *sys.argv[1:]])
    return Made(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", command, commit)


def _suite_title(runs: "Iterable[Receipt]") -> str | None:
    """Return what the one included suite with these methods, data and shots is about."""
    from bench.planning.suite import read_suite, suite_names

    ran = {(r.spec.method, r.spec.place, r.spec.shots) for r in runs}
    kinds = [{entry[i] for entry in ran} for i in range(3)]
    titles = []
    for suite in map(read_suite, suite_names()):
        wanted = [{v for block in suite.blocks for v in getattr(block, name)}
                  for name in ("methods", "data", "shots")]  # fmt: skip
        if wanted == kinds:
            titles.append(suite.description.partition(";")[0])
    return titles[0][:1].upper() + titles[0][1:] if len(titles) == 1 else None
