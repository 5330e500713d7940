"""Full and read-only disks, for real: one clear line, nothing half-visible, and on it goes."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.store.folder import Store
from bench.store.results import receipts
from bench.store.verify import problems
from tests.fixtures.command import Bench


@dataclass(frozen=True)
class Disk:
    """A small file system of its own, in memory."""

    folder: Path

    def fill(self, leave: int) -> None:
        """Leave so many bytes free."""
        free = os.statvfs(self.folder)
        with (self.folder / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_bsize - leave)

    def empty(self) -> None:
        (self.folder / "filler").unlink()

    def make(self, mode: str) -> None:
        """Make it `ro` or `rw`."""
        subprocess.run(["mount", "-o", f"remount,{mode}", self.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs mount")
    if done.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def bench(tmp_path: Path, warm_cache: Path) -> Bench:
    return Bench(tmp_path, warm_cache)


def refused(code: int, said: str) -> None:
    """The last line says what the disk refused, in so many words."""
    assert code == 2, said
    line = said.strip().splitlines()[-1]
    assert line.startswith("bench: ")
    assert "No space left on device" in line or "Read-only file system" in line


def test_results_on_a_full_disk_wait_for_room(bench: Bench, disk: Disk) -> None:
    command = ("run", "--suite", bench.suite("shortcut", "cutmix"),
               "--results", str(disk.folder / "results"))  # fmt: skip
    store = Store(disk.folder / "results")
    disk.fill(leave=12_288)
    refused(*bench(*command))
    assert [p for p in problems(store) if "runs.parquet" not in p] == []
    disk.empty()
    assert bench(*command)[0] == 0
    assert list(problems(store)) == []
    assert len(store.ids()) == 2
    assert not list(store.staging.iterdir())


def test_a_disk_that_fills_up_during_a_run_is_no_failure_of_the_method(
    bench: Bench, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILL", str(disk.folder / "filler"))
    suite = bench.suite("shortcut", "tests.fixtures.misbehaving:FillsTheDisk")
    command = ("run", "--suite", suite, "--results", str(disk.folder / "results"))
    store = Store(disk.folder / "results")
    refused(*bench.apart(*command))
    assert [r.spec.method for r in receipts(store)] == ["shortcut"]
    assert [p for p in problems(store) if "runs.parquet" not in p] == []
    assert not list(store.failed.iterdir())
    disk.empty()
    monkeypatch.delenv("FILL")
    code, said = bench(*command)
    assert code == 0, said
    assert "2 runs wanted, 1 stored, 1 to do" in said
    assert list(problems(store)) == []


def test_a_read_only_results_folder_is_one_line_and_can_still_be_read(
    bench: Bench, disk: Disk
) -> None:
    results = str(disk.folder / "results")
    command = ("run", "--suite", bench.suite("shortcut"), "--results", results)
    disk.make("ro")
    refused(*bench(*command))
    disk.make("rw")
    assert bench(*command)[0] == 0
    disk.make("ro")
    assert bench("verify", "--results", results)[0] == 0
    assert "done     1" in bench("status", *command[1:])[1]
    refused(*bench(*command[:3], "--shots", "1", "--results", results))
    refused(*bench("merge", results, "--results", str(disk.folder / "other")))
    refused(*bench("archive", "--results", results, "--out", str(disk.folder / "archive")))


def test_a_cache_without_room_is_one_line_and_leaves_nothing_half(bench: Bench, disk: Disk) -> None:
    crowded = Bench(bench.folder, disk.folder / "cache")
    suite = crowded.suite("shortcut")
    disk.fill(leave=1 << 20)
    refused(*crowded("run", "--suite", suite))
    disk.empty()
    disk.fill(leave=0)
    refused(*crowded("run", "--suite", suite))
    disk.empty()
    disk.make("ro")
    refused(*crowded("run", "--suite", suite))
    disk.make("rw")
    for left in (disk.folder / "cache").rglob("*"):
        assert not left.name.startswith(".staging-"), left
    subprocess.run(["mount", "-o", "remount,size=64m", disk.folder], check=True)
    assert crowded("run", "--suite", suite)[0] == 0
    disk.make("ro")  # everything is prepared
    code, said = crowded("run", "--suite", suite, "--results", str(bench.folder / "again"))
    assert code == 0, said
