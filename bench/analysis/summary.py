"""Stored results as a table: a row for data and shots, a column for each way to run a method."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from bench.analysis.configurations import is_stale
from bench.analysis.labels import ConfigurationNames, hardware
from bench.analysis.statistics import Estimate, shared_difference
from bench.errors import RequestError
from bench.registry import METHODS
from bench.store.receipt import Receipt

Row = tuple[str, int]
"""Where, and how many shots."""

WEIGHTS = "weights file"
"""Beside `weights`, a digest: its beginning, and what these weights are."""


@dataclass(frozen=True)
class ResultTable:
    """AUROC by row and column, and by seed in each cell."""

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[Row, str], Mapping[int, float]]
    common: Mapping[str, Any]
    """The settings and parameters that all methods share that have them, two at least."""
    apart: Mapping[str, Mapping[str, Any]]
    """Those that only one method has, or that methods differ in, by method."""
    stale: frozenset[tuple[Row, str]]
    """Cells with a run that older code of a method of the project has made."""
    unofficial: Mapping[str, str]
    """Why a copy is not the official one, by where."""
    environments: tuple[str, ...]
    """Device and threads, each once."""


def tabulate(receipts: Iterable[Receipt], where: Mapping[str, Any]) -> ResultTable:
    """Arrange the receipts of accuracy runs whose spec has all the values of `where`.

    A key of `where` that a run does not know (`shortcut` has no precision) leaves it in. Raises
    RequestError where nothing is left, or a key is known to none.
    """
    every = [(r.spec, r) for r in receipts]
    found = [(spec, receipt) for spec, receipt in every if spec.kind == "accuracy"]
    if every and not found:
        raise RequestError("only timing runs are stored: `bench times` shows them")
    told = {
        spec.run_id: {**spec.as_dict(), **spec.parameters, WEIGHTS: _weights(receipt)}
        for spec, receipt in found
    }
    for key in where:
        if not any(key in values for values in told.values()):
            raise RequestError(f"--where {key}: no stored run has a setting of that name")
    chosen = [
        (spec, receipt)
        for spec, receipt in found
        if all(told[spec.run_id].get(k) in (None, v) for k, v in where.items())
    ]
    if not chosen:
        raise RequestError("no stored run fits")
    label = ConfigurationNames(spec for spec, _ in chosen)
    cells: dict[tuple[Row, str], dict[int, float]] = defaultdict(dict)
    stale = set()
    unofficial: dict[str, str] = {}
    columns: dict[str, tuple[int, str]] = {}
    for spec, receipt in chosen:
        row = (spec.place + ("" if spec.setting == "general" else f" ({spec.setting})"), spec.shots)
        column = label(spec)
        cells[row, column][spec.seed] = receipt.metrics.auroc
        columns[column] = (_place(spec.method), column)
        if is_stale(receipt):
            stale.add((row, column))
        if receipt.provenance.unofficial_copy:
            unofficial[row[0]] = receipt.provenance.unofficial_copy
    by_method: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for spec, _ in chosen:
        by_method[spec.method].append(told[spec.run_id])
    common, apart = _settings({m: by_method[m] for m in sorted(by_method, key=_place)})
    return ResultTable(
        rows=tuple(sorted({row for row, _ in cells}, key=_order)),
        columns=tuple(sorted(columns, key=columns.__getitem__)),
        cells=cells,
        common=common,
        apart=apart,
        stale=frozenset(stale),
        unofficial=unofficial,
        environments=tuple(sorted({hardware(r) for _, r in chosen})),
    )


def _weights(receipt: Receipt) -> str | None:
    """Return which weights a run began with; None where its method takes none."""
    digest, title = receipt.spec.weights, receipt.provenance.weights_title
    return digest and digest[:8] + (f" ({title})" if title else "")


def _order(row: Row) -> tuple[bool, str, int]:
    """Medical sets first, then MVTec AD's categories by name; fewer shots before more."""
    return "/" in row[0], row[0], row[1]


