"""`bench table` and `bench times`: stored numbers in tables."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.formats import Format, FormatOption, chosen_format, print_grid, print_records
from bench.cli.options import (
    RESULTS,
    JsonOption,
    ResultsOption,
    read_where,
    readable_runs,
    say,
    split_words,
)
from bench.errors import CorruptRun, RequestError
from bench.text import counted, date_of, joined

if TYPE_CHECKING:
    from bench.analysis.paired import Difference
    from bench.analysis.summary import Against, ResultTable, RowKey
    from bench.store.receipt import Receipt
    from bench.store.results import Results

    Differences = Mapping[tuple[RowKey, str, Against], Difference]


def table_command(
    results: ResultsOption = RESULTS,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only runs with this value, or without (KEY!=VALUE); runs without KEY stay.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Also print each column's paired difference from this one, or from the one that"
            " differs in KEY alone; given again, all are one family.",
            metavar="COLUMN|KEY=VALUE",
        ),
    ] = None,
    tuned_by: Annotated[
        str | None,
        typer.Option(
            help="Seeds whose results chose a setting: differences are given without them, too.",
            metavar="SEED,...",
        ),
    ] = None,
    value: Annotated[
        str,
        typer.Option(
            help="Another metric, or a number that methods record, say final_loss.",
            metavar="NAME",
        ),
    ] = "auroc",
    spread: Annotated[
        bool,
        typer.Option(
            "--spread",
            help="Print what draw, initialisation and images add to it, instead.",
        ),
    ] = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print stored AUROC as a table, in Markdown or another format.

    CSV and JSON have a row for each cell, with all digits.
    """
    from bench.analysis.paired import written_difference, written_family
    from bench.analysis.summary import all_differences, grid, markdown, notes, tabulate
    from bench.store.open import open_results

    print_form = chosen_format(form, as_json, Format.MD)
    only, but = read_where(where or ())
    stored = open_results(results.absolute())
    if spread:
        if against:
            raise RequestError("--spread compares no columns: leave --against out")
        _print_spread(stored, only, but, print_form)
        return
    summary = tabulate(_all_runs(stored), only, but, value)
    bases = {_base(text, summary): text for text in against or ()}
    gaps = {}
    if against:  # before anything is printed
        gaps = all_differences(
            summary, [*bases], lambda receipt: stored.scores(receipt.run_id), _seeds(tuned_by)
        )
        for text in bases.values():
            if not any(bases[base] == text for _, _, base in gaps):
                raise RequestError(f"--against {text}: no other column shares a seed with it")
    if print_form is Format.MD:
        say(markdown(summary))
    elif print_form in (Format.CSV, Format.JSON):
        print_records([*_records(summary, gaps, bases)], print_form, "")
    else:
        head, *rows = grid(summary)
        print_grid([head, *rows], print_form, " ".join(notes(summary)))
    if not against or print_form in (Format.CSV, Format.JSON):
        return
    images = " and over seeds and test images (crossed bootstrap)" * (value == "auroc")
    introduction = (
        f"Minus {joined(bases.values())}, with 95 % intervals over shared seeds (t){images};"
        f" {written_family(gaps.values())}:"
    )
    differing = [
        (place, shots, column + f" minus {bases[base]}" * (len(bases) > 1), written_difference(gap))
        for ((place, shots), column, base), gap in gaps.items()
    ]
    if print_form is Format.MD:
        say(f"\n{introduction}\n")
        for place, shots, compared, difference in differing:
            say(f"- {place}, {counted(shots, 'shot')}, {compared}: {difference}")
        return
    head = ["data", "shots", "configuration", "difference"]
    say()
    print_grid([head, *([*map(str, line)] for line in differing)], print_form, introduction)


def _all_runs(stored: "Results") -> "Iterator[Receipt]":
    """Yield all runs; raises CorruptRun with a remedy, for a mean lacks none."""
    for run_id in stored.ids():
        try:
            yield stored.read(run_id)
        except CorruptRun as error:
            remedy = "`bench verify` says what; `bench run` sets it aside and runs it again"
            raise CorruptRun(f"{error}: {remedy}") from None


def _base(text: str, table: "ResultTable") -> "Against":
    """Read one --against: a column, or a setting and its value."""
    from bench.planning.matrix import assignment

    by_setting = "=" in text and text not in table.columns
    return assignment("--against", "key=value", text) if by_setting else text


