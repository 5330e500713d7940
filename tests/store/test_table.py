"""The table of runs: made from the receipts, and made again."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from bench.errors import StoreError
from bench.store.results import receipts
from bench.store.table import table_bytes
from bench.store.verify import problems
from tests.fixtures.runs import (
    FIXTURES,
    ID,
    NO_SPACE,
    OTHER,
    SPEC,
    publish,
    store_at,
    truncate,
)

# The table


def test_the_table_leaves_out_what_does_not_verify_and_can_be_made_again(store):
    publish(store)
    publish(store, OTHER)
    assert len(pq.read_table(store.compact())) == 2
    truncate(store.runs / ID / "scores.parquet")
    assert pq.read_table(store.compact())["run_id"].to_pylist() == [OTHER.run_id]


def test_a_table_that_says_what_it_should_is_left_alone(store):
    publish(store)
    before = store.compact().stat()
    assert store.compact().stat().st_mtime_ns == before.st_mtime_ns
    assert store.table.stat().st_ino == before.st_ino
    publish(store, OTHER)
    assert store.compact().stat().st_ino != before.st_ino


@pytest.mark.parametrize(
    "damage", [truncate, lambda p: p.write_bytes(b""), lambda p: p.unlink()],
    ids=["truncated", "empty", "gone"],
)  # fmt: skip
def test_a_damaged_table_heals(store, damage):
    publish(store)
    before = store.compact().read_bytes()
    damage(store.table)
    assert store.compact().read_bytes() == before


def test_a_table_that_cannot_be_written_is_an_error_of_the_store(store, monkeypatch):
    publish(store)
    monkeypatch.setattr(os, "replace", NO_SPACE)
    with pytest.raises(StoreError, match=r"cannot write .*runs.parquet: No space left"):
        store.compact()


def test_tables_made_at_once_hold_all_runs(store):
    """The last command to finish sees the runs of all, whoever was first."""
    for seed in range(8):
        publish(store, replace(SPEC, seed=seed))
    code = f"from bench.store.folder import *; Store(Path({str(store.root)!r})).compact()"
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [p.wait(60) for p in both] == [0, 0]
    assert len(pq.read_table(store.table)) == 8


# Files of earlier versions of bench are never made again: what users
# have on their disks has to be read by every later version. A new schema gets a folder of its own.


def test_a_run_of_schema_1_has_its_row_in_the_table(tmp_path):
    store = store_at(tmp_path / "results")
    shutil.copytree(FIXTURES / "receipts/schema-1", store.runs, dirs_exist_ok=True)
    (row,) = pq.read_table(store.compact()).to_pylist()
    assert row["run_id"] == "107e662b2a61541b"
    assert row["auroc"] == 0.754
    assert row["prov.commit"] == "107c993f3369d97013fad484f820b1e00974e5ac"


# The table


HEAD = [
    "run_id", "kind", "method", "version", "dataset", "category", "setting", "shots", "seed",
    "auroc", "ap",
]  # fmt: skip


def test_the_table_begins_with_the_agreed_columns(store, run):
    table = pq.read_table(store.compact())
    assert table.column_names[: len(HEAD)] == HEAD
    row = table.to_pylist()[0]
    assert [row[k] for k in HEAD] == [
        ID, "accuracy", "shortcut", 1, "head_ct", "head_ct", "general", 10, 0, 0.75,
        pytest.approx(5 / 6),
    ]  # fmt: skip
    assert row["image_size"] == 64
    assert row["param.black"] == 10
    assert row["split.train_normal"] == 7
    assert row["fact.steps"] == 300
    assert row["time.fit_s"] == 1.5
    assert row["time.first_step_s"] is None
    assert row["prov.device"] == "cpu"
    assert row["warnings"] == "one; two"


def test_the_table_copes_with_parameters_that_differ_between_methods(store, run):
    publish(store, replace(SPEC, method="a", parameters={"lr": 1e-3, "k": 1}))
    publish(store, replace(SPEC, method="b", parameters={"lr": 2, "k": "all"}))
    publish(store, replace(SPEC, method="c", parameters={"lr": 3.5, "k": True}), facts={})
    table = pq.read_table(store.compact())
    assert table.column_names[: len(HEAD)] == HEAD
    rows = {r["method"]: r for r in table.to_pylist()}
    assert {m: r["param.black"] for m, r in rows.items()} == {
        "shortcut": 10, "a": None, "b": None, "c": None,
    }  # fmt: skip
    assert {m: r["param.lr"] for m, r in rows.items()} == {
        "shortcut": None, "a": 1e-3, "b": 2.0, "c": 3.5,
    }  # fmt: skip
    assert {m: r["param.k"] for m, r in rows.items()} == {
        "shortcut": None, "a": "1", "b": "all", "c": "True",
    }  # fmt: skip
    assert rows["c"]["fact.steps"] is None


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**70, -(2**70), 10**400])
@pytest.mark.parametrize("beside", [1, 0.5, "text"])
def test_the_table_copes_with_every_whole_number_that_a_method_records(store, value, beside):
    publish(store, facts={"checksum": value})
    publish(store, OTHER, facts={"checksum": beside})
    assert len(pq.read_table(store.compact())) == 2


@pytest.mark.parametrize(
    "value",
    ["", "ä\n\0", "\ud800"],
    ids=ascii,
)
def test_the_table_copes_with_every_text_that_a_method_records(store, value):
    publish(store, facts={"note": value})
    assert len(pq.read_table(store.compact())) == 1


def test_the_same_runs_give_the_same_table(store, run, tmp_path):
    publish(store, OTHER)
    first = store.compact().read_bytes()
    assert first == store_at(tmp_path / "other", OTHER, SPEC).table.read_bytes()


def test_the_table_of_no_runs_is_empty(store):
    assert len(pq.read_table(store.compact())) == 0


def test_the_table_says_variant_and_date(store):
    publish(store)
    publish(store, replace(SPEC, parameters={"black": 9}))
    publish(store, replace(SPEC, kind="timing"))
    rows = {r["run_id"]: r for r in pq.read_table(store.compact()).to_pylist()}
    assert {(r["kind"], r["variant"], r["date"]) for r in rows.values()} == {
        ("accuracy", "shortcut black=10", "2026-01-02"),
        ("accuracy", "shortcut black=9", "2026-01-02"),
        ("timing", "shortcut", "2026-01-02"),
    }


def test_whole_numbers_with_gaps_stay_whole_in_pandas(store):
    pandas = pytest.importorskip("pandas")
    publish(store)
    publish(store, replace(SPEC, method="a", parameters={"k": 1}, batch_size=16), facts={})
    table = pandas.read_parquet(store.compact()).set_index("method")
    for column in ("batch_size", "param.black", "param.k", "fact.steps", "seed"):
        assert str(table[column].dtype) == "Int64", column
    assert (table.loc["a", "batch_size"], table.loc["shortcut", "fact.steps"]) == (16, 300)
    assert table["batch_size"].isna().tolist().count(True) == 1
    assert str(table["auroc"].dtype) == "float64"


def test_a_table_of_an_older_schema_is_what_its_receipts_give(store):
    publish(store)
    store.table.write_bytes(table_bytes(receipts(store), 1))
    assert "variant" not in pq.read_table(store.table).column_names
    assert list(problems(store)) == []
    store.compact()
    assert "variant" in pq.read_table(store.table).column_names
    assert list(problems(store)) == []


def test_the_lines_of_pandas_in_the_documents_run(store, monkeypatch):
    pytest.importorskip("pandas")
    for spec in (SPEC, OTHER, replace(SPEC, method="a", parameters={"k": 1})):
        publish(store, spec)
    store.compact()
    text = (FIXTURES.parents[1] / "results/README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import pandas.*?)```", text, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 5
    monkeypatch.chdir(store.root.parent)
    done = {}
    exec(code, done)
    table = done["table"]
    assert table.loc[("head_ct", "head_ct", 10, "a"), "mean"] == 0.75
    assert table.loc[("head_ct", "head_ct", 10, "shortcut"), "count"] == 2
