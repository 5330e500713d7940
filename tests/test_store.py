import errno
import json
import os
import platform
import subprocess
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import CorruptRun, RequestError, StoreError
from bench.spec import RunSpec
from bench.store import Store, read_run, verified

SPEC = RunSpec(
    kind="accuracy",
    method="shortcut",
    method_version=1,
    method_source=None,
    parameters={"black": 10},
    dataset="head_ct",
    category="head_ct",
    setting="general",
    shots=10,
    seen_defect=None,
    seed=0,
    image_size=64,
    resize="bilinear",
    data_version=1,
    fingerprint="f" * 64,
    external=None,
    precision=None,
    batch_size=None,
    backbone=None,
    stage=None,
    weights=None,
)
OTHER = replace(SPEC, seed=1)
HEAD = [
    "run_id", "kind", "method", "version", "dataset", "category", "setting", "shots", "seed",
    "auroc", "ap",
]  # fmt: skip


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "results")
    store.open_for_writing()
    return store


def receipt(auroc=0.75, scores_sha256="5" * 64, **more):
    return {
        "metrics": {"auroc": auroc, "ap": 0.5, "scores_sha256": scores_sha256},
        "draw": [{"file": "a.png", "defect": "hole", "pixels_sha256": "9" * 64}],
        "split": {"train_normal": 7},
        "facts": {"steps": 300},
        "timings": {"fit_s": 1.5, "first_step_s": None},
        "warnings": ["one", "two"],
        "provenance": {"device": "cpu", "threads": 2},
        **more,
    }


def staged(store, spec):
    folder = store.stage(spec.run_id)
    scores = {"file": ["a.png", "b.png"], "label": [0, 1], "score": [0.25, 0.5]}
    pq.write_table(pa.table(scores), folder / "scores.parquet")
    (folder / "log.txt").write_text("epoch 1/1\n")
    return folder


def publish(store, spec=SPEC, **changes):
    return store.publish(staged(store, spec), spec, receipt(**changes))


def fails_with(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


# Publishing and reading


def test_a_published_run_is_read_back(store):
    assert publish(store)
    assert store.has(SPEC.run_id)
    assert store.ids() == [SPEC.run_id]
    read = store.read(SPEC.run_id)
    assert RunSpec.from_dict(read["spec"]) == SPEC
    assert read["files"].keys() == {"scores.parquet", "log.txt"}
    assert {k: read[k] for k in receipt()} == receipt()
    scores = pq.read_table(store.runs / SPEC.run_id / "scores.parquet")
    assert scores["score"].to_pylist() == [0.25, 0.5]
    assert list(store.staging.iterdir()) == []


def test_an_empty_or_absent_store_holds_nothing(store, tmp_path):
    for empty in (store, Store(tmp_path / "nowhere")):
        assert empty.ids() == []
        assert list(empty.receipts()) == []
        assert not empty.has(SPEC.run_id)
        assert empty.failures(SPEC.run_id) == []


def test_the_same_run_again_is_dropped(store):
    publish(store)
    before = (store.runs / SPEC.run_id / "run.json").read_bytes()
    assert not publish(store, provenance={"device": "cuda"})
    assert (store.runs / SPEC.run_id / "run.json").read_bytes() == before
    assert list(store.staging.iterdir()) == []


def test_the_same_run_with_other_scores_is_an_error_and_the_stored_one_stays(store):
    publish(store)
    with pytest.raises(StoreError, match="twice with different scores: the stored one stays"):
        publish(store, auroc=0.5, scores_sha256="6" * 64)
    assert store.read(SPEC.run_id)["metrics"]["auroc"] == 0.75


def test_a_run_is_not_compared_with_a_damaged_one(store):
    publish(store)
    (store.runs / SPEC.run_id / "log.txt").unlink()
    with pytest.raises(CorruptRun):
        publish(store)


@pytest.mark.parametrize("step", ["rename", "fsync"])
def test_a_full_disk_publishes_nothing(store, monkeypatch, step):
    folder = staged(store, SPEC)
    monkeypatch.setattr(os, step, fails_with(errno.ENOSPC))
    with pytest.raises(StoreError, match=r"cannot publish run .*: No space left"):
        store.publish(folder, SPEC, receipt())
    assert store.ids() == []


def test_a_receipt_that_holds_no_number_is_not_published(store):
    with pytest.raises(ValueError, match="not JSON compliant"):
        publish(store, auroc=float("nan"))
    assert store.ids() == []


# Corruption


def truncate(folder):
    path = folder / "scores.parquet"
    path.write_bytes(path.read_bytes()[:-1])


def empty(folder):
    (folder / "scores.parquet").write_bytes(b"")


def flip_a_bit(folder):
    path = folder / "scores.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def delete_scores(folder):
    (folder / "scores.parquet").unlink()


def delete_log(folder):
    (folder / "log.txt").unlink()


def delete_receipt(folder):
    (folder / "run.json").unlink()


def truncate_receipt(folder):
    path = folder / "run.json"
    path.write_bytes(path.read_bytes()[:-9])


def empty_receipt(folder):
    (folder / "run.json").write_bytes(b"")


def list_for_receipt(folder):
    (folder / "run.json").write_text("[]")


def number_for_receipt(folder):
    (folder / "run.json").write_text("3")


def edit(folder, change):
    path = folder / "run.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1))


def better_auroc(folder):
    edit(folder, lambda r: r["metrics"].update(auroc=0.99))


def extra_key(folder):
    edit(folder, lambda r: r.update(extra=1))


def no_digest_of_itself(folder):
    edit(folder, lambda r: r.pop("receipt_sha256"))


def fewer_files(folder):
    edit(folder, lambda r: r["files"].clear())


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        empty,
        flip_a_bit,
        delete_scores,
        delete_log,
        delete_receipt,
        truncate_receipt,
        empty_receipt,
        list_for_receipt,
        number_for_receipt,
        better_auroc,
        extra_key,
        no_digest_of_itself,
        fewer_files,
    ],
)
def test_a_damaged_run_is_never_read(store, damage):
    publish(store)
    publish(store, OTHER)
    damage(store.runs / SPEC.run_id)
    with pytest.raises(CorruptRun, match=SPEC.run_id):
        store.read(SPEC.run_id)
    assert [r["run_id"] for r in store.receipts()] == [OTHER.run_id]
    good, bad = verified(store, [SPEC.run_id, OTHER.run_id, "0" * 16])
    assert (list(good), bad) == ([OTHER.run_id], [SPEC.run_id])


