"""Runs.parquet: one row a run.

It says of each run its `variant`, as `bench table` names its column among the runs of the table,
and its `date`. It names no suite: an id does not hold one, and a run belongs to every suite that
asks for it.
"""

import json
from collections.abc import Iterable
from typing import Any

from bench.store.configuration_names import ConfigurationNames
from bench.store.receipt import Receipt, moment_text

TABLE_SCHEMA = 2
"""Raised when columns are added; a stored table is compared with one of its own schema.

1: without `variant` and `date`, and whole numbers with gaps were fractions in pandas."""


def flat(receipt: Receipt, variant: str | None = None) -> dict[str, Any]:
    """Return a receipt as one flat row of runs.parquet; `variant` None as of schema 1.

    Of a timing run, whose training was cut short, AUROC and AP are no result: they are left out.
    So is when a run began and ended, which receipts of schema 1 do not say.
    """
    spec, metrics = receipt.spec.as_dict(), dict(receipt.metrics)
    if receipt.spec.kind != "accuracy":
        metrics = {"scores_sha256": receipt.metrics.scores_sha256}
    head = ("kind", "method", "method_version", "dataset", "category", "setting", "shots", "seed")
    row: dict[str, Any] = {"run_id": receipt.run_id}
    row |= {"version" if k == "method_version" else k: spec[k] for k in head}
    row["auroc"], row["ap"] = metrics.get("auroc"), metrics.get("ap")
    row |= {k: v for k, v in spec.items() if k not in head and k != "parameters"}
    row |= {f"metric.{k}": v for k, v in metrics.items() if k not in ("auroc", "ap")}
    groups = {
        "param": receipt.spec.parameters,
        "split": receipt.split,
        "fact": receipt.facts,
        "time": receipt.timings,
        "prov": receipt.provenance,
    }
    for prefix, values in groups.items():
        row |= {f"{prefix}.{k}": v for k, v in values.items()}
    row["warnings"] = "; ".join(receipt.warnings)
    if variant is not None:
        row["variant"] = variant
        row["date"] = receipt.finished_at.date().isoformat() if receipt.finished_at else None
    moments = {"started_at": receipt.started_at, "finished_at": receipt.finished_at}
    row |= {name: moment_text(moment) for name, moment in moments.items() if moment}
    return row


def runs_table(receipts: Iterable[Receipt], schema: int = TABLE_SCHEMA) -> Any:
    """Return the `pyarrow.Table` of runs.parquet, flat and typed."""
    import pyarrow as pa

    runs = list(receipts)
    names = {
        kind: ConfigurationNames(r.spec for r in runs if r.spec.kind == kind)
        for kind in ({r.spec.kind for r in runs} if schema > 1 else ())
    }
    flat_rows = (flat(r, names[r.spec.kind](r.spec) if names else None) for r in runs)
    rows = [{k: _storable(v) for k, v in row.items()} for row in flat_rows]
    table = pa.Table.from_pylist(_same_columns(rows)) if rows else pa.table({})
    about = {"bench.schema": str(schema)}
    if schema > 1:
        about["pandas"] = json.dumps(_for_pandas(table))
    return table.replace_schema_metadata(about)


def schema_of(table: Any) -> int:
    """Return the schema that a stored table says; 1 where it says none that is known."""
    stated = (table.schema.metadata or {}).get(b"bench.schema", b"1")
    return TABLE_SCHEMA if stated == str(TABLE_SCHEMA).encode() else 1


def _for_pandas(table: Any) -> dict[str, Any]:
    """Return what tells pandas that whole numbers and truths stay so beside gaps."""
    nullable = {"int64": ("int64", "Int64"), "bool": ("bool", "boolean")}
    columns = [
        {"name": f.name, "field_name": f.name, "pandas_type": nullable[str(f.type)][0],
         "numpy_type": nullable[str(f.type)][1], "metadata": None}
        for f in table.schema
        if str(f.type) in nullable
    ]  # fmt: skip
    return {"index_columns": [], "column_indexes": [], "columns": columns, "pandas_version": "2.0"}


def _storable(value: Any) -> Any:
    """Return a value as 64-bit number or UTF-8 text."""
    if type(value) is int and value.bit_length() > 63:
        return str(value)
    return value.encode(errors="backslashreplace").decode() if type(value) is str else value


def _same_columns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give every row all columns, each column one type."""
    columns: dict[str, set[type]] = {}
    for row in rows:
        for key, value in row.items():
            types = columns.setdefault(key, set())
            if value is not None:
                types.add(type(value))

    def cast(key: str, value: Any) -> Any:
        types = columns[key]
        if value is None or len(types) <= 1:
            return value
        return float(value) if types <= {int, float} else str(value)

    return [{k: cast(k, row.get(k)) for k in columns} for row in rows]


def table_bytes(receipts: Iterable[Receipt], schema: int = TABLE_SCHEMA) -> bytes:
    """Return the bytes of runs.parquet, made from receipts."""
    from bench.store.parquet import packed

    return packed(runs_table(receipts, schema))
