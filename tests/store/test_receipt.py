"""The receipt of a run: sealed, read again by every later version, flattened into the table."""

import hashlib
import json
import os
import shutil
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import CorruptRun, StoreError
from bench.store.groups import Drawn
from bench.store.receipt import RECEIPT_SCHEMA, parse, read_run, seal
from bench.store.results import receipts, verified
from bench.store.scores import read_scores
from bench.store.verify import contradictions
from tests.fixtures.runs import (
    FIXTURES,
    ID,
    OTHER,
    REFERENCE,
    publish,
    receipt_of,
    rewrite,
    store_at,
    truncate,
)

WHOLE = receipt_of(unsupported=["embed"], files={"log.txt": "0" * 64})

# What is sealed is read back, and nothing else is


def test_a_receipt_that_was_sealed_is_read_back():
    assert parse(seal(WHOLE), ID) == WHOLE


def test_sealing_again_gives_the_same_bytes():
    first = seal(WHOLE)
    assert seal(parse(first, ID)) == first


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_cannot_be_sealed(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        seal(receipt_of(facts={"loss": value}))


def delete_scores(folder):
    (folder / "scores.parquet").unlink()


def empty_scores(folder):
    (folder / "scores.parquet").write_bytes(b"")


def truncate_scores(folder):
    truncate(folder / "scores.parquet")


def flip_a_bit_of_the_scores(folder):
    path = folder / "scores.parquet"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


def folder_for_scores(folder):
    delete_scores(folder)
    (folder / "scores.parquet").mkdir()


def delete_log(folder):
    (folder / "log.txt").unlink()


def delete_receipt(folder):
    (folder / "run.json").unlink()


def truncate_receipt(folder):
    truncate(folder / "run.json")


def folder_for_receipt(folder):
    delete_receipt(folder)
    (folder / "run.json").mkdir()


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (delete_scores, "scores.parquet"),
        (empty_scores, "scores.parquet"),
        (truncate_scores, "scores.parquet"),
        (flip_a_bit_of_the_scores, "scores.parquet"),
        (folder_for_scores, "scores.parquet"),
        (delete_log, "log.txt"),
        (delete_receipt, "run.json"),
        (truncate_receipt, ""),
        (folder_for_receipt, "run.json"),
    ],
)
def test_a_damaged_run_is_never_read_and_the_file_is_named(store, run, damage, name):
    publish(store, OTHER)
    damage(run)
    with pytest.raises(CorruptRun, match=f"run {ID} is damaged: .*{name}"):
        store.read(ID)
    assert [r.run_id for r in receipts(store)] == [OTHER.run_id]
    good, bad = verified(store, [ID, OTHER.run_id, "0" * 16])
    assert (list(good), bad) == ([OTHER.run_id], [ID])


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"{", b"{}", b"[]", b"3", b"null", b'"run"', b"\x00" * 99, b"\xff\xfe{}",
        b"NaN", b'{"receipt_sha256": NaN}', b'{"receipt_sha256": 1e999}',
        b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b'{"a": %s}' % (b"9" * 10_000),
        b'{"receipt_sha256": "' + b"0" * (1 << 20) + b'"}',
    ],
    ids=lambda d: f"{d[:12]!r}, {len(d)} bytes",
)  # fmt: skip
def test_what_is_no_receipt_is_a_corrupt_run_and_no_other_error(data):
    with pytest.raises(CorruptRun, match=f"run {ID} is damaged"):
        parse(data, ID)