def _records(
    table: "ResultTable", gaps: "Differences", bases: "Mapping[Against, str]"
) -> Iterator[dict[str, Any]]:
    """Yield a row for each cell, and for each difference that was asked for."""
    from statistics import fmean

    from bench.analysis.statistics import deviation

    for row in table.rows:
        for column in table.columns:
            numbers = table.cells.get((row, column), {})
            if not numbers:
                continue
            runs = table.runs[row, column].values()
            finished = [r.finished_at for r in runs if r.finished_at]
            record = {
                "data": row[0],
                "shots": row[1],
                "method": table.specs[row, column].method,
                "configuration": column,
                "metric": table.value,
                "mean": fmean(numbers.values()),
                "sd": deviation(numbers.values()),
                "seeds": len(numbers),
                "stale": (row, column) in table.stale,
                "unofficial_copy": table.unofficial.get(row[0]),
                "finished": date_of(max(finished, default=None), short=False),
                "runs": " ".join(r.run_id for r in runs),
            }
            for base, text in bases.items():
                named = {"against": text} if len(bases) > 1 else {}
                yield record | named | _gap_record(gaps.get((row, column, base)))
            if not bases:
                yield record


def _gap_record(gap: "Difference | None") -> dict[str, Any]:
    """Return a paired difference by column; None in each without one."""
    estimate = gap.over_seeds if gap else None
    low, high = (estimate and estimate.interval) or (None, None)
    low_images, high_images = (gap and gap.with_images) or (None, None)
    tested = gap is not None and gap.over_seeds.n > 1
    return {
        "difference": estimate.mean if estimate else None,
        "low95": low,
        "high95": high,
        "low95_with_images": low_images,
        "high95_with_images": high_images,
        "p_holm": gap.p if gap and tested else None,
        "shared_seeds": estimate.n if estimate else None,
    }


def _seeds(text: str | None) -> list[int]:
    """Read --tuned-by."""
    seeds = split_words(text) or ()
    if not all(seed.isdecimal() for seed in seeds):
        raise RequestError(f"--tuned-by takes seeds such as 0,1, not {text!r:.80}")
    return [int(seed) for seed in seeds]


def _print_spread(
    stored: "Results", only: Mapping[str, Any], but: Mapping[str, Any], form: Format
) -> None:
    from bench.analysis.configurations import StoredRuns
    from bench.analysis.spread import spread_table
    from bench.analysis.summary import fitting
    from bench.report.markup import as_markdown

    chosen = fitting(_all_runs(stored), only, but)
    table = spread_table(StoredRuns(stored, tuple(chosen)))
    if table is None:
        raise RequestError(
            "no two seeds have run on each of two draws: `bench run --suite spread`, or draw_seeds"
            " in a suite of your own"
        )
    rows = [list(table.columns), *map(list, table.rows)]
    if form is not Format.MD:
        print_grid(rows, form, table.reading)
        return
    say(as_markdown(rows))
    say(table.reading)


def times_command(
    results: ResultsOption = RESULTS, form: FormatOption = None, as_json: JsonOption = False
) -> None:
    """Print timing runs as tables by machine, in Markdown or another format.

    Numbers are medians over rounds; disturbed rounds count only where all are, and are marked.
    Each number of threads has a table of its own.
    """
    from bench.analysis.configurations import StoredRuns
    from bench.analysis.timing_tables import FIELDS, HEAD, READING, time_tables
    from bench.report.markup import as_markdown
    from bench.store.open import open_results

    stored = open_results(results.absolute())
    tables = time_tables(StoredRuns(stored, tuple(readable_runs(stored))))
    if not tables:
        raise RequestError(f"no timing run is stored in {results}: `bench run --suite timing`")
    print_form = chosen_format(form, as_json, Format.MD)
    if print_form in (Format.CSV, Format.JSON):
        print_grid([list(FIELDS), *(row for t in tables for row in t.values)], print_form, "")
        return
    if print_form is not Format.MD:
        for table in tables:
            print_grid([list(HEAD), *table.rows], print_form, table.title)
        return
    say(f"{READING}\n")
    for table in tables:
        say(f"{table.title}\n")
        say(as_markdown([list(HEAD), *table.rows]))
        for text in filter(None, [table.comparison, *table.remarks]):
            say(f"{text}\n")
