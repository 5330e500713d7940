"""Who waits for memory, and who is started again."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.execution import room as module
from bench.execution.campaign import _Campaign
from bench.execution.engines.here import ExecutionOptions
from bench.execution.room import LONGEST_WAIT, TRIES, Room
from bench.planning.plan import Folders, Plan, Run
from bench.planning.slots import Slot
from bench.planning.state import State
from bench.store.folder import Store
from bench.store.results import receipts
from tests.fixtures.command import Bench
from tests.fixtures.plans import receipt, smoke_plan

GIB = 1 << 30


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, warm_cache: Path) -> list[Run]:
    """Runs of a method that foretells nothing."""
    plan = smoke_plan(tmp_path_factory.mktemp("room"), warm_cache)
    return [run for run in plan.runs if run.spec.method == "shortcut"][:3]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine of 32 GiB, 8 of them free, whose processes hold nothing yet."""
    facts = SimpleNamespace(free=8 * GIB, total=32 * GIB, held=0, kills=0, now=0.0)
    monkeypatch.setattr(module, "available_memory", lambda: facts.free)
    monkeypatch.setattr(module, "total_memory", lambda: facts.total)
    monkeypatch.setattr(module, "resident_memory", lambda pid: facts.held)
    monkeypatch.setattr(module, "oom_kills", lambda: facts.kills)
    monkeypatch.setattr(module.time, "monotonic", lambda: facts.now)
    return facts


@pytest.fixture
def room() -> Room:
    return Room(())


def test_a_start_waits_while_what_is_foretold_does_not_fit_beside_the_others(
    room: Room, machine: Any, runs: list[Run]
) -> None:
    first, second, _ = runs
    stored = [receipt(first, peak_memory_bytes=5 * GIB)]
    assert room.reason_to_wait(first, "cpu", stored, []) == ""
    room.started(first, "cpu")
    why = room.reason_to_wait(second, "cpu", stored, [1])
    assert "it may need 5.0 GiB of memory, and those under way leave 3.0 GiB" in why
    assert "fewer --slots" in why
    machine.free, machine.held = 4 * GIB, 4 * GIB  # what it has taken by now is not asked twice
    assert "leave 3.0 GiB" in room.reason_to_wait(second, "cpu", stored, [1])
    machine.free = 7 * GIB
    assert room.reason_to_wait(second, "cpu", stored, [1]) == ""
    machine.free = GIB
    assert room.reason_to_wait(second, "cuda:0", stored, [1]) == ""  # nothing foretold of a GPU
    room.ended(first)
    assert room.reason_to_wait(second, "cpu", stored, []) == ""
    assert Room(()).reason_to_wait(second, "cpu", [], [1]) == ""  # unknown


def test_what_failed_beside_others_is_started_again_alone_a_few_times(
    room: Room, machine: Any, runs: list[Run]
) -> None:
    first, second, third = runs
    room.started(first, "cpu")
    room.started(second, "cpu")
    room.ended(first)
    assert room.should_retry(first, "cpu", None, [])
    assert "waits to run alone on cpu" in room.reason_to_wait(first, "cpu", [], [])
    assert room.reason_to_wait(first, "cuda:0", [], []) == ""
    room.ended(second)
    assert room.reason_to_wait(first, "cpu", [], []) == ""
    room.started(first, "cpu")
    assert "is alone until it ends" in room.reason_to_wait(second, "cpu", [], [])
    assert room.reason_to_wait(second, "cuda:0", [], []) == ""
    room.ended(first)
    assert not room.should_retry(first, "cpu", None, []), "it was alone, so that is its own"

    room.started(second, "cpu")
    for _ in range(TRIES - 1):
        room.started(third, "cpu")
        room.ended(third)
        assert room.should_retry(third, "cpu", None, [])
    room.started(third, "cpu")
    assert not room.should_retry(third, "cpu", None, [])


def test_what_other_programs_hold_is_waited_for_but_not_for_ever(
    room: Room, machine: Any, runs: list[Run]
) -> None:
    run, larger, _ = runs
    room.started(run, "cpu")
    room.ended(run)
    assert not room.should_retry(replace(larger), "cpu", 64 * GIB, []), (
        "the machine will never have it"
    )
    assert room.should_retry(run, "cpu", 12 * GIB, [])
    why = room.reason_to_wait(run, "cpu", [], [])
    assert "it needs about 12.0 GiB, and other programs leave 8.0 GiB of memory" in why
    machine.now = LONGEST_WAIT + 1
    assert room.reason_to_wait(run, "cpu", [], []) == ""
    machine.now, machine.free = 1, 12 * GIB
    assert room.reason_to_wait(run, "cpu", [], []) == ""


