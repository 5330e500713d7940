"""The command line: parse, call, print; never imports torch."""

from bench.system.path import use_safe_path

use_safe_path()  # before anything is imported that a file in the current folder may be named like

import os
import sys
from typing import Annotated

import typer

import bench
from bench.cli import audit, crosscheck, data, doctor, predict, regress, report, results, runs
from bench.cli.options import homes_expanded
from bench.cli.streams import drop_output, prepare_streams, restart_in_utf8
from bench.errors import BenchError
from bench.system.untrusted import one_line

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Reproducibility harness for few-shot supervised visual anomaly detection.",
)
for command in (
    *(runs.run_command, runs.status_command),
    *(results.show_command, results.table_command, results.times_command),
    *(predict.predict_command, report.report_command, audit.audit_command, runs.list_command),
    *(results.verify_command, results.compare_command, results.merge_command),
    *(results.archive_command, regress.regress_command),
    *(doctor.doctor_command, crosscheck.crosscheck_command),
):
    app.command(command.__name__.removesuffix("_command"))(homes_expanded(command))
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Handle the options before a command."""
    if debug:
        os.environ["BENCH_DEBUG"] = "1"
    if version:
        print(f"bench {bench.__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors are one line, exit code 2."""
    if arguments is None:
        restart_in_utf8()
        prepare_streams()
    try:
        try:
            app(arguments)
        finally:
            sys.stdout.flush()  # a full disk is an error, too
    except MemoryError as error:
        if os.environ.get("BENCH_DEBUG"):
            raise
        asked = one_line(error) or "nothing more is known"
        print(
            f"bench: MemoryError: {asked}: close other programs, or ask for less at once",
            file=sys.stderr,
        )
        sys.exit(2)
    except (BenchError, OSError) as error:
        if os.environ.get("BENCH_DEBUG"):
            raise
        drop_output()
        print(f"bench: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
