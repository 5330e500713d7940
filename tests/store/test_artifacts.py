"""What a run keeps beside its scores: wanted, kept, never lost, and outside of its identity."""

import fcntl
import shutil
from dataclasses import replace
from threading import Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.errors import CorruptRun, MethodError
from bench.execution.contract import project
from bench.store.archive import FILES, MANIFEST, Archive, pack
from bench.store.artifacts import (
    EMBEDDINGS,
    EXPLANATIONS,
    MODEL,
    artifact_words,
    missing_artifacts,
    settled_artifacts,
)
from bench.store.embeddings import embeddings_bytes
from bench.store.explanations import Explanations, explanations_bytes
from bench.store.folder import Store
from bench.store.merge import Merged, merge_results
from bench.store.scores import write_scores
from bench.store.verify import problems
from bench.system.digests import file_digest
from tests.fixtures.runs import (
    ARCHIVES,
    CLOSE,
    ELSEWHERE,
    EMBEDDED,
    EXPLAINED,
    FAR,
    FIXTURES,
    HERE,
    ID,
    OTHER,
    SCORES,
    SPEC,
    THIRD,
    bench,
    contents,
    explanations_of,
    flip,
    noise,
    publish,
    publish_with,
    receipt_of,
    reseal,
    rewrite,
    store_at,
    tree,
)
from tests.fixtures.stores import MAPS, kept


def same(results, run_id=ID, embedded=EMBEDDED, explained=EXPLAINED):
    """Whether a run keeps these, down to the bytes."""
    one, other = results.embeddings(run_id), results.explanations(run_id)
    return embeddings_bytes(one) == embeddings_bytes(embedded) and explanations_bytes(
        other
    ) == explanations_bytes(explained)


# What is lacking


def test_a_run_lacks_what_its_method_can_and_it_neither_keeps_nor_has_found_impossible():
    receipt = receipt_of(files={MODEL: "", "scores.parquet": ""}, unsupported=["embed"])
    assert settled_artifacts(receipt) == {"state", "embed"}
    every = {"state", "embed", "explain", "rehearse"}
    assert missing_artifacts(receipt, every - {"rehearse"}, every) == {"explain"}
    assert missing_artifacts(receipt, every, {"state", "embed"}) == set()
    assert missing_artifacts(receipt_of(), {"embed"}, every) == {"embed"}
    assert missing_artifacts(receipt_of(), set(), every) == set()


def test_abilities_are_told_in_one_order():
    assert artifact_words({"explain", "state", "embed"}) == "model, embeddings and maps"
    assert artifact_words(["explain", "embed"], "or") == "embeddings or maps"
    assert (artifact_words(["state"]), artifact_words([])) == ("model", "")


# In a results folder


def test_a_run_gives_back_what_it_keeps(store):
    publish_with(store, *MAPS)
    assert kept(store) == {*MAPS}
    assert same(store)
    publish(store, OTHER)
    assert store.embeddings(OTHER.run_id) is None
    assert store.explanations(OTHER.run_id) is None


@pytest.mark.parametrize("name", MAPS)
def test_what_is_kept_and_damaged_is_a_corrupt_run(store, name):
    publish_with(store, *MAPS)
    file = store.runs / ID / name
    flip(file)
    ask = store.embeddings if name == EMBEDDINGS else store.explanations
    for damage in (lambda: None, file.unlink, file.mkdir):
        damage()
        with pytest.raises(CorruptRun, match=f"run {ID} is damaged: {name}"):
            ask(ID)
        assert any(name in text for text in problems(store))


def test_a_file_that_the_receipt_does_not_name_is_not_kept_by_the_run(store):
    publish(store)
    (store.runs / ID / EMBEDDINGS).write_bytes(embeddings_bytes(EMBEDDED))
    assert store.embeddings(ID) is None


