"""What is left to do of a plan, its displays and its estimates, without running anything."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.cli.progress import LiveDisplay, PlainDisplay, result_table
from bench.planning.matrix import Narrowing, expand
from bench.planning.plan import Folders, Plan, Run, make_plan
from bench.planning.runtime import time_left
from bench.planning.state import State, look_up
from bench.planning.suite import read_suite
from bench.registry import Registry
from bench.source import source_hash
from bench.store.folder import Store
from bench.text import duration
from tests.fixtures.runs import (
    HERE,
    publish,
    truncate,
)


@pytest.fixture
def plan(tmp_path: Path, warm_cache: Path) -> Plan:
    folders = Folders(tmp_path / "data", tmp_path / "weights", tmp_path / "results", warm_cache)
    registry = Registry(warm_cache)
    cells = expand(read_suite("smoke"), Narrowing(seeds=20), registry, folders.data)
    return make_plan(cells, folders)


def receipt(run: Run, seconds: float = 10.0, **provenance: Any) -> dict[str, Any]:
    return {
        "spec": run.spec.as_dict(),
        "metrics": {"auroc": 0.9, "ap": 0.8},
        "timings": {"setup_s": 0.0, "fit_s": seconds, "score_s": 0.0},
        "split": {"scored": 100},
        "warnings": [],
        "provenance": {"unofficial_copy": "", "device_name": "cpu", "threads": 2, **provenance},
    }


def test_the_live_display_survives_a_large_campaign(plan: Plan, tmp_path: Path) -> None:
    assert len(plan.runs) == 480
    state = look_up(plan, Store(tmp_path / "results"))
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with LiveDisplay(console, state, 1) as display:
        for i, run in enumerate(plan.runs):
            display.started(run)
            display.epoch(run, 1, 2, "0.5")
            if i % 10:
                display.finished(run, receipt(run))
            else:
                display.failed(run, "ValueError: [bold] of no avail\nand more")
        assert display._live.is_started
    said = out.getvalue()
    assert "480/480 runs, 48 failed" in said
    assert "[bold] of no avail" in said
    assert "and more" not in said


def test_the_plain_display_says_what_is_left(plan: Plan, tmp_path: Path) -> None:
    some = Plan(plan.runs[:2], ())
    out = io.StringIO()
    state = look_up(some, Store(tmp_path / "results"))
    with PlainDisplay(Console(file=out, width=200), state, 1) as display:
        display.finished(some.runs[0], receipt(some.runs[0], 600))
        display.finished(some.runs[1], receipt(some.runs[1], 600))
    name = "atacnet synthetic/weave 1 shot"
    first, second = (run.run_id[:8] for run in some.runs)
    assert out.getvalue().splitlines() == [
        f"[1/2] {name} seed 0: auroc 0.900 in 10 min, 10 min left  {first}",
        f"[2/2] {name} seed 1: auroc 0.900 in 10 min  {second}",
    ]


def test_time_is_known_only_where_a_run_of_the_kind_is_stored(plan: Plan) -> None:
    by_method = {run.spec.method: run for run in plan.runs}
    stored = [receipt(by_method["atacnet"], 30.0), receipt(by_method["atacnet"], 50.0)]
    assert time_left([by_method["atacnet"]] * 3, stored, 2) == pytest.approx(60.0)
    assert time_left([by_method["atacnet"], by_method["cutmix"]], stored, 1) is None
    assert time_left([], stored, 1) == 0


def test_a_row_that_mixes_machines_or_copies_says_so(plan: Plan) -> None:
    runs = plan.runs[:2]
    done = {
        runs[0].run_id: receipt(runs[0], threads=1, unofficial_copy="too small"),
        runs[1].run_id: receipt(runs[1]),
    }
    out = io.StringIO()
    Console(file=out, width=150).print(result_table(runs, done))  # type: ignore[arg-type]
    assert "0.900†" in out.getvalue()
    assert "* unofficial copy of synthetic/weave: too small" in out.getvalue()
    assert "2/2" in out.getvalue()


# Wanted minus stored


@pytest.fixture
def three(plan: Plan) -> Plan:
    return Plan(plan.runs[:3], ())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    store.open_for_writing()
    return store


def today(run: Run) -> str:
    return source_hash(run.cell.method.module)


def fail(store: Store, run: Run, kind: str | None, source: str | None = None) -> None:
    failure = {"reason": "because", "provenance": {"source_sha256": source or today(run)}}
    if kind is not None:
        failure["kind"] = kind
    store.record_failure(store.stage(run.run_id), run.spec, failure)


def succeed(store: Store, run: Run, source: str | None = None) -> None:
    publish(store, run.spec, provenance={**HERE, "source_sha256": source or today(run)})


def test_what_is_stored_is_done_and_the_rest_is_to_do(three: Plan, store: Store) -> None:
    first, second, third = three.runs
    assert look_up(three, store).todo == [first, second, third]
    succeed(store, second)
    state = look_up(three, store)
    assert isinstance(state, State)
    assert list(state.done) == [second.run_id]
    assert state.todo == [first, third]
    assert (state.damaged, state.failed, state.stale, state.given_up) == ((), {}, [], [])


def test_damaged_runs_are_still_to_do(three: Plan, store: Store) -> None:
    first, second, third = three.runs
    for run in three.runs:
        succeed(store, run)
    truncate(store.runs / first.run_id / "scores.parquet")
    (store.runs / second.run_id / "run.json").write_text("{")
    state = look_up(three, store)
    assert state.damaged == (first.run_id, second.run_id)
    assert state.todo == [first, second]
    assert list(state.done) == [third.run_id]


@pytest.mark.parametrize("kind", ["method", "time limit"])
def test_what_failed_by_itself_under_todays_code_is_given_up(
    three: Plan, store: Store, kind: str
) -> None:
    """It would only fail again; with --retry-failed it is tried all the same."""
    first, second, third = three.runs
    fail(store, second, kind)
    state = look_up(three, store)
    assert state.failed[second.run_id]["reason"] == "because"
    assert state.given_up == [second]
    assert state.todo == [first, third]
    state = look_up(three, store, retry_failed=True)
    assert state.given_up == [second]
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
    state = look_up(three, store)
    assert list(state.failed) == [three.runs[0].run_id]
    assert state.given_up == []
    assert state.todo == list(three.runs)


def test_the_last_failure_decides(three: Plan, store: Store) -> None:
    first, second, _ = three.runs
    fail(store, first, "method")
    fail(store, first, "killed")
    fail(store, second, "killed")
    fail(store, second, "method")
    state = look_up(three, store)
    assert state.given_up == [second]
    assert state.failed[first.run_id]["kind"] == "killed"


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
    assert look_up(three, store).todo == list(three.runs)


@pytest.mark.parametrize("epochs", [0, -3, "auto", True, 1e9])
def test_the_time_left_copes_with_what_other_methods_mean_by_epochs(three: Plan, epochs) -> None:
    run = replace(three.runs[0], spec=replace(three.runs[0].spec, parameters={"epochs": epochs}))
    receipt = {"spec": run.spec.as_dict(), "timings": {"setup_s": 1.0, "fit_s": 2.0, "score_s": 1}}
    assert time_left([run], [receipt], 1) == pytest.approx(4.0)


def test_the_time_left_follows_steps_and_images(three: Plan) -> None:
    run = three.runs[0]
    normals = sum(f.fold == "train" for f in run.listing.files)
    tested = len(run.listing.files) - normals
    split = {"train_normal": 2 * normals, "scored": 4 * tested}  # of a larger category
    timings = {"setup_s": 1.0, "fit_s": 40.0, "score_s": 8.0}

    def guess(ran: dict[str, Any], wanted: dict[str, Any]) -> float | None:
        there = replace(run, spec=replace(run.spec, parameters=ran))
        receipt = {"spec": there.spec.as_dict(), "timings": timings, "split": split}
        return time_left(
            [replace(run, spec=replace(run.spec, parameters=wanted))], [receipt], slots=1
        )

    fixed = {"epochs": 4, "steps_per_epoch": 10}
    assert guess(fixed, {"epochs": 8, "steps_per_epoch": 5}) == pytest.approx(1 + 40 + 2)
    assert guess(fixed, {"epochs": 6, "steps_per_epoch": 20}) == pytest.approx(1 + 120 + 2)
    once = {"epochs": 4, "steps_per_epoch": 0}  # an epoch goes once over half as many normals
    assert guess(once, {"epochs": 8, "steps_per_epoch": 0}) == pytest.approx(1 + 40 + 2)
    assert guess(once, fixed) is None


def test_what_was_done_after_a_failure_is_done(three: Plan, store: Store) -> None:
    fail(store, three.runs[0], "method")
    succeed(store, three.runs[0])
    state = look_up(three, store)
    assert state.failed == {}
    assert state.given_up == []
    assert state.todo == list(three.runs[1:])


def test_what_other_code_has_done_is_stale_and_done_again_only_on_demand(
    three: Plan, store: Store
) -> None:
    first, second, third = three.runs
    succeed(store, first, "0" * 64)
    succeed(store, second)
    for retry in (False, True):
        state = look_up(three, store, retry_failed=retry)
        assert state.stale == [first]
        assert state.todo == [third]
    state = look_up(three, store, redo_stale=True)
    assert state.stale == [first]
    assert state.todo == [first, third]
    assert set(state.done) == {first.run_id, second.run_id}


def test_stale_and_failed_runs_are_told_apart(three: Plan, store: Store) -> None:
    first, second, third = three.runs
    succeed(store, first, "0" * 64)
    fail(store, first, "method")  # the attempt to do it again
    fail(store, second, "method")
    assert look_up(three, store).todo == [third]
    assert look_up(three, store, redo_stale=True).todo == [first, third]
    assert look_up(three, store, retry_failed=True).todo == [second, third]
    both = look_up(three, store, retry_failed=True, redo_stale=True)
    assert both.todo == [first, second, third]


def test_what_is_to_be_kept_and_is_not_is_done_again(plan: Plan, store: Store) -> None:
    by_method = {r.spec.method: r for r in plan.runs}
    atacnet, shortcut = by_method["atacnet"], by_method["shortcut"]
    both = Plan((atacnet, shortcut), ())
    for run in both.runs:
        succeed(store, run)
    assert look_up(both, store).todo == []
    state = look_up(both, store, keep=frozenset({"embed", "explain"}))
    assert state.lacking == {atacnet.run_id: {"embed", "explain"}}  # the shortcut has neither
    assert state.todo == [atacnet]
    state = look_up(both, store, keep=frozenset({"state"}))
    assert state.lacking == {atacnet.run_id: {"state"}, shortcut.run_id: {"state"}}
    fail(store, atacnet, "method")  # the attempt to do it again
    assert look_up(both, store, keep=frozenset({"state"})).todo == [atacnet, shortcut]


def test_a_receipt_that_does_not_name_its_code_is_stale(three: Plan, store: Store) -> None:
    publish(
        store,
        three.runs[0].spec,
        provenance={k: v for k, v in HERE.items() if k != "source_sha256"},
    )
    assert look_up(three, store).stale == [three.runs[0]]


@pytest.mark.parametrize(
    ("seconds", "text"), [(8, "8 s"), (200, "3 min"), (9000, "2.5 h"), (None, "?")]
)
def test_durations_are_written_for_people(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
