"""Stored AUROC by data and shots, a column per configuration."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from bench.analysis.configurations import code_standing, grouped
from bench.analysis.labels import hardware
from bench.analysis.paired import (
    AUROC,
    Difference,
    Runs,
    difference,
    family,
    recorded_number,
    seed_difference,
)
from bench.analysis.places import Places
from bench.analysis.selection import registered
from bench.analysis.statistics import deviation
from bench.errors import RequestError
from bench.registry import typed_like
from bench.spec import RunSpec, Value, place_name, place_of
from bench.store.configuration_names import ConfigurationNames
from bench.store.receipt import Receipt
from bench.store.scores import Scores

RowKey = tuple[str, int]
"""Dataset or category, and number of shots."""

WEIGHTS = "weights file"
"""The digest's beginning and the title, beside `weights`, the digest."""
_SETTINGS = (
    "backbone", "stage", WEIGHTS, "image_size", "precision", "batch_size", "lr", "epochs",
    "steps_per_epoch", "lr_step",
)  # fmt: skip
"""Settings and parameters that notes state."""


@dataclass(frozen=True)
class ResultTable:
    """AUROC, or another number, by row and column, and by seed in each cell."""

    rows: tuple[RowKey, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[RowKey, str], Mapping[int, float]]
    runs: Mapping[tuple[RowKey, str], Runs]
    """The runs of the cells, by seed."""
    specs: Mapping[tuple[RowKey, str], RunSpec]
    """The spec of a cell's runs, with seed 0."""
    common: Mapping[str, Any]
    """Settings and parameters that all methods with them share, two at least."""
    apart: Mapping[str, Mapping[str, Any]]
    """Settings of one method alone, or that methods differ in, by method."""
    proved: Mapping[str, tuple[str, ...]]
    """Methods with runs by other code, by the kind of device where it was proved equal."""
    stale: frozenset[tuple[RowKey, str]]
    """Cells with a run by older code of its method."""
    unofficial: Mapping[str, str]
    """Why data is not the official copy, by dataset or category."""
    environments: tuple[str, ...]
    """Hardware of the runs, each once."""
    value: str = AUROC
    """What the cells hold, as `recorded_number` takes it."""


def tabulate(
    receipts: Iterable[Receipt],
    where: Mapping[str, Any],
    but: Mapping[str, Any] | None = None,
    value: str = AUROC,
) -> ResultTable:
    """Arrange the accuracy runs that `fitting` returns; raises RequestError as it does.

    `value` is a metric or a number that methods recorded; runs without it are left out.
    """
    fit = fitting(receipts, where, but)
    chosen = [r for r in fit if recorded_number(r, value) is not None]
    if not chosen:
        raise RequestError(f"--value {value}: no run has a number of that name")
    cells: dict[tuple[RowKey, str], Mapping[int, float]] = {}
    runs: dict[tuple[RowKey, str], Runs] = {}
    specs: dict[tuple[RowKey, str], RunSpec] = {}
    stale = set()
    unofficial: dict[str, str] = {}
    columns: dict[str, tuple[int, str]] = {}
    places = Places(chosen)
    for configuration in grouped(chosen, ConfigurationNames(r.spec for r in chosen)):
        spec, column = configuration.row, configuration.label
        content = places.content(spec)
        row = (place_name(*place_of(spec)) + f" ({content})" * bool(content), spec.shots)
        assert (row, column) not in cells, "names tell configurations apart"
        cells[row, column] = {
            r.spec.seed: number
            for r in configuration.receipts
            if (number := recorded_number(r, value)) is not None
        }
        specs[row, column] = spec
        runs[row, column] = {r.spec.seed: r for r in configuration.receipts}
        columns[column] = (registered(spec.method), column)
        if configuration.stale:
            stale.add((row, column))
        if configuration.unofficial_reasons:
            unofficial[row[0]] = configuration.unofficial_reasons[-1]
    methods = sorted({r.spec.method: None for r in chosen}, key=registered)
    common, apart = _settings(
        {m: [_all_settings(r) for r in chosen if r.spec.method == m] for m in methods}
    )
    rows, beside = _rows({row for row, _ in cells})
    for labelled, free in beside:
        for column in [column for row, column in cells if row == free]:
            cells.setdefault((labelled, column), cells[free, column])
            runs.setdefault((labelled, column), runs[free, column])
            specs.setdefault((labelled, column), specs[free, column])
            stale |= {(labelled, column)} if (free, column) in stale else set()
    return ResultTable(
        rows=rows,
        columns=tuple(sorted(columns, key=columns.__getitem__)),
        cells=cells,
        runs=runs,
        specs=specs,
        common=common,
        apart=apart,
        proved=_proved(chosen, methods),
        stale=frozenset(stale),
        unofficial=unofficial,
        environments=tuple(sorted({hardware(r) for r in chosen})),
        value=value,
    )