@pytest.mark.parametrize("unable", [3, [3], None, "explain", {"explain": 1}])
def test_a_receipt_that_says_otherwise_what_its_method_cannot_is_damaged(store, unable):
    publish(store)
    rewrite(store.runs / ID, lambda r: r.update(unable=unable))
    with pytest.raises(CorruptRun, match="another form"):
        store.read(ID)


# Published twice


def test_an_identical_run_that_keeps_more_takes_the_place(store):
    publish(store)
    assert publish_with(store, *MAPS) is None
    assert same(store)
    assert not list(store.root.glob("superseded/*"))
    assert list(problems(store)) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [((MODEL,), MAPS), (MAPS, (MODEL,)), ((MODEL, EMBEDDINGS), (EXPLANATIONS,)),
     ((MODEL, EMBEDDINGS), (EMBEDDINGS, EXPLANATIONS))],
)  # fmt: skip
def test_what_either_of_two_identical_runs_keeps_stays(store, first, second):
    publish_with(store, *first)
    before = contents(store.runs / ID)
    assert publish_with(store, *second) is None
    assert kept(store) == {*first, *second}
    after = contents(store.runs / ID)
    assert all(after[name] == before[name] for name in first)
    assert not list(store.root.glob("superseded/*"))
    assert list(store.staging.iterdir()) == []
    assert list(problems(store)) == []


@pytest.mark.parametrize("second", [(), (EMBEDDINGS,), MAPS])
def test_an_identical_run_that_keeps_nothing_more_is_dropped(store, second):
    publish_with(store, *MAPS)
    before = tree(store.runs)
    assert publish_with(store, *second, embedded=project(SCORES.file, noise(5, 3))) is not None
    assert tree(store.runs) == before


def test_a_close_run_takes_the_place_only_with_all_that_the_stored_one_keeps(store):
    publish_with(store, MODEL)
    before = tree(store.runs)
    elsewhere = {"scores": CLOSE, "provenance": ELSEWHERE}
    assert publish_with(store, *MAPS, **elsewhere).kind == "close"
    assert tree(store.runs) == before  # its model is not of these scores
    assert publish_with(store, MODEL, *MAPS, **elsewhere) is None
    assert kept(store) == {MODEL, *MAPS}
    (older,) = store.superseded.iterdir()
    assert (older / MODEL).is_file()


def test_a_close_run_that_keeps_more_takes_the_place_whatever_the_stored_one_cannot(store):
    publish_with(store, EMBEDDINGS, unsupported=["explain", "state"])
    elsewhere = {"scores": CLOSE, "provenance": ELSEWHERE}
    assert publish_with(store, EMBEDDINGS, MODEL, **elsewhere) is None
    assert kept(store) == {EMBEDDINGS, MODEL}
    assert store.read(ID).unsupported == ("explain",)
    assert (
        publish_with(store, EMBEDDINGS, MODEL, scores=SCORES, unsupported=["explain"]) is not None
    )
    assert list(problems(store)) == []


def test_what_a_run_has_found_impossible_it_may_keep_after_all(store):
    publish_with(store, unsupported=["embed", "explain"])
    assert publish_with(store, EMBEDDINGS) is None
    assert (kept(store), store.read(ID).unsupported) == ({EMBEDDINGS}, ("explain",))


OTHER_CODE = {**HERE, "source_sha256": "b" * 64}


@pytest.mark.parametrize("scores", [SCORES, CLOSE], ids=["identical", "close"])
def test_what_older_code_has_made_is_no_part_of_a_run_of_todays(store, scores):
    publish_with(store, EXPLANATIONS, unsupported=["state"], provenance=OTHER_CODE)
    before = contents(store.runs / ID)
    names = MAPS if scores is CLOSE else (EMBEDDINGS,)
    assert publish_with(store, *names, scores=scores) is None
    read = store.read(ID)
    assert (read.provenance, read.unsupported) == (HERE, ())
    assert kept(store) == {*names}
    (older,) = store.superseded.iterdir()
    assert contents(older) == before


