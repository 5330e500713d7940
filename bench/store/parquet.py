"""Tables to bytes of Parquet files, and back."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def packed(table: Any, **options: Any) -> bytes:
    """Return a `pyarrow.Table` as bytes; options go to `write_table`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def unpacked(content: bytes) -> Any:
    """Return the `pyarrow.Table` in a file's bytes; raises ValueError."""
    try:
        return pq.ParquetFile(pa.BufferReader(content)).read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"does not read: {str(error).splitlines()[0]}") from error


class RunRows:
    """Reads tables by run from what `packed_runs` returned."""

    def __init__(self, content: bytes) -> None:
        try:
            self._file = pq.ParquetFile(pa.BufferReader(content))
            ids = self._file.read(columns=["run_id"])["run_id"].combine_chunks()
        except OSError as error:
            raise ValueError(f"does not read: {str(error).splitlines()[0]}") from error
        encoded = pc.run_end_encode(ids)
        ends = encoded.run_ends.to_pylist()
        runs = zip(encoded.values.to_pylist(), [0, *ends], ends, strict=False)
        self._spans: dict[str, tuple[int, int]] = {run: (start, end) for run, start, end in runs}
        meta = self._file.metadata
        sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        self._starts = [0, *accumulate(sizes)]
        self._last: tuple[range, Any] = (range(0), None)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._spans

    def read(self, run_id: str) -> Any:
        """Return a run's rows without its id."""
        start, end = self._spans[run_id]
        first = bisect_right(self._starts, start) - 1
        groups = range(first, bisect_left(self._starts, end))
        if groups != self._last[0]:  # older archives have many runs in one group
            try:
                self._last = groups, self._file.read_row_groups(list(groups))
            except OSError as error:
                raise ValueError(f"does not read: {str(error).splitlines()[0]}") from error
        rows = self._last[1].slice(start - self._starts[first], end - start)
        return rows.drop_columns("run_id")


def packed_runs(tables: Mapping[str, Any]) -> bytes:
    """Return the bytes of nonempty tables by run, a row group each."""
    combined, start = concat_runs(tables), 0
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, combined.schema, compression="zstd") as writer:
        for table in tables.values():
            writer.write_table(combined.slice(start, len(table)).combine_chunks())
            start += len(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def concat_runs(tables: Mapping[str, Any]) -> Any:
    """Concatenate the tables of several runs, by run_id.

    Where their columns differ, each row names those of its run.
    """
    differ = len({tuple(table.column_names) for table in tables.values()}) > 1
    parts = []
    for run_id, table in tables.items():
        named = table.add_column(0, "run_id", pa.array([run_id] * len(table), pa.string()))
        if differ:
            own = pa.array([table.column_names] * len(table), pa.list_(pa.string()))
            named = named.add_column(1, "columns", own)
        parts.append(named)
    return pa.concat_tables(parts, promote_options="default")


def run_columns(rows: Any) -> Any:
    """Return a run's rows with its own columns alone."""
    if "columns" not in rows.column_names:
        return rows
    return rows.select(rows["columns"][0].as_py())
