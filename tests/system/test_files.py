import errno
import fcntl
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BenchError, MethodError, StoreError
from bench.system.files import (
    json_digest,
    locked,
    sealed,
    staged_folder,
    sync_folder,
    unsealed,
    write_atomically,
    write_cache,
    write_synced,
    writing,
)


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


@pytest.fixture
def shared_folder(tmp_path):
    """A folder of a group, in which new files and folders belong to it; with its umask."""
    folder = tmp_path / "group"
    folder.mkdir()
    os.chown(folder, -1, os.getgid())
    folder.chmod(0o2775)
    before = os.umask(0o002)
    yield folder
    os.umask(before)


def test_a_group_may_write_what_one_of_it_has_made(shared_folder):
    write_atomically(shared_folder / "deep" / "table", b"one")
    write_synced(shared_folder / "file", b"one")
    with locked(shared_folder / "lock"), staged_folder(shared_folder / "new") as staged:
        (staged / "inner").mkdir()
        write_synced(staged / "inner" / "file", b"one")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in shared_folder.rglob("*")}
    folders = dict.fromkeys(("deep", "new", "inner"), 0o2775)
    assert modes == folders | dict.fromkeys(("table", "file", "lock"), 0o664)


@pytest.mark.parametrize("step", [(os, "replace"), (os, "fsync"), (Path, "open")])
def test_the_old_content_stays_when_the_disk_is_full(tmp_path, monkeypatch, step):
    path = tmp_path / "table"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(*step, full)
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

    monkeypatch.setattr("pathlib.Path.open", refused)
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


# Folders


def stage(target, content=b"new", **options):
    with staged_folder(target, **options) as staged:
        write_synced(staged / "file", content)


def test_a_staged_folder_appears_at_the_end_and_its_parents_are_made(tmp_path):
    target = tmp_path / "deep" / "er" / "target"
    with staged_folder(target, ".staging-") as staged:
        write_synced(staged / "file", b"new")
        (staged.parent / "scratch").write_bytes(b"")
        assert not target.exists()
        assert staged.parent.name.startswith(".staging-")
    assert (target / "file").read_bytes() == b"new"
    assert target.stat().st_mode & 0o555 == 0o555
    assert names(target.parent) == ["target"]


