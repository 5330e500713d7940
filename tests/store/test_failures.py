"""Failed runs: numbered and kept with their log."""

import json
import os

import pytest

from bench.store.failures import LOG_KEPT
from tests.fixtures.runs import (
    ID,
    OTHER,
    SPEC,
    fail,
    staged,
)


def test_failures_are_numbered_and_kept_with_their_log(store):
    for n in range(1, 12):
        target = fail(store, staged(store), f"number {n}")
        assert target == store.failed / ID / str(n)
    failures = store.failures(ID)
    assert [f.reason for f in failures] == [f"number {n}" for n in range(1, 12)]
    assert [f.folder for f in failures] == [store.failed / ID / str(n + 1) for n in range(11)]
    assert failures[0].spec == SPEC
    assert {p.name for p in target.iterdir()} == {"failure.json", "log.txt"}
    assert store.ids() == []


def test_a_run_that_left_nothing_has_a_failure_too(store):
    fail(store, store.staging / "gone")
    assert [f.reason for f in store.failures(ID)] == ["killed"]
    assert store.failures(OTHER.run_id) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '"killed"',
        "\ud800",
        "[" * 100_000,
    ],
    ids=lambda t: ascii(t)[:9],
)
def test_a_failure_that_does_not_read_is_skipped(store, text):
    target = fail(store, staged(store))
    (target / "failure.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    fail(store, staged(store), "killed again")
    assert [f.reason for f in store.failures(ID)] == ["killed again"]


@pytest.mark.parametrize(
    "provenance",
    [{"source_sha256": []}, {"source_sha256": {}, "device": 3}, {"device": ["cpu"]}, [], "cpu"],
)
def test_provenance_of_another_form_counts_as_absent(store, provenance):
    target = fail(store, staged(store), "because")
    record = json.loads((target / "failure.json").read_text())
    (target / "failure.json").write_text(json.dumps({**record, "provenance": provenance}))
    (failure,) = store.failures(ID)
    assert failure.reason == "because"
    assert failure.provenance.source_sha256 is None
    assert failure.provenance.standing("baselines.shortcut:Shortcut").stale


def test_what_else_lies_among_the_failures_is_no_failure(store):
    folder = store.failed / ID
    for name in ("notes", "-1", "1.5"):
        (folder / name).mkdir(parents=True)
        (folder / name / "failure.json").mkdir()
    (folder / "7").write_text("a file")
    (folder / ".DS_Store").write_text("a file")
    target = fail(store, staged(store))
    assert target.name == "8"
    assert [f.reason for f in store.failures(ID)] == ["killed"]


def test_a_log_of_usual_length_is_kept_whole(store):
    folder = staged(store)
    whole = os.urandom(LOG_KEPT)
    (folder / "log.txt").write_bytes(whole)
    target = fail(store, folder)
    assert (target / "log.txt").read_bytes() == whole


@pytest.mark.parametrize("excess", [1, LOG_KEPT // 3, 40 << 20])
def test_of_a_huge_log_the_beginning_and_the_end_are_kept(store, excess):
    folder = staged(store)
    half = LOG_KEPT // 2
    with (folder / "log.txt").open("wb") as log:
        log.write(b"b" * half)
        log.seek(excess, os.SEEK_CUR)  # a hole: nothing is written
        log.write(b"e" * half)
    target = fail(store, folder, "printed too much")
    kept = (target / "log.txt").read_bytes()
    assert kept == b"b" * half + f"\n... {excess} bytes left out ...\n".encode() + b"e" * half
    assert len(kept) < LOG_KEPT + 100
