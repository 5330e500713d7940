"""The displays of a campaign and the table at its end."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli.progress import LiveDisplay, PlainDisplay, result_table
from bench.planning.plan import Plan
from bench.planning.state import compare_with_store
from bench.store.folder import Store
from tests.fixtures.plans import receipt, smoke_plan


@pytest.fixture
def plan(tmp_path: Path, warm_cache: Path) -> Plan:
    return smoke_plan(tmp_path, warm_cache)


def test_the_live_display_survives_a_large_campaign(plan: Plan, tmp_path: Path) -> None:
    assert len(plan.runs) == 480
    state = compare_with_store(plan, Store(tmp_path / "results"))
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
    state = compare_with_store(some, Store(tmp_path / "results"))
    with PlainDisplay(Console(file=out, width=200), state, 1) as display:
        display.finished(some.runs[0], receipt(some.runs[0], 600))
        display.finished(some.runs[1], receipt(some.runs[1], 600))
    name = "atacnet synthetic/weave 1 shot"
    first, second = (run.run_id[:8] for run in some.runs)
    assert out.getvalue().splitlines() == [
        f"[1/2] {name} seed 0: auroc 0.900 in 10 min, 10 min left  {first}",
        f"[2/2] {name} seed 1: auroc 0.900 in 10 min  {second}",
    ]


def test_a_row_that_mixes_machines_or_copies_says_so(plan: Plan) -> None:
    runs = plan.runs[:2]
    done = {
        runs[0].run_id: receipt(runs[0], threads=1, unofficial_copy="too small"),
        runs[1].run_id: receipt(runs[1]),
    }
    out = io.StringIO()
    Console(file=out, width=150).print(result_table(runs, done))
    assert "0.900†" in out.getvalue()
    assert "* unofficial copy of synthetic/weave: too small" in out.getvalue()
    assert "2/2" in out.getvalue()
