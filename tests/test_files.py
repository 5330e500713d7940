import errno
import os
import stat

import pytest

from bench.errors import StoreError
from bench.files import sync_folder, write_atomically, write_synced


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder):
    return [p.name for p in folder.iterdir()]


def test_a_file_is_written_whole_and_its_folders_are_made(tmp_path):
    path = tmp_path / "deep" / "er" / "table"
    write_atomically(path, b"one")
    assert path.read_bytes() == b"one"
    write_atomically(path, b"")
    assert path.read_bytes() == b""
    assert names(path.parent) == ["table"]


def test_a_file_can_be_read_by_others(tmp_path):
    write_atomically(tmp_path / "table", b"one")
    assert stat.S_IMODE((tmp_path / "table").stat().st_mode) == 0o644


@pytest.mark.parametrize("step", ["replace", "fsync", "chmod"])
def test_the_old_content_stays_when_the_disk_is_full(tmp_path, monkeypatch, step):
    path = tmp_path / "table"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, step, full)
    with pytest.raises(StoreError, match=r"cannot write .*table: No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["table"]


def test_an_interrupt_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    path = tmp_path / "table"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["table"]


def test_a_folder_that_cannot_be_made_is_an_error_of_the_store(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot write"):
        write_atomically(tmp_path / "file" / "table", b"one")


def test_a_folder_that_cannot_be_written_is_an_error_of_the_store(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refused)
    with pytest.raises(StoreError, match=r"cannot write .*table: Permission denied"):
        write_atomically(tmp_path / "table", b"one")


def test_a_synced_file_is_new_and_never_overwrites(tmp_path):
    write_synced(tmp_path / "one", b"content")
    assert (tmp_path / "one").read_bytes() == b"content"
    with pytest.raises(FileExistsError):
        write_synced(tmp_path / "one", b"other")
    assert (tmp_path / "one").read_bytes() == b"content"


def test_syncing_a_folder_leaves_no_descriptor_open(tmp_path):
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        sync_folder(tmp_path)
    assert len(os.listdir("/dev/fd")) == before
