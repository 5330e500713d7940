"""The displays of a campaign and the table at its end."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli.progress import LiveDisplay, PlainDisplay
from bench.cli.result_tables import result_table, result_tables
from bench.planning.plan import Plan
from bench.planning.rough_times import RoughTimes
from bench.planning.state import compare_with_store
from bench.store.folder import Store
from bench.text import duration
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


@pytest.mark.parametrize(("width", "height"), [(40, 12), (80, 24), (120, 40), (200, 50), (90, 8)])
def test_the_live_display_shows_bar_time_and_whole_names_at_any_size(
    plan: Plan, tmp_path: Path, width: int, height: int
) -> None:
    state = compare_with_store(plan, Store(tmp_path / "results"))
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
    display = LiveDisplay(console, state, 1)
    display.first_line()
    for run in plan.runs[:3]:
        display.started(run)
        display.finished(run, receipt(run))
    display.started(plan.runs[3])

    def shown() -> list[str]:
        with console.capture() as captured:
            console.print(display._picture())
        return captured.get().splitlines()

    lines = shown()
    assert "\N{HORIZONTAL ELLIPSIS} " not in " ".join(lines)
    assert "left" in " ".join(lines)
    assert "3/480 runs" in " ".join(" ".join(lines).split())
    matrix = [line for line in lines if re.search(r"\d/\d+ *(\x1b|$)", line)]
    assert matrix
    assert len(matrix) < max(4, height)
    if width >= 200:
        assert any("synthetic/washer" in line for line in matrix)
    if (width, height) == (80, 24):
        assert {"atacnet", "shortcut"} <= {word for line in matrix for word in line.split()}


def test_time_left_is_rough_at_first_and_then_by_what_has_run(plan: Plan, tmp_path: Path) -> None:
    some = plan.runs[:20]  # of one method, on one category
    references = [receipt(some[0], 1000.0, device="cpu", device_name="cpu", cpu="Z80")]
    references[0] = replace(references[0], spec=replace(some[0].spec, image_size=128))
    times = RoughTimes([], "cpu", lambda: references)
    expected = times.time_left(some, 2)
    assert expected is not None
    assert str(expected) == f"roughly {duration(20 * 250 / 2)}"  # a quarter of the pixels
    assert times.machines(some) == "Z80"
    assert RoughTimes([], "cuda:0", lambda: references).time_left(some, 1) is None
    others = [r for r in plan.runs if r.spec.method == "devnet"]
    mixed = times.time_left([some[0], others[0]], 1)
    assert str(mixed) == "more than 4 min"
    times.add(some[0], receipt(some[0], 10.0))
    assert str(times.time_left(some[1:], 1)) == "about 3 min"


def test_rough_times_calibrate_themselves(plan: Plan) -> None:
    devnet = [r for r in plan.runs if r.spec.method == "devnet"]
    saoe = [r for r in plan.runs if r.spec.method == "saoe"]
    references = [receipt(r, 100.0, device="cpu", cpu="Z80") for r in (devnet[0], saoe[0])]
    times = RoughTimes([], "cpu", lambda: references)
    before = times.time_left(saoe[:1], 1)
    times.add(devnet[0], receipt(devnet[0], 300.0))  # this machine takes three times as long
    after = times.time_left(saoe[:1], 1)
    assert before is not None
    assert after is not None
    assert after.seconds == pytest.approx(3 * before.seconds)


def test_names_keep_their_category_in_a_narrow_table(plan: Plan) -> None:
    done = {run.run_id: receipt(run) for run in plan.runs}
    for width, name in ((70, "\N{HORIZONTAL ELLIPSIS}/washer"), (150, "synthetic/washer")):
        out = io.StringIO()
        (table,) = result_tables(plan.runs, done, width)
        Console(file=out, width=width).print(table)
        assert name in out.getvalue()
        assert "\N{HORIZONTAL ELLIPSIS} " not in out.getvalue()


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
