"""Staged runs: claimed by their command, cleared when it is dead."""

import errno
import os
import time

import pytest

from bench.errors import StoreError
from bench.store.folder import Store
from bench.store.staging import SILENT, staging_name
from tests.fixtures.runs import ID, OTHER, SPEC, fail, fails_with, staged
from tests.fixtures.stores import HOST


def under_way(store, host, pid, seconds_ago=0.0):
    folder = store.staging / f"{ID}@{host}@{pid}"
    folder.mkdir()
    then = time.time() - seconds_ago
    os.utime(folder, (then, then))
    return folder


def test_a_run_is_staged_in_an_empty_folder_of_this_process(store):
    first = staged(store, SPEC)
    assert first.name == staging_name(ID)
    assert store.stage(ID) == first
    assert list(first.iterdir()) == []


FAR_AWAY = HOST + "-elsewhere"


@pytest.mark.parametrize(
    ("host", "whose", "seconds_ago", "claimed"),
    [
        (HOST, "alive", 0, True),
        (HOST, "alive", SILENT - 30, True),
        (HOST, "alive", SILENT + 30, False),
        (HOST, "dead", 0, False),
        (HOST, "own", 0, False),
        (FAR_AWAY, "alive", 0, True),
        (FAR_AWAY, "dead", 0, True),
        (FAR_AWAY, "own", 0, True),
        (FAR_AWAY, "dead", SILENT + 30, False),
    ],
)
def test_a_run_is_claimed_by_a_live_process_or_a_fresh_heartbeat(
    store, dead, host, whose, seconds_ago, claimed
):
    pid = {"alive": os.getppid(), "dead": dead, "own": os.getpid()}[whose]
    folder = under_way(store, host, pid, seconds_ago)
    assert store.claimed(ID) is claimed
    assert not store.claimed(OTHER.run_id)
    store.keep_alive(folder)
    assert store.claimed(ID) is (claimed or seconds_ago > SILENT)


def test_one_claim_of_several_is_enough(store, dead):
    under_way(store, HOST, dead)
    under_way(store, HOST, os.getpid())
    assert not store.claimed(ID)
    under_way(store, FAR_AWAY, dead)
    assert store.claimed(ID)


def test_nothing_is_claimed_where_nothing_is(tmp_path):
    assert not Store(tmp_path / "nowhere").claimed(ID)


@pytest.mark.parametrize("name", [ID, f"{ID}@", f"{ID}@{HOST}", f"{ID}@{HOST}@", f"{ID}@{HOST}@x"])
def test_what_no_command_has_named_claims_nothing_here(store, name):
    (store.staging / name).mkdir()
    (store.staging / f"{ID}@{HOST}@{10**30}").mkdir()
    if HOST in name or "@" not in name:
        assert not store.claimed(ID)
    store.open_for_writing()


def test_a_heartbeat_of_what_is_gone_is_no_error(store):
    store.keep_alive(store.staging / "gone")
    assert list(store.staging.iterdir()) == []


def test_staging_of_dead_commands_is_cleared_and_no_other(store, dead):
    left = {
        f"a@{HOST}@{dead}": False,
        f"a@{HOST}@": False,
        f"b@{HOST}@{os.getpid()}": True,
        f"b@{HOST}@{os.getppid()}": True,
        f"c@{FAR_AWAY}@{dead}": True,
        "what-is-this": True,
    }
    for name in left:
        (store.staging / name).mkdir()
        (store.staging / name / "log.txt").write_text("")
    store.open_for_writing()
    assert {p.name for p in store.staging.iterdir()} == {n for n, kept in left.items() if kept}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_an_error_of_the_store(store, monkeypatch, number):
    monkeypatch.setattr("pathlib.Path.mkdir", fails_with(number))
    for write in (
        store.open_for_writing,
        lambda: store.stage(ID),
        lambda: fail(store, store.staging / "x", ""),
        lambda: store.quarantine_run(ID),
    ):
        with pytest.raises(StoreError, match=rf"cannot write to .*: {os.strerror(number)}"):
            write()
