"""`bench list`: suites, methods, datasets and stored runs."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.formats import Format, FormatOption, Record, chosen_format, print_records
from bench.cli.options import JsonOption, read_where, readable_runs, say, shared_options
from bench.errors import RequestError
from bench.planning.selectors import with_names
from bench.text import date_of, meant

if TYPE_CHECKING:
    from bench.planning.matrix import Selection
    from bench.planning.plan import Folders
    from bench.spec import RunSpec

LISTABLE = ("suites", "methods", "datasets", "runs")
SELECTION = ("methods", "datasets", "categories", "shots", "seeds")


def _listable(incomplete: str) -> list[str]:
    return [name for name in LISTABLE if name.startswith(incomplete)]


@shared_options(selection=SELECTION, folders=("data", "results"))
def list_command(
    what: Annotated[
        str,
        typer.Argument(
            help="suites, methods, datasets or runs.", metavar="WHAT", autocompletion=_listable
        ),
    ],
    selection: "Selection",
    folders: "Folders",
    *,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only runs with this value, or without (!=).", metavar="KEY=VALUE"),
    ] = None,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """List suites, methods, datasets or stored runs.

    Runs are selected as in `bench run`; --seeds 3 are seeds 0 to 2. `bench show` takes the id.
    """
    name = what if what in LISTABLE else f"{what}s"
    if name not in LISTABLE:
        hint = meant(what, LISTABLE)
        raise RequestError(f"bench list takes {', '.join(LISTABLE)}, not {what!r:.80}{hint}")
    print_form = chosen_format(form, as_json, Format.TEXT)
    if name != "runs":
        given = [n for n in SELECTION if getattr(selection, n) is not None] + ["where"] * bool(
            where
        )
        if given:
            raise RequestError(f"--{given[0]} selects runs: `bench list runs`, not {name}")
    if name == "runs":
        runs = _runs(selection, folders, where or (), short=print_form is Format.TEXT)
        print_records(runs, print_form, "Stored runs")
        return
    records = {"suites": _suites, "methods": _methods, "datasets": _datasets}[name](folders)
    if print_form is not Format.TEXT:
        print_records(records, print_form, name.capitalize())
        return
    for record in records:
        head, text = record.values()
        say(f"{head:16} {text}")


def _suites(_: "Folders") -> list[Record]:
    from bench.planning.suite import read_suite, suite_names

    return [{"suite": n, "description": read_suite(n).description} for n in suite_names()]


def _methods(_: "Folders") -> list[Record]:
    from bench.registry import METHODS

    return [{"method": name, "summary": entry.summary} for name, entry in METHODS.items()]


def _datasets(folders: "Folders") -> list[Record]:
    from bench.data.catalog import find_datasets

    cards = find_datasets(folders.data)
    return [{"dataset": card.name, "categories": ", ".join(card.categories)} for card in cards]


def _runs(
    selection: "Selection", folders: "Folders", where: Sequence[str], *, short: bool
) -> list[Record]:
    """Return a row for each selected run, by data, shots, method and seed."""
    from bench.analysis.configurations import is_stale
    from bench.analysis.selection import registered
    from bench.analysis.summary import with_settings
    from bench.spec import place_name, place_of
    from bench.store.configuration_names import ConfigurationNames
    from bench.store.open import open_results

    stored = readable_runs(open_results(folders.results))
    ids = {spec.run_id for spec in selected([r.spec for r in stored], selection)}
    fitting = [r for r in stored if r.spec.run_id in ids]
    chosen = with_settings(fitting, *read_where(where))
    names = ConfigurationNames(r.spec for r in chosen)
    spec_rows = [
        ((place_name(*place_of(r.spec)), r.spec.shots, registered(r.spec.method),
          names(r.spec), r.spec.kind, r.spec.seed, r.run_id), r)
        for r in chosen
    ]  # fmt: skip
    return [
        {
            "run": r.run_id[:8] if short else r.run_id,
            **({} if short else {"kind": kind}),
            "data": place,
            "method": f"{name} (timing)" if short and kind == "timing" else name,
            "shots": shots,
            "seed": seed,
            "auroc": r.metrics.auroc if kind == "accuracy" else None,
            "finished": date_of(r.finished_at, short=short),
            "stale": is_stale(r),
        }
        for (place, shots, _, name, kind, seed, _), r in sorted(spec_rows, key=lambda row: row[0])
    ]


def selected(specs: Sequence["RunSpec"], selection: "Selection") -> list["RunSpec"]:
    """Return the specs of a selection; raises RequestError for a name that none has."""
    seeds = range(selection.seeds) if isinstance(selection.seeds, int) else selection.seeds
    wanted = {
        "method": _names(selection.methods, (s.method for s in specs), "method"),
        "dataset": _names(selection.datasets, (s.dataset for s in specs), "dataset"),
        "category": _names(selection.categories, (s.category for s in specs), "category"),
        "shots": selection.shots,
        "seed": seeds,
    }
    return [s for s in specs if all(v is None or getattr(s, k) in v for k, v in wanted.items())]


def _names(
    names: tuple[str, ...] | None, stored: Iterable[str], what: str
) -> tuple[str, ...] | None:
    known = sorted({*stored})
    for name in with_names(names, known, what) or ():
        if name not in known:
            others = f"{meant(name, known)}; there are: {', '.join(known) or 'none'}"
            raise RequestError(f"no stored run is of {what} {name!r}{others}")
    return with_names(names, known, what)
