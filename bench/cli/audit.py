"""`bench audit`: what is printed, checked against itself and its sources."""

import shutil
from typing import Annotated

import typer

from bench.cli.options import say

WIDEST = 100
"""Longer lines are hard to read."""


def audit(
    about: Annotated[
        str | None,
        typer.Argument(
            help="Only what is about this: a part of a title, such as 'table 2', DRA or text.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check the numbers in print against their own rows and against where they come from.

    Means are computed again, copied columns compared with their sources, claims with the tables.
    Each finding says what it rests on and how it is known. It takes no runs and no data.
    """
    from bench.published.audit import audit_page

    say("\n".join(audit_page(about, min(shutil.get_terminal_size().columns, WIDEST))))