def test_a_damaged_file_is_named(store):
    publish(store)
    truncate(store.runs / SPEC.run_id)
    with pytest.raises(CorruptRun, match=r"scores.parquet"):
        store.read(SPEC.run_id)


def test_runs_that_were_swapped_are_never_read(store):
    publish(store)
    publish(store, OTHER)
    one, other, aside = (store.runs / n for n in (SPEC.run_id, OTHER.run_id, "aside"))
    os.rename(one, aside)
    os.rename(other, one)
    os.rename(aside, other)
    for run_id in (SPEC.run_id, OTHER.run_id):
        with pytest.raises(CorruptRun, match=r"run.json is of run"):
            store.read(run_id)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("results"))
    store.open_for_writing()
    publish(store)
    return store.runs / SPEC.run_id


@given(st.data())
def test_a_bit_that_flips_in_a_receipt_is_found_or_says_the_same(published, data):
    path = published / "run.json"
    whole, before = path.read_bytes(), read_run(published)
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(flipped)
    try:
        assert read_run(published) == before
    except CorruptRun:
        pass
    finally:
        path.write_bytes(whole)


# Failures, quarantine, staging


def test_failures_are_numbered_and_kept_with_their_log(store):
    for n in range(1, 12):
        target = store.record_failure(staged(store, SPEC), SPEC, {"reason": f"number {n}"})
        assert target == store.failed / SPEC.run_id / str(n)
    failures = store.failures(SPEC.run_id)
    assert [f["reason"] for f in failures] == [f"number {n}" for n in range(1, 12)]
    assert RunSpec.from_dict(failures[0]["spec"]) == SPEC
    assert {p.name for p in target.iterdir()} == {"failure.json", "log.txt"}
    assert store.ids() == []


def test_a_run_that_left_nothing_has_a_failure_too(store):
    store.record_failure(store.staging / "gone", SPEC, {"reason": "killed"})
    assert [f["reason"] for f in store.failures(SPEC.run_id)] == ["killed"]
    assert store.failures(OTHER.run_id) == []


def test_a_damaged_failure_is_skipped(store):
    target = store.record_failure(staged(store, SPEC), SPEC, {"reason": "killed"})
    (target / "failure.json").write_text("{")
    assert store.failures(SPEC.run_id) == []


def test_what_is_set_aside_can_be_run_again_and_is_kept(store):
    for _ in range(2):
        publish(store)
        truncate(store.runs / SPEC.run_id)
        store.set_aside(SPEC.run_id)
        assert not store.has(SPEC.run_id)
    assert publish(store)
    assert len(list(store.quarantine.glob(f"{SPEC.run_id}-*/scores.parquet"))) == 2


