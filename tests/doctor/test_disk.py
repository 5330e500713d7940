"""What `bench doctor` finds of the folders and their disks."""

import errno
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.doctor import disk as places
from bench.planning.plan import Folders


def test_trying_a_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    assert places.check_write_access("results", tmp_path).state == "ok"
    found = places.check_write_access("results", tmp_path / "not/made/yet")
    assert found.state == "ok"
    assert "not made yet" in found.found
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_bad(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    found = places.check_write_access("cache", tmp_path / "file" / "cache")
    assert found.state == "bad"
    assert "--cache" in found.todo

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(places, "write_synced", full)
    found = places.check_write_access("results", tmp_path)
    assert found.state == "bad"
    assert "No space left" in found.found
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_cache_that_may_only_be_read_is_a_note(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(path: Path, content: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(places, "write_synced", refused)
    found = places.check_write_access("cache", tmp_path)
    assert found.state == "note"
    assert found.found == f"{tmp_path} can be read, not written (Read-only file system)"
    assert places.check_write_access("results", tmp_path).state == "bad"
    assert places.check_write_access("cache", tmp_path / "new").state == "bad"


def test_a_folder_whose_renames_replace_others_is_bad(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rename: Callable[[Path, Path], None] = os.rename

    def careless(source: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        rename(source, target)

    monkeypatch.setattr(os, "rename", careless)
    found = places.check_write_access("results", tmp_path)
    assert found.state == "bad"
    assert "vanish" in found.todo


@pytest.mark.parametrize(
    ("free", "needed", "state"),
    [
        (5 * 10**9, {}, "ok"),
        (5 * 10**8, {}, "note"),
        (5 * 10**9, {"results": 10**9, "cache": 3 * 10**9}, "ok"),
        (5 * 10**9, {"results": 3 * 10**9, "cache": 3 * 10**9}, "bad"),
    ],
)
def test_space_is_compared_with_what_is_needed(
    monkeypatch: pytest.MonkeyPatch,
    folders: Folders,
    free: int,
    needed: dict[str, int],
    state: str,
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free))
    monkeypatch.setattr(places, "file_system", lambda folder: "ext4")
    (found,) = places.check_disk(folders, needed)
    assert found.state == state
    if state == "bad":
        assert "5.0 GB free" in found.found
        assert "6.0 GB needed" in found.found
        assert "--results and --cache" in found.todo


def test_file_systems_with_weak_renames_are_noted(
    monkeypatch: pytest.MonkeyPatch, folders: Folders, tmp_path: Path
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12))
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/a / ext4 rw 0 0\nhost:/x /mnt/a\\040b nfs4 rw 0 0\n"
        f"a {tmp_path} ext4 rw 0 0\nb {tmp_path} tmpfs rw 0 0\n"
    )
    assert places.file_system(Path("/mnt/a b/c"), mounts) == "nfs4"
    assert places.file_system(Path("/mnt/a"), mounts) == "ext4"
    assert places.file_system(tmp_path / "x", mounts) == "tmpfs"
    assert places.file_system(tmp_path, tmp_path / "absent") == ""
    for kind, state in (("tmpfs", "note"), ("nfs4", "note"), ("xfs", "ok"), ("", "ok")):
        monkeypatch.setattr(places, "file_system", lambda folder, kind=kind: kind)
        (found,) = places.check_disk(folders, {})
        assert found.state == state
