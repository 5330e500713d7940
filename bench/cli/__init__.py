"""The command line: parse, call, print; never imports torch."""

from bench.system.path import use_safe_path

use_safe_path()  # before anything is imported that a file in the current folder may be named like

import os
import re
import sys
from typing import Annotated, Any

import typer

import bench
from bench.cli import (
    audit,
    cluster,
    compare,
    crosscheck,
    data,
    doctor,
    listing,
    predict,
    regress,
    report,
    results,
    runs,
    show,
    tables,
)
from bench.cli.examples import epilog, paragraphs
from bench.cli.options import homes_expanded
from bench.cli.streams import drop_output, prepare_streams, restart_in_utf8
from bench.errors import BenchError
from bench.system.untrusted import one_line

PLAIN = {
    r"Input should be greater than or equal to (\S+)": r"it must be at least \1",
    r"Input should be less than or equal to (\S+)": r"it must be at most \1",
    r"Input should be a valid integer.*": "it must be a whole number",
    r"Input should be a valid number.*": "it must be a number",
    r"\S+ is not in the range x>=(\S+)": r"it must be at least \1",
    r"\S+ is not in the range (\S+)<=x<=(\S+)": r"it must be from \1 to \2",
    r"'.*' is not a valid int.*": "it must be a whole number",
    r"'.*' is not a valid float.*": "it must be a number",
}
"""What parsers say of numbers, and how people say it."""
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Reproducibility harness for few-shot supervised visual anomaly detection.",
)
COMMANDS = {
    "Run": (runs.run_command, runs.status_command, listing.list_command, predict.predict_command),
    "Read": (tables.table_command, show.show_command, tables.times_command,
             report.report_command, audit.audit_command),
    "Store": (results.verify_command, compare.compare_command, results.merge_command,
              results.archive_command, results.forget_command, regress.regress_command),
    "Machine": (doctor.doctor_command, cluster.worker_command, crosscheck.crosscheck_command),
}  # fmt: skip
for group, commands in COMMANDS.items():
    for command in commands:
        name = command.__name__.removesuffix("_command")
        app.command(
            name,
            help=paragraphs(command.__doc__),
            epilog=epilog(name, command.__doc__),
            rich_help_panel=group,
        )(homes_expanded(command))
app.add_typer(data.app, name="data", rich_help_panel="Machine")


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", metavar="", help="Show tracebacks of errors.")
    ] = False,
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
            code = app(arguments, standalone_mode=False)
        finally:
            sys.stdout.flush()  # a full disk is an error, too
        sys.exit(code or 0)
    except typer.Abort:
        sys.exit(1)
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
    except Exception as error:
        # What is wrong with a command line, of typer's own and private classes.
        if not hasattr(error, "format_message"):
            raise
        _show_usage(error)
        sys.exit(2)


def _plain(text: str) -> str:
    """Return what a parser says of an option's number in plain words."""
    for pattern, words in PLAIN.items():
        text = re.sub(pattern, words, text)
    return text


def _show_usage(error: Any) -> None:
    """Print what is wrong with a command line; help where nothing was asked for."""
    text = _plain(" ".join(error.format_message().split()).rstrip("."))
    command = error.ctx.command_path if getattr(error, "ctx", None) else "bench"
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    print(f"bench: {one_line(text)}: `{command} --help` shows what there is", file=sys.stderr)
