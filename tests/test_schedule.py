"""The displays and estimates of a campaign, without running one."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.display import LiveDisplay, PlainDisplay, duration, result_table
from bench.plan import Folders, Plan, Run, make_plan
from bench.registry import Registry
from bench.schedule import State, look_up, time_left
from bench.store import Store
from bench.suite import Narrowing, expand, read_suite


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
    assert out.getvalue().splitlines() == [
        "[1/2] atacnet synthetic/weave 1 shots seed 0: auroc 0.900 in 10 min, 10 min left",
        "[2/2] atacnet synthetic/weave 1 shots seed 1: auroc 0.900 in 10 min",
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


def test_damaged_and_failed_runs_are_still_to_do(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    first, second = plan.runs[:2]
    (store.runs / first.run_id).mkdir(parents=True)
    (store.runs / first.run_id / "run.json").write_text("{")
    folder = store.failed / second.run_id / "1"
    folder.mkdir(parents=True)
    (folder / "failure.json").write_text('{"reason": "because"}')
    state = look_up(Plan((first, second), ()), store)
    assert isinstance(state, State)
    assert state.todo == [first, second]
    assert state.damaged == (first.run_id,)
    assert state.failed[second.run_id]["reason"] == "because"


@pytest.mark.parametrize(
    ("seconds", "text"), [(8, "8 s"), (200, "3 min"), (9000, "2.5 h"), (None, "?")]
)
def test_durations_are_written_for_people(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
