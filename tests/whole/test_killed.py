"""A command that is killed leaves nothing behind, and continues."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.store.folder import Store
from tests.fixtures.command import Bench


def gone(pid: int) -> bool:
    """Whether no process of that number does anything any more."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status == "Z"


def children(pid: int) -> list[int]:
    """Return a process's descendants, by /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_killed_in_the_middle_it_leaves_nothing_behind_and_continues(bench: Bench) -> None:
    command = ("run", "--suite", bench.suite("shortcut", "cutmix", epochs=12), "--threads", "1")
    process = bench.start(*command)
    wait_for(
        lambda: any("epoch 3/" in p.read_text() for p in bench.store.staging.glob("*/log.txt"))
    )
    family = children(process.pid)
    assert len(family) >= 2, "a server and a run"
    process.send_signal(signal.SIGKILL)  # the command alone; its children must notice
    process.communicate()
    wait_for(lambda: all(gone(pid) for pid in family), seconds=10)
    assert len(bench.store.ids()) == 1  # the shortcut was finished, the other one is not visible

    code, said = bench(*command)
    assert code == 0, said
    assert "2 runs wanted, 1 stored, 1 to do" in said
    assert not list(bench.store.staging.iterdir())
    assert bench(*command, "--results", "undisturbed")[0] == 0
    undisturbed = Store(bench.folder / "undisturbed")
    assert undisturbed.ids() == bench.store.ids()
    for run_id in undisturbed.ids():
        assert undisturbed.read(run_id).metrics == bench.store.read(run_id).metrics


def test_a_command_that_dies_takes_along_a_method_that_holds_the_interpreter(bench: Bench) -> None:
    process = bench.start(
        "run", "--suite", bench.suite("tests.fixtures.misbehaving:HoldsTheInterpreter")
    )
    wait_for(lambda: any("hanging" in p.read_text() for p in bench.store.staging.glob("*/log.txt")))
    family = children(process.pid)
    process.kill()
    process.communicate()
    wait_for(lambda: all(gone(pid) for pid in family), seconds=5)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)
