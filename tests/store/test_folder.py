"""A results folder: what is published, claimed, recorded as failed, set aside and found again."""

import os
import shutil
import subprocess
from dataclasses import replace

import pytest

from bench.errors import CorruptRun, MethodError, RequestError, StoreError
from bench.store.folder import Store
from bench.store.results import find, receipts, verified
from tests.fixtures.runs import (
    CLOSE,
    ELSEWHERE,
    FAR,
    FIXTURES,
    ID,
    NO_SPACE,
    OTHER,
    SCORES,
    SPEC,
    digest_of,
    publish,
    receipt_of,
    staged,
    tree,
    truncate,
)
from tests.fixtures.stores import HOST

# Publishing and reading


def test_a_published_run_is_read_back(store):
    assert publish(store) is None
    assert store.has(ID)
    assert store.ids() == [ID]
    read = store.read(ID)
    assert read.spec == SPEC
    assert read.files.keys() == {"scores.parquet", "log.txt"}
    assert read == replace(receipt_of(), files=read.files)
    assert store.scores(ID).gap(SCORES) == 0.0
    assert list(store.staging.iterdir()) == []


def test_a_run_of_another_machine_is_seen_while_its_name_is_not_known_here(store, monkeypatch):
    """Shared file systems may remember for a minute that a name was not there; listings are new."""
    publish(store)
    before, gone = tree(store.runs), "0" * 16
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    assert store.has(ID)
    assert not store.has(gone)
    monkeypatch.setattr(os, "listdir", lambda path: [ID, gone])  # removed meanwhile
    assert store.has(gone)
    assert tree(store.runs) == before


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
    assert store.read(ID).metrics.auroc == 0.75


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
    assert store.read(ID).metrics.auroc == 0.0
    assert publish(store, scores=CLOSE, again=True) is None
    assert store.ids() == [ID]
    kept = sorted(store.superseded.glob(f"{ID}-*"))
    assert len(kept) == 2
    assert (kept[0] / "run.json").read_bytes() == before
    assert {p.name for p in kept[0].iterdir()} == {"run.json", "scores.parquet", "log.txt"}


def test_what_another_command_has_replaced_is_not_published_again(store):
    publish(store)
    stored = store.read(ID)
    publish(store, scores=FAR, again=True)
    replaced = store.read(ID)
    store.publish_again(stored, replace(stored, warnings=("other masks",)))
    assert store.read(ID) == replaced
    store.publish_again(replaced, replace(replaced, warnings=("other masks",)))
    assert store.read(ID) == replace(replaced, warnings=("other masks",))
    assert list(store.staging.iterdir()) == []
    shutil.rmtree(store.runs / ID)
    for read in (lambda: store.scores(ID), lambda: store.publish_again(replaced, replaced)):
        with pytest.raises(CorruptRun):
            read()


def test_there_need_be_nothing_to_replace(store):
    assert publish(store, again=True) is None
    assert store.ids() == [ID]
    assert list(store.root.glob("superseded/*")) == []


def test_an_empty_folder_in_the_place_of_a_run_gives_way(store):
    (store.runs / ID).mkdir()
    assert publish(store) is None
    assert store.read(ID).run_id == ID


@pytest.mark.parametrize("step", ["rename", "fsync"])
def test_a_full_disk_publishes_nothing(store, monkeypatch, step):
    folder = staged(store)
    monkeypatch.setattr(os, step, NO_SPACE)
    with pytest.raises(StoreError, match=r"cannot publish run .*: No space left"):
        store.publish(folder, receipt_of())
    assert store.ids() == []


@pytest.mark.parametrize("step", ["rename", "fsync"])
def test_a_full_disk_replaces_nothing(store, monkeypatch, step):
    """It is the disk that is to blame, and not the method for other scores than before."""
    publish(store)
    folder = staged(store, SPEC, FAR)
    monkeypatch.setattr(os, step, NO_SPACE)
    with pytest.raises(StoreError, match=r"cannot publish run .*: No space left"):
        store.publish(folder, receipt_of(SPEC, FAR), replaces=digest_of(store))
    assert store.read(ID).metrics.auroc == 0.75


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
        store.publish(folder, receipt_of(SPEC, FAR), replaces=digest_of(store))
    assert store.read(ID).metrics.auroc == 0.75


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
    store.quarantine_run(ID)
    assert store.ids() == []
    assert len(list(store.quarantine.iterdir())) == 1
    assert publish(store) is None


def test_a_link_to_nothing_in_the_place_of_a_run_is_corrupt_and_can_be_set_aside(store):
    link_to_nothing(store.runs / ID)
    assert verified(store, [ID]) == ({}, [ID])
    store.quarantine_run(ID)
    assert publish(store) is None


def test_what_verifies_by_now_is_not_set_aside(store):
    """Another command has put a good run in the place of a damaged one."""
    publish(store)
    assert store.quarantine_run(ID) is None
    assert store.read(ID)
    assert store.quarantine_run(OTHER.run_id) is None


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
    found = store.publish(folder, receipt_of(), replaces="0" * 64)
    assert found.kind == "identical"
    assert not store.superseded.exists()


def test_what_is_set_aside_can_be_run_again_and_is_kept(store):
    for _ in range(2):
        publish(store)
        truncate(store.runs / ID / "scores.parquet")
        store.quarantine_run(ID)
        assert not store.has(ID)
    publish(store)
    assert len(list(store.quarantine.glob(f"{ID}-*/scores.parquet"))) == 2


def test_setting_aside_what_another_command_has_moved_is_no_error(store):
    publish(store)
    truncate(store.runs / ID / "scores.parquet")
    other_command = Store(store.root)
    other_command.quarantine_run(ID)
    store.quarantine_run(ID)
    assert len(list(store.quarantine.iterdir())) == 1


def test_scores_that_do_not_read_are_a_corrupt_run(store):
    publish(store)
    truncate(store.runs / ID / "scores.parquet")
    with pytest.raises(CorruptRun, match=f"run {ID} is damaged: .*scores.parquet does not read"):
        store.scores(ID)
