"""Tables as the bytes of a Parquet file, and back."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def packed(table: Any, **options: Any) -> bytes:
    """Return a `pyarrow.Table` as the bytes of a file; options go to pyarrow's `write_table`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def unpacked(content: bytes) -> Any:
    """Return the `pyarrow.Table` in the bytes of a file; raises ValueError where there is none."""
    try:
        return pq.ParquetFile(pa.BufferReader(content)).read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"does not read: {str(error).splitlines()[0]}") from error


class RunRows:
    """The bytes of a file that `packed_runs` has written; raises ValueError where it is none."""

    def __init__(self, content: bytes) -> None:
        try:
            self._file = pq.ParquetFile(pa.BufferReader(content))
            ids = self._file.read(columns=["run_id"])["run_id"].combine_chunks()
        except OSError as error:
            raise ValueError(f"does not read: {str(error).splitlines()[0]}") from error
        encoded = pc.run_end_encode(ids)
        ends = encoded.run_ends.to_pylist()
        runs = zip(encoded.values.to_pylist(), [0, *ends], ends, strict=False)
        self._places: dict[str, tuple[int, int]] = {run: (start, end) for run, start, end in runs}
        meta = self._file.metadata
        sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        self._starts = [0, *accumulate(sizes)]
        self._last: tuple[range, Any] = (range(0), None)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._places

    def of(self, run_id: str) -> Any:
        """Return the rows of a run that is there as a `pyarrow.Table`, without its id."""
        start, end = self._places[run_id]
        first = bisect_right(self._starts, start) - 1
        groups = range(first, bisect_left(self._starts, end))
        if groups != self._last[0]:  # of many runs in one group, the next is there already
            try:
                self._last = groups, self._file.read_row_groups(list(groups))
            except OSError as error:
                raise ValueError(f"does not read: {str(error).splitlines()[0]}") from error
        rows = self._last[1].slice(start - self._starts[first], end - start)
        return rows.drop_columns("run_id")


def packed_runs(tables: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file of these tables by run, each with one row at least."""
    whole, start = concat_runs(tables), 0
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, whole.schema, compression="zstd") as writer:
        for table in tables.values():
            writer.write_table(whole.slice(start, len(table)).combine_chunks())
            start += len(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def concat_runs(tables: Mapping[str, Any]) -> Any:
    """Put the tables of several runs below each other, by run_id.

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
    """Return the rows of one run with the columns that it had before `below`."""
    if "columns" not in rows.column_names:
        return rows
    return rows.select(rows["columns"][0].as_py())