def _place(method: str) -> int:
    """Return where a method stands among those of the project, others last."""
    return list(METHODS).index(method) if method in METHODS else len(METHODS)


def _settings(
    told: Mapping[str, Sequence[Mapping[str, Any]]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return what methods share, and what sets each apart; what varies in one is in its label."""
    keys = ("backbone", "stage", WEIGHTS, "image_size", "precision", "batch_size", "lr", "epochs",
            "steps_per_epoch", "lr_step")  # fmt: skip
    # Those that have nothing but a size, as `shortcut`, have no part in it.
    told = {m: r for m, r in told.items() if any(r[0].get(k) for k in keys if k != "image_size")}
    common: dict[str, Any] = {}
    apart: dict[str, dict[str, Any]] = defaultdict(dict)
    for key in keys:
        values = {
            method: found
            for method, runs in told.items()
            if (found := {t.get(key) for t in runs} - {None})
        }
        every = set().union(*values.values())
        if len(every) == 1 and (len(values) > 1 or len(told) == 1):
            common[key] = every.pop()
            continue
        for method, found in values.items():
            if len(found) == 1:
                apart[method][key] = next(iter(found))
    return common, apart


def markdown(table: ResultTable) -> str:
    """Write a table as Markdown, with what it was made under."""
    lines = ["| data | shots | " + " | ".join(table.columns) + " |"]
    lines.append("|---|--:|" + "--:|" * len(table.columns))
    for row in table.rows:
        cells = [
            written(table.cells.get((row, column), {})) + "†" * ((row, column) in table.stale)
            for column in table.columns
        ]
        mark = "*" if row[0] in table.unofficial else ""
        lines.append(f"| {row[0]}{mark} | {row[1]} | " + " | ".join(cells) + " |")
    lines += ["", *notes(table)]
    return "\n".join(lines)


def written(cell: Mapping[int, float]) -> str:
    """Write a cell: mean, and standard deviation and number where there are several seeds."""
    values = list(cell.values())
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{fmean(values):.3f} ± {stdev(values):.3f} ({len(values)})"


def notes(table: ResultTable) -> list[str]:
    """Say under which settings and on what the numbers were made."""
    seeds = {s for cell in table.cells.values() for s in cell}
    several = any(len(cell) > 1 for cell in table.cells.values())
    told = "AUROC, mean ± standard deviation over seeds (number of seeds)" if several else "AUROC"
    only = f"; seed {min(seeds)}" if len(seeds) == 1 else ""
    settings = _listed(table.common)
    parts = [f"{told}{only}", settings, *table.environments]
    lines = ["; ".join(filter(None, parts)) + "."]
    if table.apart:
        groups: dict[str, list[str]] = defaultdict(list)
        for method, own in table.apart.items():
            groups[_listed(own)].append(method)
        lines.append("; ".join(f"{', '.join(ms)}: {own}" for own, ms in groups.items()) + ".")
    if table.stale:
        lines.append("† Made by older code of the method.")
    if table.unofficial:
        copies = "; ".join(f"{place}: {reason}" for place, reason in table.unofficial.items())
        lines.append(f"\\* Unofficial copy: {copies}.")
    return lines


def _listed(settings: Mapping[str, Any]) -> str:
    """Write settings; where a number of steps is 0 an epoch sees the normal images once."""
    told = dict(settings)
    if told.get("steps_per_epoch") == 0:
        told["steps_per_epoch"] = "0 (once over the normal images)"
    return ", ".join(f"{key} {value}" for key, value in told.items())


def differences(table: ResultTable, against: str) -> dict[tuple[Row, str], Estimate]:
    """Return each column's paired difference from one of them, over the seeds both have.

    Raises RequestError for a column that is not there.
    """
    if against not in table.columns:
        raise RequestError(f"--against {against}: the columns are {', '.join(table.columns)}")
    found = {}
    for row, column in itertools.product(table.rows, table.columns):
        cell, base = table.cells.get((row, column), {}), table.cells.get((row, against), {})
        if column != against and (gap := shared_difference(cell, base)):
            found[row, column] = gap
    return found