def test_a_run_of_todays_code_that_keeps_nothing_more_leaves_the_older(store):
    publish_with(store, *MAPS, provenance=OTHER_CODE)
    before = tree(store.runs)
    assert publish_with(store, EMBEDDINGS).environment == ("source bbbbbbbb and aaaaaaaa",)
    assert tree(store.runs) == before


# Published by two commands at once


def publish_apart(store, *names):
    """Publish as another command does."""
    folder = store.staging / f"{ID}@elsewhere@1"
    folder.mkdir()
    write_scores(folder / "scores.parquet", SCORES)
    (folder / "log.txt").write_text("epoch 1/1\n")
    if EXPLANATIONS in names:
        (folder / EXPLANATIONS).write_bytes(explanations_bytes(EXPLAINED))
    return Store(store.root).publish(folder, receipt_of())


def test_a_run_that_another_command_swaps_is_never_taken_for_damaged(store, monkeypatch):
    """Whenever nobody holds the lock, the run may be between the other's two renames."""
    publish_with(store, MODEL)
    real = Store.read

    def read(self, run_id):
        with (store.root / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return real(self, run_id)
            (store.runs / run_id).rename(store.root / "away")
            try:
                return real(self, run_id)
            finally:
                (store.root / "away").rename(store.runs / run_id)

    monkeypatch.setattr(Store, "read", read)
    assert publish_with(store, EMBEDDINGS) is None
    theirs = store_at(store.root.parent / "theirs")
    monkeypatch.undo()
    publish_with(theirs, EXPLANATIONS)
    monkeypatch.setattr(store, "read", read.__get__(store))
    assert list(merge_results(theirs, store)) == [Merged(ID, "new")]
    monkeypatch.undo()
    assert kept(store) == {MODEL, *MAPS}
    assert not store.quarantine.exists()


def test_what_another_command_publishes_meanwhile_is_kept_too(store, monkeypatch):
    publish_with(store, MODEL)
    real, other = shutil.copyfile, []

    def copy_late(*arguments, **more):
        monkeypatch.setattr("shutil.copyfile", real)
        other.append(Thread(target=publish_apart, args=(store, EXPLANATIONS)))
        other[0].start()
        other[0].join(0.5)  # it waits for the lock, or is done
        return real(*arguments, **more)

    monkeypatch.setattr("shutil.copyfile", copy_late)
    assert publish_with(store, EMBEDDINGS) is None
    other[0].join(30)
    assert kept(store) == {MODEL, *MAPS}
    assert list(problems(store)) == []
    assert list(store.staging.iterdir()) == []


def test_a_stored_run_is_hashed_but_once_while_others_wait(store, monkeypatch):
    read, real = [], Store.read
    monkeypatch.setattr(Store, "read", lambda self, i: read.append(i) or real(self, i))
    for names, times in (((MODEL,), 0), ((MODEL,), 1), (MAPS, 2)):
        publish_with(store, *names)
        assert read == [ID] * times


def test_a_run_that_differs_never_takes_the_place(store):
    publish(store)
    with pytest.raises(MethodError, match="different scores"):
        publish_with(store, *MAPS, scores=FAR)
    assert kept(store) == set()


def test_that_a_method_cannot_is_remembered_until_it_can(store):
    publish_with(store, MODEL)
    assert publish_with(store, EMBEDDINGS, unsupported=["explain"]) is None
    assert settled_artifacts(store.read(ID)) == {"state", "embed", "explain"}
    assert store.read(ID).unsupported == ("explain",)
    assert publish_with(store, EMBEDDINGS, unsupported=["explain", "state"]) is not None
    assert kept(store) == {MODEL, EMBEDDINGS}
    rewrite(store.runs / ID, lambda r: (r.update(unable=["x"]), r["files"].pop(EMBEDDINGS)))
    assert publish_with(store, EMBEDDINGS) is None
    assert store.read(ID).unsupported == ("x",)


# In an archive


def archived(store, out):
    pack(store, out)
    return Archive(out)


@pytest.fixture
def several(tmp_path):
    """Three runs: one keeps all, one other maps in another order, one nothing."""
    store = store_at(tmp_path / "several")
    publish_with(store, MODEL, *MAPS)
    publish_with(store, *MAPS, spec=OTHER, explained=OTHERS)
    publish(store, THIRD)
    store.compact()
    return store


OTHERS = explanations_of(SCORES.file, "attention", "box", "score", boxes=False, parts=("sum",))


def test_an_archive_gives_back_what_runs_keep_but_their_models(several, tmp_path):
    archive = archived(several, tmp_path / "archive")
    assert same(archive)
    assert same(archive, OTHER.run_id, explained=OTHERS)
    assert list(archive.explanations(OTHER.run_id).maps) == ["attention", "box", "score"]
    assert archive.embeddings(THIRD.run_id) is archive.explanations(THIRD.run_id) is None
    assert [kept(archive, i) for i in (ID, OTHER.run_id, THIRD.run_id)] == [{*MAPS}, {*MAPS}, set()]
    assert {p.name for p in archive.root.iterdir()} == {*FILES, *MAPS, MANIFEST}
    assert list(problems(archive)) == []


def test_an_archive_of_runs_that_keep_nothing_has_no_file_for_it(tmp_path):
    archive = archived(store_at(tmp_path / "plain", SPEC), tmp_path / "archive")
    assert {p.name for p in archive.root.iterdir()} == {*FILES, MANIFEST}
    assert archive.embeddings(ID) is archive.explanations(ID) is None
    older = Archive(FIXTURES / "archives/schema-1")
    assert all(older.embeddings(i) is older.explanations(i) is None for i in older.ids())
    pack(older, tmp_path / "again")
    assert {p.name for p in (tmp_path / "again").iterdir()} == {*FILES, MANIFEST}


def test_there_and_back_gives_the_same_bytes(several, tmp_path):
    archive = archived(several, tmp_path / "archive")
    back = store_at(tmp_path / "back")
    assert [m.kind for m in merge_results(archive, back)] == ["new"] * 3
    assert kept(back) == {*MAPS}
    assert list(problems(back)) == []
    for results in (back, archive):
        pack(results, tmp_path / "again")
        assert contents(tmp_path / "again") == contents(archive.root)


def test_runs_of_equal_columns_have_no_column_for_their_names(several, tmp_path):
    out = archived(several, tmp_path / "archive").root
    assert pq.read_table(out / EMBEDDINGS).column_names == ["run_id", "file", "values", "kept"]
    assert "columns" in pq.read_table(out / EXPLANATIONS).column_names
    publish_with(store := store_at(tmp_path / "one"), *MAPS)
    alone = archived(store, tmp_path / "alone")
    assert "columns" not in pq.read_table(alone.root / EXPLANATIONS).column_names
    assert same(alone)


@pytest.fixture
def with_large_maps(tmp_path):
    """An archive of a dozen runs whose maps are large."""
    store = store_at(tmp_path / "large")
    specs = [replace(SPEC, seed=seed) for seed in range(12)]
    for i, spec in enumerate(specs):
        maps = {"score": np.random.RandomState(i).rand(5, 100, 100).astype(np.float32)}
        large = Explanations(SCORES.file, maps, None, {})
        publish_with(store, *MAPS, spec=spec, explained=large)
    return archived(store, tmp_path / "archive"), store


def test_of_an_archive_only_the_maps_of_the_run_asked_for_are_decoded(with_large_maps):
    archive, store = with_large_maps
    one_run, held = 5 * 100 * 100 * 4, pa.total_allocated_bytes()
    for run_id in archive.ids():
        assert kept(archive, run_id) == {*MAPS}
    assert pa.total_allocated_bytes() - held < one_run
    for run_id in reversed(archive.ids()):
        assert same(archive, run_id, explained=store.explanations(run_id))
        assert pa.total_allocated_bytes() - held < 3 * one_run
    for name in MAPS:
        assert pq.ParquetFile(archive.root / name).metadata.num_row_groups == 12


@pytest.mark.parametrize("rows", [1000, 7, 5, 2, 1])
def test_an_archive_whose_row_groups_are_not_its_runs_reads_as_well(with_large_maps, rows):
    archive, store = with_large_maps
    for name in MAPS:
        pq.write_table(pq.read_table(archive.root / name), archive.root / name, row_group_size=rows)
    reseal(archive.root)
    older = Archive(archive.root)
    for run_id in (*older.ids(), *reversed(older.ids())):
        assert kept(older, run_id) == {*MAPS}
        assert same(older, run_id, explained=store.explanations(run_id))
    assert list(problems(older)) == []


def test_an_archive_of_scores_alone_leaves_the_rest_behind(store, tmp_path):
    publish_with(store, *MAPS)
    store.compact()
    pack(store, tmp_path / "archive", scores_only=True)
    packed = Archive(tmp_path / "archive")
    (run_id,) = packed.ids()
    assert (kept(store, run_id) != kept(packed, run_id), list(problems(packed))) == (True, [])
    assert {file.name for file in packed.root.iterdir()} == {*FILES, MANIFEST}
    assert packed.scores(run_id).digest() == store.scores(run_id).digest()


def test_the_archived_smoke_suite_reads_and_says_the_same_when_packed_again(tmp_path):
    """All its runs lie in one row group: such archives were written before."""
    older = Archive(ARCHIVES / "smoke")
    assert pq.ParquetFile(older.root / EXPLANATIONS).metadata.num_row_groups == 1
    assert list(problems(older)) == []
    again = archived(older, tmp_path / "again")
    keeping = [run_id for run_id in older.ids() if kept(older, run_id)]
    assert keeping
    for run_id in older.ids():
        assert kept(again, run_id) == kept(older, run_id)
    for run_id in keeping:
        embedded, explained = older.embeddings(run_id), older.explanations(run_id)
        assert (embedded is None) == (again.embeddings(run_id) is None)
        if embedded is not None and explained is not None:
            assert same(again, run_id, embedded, explained)
    for name in FILES:
        if name == "runs.parquet":  # it has columns now that it had not
            continue
        one, other = older.root / name, again.root / name
        if pq.read_metadata(one).created_by == pq.read_metadata(other).created_by:
            assert other.read_bytes() == one.read_bytes()
        assert pq.read_table(other).equals(pq.read_table(one), check_metadata=True)


@pytest.mark.parametrize("name", MAPS)
def test_damage_to_an_archives_optional_files_is_found(several, tmp_path, name):
    out = archived(several, tmp_path / "archive").root
    whole = (out / name).read_bytes()
    for place in np.random.RandomState(0).randint(0, len(whole), 30):
        flip(out / name, place)
        with pytest.raises(CorruptRun, match=f"{name} does not agree with its digest"):
            Archive(out)
        (out / name).write_bytes(whole)
    (out / name).unlink()
    with pytest.raises(CorruptRun, match="is damaged: No such file"):
        Archive(out)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(
    "change",
    [
        lambda t: pa.table({}),
        lambda t: t.drop_columns("run_id"),
        lambda t: t.drop_columns("file"),
        lambda t: t.set_column(2, "file", pa.array([None] * len(t), pa.string())),
        lambda t: t.append_column("columns" if "columns" not in t.column_names else "more",
                                  pa.array([["file", "nowhere"]] * len(t))),
        lambda t: t.set_column(1, "columns", pa.array([None] * len(t), pa.list_(pa.string()))),
    ],
)  # fmt: skip
def test_an_optional_file_that_was_made_by_hand_raises_corrupt_run_and_nothing_else(
    several, tmp_path, name, change
):
    out = archived(several, tmp_path / "archive").root
    pq.write_table(change(pq.read_table(out / name)), out / name)
    reseal(out)
    try:
        archive = Archive(out)
        for run_id in archive.ids():
            archive.read(run_id), archive.embeddings(run_id), archive.explanations(run_id)
    except CorruptRun:
        pass
    list(problems(Archive(out)))


def test_embeddings_of_other_images_are_a_problem_wherever_they_lie(tmp_path):
    store = store_at(tmp_path / "results")
    other = replace(SCORES, file=("x", *SCORES.file[1:]))
    publish_with(store, *MAPS, embedded=project(other.file, noise(5, 7)))
    publish_with(store, *MAPS, spec=OTHER, explained=explanations_of(SCORES.file[:3], "score"))
    archive = archived(store, tmp_path / "archive")
    for results in (store, archive):
        assert sorted(problems(results)) == sorted([
            f"run {ID}: {EMBEDDINGS} is of 5 other images than its 5 scores",
            f"run {OTHER.run_id}: {EXPLANATIONS} is of 3 other images than its 5 scores",
        ])  # fmt: skip
        here = store_at(tmp_path / "here")
        assert {m.kind for m in merge_results(results, here)} == {"damaged"}
        assert here.ids() == []


# Merging


def test_a_run_that_keeps_more_comes_in_and_ours_loses_nothing(store, tmp_path):
    publish_with(store, MODEL)
    theirs = store_at(tmp_path / "theirs")
    publish_with(theirs, *MAPS)
    for source in (theirs, archived(theirs, tmp_path / "archive")):
        here = store_at(tmp_path / source.root.name / "here")
        publish_with(here, MODEL)
        detail = "the one that was here had no embeddings or maps"
        assert list(merge_results(source, here)) == [Merged(ID, "new", detail)]
        assert kept(here) == {MODEL, *MAPS}
        assert same(here)
        assert list(problems(here)) == []
        before = tree(here.runs)
        assert [m.kind for m in merge_results(source, here)] == ["identical"]
        assert tree(here.runs) == before


ABROAD = {
    "provenance": {**ELSEWHERE, "cpu": "theirs"},
    "timings": {"setup_s": 9.0, "fit_s": 9.0, "score_s": 9.0, "first_step_s": None},
    "unsupported": ["explain"],
}
"""What a run of the same scores says of itself that is not ours."""


@pytest.mark.parametrize("pack_it", [False, True], ids=["folder", "archive"])
def test_what_merge_brings_in_leaves_our_log_and_what_our_receipt_says(store, tmp_path, pack_it):
    publish_with(store, MODEL, EXPLANATIONS)
    before, said = contents(store.runs / ID), store.read(ID)
    theirs = store_at(tmp_path / "theirs")
    publish_with(theirs, MODEL, EMBEDDINGS, **ABROAD)
    (theirs.runs / ID / "log.txt").write_text("theirs\n")
    (theirs.runs / ID / MODEL).write_bytes(b"theirs")
    rewrite(theirs.runs / ID, lambda r: r["files"].update(
        {n: file_digest(theirs.runs / ID / n) for n in ("log.txt", MODEL)}
    ))  # fmt: skip
    source = archived(theirs, tmp_path / "archive") if pack_it else theirs
    assert [m.kind for m in merge_results(source, store)] == ["new"]
    after = contents(store.runs / ID)
    assert after.keys() == {*before, EMBEDDINGS}
    assert all(after[name] == before[name] for name in before if name != "run.json")
    files = {**said.files, EMBEDDINGS: theirs.read(ID).files[EMBEDDINGS]}
    assert store.read(ID) == replace(said, files=files)
    assert not list(store.root.glob("superseded/*"))
    assert list(store.staging.iterdir()) == []


@pytest.mark.parametrize("maps_of_ours", [True, False])
def test_pixel_metrics_are_of_the_run_whose_maps_stay(store, tmp_path, maps_of_ours):
    def publish_measured(results, value, *names):
        pixels = {"pixel_auroc": value, "masks_sha256": "a" * 64} if value else {}
        metrics = {**receipt_of().metrics, **pixels}
        publish_with(results, *names, metrics=metrics, warnings=["one"])

    theirs = store_at(tmp_path / "theirs")
    publish_measured(theirs, 0.5, EXPLANATIONS, EMBEDDINGS)
    publish_measured(store, *((0.75, EXPLANATIONS) if maps_of_ours else (None,)))
    assert [m.kind for m in merge_results(theirs, store)] == ["new"]
    merged = store.read(ID).metrics
    assert (merged.pixel_auroc, merged.masks_sha256) == (0.75 if maps_of_ours else 0.5, "a" * 64)


def test_merge_also_brings_in_that_a_method_cannot(store, tmp_path):
    publish_with(store, EMBEDDINGS)
    theirs = store_at(tmp_path / "theirs")
    publish_with(theirs, **ABROAD)
    before = contents(store.runs / ID)
    assert [m.kind for m in merge_results(theirs, store)] == ["new"]
    after = contents(store.runs / ID)
    assert {n for n in after if after[n] != before[n]} == {"run.json"}
    assert store.read(ID).unsupported == ("explain",)


def test_a_log_that_only_theirs_has_does_not_come_to_ours(store, tmp_path):
    publish(store)
    (store.runs / ID / "log.txt").unlink()
    rewrite(store.runs / ID, lambda r: r["files"].pop("log.txt"))
    theirs = store_at(tmp_path / "theirs")
    publish_with(theirs, *MAPS)
    assert [m.kind for m in merge_results(theirs, store)] == ["new"]
    assert contents(store.runs / ID).keys() == {"run.json", "scores.parquet", *MAPS}


def test_what_other_code_has_made_does_not_come_to_ours(store, tmp_path):
    publish_with(store, MODEL)
    before = tree(store.runs)
    theirs = store_at(tmp_path / "theirs")
    publish_with(theirs, MODEL, *MAPS, provenance=OTHER_CODE)
    assert [m.kind for m in merge_results(theirs, store)] == ["identical"]
    assert tree(store.runs) == before
    assert not list(store.root.glob("superseded/*"))


def test_a_run_that_another_command_brings_in_closely_meanwhile_stays(store, tmp_path, monkeypatch):
    theirs = store_at(tmp_path / "theirs")
    publish_with(theirs, *MAPS, scores=CLOSE, provenance=ELSEWHERE)
    real = shutil.copyfile

    def copy_late(*arguments, **more):
        monkeypatch.setattr("shutil.copyfile", real)
        publish_apart(store)
        return real(*arguments, **more)

    monkeypatch.setattr("shutil.copyfile", copy_late)
    assert [m.kind for m in merge_results(theirs, store)] == ["close"]
    assert kept(store) == set()


def test_a_run_that_keeps_less_or_is_close_does_not_come_in(store, tmp_path):
    publish_with(store, MODEL, *MAPS)
    publish_with(store, MODEL, spec=OTHER)
    before = tree(store.runs)
    theirs = store_at(tmp_path / "theirs")
    publish_with(theirs, EMBEDDINGS)
    publish_with(theirs, MODEL, *MAPS, spec=OTHER, scores=CLOSE, provenance=ELSEWHERE)
    assert {m.run_id: m.kind for m in merge_results(theirs, store)} == {
        ID: "identical", OTHER.run_id: "close",
    }  # fmt: skip
    assert tree(store.runs) == before


# The commands


def test_show_says_what_a_run_keeps(several, tmp_path, capsys):
    archive = archived(several, tmp_path / "archive").root
    _, whole, _ = bench(capsys, "show", ID, "--results", several.root)
    _, packed, _ = bench(capsys, "show", ID, "--results", archive)
    _, nothing, _ = bench(capsys, "show", THIRD.run_id, "--results", archive)
    assert f"runs/{ID}/{MODEL}" in whole
    for said in ("4 components, 100.0% of the variance", "score, attention", "raw, zoomed"):
        assert said in whole
        assert said in packed
    assert MODEL not in packed
    assert "beside its scores" in nothing
