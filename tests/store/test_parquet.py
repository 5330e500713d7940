"""Tables as bytes, by run."""

import pyarrow as pa
import pytest

from bench.store.parquet import RunRows, packed, packed_runs, run_columns, unpacked


def test_a_table_is_unpacked_as_it_was_packed():
    table = pa.table({"a": [1, 2], "b": ["x", "y"]})
    assert unpacked(packed(table)).equals(table)


def test_what_is_no_table_is_a_value_error():
    with pytest.raises(ValueError, match="does not read"):
        unpacked(b"no table")


def test_each_run_gets_its_own_rows_and_columns_back():
    tables = {"r1": pa.table({"a": [1, 2]}), "r2": pa.table({"a": [3], "b": ["x"]})}
    rows = RunRows(packed_runs(tables))
    assert "r1" in rows
    assert "r3" not in rows
    for run_id, table in tables.items():
        assert run_columns(rows.read(run_id)).to_pydict() == table.to_pydict()