def test_a_kill_for_want_of_memory_is_told_from_any_other(
    room: Room, machine: Any, runs: list[Run]
) -> None:
    room.started(runs[0], "cpu")
    assert not room.killed_for_memory(runs[0])
    machine.kills = 1
    assert room.killed_for_memory(runs[0])
    machine.kills = None
    assert not room.killed_for_memory(runs[0])


def test_a_run_short_of_memory_idles_one_device_alone(
    tmp_path: Path, machine: Any, runs: list[Run], warm_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = smoke_plan(tmp_path, warm_cache)
    folders = Folders(tmp_path, tmp_path, tmp_path / "results", warm_cache)
    busy, other, short, fits, last = plan.runs[:5]
    state = State(Plan((short, fits, last), ()), {}, (), {})
    slots = [Slot("cuda:0", 1), Slot("cuda:1", 1)]
    engine: Any = SimpleNamespace(free=[*slots], pids=[])
    listener: Any = SimpleNamespace(note=lambda text: None)
    campaign = _Campaign(state, Store(folders.results), folders, ExecutionOptions(slots), listener)
    started = []

    def start(_: Any, engine: Any, run: Run, slot: Slot) -> None:
        started.append((run, slot))
        engine.free.remove(slot)

    monkeypatch.setattr(_Campaign, "_start", start)
    campaign.room.started(busy, "cuda:0")
    campaign.room.started(other, "cuda:1")
    campaign.room.failures[short.run_id] = 1
    campaign.fill(engine)
    assert started == [(fits, slots[1])]
    assert list(campaign.waiting) == [short, last]
    campaign.room.ended(busy)
    campaign.fill(engine)
    assert started[1:] == [(short, slots[0])]


def test_pixel_metrics_that_find_no_memory_stop_no_command(
    tmp_path: Path, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(_: Any, run: Run, receipt: Any, loaded: Any) -> Any:
        if run == runs[0]:
            raise MemoryError("20 GiB")
        return receipt

    notes: list[str] = []
    folders = Folders(tmp_path, tmp_path, tmp_path / "results", tmp_path)
    state = State(Plan(tuple(runs), ()), {r.run_id: receipt(r) for r in runs}, (), {})
    listener: Any = SimpleNamespace(note=notes.append)
    store = Store(folders.results)
    campaign = _Campaign(state, store, folders, ExecutionOptions(()), listener)
    campaign.other_masks = runs[:2]
    monkeypatch.setattr("bench.execution.campaign.measure_again", measure)
    campaign.measure_again()
    assert len(notes) == 2
    assert "keeps its pixel metrics of other masks: out of memory: 20 GiB" in "".join(notes)


def test_a_run_without_memory_is_put_back_and_the_others_go_on(
    tmp_path: Path, warm_cache: Path
) -> None:
    bench = Bench(tmp_path, warm_cache)
    names = ("FindsNoMemory", "SlowA", "FindsNoMemoryOnce", "SlowB")
    suite = bench.suite(*(f"tests.fixtures.misbehaving:{name}" for name in names))
    code, said = bench("run", "--suite", suite, "--slots", "2")
    assert code == 1, said
    done = {r.spec.method for r in receipts(bench.store)}
    assert done == {"slow-a", "slow-b", "finds-no-memory-once"}
    assert (
        said.count("ran out of memory and will be tried again alone: MemoryError: finds-no-memory")
        == 2
    )
    assert said.count("ran out of memory: waits to run alone on cpu") >= 1
    assert "1 run failed" in said
    (folder,) = bench.store.failed.iterdir()
    (failure,) = bench.store.failures(folder.name)
    assert failure.kind == "memory"
    assert failure.reason.startswith("MemoryError: finds-no-memory synthetic/washer")
    assert "asked for 1073741824.0 GiB more" in failure.reason
    assert "in fit" in failure.traceback
    assert list(bench.store.staging.iterdir()) == []
