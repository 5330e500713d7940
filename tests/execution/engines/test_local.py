import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from bench.execution.engines.engine import Ended
from bench.execution.engines.local import LocalEngine
from bench.execution.messages import Note, Progress, encode_message
from bench.planning.slots import Slot

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that imports what the test asks for; that of all tests goes on without its stop."""
    own = forkserver.ForkServer()
    for name in ("set_forkserver_preload", "ensure_running", "connect_to_new_process"):
        monkeypatch.setattr(forkserver, name, getattr(own, name))
    monkeypatch.setattr(forkserver, "_forkserver", own)
    yield
    own._stop()  # type: ignore[attr-defined]


def obey(argument: str, lifeline: Any, progress: Any, started: float) -> None:
    """What the children of these tests do."""
    if argument == "talk":
        progress.send_bytes(encode_message(Progress(1, 2, "0.5")))
    elif argument == "sleep":
        time.sleep(60)
    elif argument == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif argument == "exit":
        os._exit(3)
    elif argument == "threads":
        progress.send_bytes(encode_message(Note(f"late: {time.monotonic() - started > 5}")))


def events(engine: LocalEngine, seconds: float = 30) -> list[Any]:
    seen: list[Any] = []
    until = time.monotonic() + seconds
    while engine.running and time.monotonic() < until:
        seen += engine.events(0.1)
    return seen


def test_children_talk_end_crash_and_run_into_the_limit() -> None:
    target = f"{__name__}:obey"
    slot = Slot("cpu", 1)
    with LocalEngine([slot] * 5, ["bench.execution.engines.local"], timeout=3.0) as engine:
        for what in ("talk", "sleep", "segfault", "exit", "threads"):
            engine.start(what, target, what, slot)
        assert engine.free == []
        seen = events(engine)
        assert engine.free == [slot] * 5
    ended = {e.key: e for e in seen if isinstance(e, Ended)}
    assert ended.keys() == {"talk", "sleep", "segfault", "exit", "threads"}
    assert ("talk", Progress(1, 2, "0.5")) in seen
    assert ("threads", Note("late: False")) in seen
    assert ended["talk"].exit_code == 0
    assert ended["sleep"].kind == "time limit"
    assert (
        "time limit: stopped after 3 s; run again with `--timeout 6s --retry-failed`"
        in ended["sleep"].reason
    )
    assert ended["segfault"].exit_code == -signal.SIGSEGV
    assert "Segmentation" in ended["segfault"].reason
    assert "exit code 3" in ended["exit"].reason


def test_leaving_the_engine_ends_what_is_under_way() -> None:
    with LocalEngine([Slot("cpu", 1)], ["bench.execution.engines.local"], timeout=None) as engine:
        engine.start("sleep", f"{__name__}:obey", "sleep", Slot("cpu", 1))
        pid = engine._running["sleep"].process.pid
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the child outlived its engine")


def tell(argument: str, lifeline: Any, progress: Any, started: float) -> None:
    """What a child has got: its path, its variables, and which `random` it imports."""
    import random

    facts = [argument, sys.path, os.environ.get("PYTHONPATH"), os.environ.get("PYTHONSAFEPATH")]
    progress.send_bytes(encode_message(Note(json.dumps([*facts, random.__file__]))))


def test_a_server_takes_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But lets a method lie there, behind all else, and has the user's variables for it."""
    for name in ("random", "selectors", "socket", "typing", "numpy", "torch", "bench", "baselines"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the current folder')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    preload = ["bench.execution.engines.local", "numpy"]
    with LocalEngine([Slot("cpu", 1)], preload, timeout=None) as engine:
        assert os.environ["PYTHONPATH"] == str(ROOT)
        assert "PYTHONSAFEPATH" not in os.environ
        engine.start("one", f"{__name__}:tell", "argument", Slot("cpu", 1))
        seen = events(engine)
    (note,) = (event[1] for event in seen if not isinstance(event, Ended))
    assert json.loads(note.text) == ["argument", sys.path, str(ROOT), None, random.__file__]
    assert sys.path[-1] == str(tmp_path)
