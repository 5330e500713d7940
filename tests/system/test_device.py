"""Memory of the process and of the GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.system.device import PeakMemory
from bench.system.host import busy_seconds, megahertz


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")
def test_the_peak_of_memory_is_above_what_was_held_at_first_and_can_be_forgotten() -> None:
    held = np.ones(32 << 20, np.uint8)
    peak = PeakMemory("cpu")
    if not peak.restart():
        pytest.skip("this system does not let a process reset its peak")
    assert 0 <= peak.bytes() < 8 << 20  # type: ignore[operator]
    more = np.ones(64 << 20, np.uint8)
    del more
    found = peak.bytes()
    assert found is not None
    assert 60 << 20 < found < 72 << 20  # the system counts pages in batches
    assert peak.restart()
    assert (peak.bytes() or 0) < 8 << 20
    assert held.all()


def test_without_proc_memory_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(Path, "write_text", missing)
    peak = PeakMemory("cpu")
    assert peak.bytes() is None
    assert not peak.restart()
    assert (busy_seconds(), megahertz()) == (None, None)


def test_memory_of_a_gpu_is_what_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"held": 100, "most": 100}
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: now["held"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: now["most"])

    def reset(device: str) -> None:
        assert device == "cuda:1"
        now["most"] = now["held"]

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    peak = PeakMemory("cuda:1")
    now.update(held=700, most=1000)
    assert peak.bytes() == 900
    assert peak.restart()
    assert peak.bytes() == 600