def test_staging_of_dead_commands_is_cleared_and_no_other(store):
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = platform.node()
    left = {
        f"a@{host}@{dead.pid}": False,
        f"a@{host}@": False,
        f"b@{host}@{os.getpid()}": True,
        f"c@{host}-elsewhere@{dead.pid}": True,
        "what-is-this": True,
    }
    for name in left:
        (store.staging / name).mkdir()
        (store.staging / name / "log.txt").write_text("")
    store.open_for_writing()
    assert {p.name for p in store.staging.iterdir()} == {n for n, kept in left.items() if kept}


def test_a_run_is_staged_in_an_empty_folder(store):
    first = staged(store, SPEC)
    assert store.stage(SPEC.run_id) == first
    assert list(first.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_of_the_store(store, monkeypatch):
    monkeypatch.setattr("pathlib.Path.mkdir", fails_with(errno.EACCES))
    for write in (
        store.open_for_writing,
        lambda: store.stage(SPEC.run_id),
        lambda: store.record_failure(store.staging / "x", SPEC, {"reason": ""}),
    ):
        with pytest.raises(StoreError, match=r"cannot write to .*: Permission denied"):
            write()


# The table and the search


def test_the_table_begins_with_the_agreed_columns(store):
    publish(store)
    table = pq.read_table(store.compact())
    assert table.column_names[: len(HEAD)] == HEAD
    row = table.to_pylist()[0]
    assert [row[k] for k in HEAD] == [
        SPEC.run_id, "accuracy", "shortcut", 1, "head_ct", "head_ct", "general", 10, 0, 0.75, 0.5,
    ]  # fmt: skip
    assert row["image_size"] == 64
    assert row["param.black"] == 10
    assert row["split.train_normal"] == 7
    assert row["fact.steps"] == 300
    assert row["time.fit_s"] == 1.5
    assert row["prov.device"] == "cpu"
    assert row["warnings"] == "one; two"


def test_the_table_copes_with_parameters_that_differ_between_methods(store):
    publish(store)
    publish(store, replace(SPEC, method="a", parameters={"lr": 1e-3, "k": 1}))
    publish(store, replace(SPEC, method="b", parameters={"lr": 2, "k": "all"}))
    publish(store, replace(SPEC, method="c", parameters={"lr": 3.5, "k": True}), facts={})
    table = pq.read_table(store.compact())
    assert table.column_names[: len(HEAD)] == HEAD
    rows = {r["method"]: r for r in table.to_pylist()}
    assert {m: r["param.black"] for m, r in rows.items()} == {
        "shortcut": 10, "a": None, "b": None, "c": None,
    }  # fmt: skip
    assert {m: r["param.lr"] for m, r in rows.items()} == {
        "shortcut": None, "a": 1e-3, "b": 2.0, "c": 3.5,
    }  # fmt: skip
    assert {m: r["param.k"] for m, r in rows.items()} == {
        "shortcut": None, "a": "1", "b": "all", "c": "True",
    }  # fmt: skip
    assert rows["c"]["fact.steps"] is None


def test_the_table_leaves_out_what_does_not_verify_and_can_be_made_again(store):
    publish(store)
    publish(store, OTHER)
    assert len(pq.read_table(store.compact())) == 2
    truncate(store.runs / SPEC.run_id)
    assert pq.read_table(store.compact())["run_id"].to_pylist() == [OTHER.run_id]


def test_the_same_runs_give_the_same_table(store):
    publish(store)
    publish(store, OTHER)
    first = store.compact().read_bytes()
    assert store.compact().read_bytes() == first


def test_the_table_of_no_runs_is_empty(store):
    assert len(pq.read_table(store.compact())) == 0


def test_a_run_is_found_by_the_beginning_of_its_id(store):
    for seed in range(20):  # more than 16: two of them begin alike
        publish(store, replace(SPEC, seed=seed))
    ids = store.ids()
    assert store.find(ids[3]) == ids[3]
    alone = next(i[:n] for n in range(1, 17) for i in ids if sum(j[:n] == i[:n] for j in ids) == 1)
    assert store.find(alone).startswith(alone)
    twice = next(i[0] for i in ids if sum(j[0] == i[0] for j in ids) > 1)
    with pytest.raises(RequestError, match=f"runs begin with '{twice}'"):
        store.find(twice)
    for nothing in ("", "x", ids[0] + "0"):
        with pytest.raises(RequestError, match="no run begins"):
            store.find(nothing)