def fitting(
    receipts: Iterable[Receipt], where: Mapping[str, Any], but: Mapping[str, Any] | None = None
) -> list[Receipt]:
    """Return the accuracy runs that `with_settings` leaves; raises RequestError as it does."""
    stored = list(receipts)
    accuracy = [r for r in stored if r.spec.kind == "accuracy"]
    if stored and not accuracy:
        raise RequestError("only timing runs are stored: `bench times` shows them")
    return with_settings(accuracy, where, but)


def with_settings(
    receipts: Sequence[Receipt], where: Mapping[str, Any], but: Mapping[str, Any] | None = None
) -> list[Receipt]:
    """Return the runs whose spec has all values of `where` and none of `but`.

    A key that a run does not know (`shortcut` has no precision) leaves it in. Raises RequestError
    where nothing is left, or a key is known to none.
    """
    but = but or {}
    settings = {r.run_id: _all_settings(r) for r in receipts}
    for key in (*where, *but):
        if not any(key in values for values in settings.values()):
            raise RequestError(f"--where {key}: no stored run has a setting of that name")
    chosen = [
        r
        for r in receipts
        if all(settings[r.run_id].get(key) in (None, value) for key, value in where.items())
        and not any(settings[r.run_id].get(key) == value for key, value in but.items())
    ]
    if not chosen:
        raise RequestError("no stored run fits")
    return chosen


def _all_settings(receipt: Receipt) -> dict[str, Any]:
    """Return a run's spec and parameters by name, and its weights file."""
    return {**receipt.spec.as_dict(), **receipt.spec.parameters, WEIGHTS: _weights(receipt)}


