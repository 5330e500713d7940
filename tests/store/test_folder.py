"""A results folder: what is published, claimed, recorded as failed, set aside and found again."""

import errno
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from bench.errors import CorruptRun, MethodError, RequestError, StoreError
from bench.spec import RunSpec
from bench.store.failures import LOG_KEPT
from bench.store.folder import Store
from bench.store.results import find, receipts, verified
from bench.store.staging import SILENT, staging_name
from tests.fixtures.runs import (
    CLOSE,
    ELSEWHERE,
    FAR,
    FIXTURES,
    NO_SPACE,
    OTHER,
    SCORES,
    SPEC,
    bench,
    content,
    digest_of,
    fails_with,
    publish,
    rewrite,
    staged,
    store_at,
    tree,
    truncate,
)

ID = SPEC.run_id


@pytest.fixture
def store(tmp_path):
    return store_at(tmp_path / "results")


@pytest.fixture(scope="module")
def dead():
    """The number of a process that is over."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


# Publishing and reading


def test_a_published_run_is_read_back(store):
    assert publish(store) is None
    assert store.has(ID)
    assert store.ids() == [ID]
    read = store.read(ID)
    assert RunSpec.from_dict(read["spec"]) == SPEC
    assert read["files"].keys() == {"scores.parquet", "log.txt"}
    assert {k: read[k] for k in content()} == content()
    assert store.scores(ID).gap(SCORES) == 0.0
    assert list(store.staging.iterdir()) == []


def test_an_empty_or_absent_store_holds_nothing(store, tmp_path):
    for empty in (store, Store(tmp_path / "nowhere")):
        assert empty.ids() == []
        assert list(receipts(empty)) == []
        assert not empty.has(ID)
        assert empty.failures(ID) == []
        assert empty.table_bytes() is None
        assert verified(empty, [ID]) == ({}, [])
        with pytest.raises(CorruptRun, match=f"run {ID} is damaged: run.json: No such file"):
            empty.read(ID)
        with pytest.raises(CorruptRun, match=f"run {ID} is damaged"):
            empty.scores(ID)
        with pytest.raises(RequestError, match="no run begins"):
            find(empty, ID)
    assert not (tmp_path / "nowhere").exists()


def test_the_same_run_again_is_dropped(store):
    publish(store)
    before = tree(store.runs)
    found = publish(store, provenance={"device": "cuda"})
    assert found is not None
    assert found.kind == "identical"
    assert tree(store.runs) == before
    assert list(store.staging.iterdir()) == []


@pytest.mark.parametrize("scores", [CLOSE, FAR], ids=["close", "far"])
def test_other_scores_in_the_same_environment_are_an_error_and_the_stored_ones_stay(store, scores):
    """On one machine the same spec gives the same bits: the method is not deterministic."""
    publish(store)
    before = tree(store.runs)
    with pytest.raises(MethodError, match="twice with different scores: the stored one stays"):
        publish(store, scores=scores)
    assert tree(store.runs) == before


def test_different_scores_of_another_environment_say_what_to_do(store):
    publish(store)
    remedy = r"\(threads 2 and 1\); run it with those of the stored one"
    with pytest.raises(MethodError, match=remedy):
        publish(store, scores=FAR, provenance=ELSEWHERE)


def test_close_scores_of_another_environment_are_no_error_and_the_stored_ones_stay(store):
    publish(store)
    before = tree(store.runs)
    found = publish(store, scores=CLOSE, provenance=ELSEWHERE)
    assert found is not None
    assert (found.kind, found.environment) == ("close", ("threads 2 and 1",))
    assert tree(store.runs) == before
    assert list(store.staging.iterdir()) == []


def test_far_scores_are_an_error_in_any_environment(store):
    publish(store)
    with pytest.raises(MethodError, match=r"different: AUROC differs by -0\.75.*threads 2 and 1"):
        publish(store, scores=FAR, provenance=ELSEWHERE)
    assert store.read(ID)["metrics"]["auroc"] == 0.75


def test_a_run_is_not_compared_with_a_damaged_one(store):
    publish(store)
    (store.runs / ID / "log.txt").unlink()
    assert publish(store) is None
    assert store.read(ID)
    assert len(list(store.quarantine.iterdir())) == 1


def test_a_stale_run_is_replaced_and_kept_apart(store):
    publish(store)
    before = (store.runs / ID / "run.json").read_bytes()
    assert publish(store, scores=FAR, again=True) is None
    assert store.read(ID)["metrics"]["auroc"] == 0.0
    assert publish(store, scores=CLOSE, again=True) is None
    assert store.ids() == [ID]
    kept = sorted(store.superseded.glob(f"{ID}-*"))
    assert len(kept) == 2
    assert (kept[0] / "run.json").read_bytes() == before
    assert {p.name for p in kept[0].iterdir()} == {"run.json", "scores.parquet", "log.txt"}


def test_there_need_be_nothing_to_replace(store):
    assert publish(store, again=True) is None
    assert store.ids() == [ID]
    assert list(store.root.glob("superseded/*")) == []


def test_an_empty_folder_in_the_place_of_a_run_gives_way(store):
    (store.runs / ID).mkdir()
    assert publish(store) is None
    assert store.read(ID)["run_id"] == ID


@pytest.mark.parametrize("step", ["rename", "fsync"])
def test_a_full_disk_publishes_nothing(store, monkeypatch, step):
    folder = staged(store)
    monkeypatch.setattr(os, step, NO_SPACE)
    with pytest.raises(StoreError, match=r"cannot publish run .*: No space left"):
        store.publish(folder, SPEC, content())
    assert store.ids() == []


@pytest.mark.parametrize("step", ["rename", "fsync"])
def test_a_full_disk_replaces_nothing(store, monkeypatch, step):
    """It is the disk that is to blame, and not the method for other scores than before."""
    publish(store)
    folder = staged(store, SPEC, FAR)
    monkeypatch.setattr(os, step, NO_SPACE)
    with pytest.raises(StoreError, match=r"cannot publish run .*: No space left"):
        store.publish(folder, SPEC, content(FAR), replaces=digest_of(store))
    assert store.read(ID)["metrics"]["auroc"] == 0.75


def test_a_run_that_cannot_take_the_place_of_the_old_one_leaves_it_there(store, monkeypatch):
    publish(store)
    folder = staged(store, SPEC, FAR)
    real, calls = os.rename, []

    def second_fails(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            NO_SPACE()
        real(*arguments)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(StoreError, match="No space left"):
        store.publish(folder, SPEC, content(FAR), replaces=digest_of(store))
    assert store.read(ID)["metrics"]["auroc"] == 0.75


def test_a_number_that_is_not_finite_is_not_published(store):
    with pytest.raises(ValueError, match="not JSON compliant"):
        publish(store, facts={"loss": float("nan")})
    assert store.ids() == []


def test_an_archive_is_not_written_to(tmp_path):
    archive = FIXTURES / "archives/schema-1"
    before = tree(archive)
    with pytest.raises(StoreError, match=f"{archive} is an archive: .*bench merge {archive}"):
        Store(archive).open_for_writing()
    assert tree(archive) == before


# What does not verify


def file_for_a_run(path):
    path.write_text("not a run")


def empty_folder(path):
    path.mkdir()


def link_to_nothing(path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [file_for_a_run, empty_folder])
def test_what_lies_in_the_place_of_a_run_is_corrupt_and_can_be_set_aside(store, make):
    make(store.runs / ID)
    assert store.ids() == [ID]
    with pytest.raises(CorruptRun, match=f"run {ID} is damaged: run.json"):
        store.read(ID)
    with pytest.raises(CorruptRun):
        store.scores(ID)
    assert list(receipts(store)) == []
    assert verified(store, [ID]) == ({}, [ID])
    store.set_aside(ID)
    assert store.ids() == []
    assert len(list(store.quarantine.iterdir())) == 1
    assert publish(store) is None


def test_a_link_to_nothing_in_the_place_of_a_run_is_corrupt_and_can_be_set_aside(store):
    link_to_nothing(store.runs / ID)
    assert verified(store, [ID]) == ({}, [ID])
    store.set_aside(ID)
    assert publish(store) is None


def test_what_is_no_run_at_all_keeps_no_run_from_being_read(store):
    publish(store)
    (store.runs / ".DS_Store").write_bytes(b"\0")
    (store.runs / "a copy").mkdir()
    shutil.copytree(store.runs / ID, store.runs / f"{ID} (copy)")
    assert [r["run_id"] for r in receipts(store)] == [ID]
    assert pq.read_table(store.compact())["run_id"].to_pylist() == [ID]
    assert store.ids() == [ID]


def test_what_verifies_by_now_is_not_set_aside(store):
    """Another command has put a good run in the place of a damaged one."""
    publish(store)
    assert store.set_aside(ID) is None
    assert store.read(ID)
    assert store.set_aside(OTHER.run_id) is None


def test_a_run_that_was_sealed_when_its_command_died_is_published(store):
    publish(store)
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = store.staging / f"{ID}@{HOST}@{dead.pid}"
    os.rename(store.runs / ID, left)
    half = store.staging / f"{OTHER.run_id}@{HOST}@{dead.pid}"
    shutil.copytree(left, half)
    store.open_for_writing()
    assert store.ids() == [ID]
    assert store.read(ID)
    assert list(store.staging.iterdir()) == []


def test_a_result_that_is_not_the_one_to_be_replaced_is_compared(store):
    publish(store)
    folder = staged(store)
    found = store.publish(folder, SPEC, content(SCORES), replaces="0" * 64)
    assert found.kind == "identical"
    assert not store.superseded.exists()


def test_what_is_set_aside_can_be_run_again_and_is_kept(store):
    for _ in range(2):
        publish(store)
        truncate(store.runs / ID / "scores.parquet")
        store.set_aside(ID)
        assert not store.has(ID)
    publish(store)
    assert len(list(store.quarantine.glob(f"{ID}-*/scores.parquet"))) == 2


def test_setting_aside_what_another_command_has_moved_is_no_error(store):
    publish(store)
    truncate(store.runs / ID / "scores.parquet")
    other_command = Store(store.root)
    other_command.set_aside(ID)
    store.set_aside(ID)
    assert len(list(store.quarantine.iterdir())) == 1


def test_scores_that_do_not_read_are_a_corrupt_run(store):
    publish(store)
    truncate(store.runs / ID / "scores.parquet")
    with pytest.raises(CorruptRun, match=f"run {ID} is damaged: .*scores.parquet does not read"):
        store.scores(ID)


# Runs under way


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


HOST = staging_name(ID).split("@")[1]
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
        lambda: store.record_failure(store.staging / "x", SPEC, {"reason": ""}),
        lambda: store.set_aside(ID),
    ):
        with pytest.raises(StoreError, match=rf"cannot write to .*: {os.strerror(number)}"):
            write()


# Failures


def test_failures_are_numbered_and_kept_with_their_log(store):
    for n in range(1, 12):
        target = store.record_failure(staged(store), SPEC, {"reason": f"number {n}"})
        assert target == store.failed / ID / str(n)
    failures = store.failures(ID)
    assert [f["reason"] for f in failures] == [f"number {n}" for n in range(1, 12)]
    assert [f["folder"] for f in failures] == [
        str(store.failed / ID / str(n + 1)) for n in range(11)
    ]
    assert RunSpec.from_dict(failures[0]["spec"]) == SPEC
    assert {p.name for p in target.iterdir()} == {"failure.json", "log.txt"}
    assert store.ids() == []


def test_a_run_that_left_nothing_has_a_failure_too(store):
    store.record_failure(store.staging / "gone", SPEC, {"reason": "killed"})
    assert [f["reason"] for f in store.failures(ID)] == ["killed"]
    assert store.failures(OTHER.run_id) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '"killed"',
        "\ud800",
        "[" * 100_000,
    ],
    ids=lambda t: ascii(t)[:9],
)
def test_a_failure_that_does_not_read_is_skipped(store, text):
    target = store.record_failure(staged(store), SPEC, {"reason": "killed"})
    (target / "failure.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    store.record_failure(staged(store), SPEC, {"reason": "killed again"})
    assert [f["reason"] for f in store.failures(ID)] == ["killed again"]


def test_what_else_lies_among_the_failures_is_no_failure(store):
    folder = store.failed / ID
    for name in ("notes", "-1", "1.5"):
        (folder / name).mkdir(parents=True)
        (folder / name / "failure.json").mkdir()
    (folder / "7").write_text("a file")
    (folder / ".DS_Store").write_text("a file")
    target = store.record_failure(staged(store), SPEC, {"reason": "killed"})
    assert target.name == "8"
    assert [f["reason"] for f in store.failures(ID)] == ["killed"]


def test_a_log_of_usual_length_is_kept_whole(store):
    folder = staged(store)
    whole = os.urandom(LOG_KEPT)
    (folder / "log.txt").write_bytes(whole)
    target = store.record_failure(folder, SPEC, {"reason": "killed"})
    assert (target / "log.txt").read_bytes() == whole


@pytest.mark.parametrize("excess", [1, LOG_KEPT // 3, 40 << 20])
def test_of_a_huge_log_the_beginning_and_the_end_are_kept(store, excess):
    folder = staged(store)
    half = LOG_KEPT // 2
    with (folder / "log.txt").open("wb") as log:
        log.write(b"b" * half)
        log.seek(excess, os.SEEK_CUR)  # a hole: nothing is written
        log.write(b"e" * half)
    target = store.record_failure(folder, SPEC, {"reason": "printed too much"})
    kept = (target / "log.txt").read_bytes()
    assert kept == b"b" * half + f"\n... {excess} bytes left out ...\n".encode() + b"e" * half
    assert len(kept) < LOG_KEPT + 100


# The table


def test_the_table_leaves_out_what_does_not_verify_and_can_be_made_again(store):
    publish(store)
    publish(store, OTHER)
    assert len(pq.read_table(store.compact())) == 2
    truncate(store.runs / ID / "scores.parquet")
    assert pq.read_table(store.compact())["run_id"].to_pylist() == [OTHER.run_id]


def test_a_table_that_says_what_it_should_is_left_alone(store):
    publish(store)
    before = store.compact().stat()
    assert store.compact().stat().st_mtime_ns == before.st_mtime_ns
    assert store.table.stat().st_ino == before.st_ino
    publish(store, OTHER)
    assert store.compact().stat().st_ino != before.st_ino


@pytest.mark.parametrize(
    "damage", [truncate, lambda p: p.write_bytes(b""), lambda p: p.unlink()],
    ids=["truncated", "empty", "gone"],
)  # fmt: skip
def test_a_damaged_table_heals(store, damage):
    publish(store)
    before = store.compact().read_bytes()
    damage(store.table)
    assert store.compact().read_bytes() == before


def test_a_table_that_cannot_be_written_is_an_error_of_the_store(store, monkeypatch):
    publish(store)
    monkeypatch.setattr(os, "replace", NO_SPACE)
    with pytest.raises(StoreError, match=r"cannot write .*runs.parquet: No space left"):
        store.compact()


def test_tables_made_at_once_hold_all_runs(store):
    """The last command to finish sees the runs of all, whoever was first."""
    for seed in range(8):
        publish(store, replace(SPEC, seed=seed))
    code = f"from bench.store.folder import *; Store(Path({str(store.root)!r})).compact()"
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [p.wait(60) for p in both] == [0, 0]
    assert len(pq.read_table(store.table)) == 8


# The search


def test_a_run_is_found_by_the_beginning_of_its_id(store):
    for seed in range(20):  # more than 16: two of them begin alike
        publish(store, replace(SPEC, seed=seed))
    ids = store.ids()
    assert find(store, ids[3]) == ids[3]
    alone = next(i[:n] for n in range(1, 17) for i in ids if sum(j[:n] == i[:n] for j in ids) == 1)
    assert find(store, alone).startswith(alone)
    twice = next(i[0] for i in ids if sum(j[0] == i[0] for j in ids) > 1)
    with pytest.raises(RequestError, match=f"runs begin with '{twice}'"):
        find(store, twice)
    for nothing in ("", "x", "*", "..", "/", ids[0] + "0"):
        with pytest.raises(RequestError, match="no run begins"):
            find(store, nothing)


# bench show


def test_a_run_is_shown_by_the_beginning_of_its_id(store, capsys):
    publish(store)
    publish(store, OTHER)
    code, out, err = bench(capsys, "show", ID[:8], "--results", store.root)
    assert (code, err) == (0, "")
    assert out.startswith(f"run {ID}\n")
    for said in ("auroc", "0.75", "threads", "hole/2.png", "black=10", "warning: two"):
        assert said in out


def test_a_run_of_an_archive_is_shown(capsys):
    archive = FIXTURES / "archives/schema-1"
    code, out, err = bench(capsys, "show", "107e", "--results", archive)
    assert (code, err) == (0, "")
    assert "0.754" in out
    assert "107c993f3369d97013fad484f820b1e00974e5ac" in out


def test_a_run_that_failed_is_shown_with_its_last_reason_and_its_log(store, capsys):
    for reason in ("ValueError: [bold] of no avail", "ran into the time limit"):
        failure = {
            "kind": "method",
            "reason": reason,
            "traceback": "",
            "provenance": {"threads": 2},
        }
        target = store.record_failure(staged(store), SPEC, failure)
    code, out, err = bench(capsys, "show", ID[:8], "--results", store.root)
    assert (code, err) == (0, "")
    assert f"run {ID} has no result: it failed 2 times" in out
    assert "ran into the time limit" in out
    assert f"log: {target}/log.txt" in out
    publish(store)  # a result counts, whatever failed before
    assert bench(capsys, "show", ID[:8], "--results", store.root)[1].startswith(f"run {ID}\n")


def test_a_failure_of_an_earlier_bench_is_shown(store, capsys):
    shutil.copytree(FIXTURES / "failures/without-kind", store.failed, dirs_exist_ok=True)
    code, out, err = bench(capsys, "show", "107e", "--results", store.root)
    assert (code, err) == (0, "")
    assert "RuntimeError: no such luck" in out


def test_a_failure_that_says_little_is_shown_as_far_as_it_goes(store, capsys):
    folder = store.failed / ID / "1"
    folder.mkdir(parents=True)
    (folder / "failure.json").write_text('{"reason": "because"}')
    code, out, _ = bench(capsys, "show", ID[:8], "--results", store.root)
    assert code == 0
    assert "because" in out


def test_what_cannot_be_shown_is_one_line(store, capsys, tmp_path):
    publish(store)
    publish(store, OTHER)
    truncate(store.runs / ID / "scores.parquet")
    newer = store.runs / OTHER.run_id
    rewrite(newer, lambda r: r.update(schema=99))
    for arguments, said in (
        (["show", "x", "--results", store.root], "no run begins with 'x'"),
        (["show", "", "--results", store.root], "no run begins with ''"),
        (["show", ID, "--results", store.root], "scores.parquet does not agree"),
        (["show", OTHER.run_id, "--results", store.root], "update"),
        (["show", ID, "--results", tmp_path / "nowhere"], "neither a results folder"),
    ):
        code, out, err = bench(capsys, *arguments)
        assert (code, out) == (2, ""), arguments
        assert said in err
        assert err.count("\n") == 1
