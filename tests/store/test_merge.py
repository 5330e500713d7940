"""Runs from other folders and archives: only what verifies comes in, and what is here stays."""

import contextlib
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.errors import CorruptRun, StoreError
from bench.store.archive import MANIFEST, Archive, pack
from bench.store.folder import Store
from bench.store.merge import Merged, merge_results
from bench.store.receipt import seal
from bench.store.verify import problems
from tests.fixtures.runs import (
    CLOSE,
    ELSEWHERE,
    FAR,
    FIXTURES,
    HERE,
    ID,
    NO_SPACE,
    OTHER,
    REFERENCE,
    SPEC,
    THIRD,
    bench,
    contents,
    flip,
    publish,
    receipt_of,
    reseal,
    rewrite,
    rewrite_scores,
    store_at,
    tree,
    truncate,
)


@pytest.fixture
def store(tmp_path):
    return store_at(tmp_path / "here")


@pytest.fixture
def source(tmp_path):
    return store_at(tmp_path / "there", SPEC, OTHER, THIRD)


def told(source, store):
    """Return what was said of each run."""
    return {m.run_id: m.kind for m in merge_results(source, store)}


# What becomes of a run


def test_runs_come_in_whole_and_are_in_the_table(source, store):
    before = tree(source.root)
    assert list(merge_results(source, store)) == [Merged(i, "new") for i in source.ids()]
    assert store.ids() == source.ids()
    for run_id in source.ids():
        assert contents(store.runs / run_id) == contents(source.runs / run_id)
    assert list(problems(store)) == []
    assert len(pq.read_table(store.table)) == 3
    assert list(store.staging.iterdir()) == []
    assert tree(source.root) == before


def test_runs_come_from_an_archive_without_their_logs(source, store, tmp_path):
    pack(source, tmp_path / "archive")
    assert set(told(Archive(tmp_path / "archive"), store).values()) == {"new"}
    assert list(problems(store)) == []
    for run_id in source.ids():
        there, here = source.read(run_id), store.read(run_id)
        assert set(here.files) == {"scores.parquet"}
        assert replace(here, files=there.files) == there
        assert store.scores(run_id).table().equals(source.scores(run_id).table())


def test_the_same_runs_again_change_nothing(source, store, tmp_path):
    told(source, store)
    before = tree(store.runs)
    table = store.table.stat()
    assert list(merge_results(source, store)) == [
        Merged(i, "identical", "identical") for i in store.ids()
    ]
    pack(source, tmp_path / "archive")
    assert set(told(Archive(tmp_path / "archive"), store).values()) == {"identical"}
    assert set(told(store, store).values()) == {"identical"}
    assert tree(store.runs) == before
    assert store.table.stat().st_mtime_ns == table.st_mtime_ns


@pytest.mark.parametrize(
    ("scores", "provenance", "kind", "says"),
    [
        (CLOSE, ELSEWHERE, "close", "close: AUROC differs by +0.000000 (threads 2 and 1)"),
        (CLOSE, HERE, "different", "by +0.000000 (the environment is the same)"),
        (FAR, ELSEWHERE, "different", "different: AUROC differs by -0.750000 (threads 2 and 1)"),
        (FAR, HERE, "different", "by -0.750000 (the environment is the same)"),
    ],
)  # fmt: skip
def test_of_runs_that_differ_ours_stays(store, tmp_path, scores, provenance, kind, says):
    publish(store)
    theirs = store_at(tmp_path / "theirs", SPEC, OTHER, scores=scores, provenance=provenance)
    before = tree(store.runs / ID)
    found = {m.run_id: m for m in merge_results(theirs, store)}
    assert (found[ID].kind, found[OTHER.run_id].kind) == (kind, "new")
    assert says in found[ID].detail
    assert tree(store.runs / ID) == before


def broken_scores(folder):
    truncate(folder / "scores.parquet")


