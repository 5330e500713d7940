"""What is left to do of a plan, its displays and its estimates, without running anything."""

import json
from pathlib import Path

import pytest

from bench.planning.plan import Plan, Run
from bench.planning.state import State, compare_with_store
from bench.source import source_hash
from bench.store.folder import Store
from bench.store.groups import Provenance
from tests.fixtures.runs import (
    HERE,
    publish,
    truncate,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    store.open_for_writing()
    return store


def today(run: Run) -> str:
    return source_hash(run.planned.method.module)


def fail(store: Store, run: Run, kind: str | None, source: str | None = None) -> None:
    folder = store.record_failure(
        store.stage(run.run_id),
        run.spec,
        kind=kind or "",
        reason="because",
        provenance=Provenance({"source_sha256": source or today(run)}),
    )
    if kind is None:  # as records were before they had a kind
        record = json.loads((folder / "failure.json").read_bytes())
        del record["kind"]
        (folder / "failure.json").write_text(json.dumps(record))


def succeed(store: Store, run: Run, source: str | None = None) -> None:
    publish(store, run.spec, provenance={**HERE, "source_sha256": source or today(run)})


def test_what_is_stored_is_done_and_the_rest_is_to_do(three: Plan, store: Store) -> None:
    first, second, third = three.runs
    assert compare_with_store(three, store).todo == [first, second, third]
    succeed(store, second)
    state = compare_with_store(three, store)
    assert isinstance(state, State)
    assert list(state.done) == [second.run_id]
    assert state.todo == [first, third]
    assert (state.damaged, state.failed, state.stale, state.known_failures) == ((), {}, [], [])


def test_damaged_runs_are_still_to_do(three: Plan, store: Store) -> None:
    first, second, third = three.runs
    for run in three.runs:
        succeed(store, run)
    truncate(store.runs / first.run_id / "scores.parquet")
    (store.runs / second.run_id / "run.json").write_text("{")
    state = compare_with_store(three, store)
    assert state.damaged == (first.run_id, second.run_id)
    assert state.todo == [first, second]
    assert list(state.done) == [third.run_id]


@pytest.mark.parametrize("kind", ["method", "time limit"])
def test_what_failed_by_itself_under_todays_code_is_known_failures(
    three: Plan, store: Store, kind: str
) -> None:
    """It would only fail again; with --retry-failed it is tried all the same."""
    first, second, third = three.runs
    fail(store, second, kind)
    state = compare_with_store(three, store)
    assert state.failed[second.run_id].reason == "because"
    assert state.known_failures == [second]
    assert state.todo == [first, third]
    state = compare_with_store(three, store, retry_failed=True)
    assert state.known_failures == [second]
    assert state.todo == [first, second, third]


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("killed", None), ("data", None), (None, None), ("something new", None),
        ("method", "0" * 64), ("time limit", "0" * 64), ("killed", "0" * 64), (None, "0" * 64),
    ],
)  # fmt: skip
def test_what_failed_from_outside_or_under_other_code_is_tried_again(
    three: Plan, store: Store, kind: str | None, source: str | None
) -> None:
    fail(store, three.runs[0], kind, source)
    state = compare_with_store(three, store)
    assert list(state.failed) == [three.runs[0].run_id]
    assert state.known_failures == []
    assert state.todo == list(three.runs)


def test_the_last_failure_decides(three: Plan, store: Store) -> None:
    first, second, _ = three.runs
    fail(store, first, "method")
    fail(store, first, "killed")
    fail(store, second, "killed")
    fail(store, second, "method")
    state = compare_with_store(three, store)
    assert state.known_failures == [second]
    assert state.failed[first.run_id].kind == "killed"


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"reason": "because"}', '{"kind": "method", "reason": "because"}',
             '{"kind": "method", "provenance": {}}',
             '{"kind": "method", "provenance": null}'],
)  # fmt: skip
def test_a_failure_that_does_not_say_enough_keeps_nobody_from_trying_again(
    three: Plan, store: Store, text: str
) -> None:
    folder = store.failed / three.runs[0].run_id / "1"
    folder.mkdir(parents=True)
    (folder / "failure.json").write_text(text)
    assert compare_with_store(three, store).todo == list(three.runs)


def test_what_was_done_after_a_failure_is_done(three: Plan, store: Store) -> None:
    fail(store, three.runs[0], "method")
    succeed(store, three.runs[0])
    state = compare_with_store(three, store)
    assert state.failed == {}
    assert state.known_failures == []
    assert state.todo == list(three.runs[1:])


def test_what_other_code_has_done_is_stale_and_done_again_only_on_demand(
    three: Plan, store: Store
) -> None:
    first, second, third = three.runs
    succeed(store, first, "0" * 64)
    succeed(store, second)
    for retry in (False, True):
        state = compare_with_store(three, store, retry_failed=retry)
        assert state.stale == [first]
        assert state.todo == [third]
    state = compare_with_store(three, store, redo_stale=True)
    assert state.stale == [first]
    assert state.todo == [first, third]
    assert set(state.done) == {first.run_id, second.run_id}


def test_stale_and_failed_runs_are_told_apart(three: Plan, store: Store) -> None:
    first, second, third = three.runs
    succeed(store, first, "0" * 64)
    fail(store, first, "method")  # the attempt to do it again
    fail(store, second, "method")
    assert compare_with_store(three, store).todo == [third]
    assert compare_with_store(three, store, redo_stale=True).todo == [first, third]
    assert compare_with_store(three, store, retry_failed=True).todo == [second, third]
    both = compare_with_store(three, store, retry_failed=True, redo_stale=True)
    assert both.todo == [first, second, third]


def test_what_is_to_be_kept_and_is_not_is_done_again(plan: Plan, store: Store) -> None:
    by_method = {r.spec.method: r for r in plan.runs}
    atacnet, shortcut = by_method["atacnet"], by_method["shortcut"]
    both = Plan((atacnet, shortcut), ())
    for run in both.runs:
        succeed(store, run)
    assert compare_with_store(both, store).todo == []
    state = compare_with_store(both, store, keep=frozenset({"embed", "explain"}))
    assert state.missing_artifacts == {
        atacnet.run_id: {"embed", "explain"}
    }  # the shortcut has neither
    assert state.todo == [atacnet]
    state = compare_with_store(both, store, keep=frozenset({"state"}))
    assert state.missing_artifacts == {atacnet.run_id: {"state"}, shortcut.run_id: {"state"}}
    fail(store, atacnet, "method")  # the attempt to do it again
    assert compare_with_store(both, store, keep=frozenset({"state"})).todo == [atacnet, shortcut]


def test_a_receipt_that_does_not_name_its_code_is_stale(three: Plan, store: Store) -> None:
    publish(
        store,
        three.runs[0].spec,
        provenance={k: v for k, v in HERE.items() if k != "source_sha256"},
    )
    assert compare_with_store(three, store).stale == [three.runs[0]]
