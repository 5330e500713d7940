"""Results packed into a few files: nothing lost, nothing changed unseen, nothing overwritten."""

import errno
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import CorruptRun, RequestError, StoreError
from bench.store.archive import FILES, MANIFEST, Archive, pack
from bench.store.folder import Store
from bench.store.merge import merge_results
from bench.store.open import open_results, results_at
from bench.store.results import find, receipts, verified
from bench.store.scores import write_scores
from bench.store.verify import contradictions, problems
from tests.fixtures.runs import (
    FAR,
    FIXTURES,
    ID,
    NO_SPACE,
    OTHER,
    SCORES,
    SPEC,
    THIRD,
    bench,
    contents,
    fails_with,
    flip,
    reseal,
    rewrite,
    rewrite_scores,
    store_at,
    tree,
    truncate,
)

ALL = {*FILES, MANIFEST}


@pytest.fixture
def store(tmp_path):
    return store_at(tmp_path / "results", SPEC, OTHER)


@pytest.fixture
def out(store, tmp_path):
    """An archive of the two runs of `store`."""
    pack(store, tmp_path / "archive")
    return tmp_path / "archive"


def beside(folder):
    """Return the names of what lies beside a folder, hidden things too."""
    return {p.name for p in folder.parent.iterdir()} - {folder.name}


# There and back


def test_an_archive_is_read_like_the_results_that_it_was_made_from(store, out):
    archive = Archive(out)
    assert archive.ids() == store.ids() == sorted([ID, OTHER.run_id])
    for run_id in store.ids():
        assert archive.has(run_id)
        assert archive.read(run_id) == replace(store.read(run_id), files={})
        one, other = archive.scores(run_id), store.scores(run_id)
        assert one.table().equals(other.table())
    assert archive.table_bytes() == store.table_bytes()
    assert archive.failures(ID) == []
    assert [r.run_id for r in receipts(archive)] == store.ids()
    good, bad = verified(archive, [ID, "0" * 16])
    assert (list(good), bad) == ([ID], [])
    assert find(archive, ID[:12]) == ID
    assert list(problems(archive)) == []


def test_an_archive_holds_four_files_that_others_can_read_and_no_log(out):
    assert {p.name for p in out.iterdir()} == ALL
    assert out.stat().st_mode & 0o777 == 0o755
    assert not any(b"epoch 1/1" in content for content in contents(out).values())


