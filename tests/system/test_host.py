"""What the system tells of cores, memory and clock."""

import os
from pathlib import Path

import pytest

from bench.system import host as environment
from bench.system.host import busy_seconds, megahertz


def test_a_containers_limit_bounds_the_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, text in (("max", "5000"), ("current", "3000"), ("stat", "inactive_file 500\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(environment, "control_groups", lambda controller: [tmp_path])
    if Path("/proc/meminfo").is_file():
        assert environment.available_memory() == 2500


def test_the_control_groups_of_both_versions(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("5:cpu,cpuacct:/a\n4:memory:/job\n0::/b/c\n")
    found = list(environment.control_groups("memory", tmp_path, membership))
    assert found == [
        tmp_path / "memory/job",
        tmp_path / "memory",
        tmp_path / "b/c",
        tmp_path / "b",
        tmp_path,
    ]
    assert list(environment.control_groups("memory", tmp_path, tmp_path / "absent")) == []


def test_busy_seconds_leave_out_what_idles_and_do_not_count_guests_twice(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 9999 8888 4 5 6 50 7\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    ticks = 100 + 20 + 30 + 4 + 5 + 6
    assert busy_seconds(stat) == ticks / os.sysconf("SC_CLK_TCK")
    for text in ("cpu  0 0 0 0 0 0 0 0 0 0\n", "cpu 1 2\n", "", "intr a b c d e f g h i j\n"):
        stat.write_text(text)
        assert busy_seconds(stat) is None


def test_the_clock_is_that_of_the_core_it_ran_on(tmp_path: Path) -> None:
    stat, info = tmp_path / "stat", tmp_path / "cpuinfo"
    stat.write_text("12 (a b) c) " + " ".join(["R", *["0"] * 35, "1", *["0"] * 13]))
    info.write_text("".join(f"processor\t: {i}\ncpu MHz\t\t: {1000 + i}.5\n\n" for i in range(3)))
    assert megahertz(stat, info) == 1001.5
    info.write_text("processor\t: 1\nBogoMIPS\t: 50\n\n")
    assert megahertz(stat, info) is None
