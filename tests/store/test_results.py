"""Runs found by the beginning of their id."""

import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from bench.errors import RequestError
from bench.store.results import find, receipts
from tests.fixtures.runs import ID, SPEC, publish


def test_what_is_no_run_at_all_keeps_no_run_from_being_read(store):
    publish(store)
    (store.runs / ".DS_Store").write_bytes(b"\0")
    (store.runs / "a copy").mkdir()
    shutil.copytree(store.runs / ID, store.runs / f"{ID} (copy)")
    assert [r.run_id for r in receipts(store)] == [ID]
    assert pq.read_table(store.compact())["run_id"].to_pylist() == [ID]
    assert store.ids() == [ID]


def test_a_run_is_found_by_the_beginning_of_its_id(store):
    for seed in range(20):  # more than 16: two of them begin alike
        publish(store, replace(SPEC, seed=seed))
    ids = store.ids()
    assert find(store, ids[3]) == ids[3]
    alone = next(i[:n] for n in range(1, 17) for i in ids if sum(j[:n] == i[:n] for j in ids) == 1)
    assert find(store, alone).startswith(alone)
    twice = next(i[0] for i in ids if sum(j[0] == i[0] for j in ids) > 1)
    with pytest.raises(RequestError, match=f"runs begin with '{twice}'"):
        find(store, twice)
    for nothing in ("", "x", "*", "..", "/", ids[0] + "0"):
        with pytest.raises(RequestError, match="no run begins"):
            find(store, nothing)