def test_an_existing_folder_is_replaced_only_where_that_is_asked_for(tmp_path):
    target = tmp_path / "target"
    stage(target, b"old")
    with pytest.raises(OSError, match="not empty"):
        stage(target)
    assert (target / "file").read_bytes() == b"old"
    stage(target, replace=True)
    assert (target / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["target"]


def test_a_link_in_the_place_of_a_folder_is_replaced(tmp_path):
    (tmp_path / "target").symlink_to("nowhere")
    stage(tmp_path / "target", replace=True)
    assert (tmp_path / "target" / "file").read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_what_was_there(tmp_path, error):
    stage(tmp_path / "target", b"old")
    with pytest.raises(type(error)), staged_folder(tmp_path / "target", replace=True):
        raise error
    assert (tmp_path / "target" / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("error", [OSError("x"), KeyboardInterrupt()])
@pytest.mark.parametrize("failing", [1, 2])
def test_the_previous_folder_comes_back_when_a_rename_fails(tmp_path, monkeypatch, failing, error):
    stage(tmp_path / "target", b"old")
    real, calls = os.rename, []

    def rename(*arguments):
        calls.append(arguments)
        if len(calls) == failing:
            raise error
        real(*arguments)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(type(error)):
        stage(tmp_path / "target", replace=True)
    assert (tmp_path / "target" / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["target"]


def test_a_previous_folder_that_cannot_come_back_is_not_deleted(tmp_path, monkeypatch):
    stage(tmp_path / "target", b"old")
    real, calls = os.rename, []

    def rename(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            full()
        real(*arguments)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="No space left"):
        stage(tmp_path / "target", replace=True)
    (file,) = tmp_path.glob(".target.new-*/target.previous/file")
    assert file.read_bytes() == b"old"


# Locks


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_lock_is_waited_for_and_freed(tmp_path, monkeypatch, kind):
    path = tmp_path if kind == "folder" else tmp_path / "lock"
    waited = []
    with locked(path, lambda: waited.append("first")):
        second = os.open(path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with locked(path, lambda: (waited.append("second"), os.close(second))):
        assert waited == ["second"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_the_lock_of_another_user_is_held_all_the_same(tmp_path, monkeypatch, number):
    lock = tmp_path / "lock"
    real = os.open

    def not_ours(path, flags, mode=0o777):
        if flags & os.O_RDWR:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", not_ours)
    with pytest.raises(OSError, match=os.strerror(number)), locked(lock):
        pass
    lock.touch()
    second = real(lock, os.O_RDONLY)
    with locked(lock), pytest.raises(BlockingIOError):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(second)


def test_a_file_system_without_locks_goes_without(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", full)
    with locked(tmp_path / "lock"):
        pass
    with pytest.raises(FileNotFoundError), locked(tmp_path / "no" / "lock"):
        pass


# JSON that knows its own digest

contents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
dictionaries = st.dictionaries(st.text(), contents, max_size=4)


@given(st.text(), dictionaries)
def test_what_is_sealed_is_read_back_under_its_kind(kind, content):
    data = sealed(kind, content)
    assert unsealed(kind, data) == content
    assert sealed(kind, unsealed(kind, data)) == data
    with pytest.raises(ValueError, match="it is not a whole"):
        unsealed(f"{kind}s", data)


@given(dictionaries, st.data())
def test_no_flipped_bit_passes(content, data):
    whole = sealed("archive", content)
    flipped = bytearray(whole)
    flipped[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError):  # noqa: PT011  JSON's own messages
        unsealed("archive", bytes(flipped))


@given(dictionaries)
def test_every_other_length_is_refused(content):
    whole = sealed("archive", content)
    for length in range(len(whole)):
        with pytest.raises(ValueError):  # noqa: PT011  JSON's own messages
            unsealed("archive", whole[:length])
    for longer in (whole + b" ", whole + b"\n", b" " + whole, whole * 2):
        with pytest.raises(ValueError):  # noqa: PT011
            unsealed("archive", longer)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"3", b"null", b"\xff", b"NaN", b"[" * 100_000, b"9" * 10_000,
     b'{"sha256": 3}', b'{"sha256": "0", "kind": "archive"}',
     b'{"sha256": NaN, "kind": "archive", "content": {}}'],
    ids=lambda d: f"{d[:20]!r}, {len(d)} bytes",
)  # fmt: skip
def test_what_was_never_sealed_is_a_value_error_and_no_other(data):
    with pytest.raises(ValueError):  # noqa: PT011  JSON's own messages
        unsealed("archive", data)


def test_what_was_sealed_without_content_is_refused():
    whole = {"kind": "archive"}
    data = json.dumps({**whole, "sha256": json_digest(whole)}).encode()
    with pytest.raises(ValueError, match="it is not a whole archive"):
        unsealed("archive", data)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_sealed(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        sealed("archive", {"deep": [{"er": value}]})


def test_the_digest_depends_on_the_content_alone():
    """Pinned: it is in every receipt."""
    one = json_digest({"b": [1, 2.5, None, True], "a": {"ä": "x"}})
    assert one == json_digest({"a": {"ä": "x"}, "b": [1, 2.5, None, True]})
    assert one == "78572e6a8b96a2231926106b5e1c00aba90f6456d7bf301adaff9fbf57730483"
    assert len({json_digest({"a": v}) for v in (1, 1.0, "1", True, None, [1])}) == 6


# What the disk refuses


def test_what_the_disk_refuses_is_one_line_with_the_folder(tmp_path):
    with pytest.raises(StoreError) as caught, writing(tmp_path):
        full()
    assert str(caught.value) == f"cannot write to {tmp_path}: No space left on device"
    assert isinstance(caught.value, BenchError)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("error", [MethodError("x"), ValueError("x"), KeyboardInterrupt()])
def test_other_errors_pass_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, writing(tmp_path):
        raise error
    assert caught.value is error


def test_an_error_without_a_number_is_told_too(tmp_path):
    with pytest.raises(StoreError, match="the disk is odd"), writing(tmp_path):
        raise OSError("the disk is odd")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC])
def test_a_cache_that_may_only_be_read_is_left_as_it_is(tmp_path, monkeypatch, number):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refused)
    if number == errno.ENOSPC:
        with pytest.raises(StoreError, match="No space left"):
            write_cache(tmp_path / "sha256.json", b"one")
    else:
        write_cache(tmp_path / "sha256.json", b"one")
    assert names(tmp_path) == []


def test_what_cannot_be_read_is_not_said_to_be_unwritable(tmp_path):
    source, target = tmp_path / "theirs" / "scores", tmp_path / "ours"
    source.parent.mkdir()
    source.touch()
    denied = os.strerror(errno.EACCES)
    with pytest.raises(StoreError, match=f"^cannot read {source}: .*; its owner"), writing(target):
        raise PermissionError(errno.EACCES, denied, str(source))
    for path, other in ((target, None), (tmp_path / "no", None), (source, str(target))):
        with pytest.raises(StoreError, match=f"^cannot write to {target}: "), writing(target):
            raise PermissionError(errno.EACCES, denied, str(path), None, other)