def leaves(value, path=()):
    """Yield the way to every value in nested JSON, the groups themselves included."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, dict | list):
            yield from leaves(inner, (*path, key))
        else:
            yield (*path, key)


def edited(whole, path, change):
    """Return a copy of the receipt in which `change` was called on what holds the value."""
    copy = json.loads(json.dumps(whole))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return json.dumps(copy).encode()


def other_value(holder, key):
    old = holder[key]
    numbers = {True: False, False: True, None: 0}
    if isinstance(old, bool) or old is None:
        holder[key] = numbers[old]
    elif isinstance(old, str):
        holder[key] = old[:-1] + chr(ord(old[-1]) ^ 1) if old else "x"
    elif isinstance(old, int):
        holder[key] = old + 1
    elif isinstance(old, float):
        holder[key] = float(np.nextafter(old, 9))
    else:
        holder[key] = type(old)()


def no_value(holder, key):
    del holder[key]


def one_more(holder, key):
    if isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder[f"{key} too"] = holder[key]


@pytest.mark.parametrize("change", [other_value, no_value, one_more])
def test_every_edit_of_every_value_is_found(change):
    data = seal(WHOLE)
    whole = json.loads(data)
    ways = list(leaves(whole))
    assert len(ways) > 40
    for path in ways:
        damaged = edited(whole, path, change)
        assert json.loads(damaged) != whole, path
        with pytest.raises(CorruptRun):
            parse(damaged, ID)


@given(st.data())
def test_a_bit_that_flips_in_a_receipt_is_found_or_says_the_same(data):
    whole = seal(WHOLE)
    flipped = bytearray(whole)
    flipped[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        read = parse(bytes(flipped), ID)
    except CorruptRun:
        return
    assert read == parse(whole, ID)


def test_a_receipt_of_another_run_is_not_read(store, run):
    publish(store, OTHER)
    shutil.copy(store.runs / OTHER.run_id / "run.json", run / "run.json")
    with pytest.raises(CorruptRun, match=f"run.json is of run .?{OTHER.run_id}"):
        store.read(ID)


def test_runs_that_were_swapped_are_never_read(store, run):
    publish(store, OTHER)
    other, aside = store.runs / OTHER.run_id, store.root / "aside"
    os.rename(run, aside)
    os.rename(other, run)
    os.rename(aside, other)
    for run_id in (ID, OTHER.run_id):
        with pytest.raises(CorruptRun, match=r"run.json is of run"):
            store.read(run_id)


# Hostile receipts, whose own digest is right


@pytest.mark.parametrize("name", ["../../outside.txt", "/etc/hostname", "a/b", "./log.txt", "."])
def test_a_receipt_that_names_files_elsewhere_is_refused(store, run, name):
    outside = store.root / "outside.txt"
    outside.write_text("mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    rewrite(run, lambda r: r["files"].update({name: digest}))
    with pytest.raises(CorruptRun, match="names files outside the run"):
        store.read(ID)
    with pytest.raises(CorruptRun, match="names files outside the run"):
        parse((run / "run.json").read_bytes(), ID)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "x" * 300,
        "no\0such",
        "\ud800",
    ],
    ids=ascii,
)
def test_a_receipt_that_names_what_can_be_no_file_is_a_corrupt_run(store, run, name):
    rewrite(run, lambda r: r["files"].update({name: "0" * 64}))
    with pytest.raises(CorruptRun, match=f"run {ID} is damaged"):
        store.read(ID)


@pytest.mark.parametrize("files", [None, 3, ["log.txt", 3], {"log.txt": 3}, {"log.txt": None}])
def test_files_of_another_form_are_a_corrupt_run(store, run, files):
    rewrite(run, lambda r: r.update(files=files))
    with pytest.raises(CorruptRun, match=f"run {ID} is damaged"):
        store.read(ID)


def test_a_receipt_without_its_scores_among_the_files_is_corrupt(store, run):
    """Else a run could pass, and go on to another folder, without the scores it rests on."""
    rewrite(run, lambda r: r["files"].pop("scores.parquet"))
    with pytest.raises(CorruptRun, match=f"run {ID} is damaged"):
        store.read(ID)


GROUPS = ["spec", "metrics", "draw", "split", "facts", "timings", "warnings", "provenance"]


@pytest.mark.parametrize("value", [None, [1], "absent"], ids=ascii)
@pytest.mark.parametrize("group", GROUPS)
def test_a_receipt_without_one_of_its_groups_breaks_no_table(store, run, group, value):
    publish(store, OTHER)
    rewrite(run, lambda r: r.pop(group) if value == "absent" else r.update({group: value}))
    ids = pq.read_table(store.compact())["run_id"].to_pylist()
    assert OTHER.run_id in ids


# Other versions


def newer(whole):
    whole["schema"] = RECEIPT_SCHEMA + 1


def newer_without_files(whole):
    newer(whole)
    del whole["files"]


def newer_with_a_list_of_files(whole):
    newer(whole)
    whole["files"] = [{"name": "model/a.safetensors"}]


def newer_with_folders(whole):
    newer(whole)
    whole["files"]["maps/0.png"] = "0" * 64


def newer_without_groups(whole):
    for group in GROUPS:
        del whole[group]
    newer(whole)


@pytest.mark.parametrize(
    "change",
    [
        newer,
        newer_without_groups,
        newer_without_files,
        newer_with_a_list_of_files,
        newer_with_folders,
    ],
)
def test_a_receipt_of_a_newer_bench_is_not_damaged_and_says_to_update(store, run, change):
    """It must never be quarantined and run again by an older bench."""
    rewrite(run, change)
    with pytest.raises(StoreError, match=r"a newer bench wrote it; update") as caught:
        store.read(ID)
    assert not isinstance(caught.value, CorruptRun)
    with pytest.raises(StoreError, match="update"):
        verified(store, [ID])
    with pytest.raises(StoreError, match="update"):
        store.compact()
    assert store.has(ID)


@pytest.mark.parametrize("schema", [0, -1, None, "1", 1.5, [1]], ids=ascii)
def test_a_schema_that_never_was_is_a_corrupt_run(store, run, schema):
    rewrite(run, lambda r: r.update(schema=schema))
    with pytest.raises(CorruptRun):
        store.read(ID)


def test_a_damaged_receipt_of_a_newer_bench_is_damaged(store, run):
    whole = json.loads((run / "run.json").read_bytes())
    newer(whole)
    (run / "run.json").write_text(json.dumps(whole))
    with pytest.raises(CorruptRun, match="its own digest"):
        store.read(ID)


# The files below were written by earlier versions of bench and are never made again: what users
# have on their disks has to be read by every later version. A new schema gets a folder of its own.


def test_a_run_of_schema_1_is_read():
    folder = FIXTURES / "receipts/schema-1/107e662b2a61541b"
    read, scores = read_run(folder, folder.name), read_scores(folder / "scores.parquet")
    assert list(contradictions(read, scores)) == []
    assert read.run_id == "107e662b2a61541b"
    assert read.spec.method == "shortcut"
    assert read.spec.dataset == "head_ct"
    assert read.spec.parameters == {"black": 10}
    assert (read.spec.shots, read.spec.seed, read.spec.image_size) == (10, 0, 224)
    assert read.spec.precision is None
    assert read.metrics.auroc == 0.754
    assert read.metrics.ap == 0.9189921457960756
    assert [d.file for d in read.draw[:2]] == ["head_ct/026.png", "head_ct/080.png"]
    assert read.split.train_normal == 74
    assert read.facts == {"statistic": "width", "training_auroc": 0.8027027027027027}
    assert read.timings.fit_s == 0.3549
    assert read.timings.first_step_s is None
    assert read.warnings == ()
    assert read.provenance.commit == "107c993f3369d97013fad484f820b1e00974e5ac"
    assert read.provenance.threads == 2
    assert set(read.files) == {"log.txt", "scores.parquet"}
    assert len(scores.file) == 125
    assert scores.file[0] == "head_ct/000.png"
    assert scores.score[0] == np.float32(6.751798152923584)
    assert scores.role.count("drawn") == 10
    assert scores.label.sum() == 100


def test_a_run_of_schema_2_is_read():
    folder = FIXTURES / "receipts/schema-2/9e189917945e3c4d"
    read, scores = read_run(folder, folder.name), read_scores(folder / "scores.parquet")
    assert list(contradictions(read, scores)) == []
    assert read.schema == 2
    assert (read.spec.method, read.spec.category, read.spec.shots) == ("shortcut", "weave", 1)
    assert read.started_at == datetime(2026, 11, 28, 16, 0, 41, 231903, UTC)
    assert read.finished_at == datetime(2026, 11, 28, 16, 0, 41, 519062, UTC)
    assert read.draw[0] == Drawn(
        "weave/test/smear/006.bmp",
        "smear",
        "7a4889ea9894723553292aa7ddfdf624cc8cdcc335cc3d883a407fdfdb9c5e4f",
    )
    assert (read.metrics.auroc, read.metrics.box_recall) == (0.49055232558139533, None)
    assert (read.split.scored, read.timings.fit_s) == (128, 0.0501)
    assert (read.provenance.score_batch_size, read.provenance.seedless) == (32, None)
    assert read.unsupported == ()
    assert len(scores.file) == 128


@pytest.mark.parametrize(
    "folder", sorted(FIXTURES.glob("receipts/*/*")), ids=lambda f: f.parent.name
)
def test_receipts_of_every_schema_are_written_again_as_they_were(folder):
    data = (folder / "run.json").read_bytes()
    assert seal(parse(data, folder.name)) == data


@pytest.mark.parametrize("archive", sorted(REFERENCE.iterdir()), ids=lambda a: a.name)
def test_receipts_of_committed_archives_are_written_again_as_they_were(archive):
    columns = pq.read_table(archive / "receipts.parquet").to_pydict()
    for run_id, text in zip(columns["run_id"], columns["receipt"], strict=True):
        assert seal(parse(text.encode(), run_id)) == text.encode()


@pytest.mark.parametrize("name", ["started_at", "finished_at"])
@pytest.mark.parametrize(
    "moment",
    [
        None, "", 3, "yesterday", "2026-01-02", "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.000678", "2026-01-02T03:04:05.000678+00:00",
        "2026-01-02T04:04:05.000678+01:00", "0001-01-01T00:00:00.000000+14:00", "absent",
    ],
)  # fmt: skip
def test_a_receipt_says_when_its_run_began_and_ended_in_one_way(store, run, name, moment):
    rewrite(run, lambda r: r.pop(name) if moment == "absent" else r.update({name: moment}))
    with pytest.raises(CorruptRun, match=f"run {ID} is damaged"):
        store.read(ID)


def test_a_receipt_of_schema_1_does_not_say_when_its_run_began(store, run):
    rewrite(run, lambda r: r.update(schema=1))
    with pytest.raises(CorruptRun, match="schema 1"):
        store.read(ID)


def test_when_a_run_began_is_in_utc_and_not_left_out():
    for moment in (
        None,
        datetime(2026, 1, 2),
        datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=1))),
    ):
        with pytest.raises(ValueError, match="in UTC"):
            receipt_of(started_at=moment)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(more=1),
        lambda r: r["draw"][0].update(more="x"),
        lambda r: r["draw"][0].pop("pixels_sha256"),
        lambda r: r["provenance"].update(threads="2"),
        lambda r: r["provenance"].update(threads=True),
        lambda r: r["provenance"].update(cpu=3),
        lambda r: r["provenance"].pop("device_name"),
        lambda r: r["timings"].update(latency_s="fast"),
        lambda r: r["split"].update(scored=5.0),
        lambda r: r["metrics"].update(pixel_auroc="0.9"),
    ],
)
def test_known_values_have_the_type_that_readers_rely_on(store, run, change):
    rewrite(run, change)
    with pytest.raises(CorruptRun, match=f"run {ID} is damaged"):
        store.read(ID)


def test_values_that_no_reader_knows_are_kept(store, run):
    change = {"metrics": "f1", "split": "folds", "timings": "sleep_s", "provenance": "room"}
    rewrite(run, lambda r: [r[group].update({name: 0.5}) for group, name in change.items()])
    read = store.read(ID)
    assert seal(read) == (run / "run.json").read_bytes()
    assert read.timings.number("sleep_s") == read.metrics.number("f1") == 0.5
    assert read.provenance["room"] == read.split["folds"] == 0.5


def test_a_failure_recorded_before_failures_had_a_kind_is_read(tmp_path):
    store = store_at(tmp_path / "results")
    shutil.copytree(FIXTURES / "failures/without-kind", store.failed, dirs_exist_ok=True)
    (failure,) = store.failures("107e662b2a61541b")
    assert failure.kind == ""
    assert failure.reason == "RuntimeError: no such luck"
    assert failure.time == "2025-11-23T02:41:07Z"
    assert failure.provenance.python == "3.11.7"
    assert failure.folder == store.failed / "107e662b2a61541b" / "1"


def test_a_run_that_may_not_be_read_is_not_damaged(store, monkeypatch):
    """Else `bench run` would move a colleague's run to the quarantine, and repeat it."""
    publish(store)
    real = os.open

    def denied(path, *rest, **options):
        if str(path).endswith("scores.parquet"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(StoreError, match=r"cannot read .*scores.parquet: Permission denied; its"):
        store.read(ID)
    with pytest.raises(StoreError) as caught:
        store.quarantine_run(ID)
    assert not isinstance(caught.value, CorruptRun)
    monkeypatch.undo()
    assert store.read(ID)
