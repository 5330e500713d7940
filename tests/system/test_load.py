"""What others did to the machine while a run was timed."""

import subprocess
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.system import device as accelerator
from bench.system import load as watch
from bench.system.load import LoadMonitor


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine of four cores whose counters a test sets."""
    now: dict[str, Any] = {"at": 0.0, "busy": 0.0, "own": 0.0, "load": 0.5, "mhz": 2000.0}
    monkeypatch.setattr(watch, "busy_seconds", lambda: now["busy"])
    monkeypatch.setattr(watch, "own_seconds", lambda: now["own"])
    monkeypatch.setattr(watch, "machine_cores", lambda: 4)
    monkeypatch.setattr(watch, "load_average", lambda: now["load"])
    monkeypatch.setattr(watch, "megahertz", lambda: now["mhz"])
    monkeypatch.setattr(watch.time, "monotonic", lambda: now["at"])
    return now


def test_what_others_use_of_the_cores_disturbs(machine: dict[str, Any]) -> None:
    seen = LoadMonitor("cpu")
    machine.update(at=10.0, busy=12.0, own=10.0)  # others 0.2 of 4 cores
    seen.lap()
    assert seen.provenance() == {"other_cpu_share": 0.05, "disturbed": ""}
    machine.update(at=15.0, busy=20.0, own=15.0)  # others 0.6 of 4 cores
    seen.lap()
    machine.update(at=25.0, busy=30.0, own=26.0)  # less than nothing: clocks tick coarsely
    seen.lap()
    assert seen.provenance() == {
        "other_cpu_share": 0.15,
        "disturbed": "other processes used 0.6 of 4 cores",
    }


def test_a_stretch_too_short_to_tell_tells_nothing(machine: dict[str, Any]) -> None:
    seen = LoadMonitor("cpu")
    machine.update(at=0.1, busy=1.0)
    seen.lap()
    machine["busy"] = None
    seen.lap()
    assert seen.provenance() == {"disturbed": ""}


@pytest.mark.parametrize(("load", "disturbed"), [(5.0, False), (5.1, True)])
def test_a_crowd_before_it_began_disturbs(
    machine: dict[str, Any], load: float, disturbed: bool
) -> None:
    machine["load"] = load
    said = "load average 5.1 on 4 cores before it began" if disturbed else ""
    assert LoadMonitor("cpu").provenance()["disturbed"] == said


def test_the_clock_is_kept_at_its_lowest_and_highest(machine: dict[str, Any]) -> None:
    seen = LoadMonitor("cpu")
    for mhz in (2500.0, 1800.0, None):
        machine["mhz"] = mhz
        seen.look_at_clock()
    told = seen.provenance()
    assert (told["mhz_low"], told["mhz_high"]) == (1800.0, 2500.0)


GPU = "12345678-90ab-cdef-1234-567890abcdef"


def answers(monkeypatch: pytest.MonkeyPatch, text: str | Exception) -> list[Sequence[str]]:
    """Let nvidia-smi answer so; return the commands that it is given."""
    asked = []

    def run(command: Sequence[str], **options: Any) -> Any:
        assert options["timeout"]
        assert options["check"]
        asked.append(command)
        if isinstance(text, Exception):
            raise text
        return SimpleNamespace(stdout=text)

    monkeypatch.setattr(subprocess, "run", run)
    found = SimpleNamespace(uuid=GPU)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    return asked


def test_a_gpu_is_asked_for_its_clock_and_who_else_is_there(
    machine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers(monkeypatch, "1980\n")
    assert accelerator.gpu_megahertz("cuda:0") == 1980.0
    assert f"--id=GPU-{GPU}" in asked[0]
    assert "--query-gpu=clocks.sm" in asked[0]
    answers(monkeypatch, "4711\n4712\n4713\n")
    told = LoadMonitor("cuda:0").provenance()
    assert told == {"other_gpu_processes": 2, "disturbed": "2 other processes used the GPU"}
    answers(monkeypatch, "4711\n")
    assert accelerator.other_gpu_processes("cuda:0") == 0
    answers(monkeypatch, "")  # a container may show none, not even us
    assert accelerator.other_gpu_processes("cuda:0") is None


@pytest.mark.parametrize(
    "trouble",
    [
        FileNotFoundError(),
        subprocess.TimeoutExpired("nvidia-smi", 10),
        subprocess.CalledProcessError(6, "nvidia-smi"),
        "[N/A]\n",
    ],
    ids=repr,
)
def test_without_an_answer_of_nvidia_smi_it_is_not_told(
    machine: dict[str, Any], monkeypatch: pytest.MonkeyPatch, trouble: Any
) -> None:
    answers(monkeypatch, trouble)
    seen = LoadMonitor("cuda:0")
    seen.look_at_clock()
    told = seen.provenance()
    assert "mhz_low" not in told
    if not isinstance(trouble, str):
        assert told == {"disturbed": ""}
