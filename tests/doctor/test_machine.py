"""What `bench doctor` finds of software and machine."""

from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest

from bench.doctor import Diagnosis, machine
from tests.fixtures.findings import answer, by_name

# Software


def libraries(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> dict[str, Diagnosis]:
    installed = metadata.version

    def version(name: str) -> str:
        found = versions.get(name.replace("-", "_"), "as installed")
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return installed(name) if found == "as installed" else found

    monkeypatch.setattr(metadata, "version", version)
    return by_name(machine.check_libraries())


def test_a_library_that_is_absent_or_too_old_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    found = libraries(monkeypatch, pyarrow=None, torch="2.8.9+cpu", numpy="1.26.0rc1")
    assert found["pyarrow"].state == "bad"
    assert found["pyarrow"].todo.startswith("pip install 'pyarrow>=")
    assert found["torch"].state == "bad"
    assert "2.8.9+cpu is too old" in found["torch"].found
    assert "numpy 1.26.0rc1" in found["libraries"].found


def test_an_old_python_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Message()
    card["Requires-Python"] = ">=99.1"
    monkeypatch.setattr(metadata, "metadata", lambda name: card)
    found = by_name(machine.check_libraries())["python"]
    assert found.state == "bad"
    assert ">=99.1" in found.todo


def test_a_checkout_that_is_not_installed_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DISTRIBUTION", "no-such-distribution")
    assert [f.state for f in machine.check_libraries()] == ["note"]


# Machine


def test_little_memory_and_a_busy_machine_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 2**30)
    monkeypatch.setattr(machine, "load_average", lambda: 1000.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = by_name(machine.check_machine())
    assert found["memory"].state == found["load"].state == "note"
    assert "1.0 GiB available" in found["memory"].found
    assert "OMP_NUM_THREADS=3" in found["cores"].found


def test_memory_that_the_system_does_not_tell_is_no_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: None)
    assert by_name(machine.check_machine())["memory"].state == "ok"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_a_containers_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "control_groups", lambda controller: [tmp_path, tmp_path / "no"])
    monkeypatch.setattr(machine, "cpu_count", lambda: 4)
    assert machine.cpu_quota() == quota
    cores = by_name(machine.check_machine())["cores"]
    assert cores.state == ("note" if quota else "ok")
    if quota == 1.5:
        assert "taskset -c 0-0" in cores.todo


# torch


def test_gpus_are_listed_and_a_busy_one_is_noted() -> None:
    gpu = {"name": "H200", "total": 140 * 2**30, "capability": "9.0", "driver": "580.1"}
    gpus = [{**gpu, "free": 139 * 2**30}, {**gpu, "free": 9 * 2**30}]
    found = by_name(machine.check_torch(answer(gpus=gpus, bfloat16_speedup=0.4)))
    assert found["cuda:0"].found == "H200, 139 of 140 GiB free, capability 9.0, driver 580.1"
    assert [found[w].state for w in ("cuda:0", "cuda:1", "bfloat16")] == ["ok", "note", "note"]
