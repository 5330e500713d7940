"""Runs.parquet: one row a run."""

from collections.abc import Iterable
from typing import Any

from bench.store.receipt import Receipt, moment_text

TABLE_SCHEMA = 1


def flat(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as one flat row of runs.parquet.

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
    moments = {"started_at": receipt.started_at, "finished_at": receipt.finished_at}
    row |= {name: moment_text(moment) for name, moment in moments.items() if moment}
    return row


def runs_table(receipts: Iterable[Receipt]) -> Any:
    """Return the `pyarrow.Table` of runs.parquet, flat and typed."""
    import pyarrow as pa

    rows = [{k: _storable(v) for k, v in flat(receipt).items()} for receipt in receipts]
    table = pa.Table.from_pylist(_same_columns(rows)) if rows else pa.table({})
    return table.replace_schema_metadata({"bench.schema": str(TABLE_SCHEMA)})


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


def table_bytes(receipts: Iterable[Receipt]) -> bytes:
    """Return the bytes of runs.parquet, made from receipts."""
    from bench.store.parquet import packed

    return packed(runs_table(receipts))