def _proved(chosen: Sequence[Receipt], methods: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return methods with proved code, by the kind of device of the proof."""
    standings = {(code_standing(r).proved_on, r.spec.method) for r in chosen}
    devices = sorted({device for device, _ in standings} - {""})
    return {d: tuple(m for m in methods if (d, m) in standings) for d in devices}


def _weights(receipt: Receipt) -> str | None:
    """Return a run's initial weights; None where its method takes none."""
    digest, title = receipt.spec.weights, receipt.provenance.weights_title
    return digest and digest[:8] + (f" ({title})" if title else "")


def _rows(rows: Collection[RowKey]) -> tuple[tuple[RowKey, ...], list[tuple[RowKey, RowKey]]]:
    """Return the rows to show, and which of them take in a row without labels.

    Methods without labels stand beside those with some: a seed's draw of ten leaves the test set
    of both, so they are scored on the same images. A row of theirs alone is not shown twice.
    """
    beside = [(row, (row[0], 0)) for row in rows if row[1] and (row[0], 0) in rows]
    taken_in = {free for _, free in beside}
    return tuple(sorted({*rows} - taken_in, key=_order)), beside


def _order(row: RowKey) -> tuple[bool, str, int]:
    """Sort medical sets, then MVTec AD's categories, fewer shots first."""
    return "/" in row[0], row[0], row[1]


def _settings(
    by_method: Mapping[str, Sequence[Mapping[str, Any]]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return shared settings, and differing ones by method.

    What varies within a method is in its label.
    """
    # Methods that have nothing but a size, as `shortcut`, have no part in it.
    sized = [key for key in _SETTINGS if key != "image_size"]
    by_method = {m: runs for m, runs in by_method.items() if any(runs[0].get(k) for k in sized)}
    common: dict[str, Any] = {}
    apart: dict[str, dict[str, Any]] = defaultdict(dict)
    for key in _SETTINGS:
        values = {
            method: distinct
            for method, runs in by_method.items()
            if (distinct := {run.get(key) for run in runs} - {None})
        }
        shared = set().union(*values.values())
        if len(shared) == 1 and (len(values) > 1 or len(by_method) == 1):
            common[key] = shared.pop()
            continue
        for method, distinct in values.items():
            if len(distinct) == 1:
                (apart[method][key],) = distinct
    return common, apart


def grid(table: ResultTable) -> list[list[str]]:
    """Return a table as texts, the head first."""
    head = ["data", "shots", *table.columns]
    rows = [
        [
            row[0] + "*" * (row[0] in table.unofficial),
            str(row[1]),
            *(written(table.cells.get((row, c), {})) + "†" * ((row, c) in table.stale)
              for c in table.columns),
        ]
        for row in table.rows
    ]  # fmt: skip
    return [head, *rows]


def markdown(table: ResultTable) -> str:
    """Write a table as Markdown, with its notes."""
    head, *rows = (f"| {' | '.join(row)} |" for row in grid(table))
    return "\n".join([head, "|---|--:|" + "--:|" * len(table.columns), *rows, "", *notes(table)])


def written(cell: Mapping[int, float]) -> str:
    """Write a mean, with deviation and number of several seeds."""
    if not cell:
        return ""
    spread = deviation(cell.values())
    mean = f"{fmean(cell.values()):.3f}"
    return mean if spread is None else f"{mean} ± {spread:.3f} ({len(cell)})"


def notes(table: ResultTable) -> list[str]:
    """Return sentences on settings and hardware behind the numbers."""
    seeds = {s for cell in table.cells.values() for s in cell}
    several = any(len(cell) > 1 for cell in table.cells.values())
    metric = "AUROC" if table.value == AUROC else table.value
    metric += ", mean ± standard deviation over seeds (number of seeds)" * several
    seed = f"; seed {min(seeds)}" if len(seeds) == 1 else ""
    parts = [f"{metric}{seed}", _listed(table.common), *table.environments, _dates(table)]
    lines = ["; ".join(filter(None, parts)) + "."]
    free = [column for column in table.columns if _stands_beside(table, column)]
    if free:
        lines.append(f"Without labels, on the same test images in each row: {', '.join(free)}.")
    if table.apart:
        groups: dict[str, list[str]] = defaultdict(list)
        for method, own in table.apart.items():
            groups[_listed(own)].append(method)
        lines.append("; ".join(f"{', '.join(ms)}: {own}" for own, ms in groups.items()) + ".")
    if table.stale:
        lines.append("† Made by older code of the method.")
    for device, methods in table.proved.items():
        lines.append(
            f"By other code than today's, proved on {device} to give the same numbers:"
            f" {', '.join(methods)}."
        )
    if table.unofficial:
        copies = "; ".join(f"{place}: {reason}" for place, reason in table.unofficial.items())
        lines.append(f"\\* Unofficial copy: {copies}.")
    return lines


def _dates(table: ResultTable) -> str:
    """Say when the runs ended, of those that say it."""
    runs = [run for by_seed in table.runs.values() for run in by_seed.values()]
    days = sorted(run.finished_at.date().isoformat() for run in runs if run.finished_at)
    if not days:
        return ""
    span = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    some = f" ({len(days)} of {len(runs)} runs say when)" if len(days) < len(runs) else ""
    return f"run {span}{some}"


def _stands_beside(table: ResultTable, column: str) -> bool:
    """Whether a column of runs without labels stands in a row with some."""
    specs = ((row, table.specs[row, column]) for row in table.rows if (row, column) in table.specs)
    return any(row[1] and not spec.shots for row, spec in specs)


def _listed(settings: Mapping[str, Any]) -> str:
    """Write settings; 0 steps mean once over the normal images."""
    once = " (once over the normal images)"
    return ", ".join(
        f"{key} {value}" + once * ((key, value) == ("steps_per_epoch", 0))
        for key, value in settings.items()
    )


Against = str | tuple[str, Value]
"""A column, or a setting and its value.

Then each column is compared with the one that differs from it in this setting alone.
"""


def differences(
    table: ResultTable,
    against: Against,
    scores: Callable[[Receipt], Scores],
    tuned_by: Collection[int] = (),
) -> dict[tuple[RowKey, str], Difference]:
    """Return paired differences over shared seeds, as one family; see `all_differences`."""
    gaps = all_differences(table, [against], scores, tuned_by)
    return {(row, column): gap for (row, column, _), gap in gaps.items()}


def all_differences(
    table: ResultTable,
    against: Sequence[Against],
    scores: Callable[[Receipt], Scores],
    tuned_by: Collection[int] = (),
) -> dict[tuple[RowKey, str, Against], Difference]:
    """Return paired differences from several columns or values, as one family.

    Two that are compared with each other by both are compared once.
    `tuned_by` are seeds that chose a setting, beside those that the runs name themselves.
    Raises RequestError for a column that does not exist, CorruptRun for damaged scores.
    """
    gaps = {}
    compared = set()
    bases = [(c, base, one) for one in against for c, base in _bases(table, one).items()]
    for (row, column), base, one in bases:
        pair = (row[0], frozenset({table.specs[row, column], table.specs[row, base]}))
        if column == base or pair in compared:  # two without labels stand in several rows
            continue
        compared.add(pair)
        runs, other = table.runs[row, column], table.runs[row, base]
        gap = (
            difference(runs, other, scores, tuned_by)
            if table.value == AUROC
            else seed_difference(runs, other, tuned_by, table.value)
        )
        if gap:
            gaps[row, column, one] = gap
    return family(gaps)


def _bases(table: ResultTable, against: Against) -> dict[tuple[RowKey, str], str]:
    """Return the column that each cell is compared with, in the table's order."""
    ordered = [c for c in itertools.product(table.rows, table.columns) if c in table.runs]
    if isinstance(against, str):
        if against not in table.columns:
            raise RequestError(
                f"--against {against}: the columns are {', '.join(table.columns)}; or give a"
                " setting as KEY=VALUE"
            )
        return {cell: against for cell in ordered if (cell[0], against) in table.runs}
    key, value = against
    column_of = {(row, spec): column for (row, column), spec in table.specs.items()}
    changed = {cell: _with_setting(table.specs[cell], key, value) for cell in ordered}
    bases = {c: column_of[c[0], s] for c, s in changed.items() if (c[0], s) in column_of}
    if all(column == base for (_, column), base in bases.items()):
        raise RequestError(f"--against {key}={value}: no two columns differ in {key} alone")
    return bases


def _with_setting(spec: RunSpec, key: str, value: Value) -> RunSpec:
    """Return a spec with another value; itself where it has no such setting."""
    if key in spec.parameters:
        typed = typed_like(key, value, spec.parameters[key])
        return replace(spec, parameters={**spec.parameters, key: typed})
    current = vars(spec).get(key)
    if key == "parameters" or current is None:
        return spec
    changed: dict[str, Any] = {key: typed_like(key, value, current)}
    return replace(spec, **changed)