def test_there_and_back_gives_the_same_bytes(store, out, tmp_path):
    back = Store(tmp_path / "back")
    assert [m.kind for m in merge_results(Archive(out), back)] == ["new", "new"]
    pack(back, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(out)
    pack(Archive(out), tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(out)


def test_what_the_runs_were_published_in_makes_no_difference(store, out, tmp_path):
    pack(store_at(tmp_path / "other", OTHER, SPEC), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(out)


def test_runs_of_different_length_are_kept_apart(store, tmp_path):
    longer = SCORES.table().to_pylist() * 3
    for i, row in enumerate(longer):
        row["file"] = f"{i}.png"
    more = type(SCORES).from_table(pa.Table.from_pylist(longer, SCORES.table().schema))
    store_at(store.root, THIRD, scores=more)
    pack(store, tmp_path / "archive")
    archive = Archive(tmp_path / "archive")
    for run_id in store.ids():
        assert archive.scores(run_id).table().equals(store.scores(run_id).table())
    assert len(archive.scores(THIRD.run_id).file) == 15


def test_runs_that_are_not_there(out):
    archive = Archive(out)
    assert not archive.has(THIRD.run_id)
    with pytest.raises(CorruptRun, match=f"has no run {THIRD.run_id}"):
        archive.read(THIRD.run_id)
    with pytest.raises(CorruptRun, match=f"no scores of run {THIRD.run_id}"):
        archive.scores(THIRD.run_id)
    with pytest.raises(RequestError, match="no run begins"):
        find(archive, THIRD.run_id)


def test_results_and_archives_are_told_apart(store, out, tmp_path):
    assert isinstance(open_results(store.root), Store)
    assert isinstance(open_results(out), Archive)
    assert isinstance(results_at(tmp_path / "nowhere"), Store)
    (tmp_path / "file").write_text("")
    for nothing in (tmp_path / "nowhere", tmp_path, tmp_path / "file"):
        with pytest.raises(StoreError, match=r"neither a results folder \(runs/\) nor an archive"):
            open_results(nothing)


# Written once by a bench whose archives had schema 1, and never made again: such archives are in
# this repository and on users' disks. A new schema gets a folder of its own.


def test_an_archive_of_schema_1_is_read(tmp_path):
    archive = Archive(FIXTURES / "archives/schema-1")
    assert archive.ids() == ["107e662b2a61541b", "6d5768f0aae87d45", "fe8ce37688676445"]
    for run_id in archive.ids():
        assert list(contradictions(archive.read(run_id), archive.scores(run_id))) == []
    read = archive.read("6d5768f0aae87d45")
    assert (read.spec.method, read.spec.dataset) == ("cutmix", "head_ct")
    assert read.metrics == {
        "auroc": 0.8124444444444444,
        "ap": 0.930841738791492,
        "scores_sha256": "2921c5118b7cb4b2bf25b91ee50adfe6a0d65164d83fadce5c51e537870dc850",
    }
    assert read.provenance.commit == "107c993f3369d97013fad484f820b1e00974e5ac"
    scores = archive.scores("fe8ce37688676445")
    assert len(scores.file) == 180
    assert scores.file[0] == "no/1 no.jpeg"
    assert scores.score[0] == np.float32(-0.7576369643211365)
    assert (scores.role.count("drawn"), int(scores.label.sum())) == (10, 155)
    rows = pq.read_table(pa.BufferReader(archive.table_bytes())).to_pylist()
    assert [row["auroc"] for row in rows] == [0.754, 0.8124444444444444, 0.6752777777777778]
    store = Store(tmp_path / "results")
    assert [m.kind for m in merge_results(archive, store)] == ["new"] * 3
    assert store.read("107e662b2a61541b").metrics.auroc == 0.754


# Damage


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    pack(store_at(folder / "results", SPEC, OTHER), folder / "archive")
    return folder / "archive", contents(folder / "archive")


@pytest.mark.parametrize("name", sorted(ALL))
@given(data=st.data())
def test_every_flipped_bit_is_found_when_an_archive_is_opened(packed, name, data):
    out, whole = packed
    place = data.draw(st.integers(0, len(whole[name]) - 1))
    flip(out / name, place, data.draw(st.integers(0, 7)))
    try:
        with pytest.raises(CorruptRun, match=f"archive {out} is damaged"):
            Archive(out).ids()
    finally:
        (out / name).write_bytes(whole[name])


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize(
    "damage",
    [truncate, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(p.read_bytes() * 2)],
    ids=["truncated", "empty", "doubled"],
)
def test_a_file_of_another_length_is_found(out, name, damage):
    if name == MANIFEST and damage is truncate:
        damage = lambda p: p.write_bytes(p.read_bytes()[:-2])  # noqa: E731  the last is a newline
    damage(out / name)
    with pytest.raises(CorruptRun, match=f"archive {out} is damaged"):
        open_results(out)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_is_found(out, name):
    (out / name).unlink()
    with pytest.raises(CorruptRun, match="is damaged: No such file"):
        open_results(out)
    (out / name).mkdir()
    with pytest.raises(CorruptRun, match="is damaged: Is a directory"):
        open_results(out)


def test_without_its_card_it_is_no_archive(out):
    (out / MANIFEST).unlink()
    with pytest.raises(StoreError, match="nor an archive"):
        open_results(out)


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_file_of_another_archive_is_found(out, tmp_path, name):
    pack(store_at(tmp_path / "other", SPEC, THIRD, scores=FAR), tmp_path / "other archive")
    shutil.copy(tmp_path / "other archive" / name, out / name)
    with pytest.raises(CorruptRun, match="does not agree with its digest"):
        Archive(out)


def parquet(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("change", [
    lambda c: c.update(schema=2),
    lambda c: (c.update(schema=2), c.pop("files")),
    lambda c: (c.update(schema=2), c["files"].update({"maps.parquet": "0" * 64})),
])  # fmt: skip
def test_an_archive_of_a_newer_bench_is_not_damaged_and_says_to_update(out, change):
    reseal(out, change)
    with pytest.raises(StoreError, match=r"a newer bench wrote it; update") as caught:
        Archive(out)
    assert not isinstance(caught.value, CorruptRun)


@pytest.mark.parametrize("change", [
    lambda c: c.pop("schema"),
    lambda c: c.pop("files"),
    lambda c: c.update(files=[1]),
    lambda c: c["files"].pop("runs.parquet"),
], ids=["no schema", "no files", "a list of files", "a file less"])  # fmt: skip
def test_a_card_of_another_form_is_damaged(out, change):
    reseal(out, change)
    with pytest.raises(CorruptRun, match="is damaged"):
        Archive(out)


def read_all(out):
    archive = Archive(out)
    return [(archive.read(i), archive.scores(i)) for i in (ID, *archive.ids())]


@pytest.mark.parametrize("name", ["receipts.parquet", "scores.parquet"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a table",
        parquet(pa.table({})),
        parquet(pa.table({"run_id": [ID]})),
        parquet(pa.table({"run_id": [ID], "receipt": [None], "score": [None]})),
    ],
    ids=["empty", "text", "no columns", "ids alone", "nulls"],
)
def test_an_archive_that_was_made_by_hand_raises_corrupt_run_and_nothing_else(out, name, content):
    """All its digests are right, and what they vouch for is no archive."""
    (out / name).write_bytes(content)
    reseal(out)
    with pytest.raises(CorruptRun):
        read_all(out)


# Packing


def test_nothing_is_no_archive(tmp_path):
    with pytest.raises(RequestError, match=r"there are no runs in .* to archive"):
        pack(store_at(tmp_path / "results"), tmp_path / "archive")
    assert not (tmp_path / "archive").exists()


def broken_scores(folder):
    truncate(folder / "scores.parquet")


def other_scores(folder):
    rewrite_scores(folder, FAR)


def no_receipt(folder):
    (folder / "run.json").unlink()


def other_auroc(folder):
    rewrite(folder, lambda r: r["metrics"].update(auroc=0.99))


@pytest.mark.parametrize("damage", [broken_scores, other_scores, no_receipt])
def test_a_corrupt_run_is_not_packed_and_what_was_packed_stays(store, out, damage):
    before = tree(out)
    store_at(store.root, THIRD)
    damage(store.runs / ID)
    with pytest.raises(CorruptRun, match=f"run {ID} is damaged"):
        pack(store, out)
    assert tree(out) == before


def test_a_run_of_a_newer_bench_is_not_packed(store, out):
    rewrite(store.runs / ID, lambda r: r.update(schema=99))
    with pytest.raises(StoreError, match="update"):
        pack(store, out)


def test_a_folder_that_holds_anything_else_is_not_overwritten(store, out):
    (out / "notes.txt").write_text("mine")
    before = tree(out)
    with pytest.raises(RequestError, match=r"holds notes.txt, which is no part of an archive"):
        pack(store, out)
    assert tree(out) == before
    with pytest.raises(RequestError, match="which is no part of an archive"):
        pack(store, store.root)
    with pytest.raises(RequestError, match="which is no part of an archive"):
        pack(store, out / "notes.txt")
    assert (out / "notes.txt").read_text() == "mine"


def test_runs_that_are_not_among_the_results_are_not_lost(out, tmp_path):
    before = tree(out)
    with pytest.raises(RequestError, match=f"holds 1 runs that are not among.*bench merge {out}"):
        pack(store_at(tmp_path / "other", SPEC, THIRD), out)
    assert tree(out) == before


def test_a_damaged_archive_is_not_overwritten(store, out):
    flip(out / "scores.parquet")
    before = tree(out)
    with pytest.raises(CorruptRun):
        pack(store, out)
    assert tree(out) == before


def test_an_archive_of_a_newer_bench_is_not_overwritten(store, out):
    reseal(out, lambda c: c.update(schema=2))
    with pytest.raises(StoreError, match="update"):
        pack(store, out)


def test_a_larger_archive_takes_the_place_of_a_smaller_one(store, out):
    store_at(store.root, THIRD)
    assert pack(store, out) == 3
    assert Archive(out).ids() == store.ids()
    assert {p.name for p in out.iterdir()} == ALL
    assert beside(out) == {"results"}
    assert pack(Archive(out), out) == 3  # onto itself


def test_an_empty_folder_becomes_an_archive_and_its_parents_are_made(store, tmp_path):
    (tmp_path / "empty").mkdir()
    assert pack(store, tmp_path / "empty") == 2
    assert pack(store, tmp_path / "deep" / "er") == 2
    assert Archive(tmp_path / "deep" / "er").ids() == Archive(tmp_path / "empty").ids()


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_leaves_the_old_archive_and_nothing_else(
    store, out, monkeypatch, failing
):
    before = contents(out)
    store_at(store.root, THIRD)
    real, calls = os.rename, []

    def rename(*arguments):
        calls.append(arguments)
        if len(calls) == failing:
            fails_with(errno.EIO)()
        real(*arguments)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(StoreError, match=r"cannot write to .*: Input/output error"):
        pack(store, out)
    assert contents(out) == before
    assert beside(out) == {"results"}


def test_a_rename_that_fails_leaves_no_half_archive(store, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "rename", NO_SPACE)
    with pytest.raises(StoreError, match="No space left"):
        pack(store, tmp_path / "archive")
    assert beside(tmp_path / "archive") == {"results"}


@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_leaves_the_old_archive_or_none(store, tmp_path, monkeypatch, there):
    out = tmp_path / "archive"
    if there:
        pack(store, out)
        before = tree(out)
    monkeypatch.setattr(os, "fsync", NO_SPACE)
    with pytest.raises(StoreError, match=r"cannot write to .*: No space left"):
        pack(store, out)
    assert beside(out) == {"results"}
    assert out.exists() == there
    assert not there or tree(out) == before


def test_an_interrupt_leaves_the_old_archive(store, out, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    before = tree(out)
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(store, out)
    assert tree(out) == before
    assert beside(out) == {"results"}


# The command


def test_the_command_packs_and_says_how_much(store, tmp_path, capsys):
    code, out, err = bench(
        capsys, "archive", "--results", store.root, "--out", tmp_path / "archive"
    )
    assert (code, err) == (0, "")
    assert out.startswith(f"2 runs in {tmp_path / 'archive'}, 0.0")


def test_what_cannot_be_packed_is_one_line_with_exit_code_2(store, tmp_path, capsys):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("")
    empty = store_at(tmp_path / "empty").root
    damaged = store_at(tmp_path / "damaged", SPEC)
    other_scores(damaged.runs / ID)
    for results, out, said in (
        (store.root, foreign, "thesis.tex"),
        (store.root, store.root, "no part of an archive"),
        (empty, tmp_path / "archive", "no runs"),
        (damaged.root, tmp_path / "archive", "its scores are not those of its receipt"),
        (tmp_path / "nowhere", tmp_path / "archive", "neither a results folder"),
    ):
        code, told, err = bench(capsys, "archive", "--results", results, "--out", out)
        assert (code, told) == (2, "")
        assert said in err
        assert err.count("\n") == 1
    assert not (tmp_path / "archive").exists()


def test_an_archive_is_no_place_for_new_runs(out, capsys):
    code, _, err = bench(capsys, "merge", out, "--results", out)
    assert code == 2
    assert "is an archive" in err
    assert json.loads((out / MANIFEST).read_bytes())["kind"] == "archive"


def test_scores_that_were_changed_beside_a_true_receipt_are_not_packed(store, tmp_path):
    """The file is not among those of the receipt: its digests alone would not tell."""
    folder = store.runs / ID
    rewrite(folder, lambda r: r["files"].pop("scores.parquet"))
    (folder / "scores.parquet").unlink()
    write_scores(folder / "scores.parquet", FAR)
    with pytest.raises(CorruptRun, match=f"run {ID} is damaged"):
        pack(store, tmp_path / "archive")