def flipped_log(folder):
    flip(folder / "log.txt")


def no_receipt(folder):
    (folder / "run.json").unlink()


def better_auroc(folder):
    rewrite(folder, lambda r: r["metrics"].update(auroc=0.99))


def other_scores(folder):
    rewrite_scores(folder, FAR)


def other_spec(folder):
    rewrite(folder, lambda r: r["spec"].update(seed=9))


def no_spec(folder):
    rewrite(folder, lambda r: r.pop("spec"))


def null_spec(folder):
    rewrite(folder, lambda r: r.update(spec=None))


def no_provenance(folder):
    rewrite(folder, lambda r: r.pop("provenance"))


def no_timings(folder):
    rewrite(folder, lambda r: r.update(timings=None))


def endless_auroc(folder):
    rewrite(folder, lambda r: r["metrics"].update(auroc=10**400))


def no_scores_among_the_files(folder):
    rewrite(folder, lambda r: r["files"].pop("scores.parquet"))


DAMAGES = [
    broken_scores, flipped_log, no_receipt, better_auroc, other_scores, other_spec, no_spec,
    null_spec,
    no_provenance,
    no_timings,
    endless_auroc,
    no_scores_among_the_files,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_that_does_not_verify_stays_out_and_the_others_come(source, store, damage):
    damage(source.runs / ID)
    found = {m.run_id: m for m in merge_results(source, store)}
    assert {i: m.kind for i, m in found.items()} == {
        ID: "damaged", OTHER.run_id: "new", THIRD.run_id: "new",
    }  # fmt: skip
    assert ID in found[ID].detail
    assert store.ids() == sorted([OTHER.run_id, THIRD.run_id])
    assert list(problems(store)) == []


@pytest.mark.parametrize("damage", [broken_scores, no_receipt, better_auroc])
def test_a_run_that_does_not_verify_harms_no_run_that_is_here(source, store, damage):
    publish(store)
    before = tree(store.runs / ID)
    damage(source.runs / ID)
    assert told(source, store)[ID] == "damaged"
    assert tree(store.runs / ID) == before


@pytest.mark.parametrize("damage", [broken_scores, flipped_log, no_receipt])
def test_a_damaged_run_that_is_here_moves_aside_for_a_sound_one(source, store, damage):
    publish(store)
    damage(store.runs / ID)
    found = {m.run_id: m for m in merge_results(source, store)}
    assert found[ID] == Merged(ID, "new", "the one that was here was damaged")
    assert store.read(ID).metrics.auroc == 0.75
    assert len(list(store.quarantine.glob(f"{ID}-*"))) == 1
    assert list(problems(store)) == []


def test_a_damaged_run_stays_where_its_source_is_damaged_too(source, store):
    publish(store)
    broken_scores(store.runs / ID)
    broken_scores(source.runs / ID)
    assert told(source, store)[ID] == "damaged"
    assert store.ids() == source.ids()


@pytest.mark.parametrize("where", ["here", "there"])
def test_runs_of_a_newer_bench_end_it_and_are_never_moved(source, store, where):
    told(source, store)
    folder = {"here": store, "there": source}[where].runs / ID
    rewrite(folder, lambda r: r.update(schema=99))
    before = tree(store.runs)
    with pytest.raises(StoreError, match="update") as caught:
        told(source, store)
    assert not isinstance(caught.value, CorruptRun)
    assert tree(store.runs) == before
    assert not store.quarantine.exists()


# Ending in the middle


def test_what_is_left_half_way_is_whole_and_the_rest_comes_the_next_time(source, store):
    first = next(merge_results(source, store))
    assert store.ids() == [first.run_id]
    assert list(store.staging.iterdir()) == []
    assert store.read(first.run_id) == source.read(first.run_id)
    assert sorted(told(source, store).values()) == ["identical", "new", "new"]
    assert list(problems(store)) == []


@pytest.mark.parametrize("step", ["os.rename", "os.fsync", "shutil.copyfile"])
def test_a_full_disk_leaves_whole_runs_only(source, store, monkeypatch, step):
    under_way = merge_results(source, store)
    first = next(under_way)
    monkeypatch.setattr(step, NO_SPACE)
    with pytest.raises(StoreError, match="No space left"):
        next(under_way)
    monkeypatch.undo()
    assert store.ids() == [first.run_id]
    assert list(store.staging.iterdir()) == []
    assert store.read(first.run_id) == source.read(first.run_id)


def test_an_interrupt_leaves_whole_runs_only(source, store, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        told(source, store)
    assert store.ids() == []
    assert list(store.staging.iterdir()) == []


def test_a_run_that_another_command_brings_in_meanwhile_is_not_called_new(
    source, store, monkeypatch
):
    real = shutil.copyfile

    def copy_late(there, here, **more):
        if Path(there).parent.name == ID and not store.has(ID):
            shutil.copytree(source.runs / ID, store.runs / ID)
        return real(there, here, **more)

    monkeypatch.setattr("shutil.copyfile", copy_late)
    assert told(source, store) == {ID: "identical", OTHER.run_id: "new", THIRD.run_id: "new"}
    assert list(store.staging.iterdir()) == []


# Hostile sources


@pytest.mark.parametrize(
    "name",
    [
        "../../secret.txt",
        "/etc/hostname",
        "..",
        "",
        "no\0such",
    ],
    ids=ascii,
)
def test_a_receipt_that_names_files_elsewhere_copies_nothing(source, store, name):
    secret = source.root / "secret.txt"
    secret.write_text("mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    rewrite(source.runs / ID, lambda r: r["files"].update({name: digest}))
    assert told(source, store) == {ID: "damaged", OTHER.run_id: "new", THIRD.run_id: "new"}
    assert store.ids() == sorted([OTHER.run_id, THIRD.run_id])
    assert not any(p.name == "secret.txt" for p in store.root.rglob("*"))


@pytest.mark.parametrize("run_id", ["../../outside", "/tmp/outside", "..", "", f"{ID}/x"])
def test_an_archive_that_names_runs_elsewhere_writes_nothing(source, store, tmp_path, run_id):
    """All of its digests are right; the run says so of itself as well."""
    out = tmp_path / "archive"
    pack(source, out)
    receipt = replace(receipt_of(), run_id=run_id)
    ids, rows = [run_id], Archive(out).scores(ID).table()
    names = pa.array([run_id] * len(rows), pa.string())
    pq.write_table(
        pa.table({"run_id": ids, "receipt": [seal(receipt).decode()]}), out / "receipts.parquet"
    )
    pq.write_table(rows.add_column(0, "run_id", names), out / "scores.parquet")
    reseal(out)
    before = {p: d for p, d in tree(tmp_path).items() if "here" not in p}
    assert told(Archive(out), store) == {run_id: "damaged"}
    assert store.ids() == []
    assert {p: d for p, d in tree(tmp_path).items() if "here" not in p} == before


def test_an_archive_with_scores_of_another_form_is_damaged_and_no_other_error(
    source, store, tmp_path
):
    out = tmp_path / "archive"
    pack(source, out)
    rows = pq.read_table(out / "scores.parquet")
    pq.write_table(rows.drop_columns("role"), out / "scores.parquet")
    reseal(out)
    with contextlib.suppress(CorruptRun):  # the archive as a whole may be refused
        assert set(told(Archive(out), store).values()) == {"damaged"}
    assert store.ids() == []


def test_what_is_no_run_in_a_source_stays_out(source, store):
    (source.runs / ".DS_Store").write_bytes(b"\0")
    (source.runs / f"{ID} copy").mkdir()
    assert set(told(source, store)) == set(source.ids())
    assert len(store.ids()) == 3


def test_a_file_that_the_receipt_does_not_name_stays_out(source, store):
    (source.runs / ID / "notes.txt").write_text("mine")
    assert told(source, store)[ID] == "new"
    assert set(contents(store.runs / ID)) == {"run.json", "scores.parquet", "log.txt"}


# The command


def test_the_command_brings_in_several_sources(source, store, tmp_path, capsys):
    archive = FIXTURES / "archives/schema-1"
    code, out, err = bench(capsys, "merge", source.root, archive, "--results", store.root)
    assert (code, err) == (0, "")
    assert out == f"{source.root}: 3 new\n{archive}: 3 new\n"
    assert len(store.ids()) == 6
    assert list(problems(store)) == []
    code, out, _ = bench(capsys, "merge", source.root, archive, "--results", store.root)
    assert (code, out) == (0, f"{source.root}: 3 identical\n{archive}: 3 identical\n")


def test_the_command_makes_the_results_folder_and_an_empty_source_is_no_error(tmp_path, capsys):
    empty = store_at(tmp_path / "empty").root
    results = tmp_path / "new" / "results"
    code, out, err = bench(capsys, "merge", empty, "--results", results)
    assert (code, out, err) == (0, f"{empty}: no runs\n", "")
    assert Store(results).ids() == []


def test_the_command_says_what_is_close_different_or_damaged(source, store, tmp_path, capsys):
    publish(store)
    publish(store, OTHER)
    theirs = store_at(tmp_path / "theirs", SPEC, THIRD, scores=CLOSE, provenance=ELSEWHERE)
    arguments = ("merge", theirs.root, "--results", store.root)
    code, out, err = bench(capsys, *arguments)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{ID}: close: AUROC differs by +0.000000 (threads 2 and 1)",
        f"{theirs.root}: 1 close, 1 new",
    ]
    publish(theirs, OTHER, FAR)
    code, out, err = bench(capsys, *arguments)
    assert (code, err) == (1, "")
    assert f"{OTHER.run_id}: different: AUROC differs by -0.750000" in out
    assert "1 close, 1 different, 1 identical" in out
    broken_scores(theirs.runs / OTHER.run_id)
    code, out, err = bench(capsys, *arguments)
    assert (code, err) == (1, "")
    assert f"{OTHER.run_id}: run {OTHER.run_id} is damaged: scores.parquet does not agree" in out
    assert out.count("\n") == 3


def test_nothing_is_merged_where_one_source_cannot_be_opened(source, store, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    pack(source, damaged)
    flip(damaged / "scores.parquet")
    before = tree(store.root)
    for wrong, said in (
        (tmp_path / "nowhere", "neither a results folder"),
        (damaged, "is damaged"),
    ):
        code, out, err = bench(capsys, "merge", source.root, wrong, "--results", store.root)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1
        assert tree(store.root) == before


def test_an_archive_is_merged_into_nowhere(source, tmp_path, capsys):
    pack(source, tmp_path / "archive")
    code, out, err = bench(capsys, "merge", source.root, "--results", tmp_path / "archive")
    assert (code, out) == (2, "")
    assert "is an archive" in err


def test_the_reference_results_can_be_merged(store):
    """So that a campaign goes on from what is committed; what is there stays, wherever made."""
    for folder in sorted(REFERENCE.iterdir()):
        source = Archive(folder) if (folder / MANIFEST).exists() else Store(folder)
        for merged in list(merge_results(source, store)):
            assert merged.kind in {"new", "identical", "close", "different"}
            if merged.kind == "different":  # trained through choices of a box, on a GPU and on none
                assert "device cpu and" in merged.detail
                assert store.read(merged.run_id).spec.method == "atacnet"
            one, other = source.scores(merged.run_id), store.scores(merged.run_id)
            same = np.array_equal(one.score, other.score)
            assert same == (merged.kind in {"new", "identical"})
        assert set(source.ids()) <= set(store.ids())
