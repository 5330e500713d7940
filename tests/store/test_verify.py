"""Looking at results: everything that does not agree is found, and nothing is changed."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.errors import StoreError
from bench.store.archive import MANIFEST, pack
from bench.store.failures import DISPUTED
from bench.store.folder import Store
from bench.store.open import results_at
from bench.store.verify import contradictions, leftovers, problems
from tests.fixtures.runs import (
    FAR,
    ID,
    OTHER,
    REFERENCE,
    SCORES,
    SPEC,
    THIRD,
    bench,
    fail,
    flip,
    publish,
    receipt_of,
    rewrite,
    rewrite_scores,
    staged,
    store_at,
    tree,
    truncate,
)


@pytest.fixture
def store(tmp_path):
    return store_at(tmp_path / "results", SPEC, OTHER)


def found(store):
    """Return the problems, and make sure that looking for them changed nothing."""
    before = tree(store.root)
    text = list(problems(store))
    assert tree(store.root) == before
    return text


def test_sound_results_have_no_problem(store):
    assert found(store) == []


def test_no_results_have_no_problem(tmp_path):
    empty = store_at(tmp_path / "empty")
    assert found(empty) == []
    empty.compact()
    assert found(empty) == []


@pytest.mark.parametrize("folder", sorted(REFERENCE.iterdir()), ids=lambda p: p.name)
def test_the_committed_results_have_no_problem(folder):
    results = results_at(folder)
    assert results.ids()
    assert found(results) == []


# Runs whose digests were made again: only the numbers themselves can tell


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["metrics"].update(auroc=0.99), "auroc is 0.99, its scores give 0.75"),
        (lambda r: r["metrics"].update(ap=1.0), "ap is 1.0, its scores give 0.83"),
        (lambda r: r["metrics"].update(auroc=0.75 + 1e-9), "its scores give 0.75"),
        (lambda r: r["metrics"].update(f1=1.0), "f1 is 1.0, its scores give None"),
        (lambda r: r["metrics"].update(auroc_full=1.0), "auroc_full is 1.0, its scores give 0.83"),
        (lambda r: r["metrics"].update(scores_sha256="0" * 64), "scores are not those of its"),
        (lambda r: r["spec"].update(seed=5), "its spec gives the id"),
        (lambda r: r["spec"].update(shots=1), "its spec gives the id"),
        (lambda r: r["spec"]["parameters"].update(black=11), "its spec gives the id"),
        (lambda r: r["draw"].pop(), "its draw is not what its scores call drawn"),
        (lambda r: r["draw"][0].update(file="hole/0.png"), "its draw is not what its scores"),
        (lambda r: r["draw"].append({**r["draw"][0], "file": "hole/0.png"}), "its draw is not"),
    ],
)
def test_what_does_not_follow_is_found_though_all_digests_were_made_again(store, change, said):
    rewrite(store.runs / ID, change)
    text = found(store)
    assert any(said in line and ID in line for line in text), text
    assert not any(OTHER.run_id in line for line in text), text


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["metrics"].update(auroc="0.75"),
        lambda r: r["metrics"].update(auroc=None),
        lambda r: r["metrics"].update(auroc=10**400),
        lambda r: r["metrics"].update(auroc=-0.5),
        lambda r: r["metrics"].pop("ap"),
        lambda r: r["metrics"].pop("scores_sha256"),
        lambda r: r.update(metrics=[]),
        lambda r: r["spec"].update(seed=0.0),
        lambda r: r["spec"].update(more=1),
        lambda r: r["spec"].pop("seed"),
        lambda r: r.update(spec=None),
        lambda r: r.pop("spec"),
        lambda r: r.update(draw=[1]),
        lambda r: r["draw"].append({"file": "hole/0.png"}),
        lambda r: r.pop("draw"),
        lambda r: r.pop("provenance"),
        lambda r: r.update(timings=None),
        lambda r: r.update(facts=[1]),
        lambda r: r["facts"].update(steps=[1]),
        lambda r: r.update(warnings=[1]),
        lambda r: r["files"].pop("scores.parquet"),
        lambda r: r["files"].update({"no\0such": "0" * 64}),
    ],
)
def test_a_receipt_of_another_form_is_found_and_ends_nothing(store, change):
    rewrite(store.runs / ID, change)
    text = found(store)
    assert any(ID in line for line in text), text
    assert not any(OTHER.run_id in line for line in text), text


def without_drawn():
    role = ("test",) * 5
    return type(SCORES)(SCORES.file, SCORES.label, SCORES.defect, role, SCORES.score)


def other_labels():
    label = ~SCORES.label
    return type(SCORES)(SCORES.file, label, SCORES.defect, SCORES.role, SCORES.score)


def one_class():
    return type(SCORES)(SCORES.file, np.ones(5, bool), SCORES.defect, SCORES.role, SCORES.score)


def not_finite():
    score = SCORES.score * np.float32(np.nan)
    return type(SCORES)(SCORES.file, SCORES.label, SCORES.defect, SCORES.role, score)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (FAR, "its scores are not those of its receipt"),
        (FAR, "auroc is 0.75, its scores give 0.0"),
        (without_drawn(), "its draw is not what its scores call drawn"),
        (without_drawn(), "auroc is 0.75, its scores give 0.83"),
        (other_labels(), "auroc is 0.75, its scores give"),
        (one_class(), "cannot be checked: ValueError: AUROC and AP need both classes"),
        (not_finite(), "are not finite"),
    ],
)  # fmt: skip
def test_other_scores_are_found_though_the_digest_of_the_file_was_made_again(store, scores, said):
    rewrite_scores(store.runs / ID, scores)
    text = found(store)
    assert any(line.startswith(f"run {ID}: ") and said in line for line in text), text


def test_everything_that_is_wrong_with_a_run_is_said(store):
    rewrite_scores(store.runs / ID, FAR)
    rewrite(store.runs / ID, lambda r: r["spec"].update(seed=5))
    rewrite(store.runs / ID, lambda r: r["draw"].clear())
    assert len(list(contradictions(store.read(ID), store.scores(ID)))) == 5


def test_metrics_may_differ_in_the_last_bit():
    """Another CPU may add in another order."""
    store_metrics = SCORES.metrics(full=False)
    metrics = {
        "auroc": float(np.nextafter(store_metrics["auroc"], 1)),
        "ap": float(np.nextafter(store_metrics["ap"], 0)),
        "scores_sha256": SCORES.digest(),
    }
    receipt = receipt_of(metrics=metrics)
    assert list(contradictions(receipt, SCORES)) == []


# Runs whose digests do not agree


def test_a_damaged_run_is_named_and_so_is_the_table_that_knows_better(store):
    truncate(store.runs / ID / "scores.parquet")
    assert found(store) == [
        f"run {ID} is damaged: scores.parquet does not agree with its digest",
        f"{store.table} is not what the receipts give",
    ]


def test_every_damaged_run_is_named(store):
    flip(store.runs / ID / "log.txt")
    (store.runs / OTHER.run_id / "run.json").unlink()
    (store.runs / ".DS_Store").write_bytes(b"")
    assert [ID in text or OTHER.run_id in text for text in found(store)] == [True, True, False]
    assert "runs/ holds .DS_Store, which is no run" in leftovers(store)


def test_runs_of_a_newer_bench_are_no_problem_but_an_error(store):
    rewrite(store.runs / ID, lambda r: r.update(schema=99))
    before = tree(store.root)
    with pytest.raises(StoreError, match="update"):
        list(problems(store))
    assert tree(store.root) == before


# The table


def edit(path, change):
    table = pq.read_table(path)
    pq.write_table(change(table), path)


def better_auroc(path):
    edit(path, lambda t: t.set_column(t.column_names.index("auroc"), "auroc", pa.array([0.99] * 2)))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "does not read"),
        (lambda p: p.write_bytes(b""), "does not read"),
        (lambda p: p.write_bytes(b"PAR1" * 99), "does not read"),
        (better_auroc, "is not what the receipts give"),
        (lambda p: edit(p, lambda t: t.take([1, 0])), "is not what the receipts give"),
        (lambda p: edit(p, lambda t: t.drop_columns("ap")), "is not what the receipts give"),
    ],
    ids=["truncated", "empty", "no table", "better", "other order", "column less"],
)  # fmt: skip
def test_a_table_that_does_not_agree_is_found_and_can_be_made_again(store, damage, said):
    damage(store.table)
    (text,) = found(store)
    assert text.startswith(f"{store.table} {said}")
    store.compact()
    assert found(store) == []


def test_a_table_that_a_killed_command_left_behind_is_told_and_no_problem(store):
    publish(store, THIRD)
    assert found(store) == []
    behind = "runs.parquet lacks 1 of the runs: the next `bench run` brings it up to date"
    assert behind in leftovers(store)
    store.table.unlink()
    assert found(store) == []
    assert any("lacks 3 of the runs" in text for text in leftovers(store))


def test_a_run_that_did_not_repeat_is_a_problem(store):
    reason = f"MethodError: run {ID} was finished twice with different scores"
    folder = fail(store, store.stage(ID), reason, kind=DISPUTED, provenance={})
    assert found(store) == [f"{reason} ({folder})"]


def test_a_folder_in_the_place_of_the_table_is_a_problem_and_no_other_error(store):
    store.table.unlink()
    store.table.mkdir()
    (text,) = found(store)
    assert text.startswith(str(store.table))


def test_a_flipped_bit_in_the_table_is_found_or_says_the_same(store):
    whole = store.table.read_bytes()
    for place in np.random.RandomState(0).randint(0, len(whole), 60):
        flip(store.table, place)
        for text in problems(store):
            assert text.startswith(str(store.table))
        store.table.write_bytes(whole)


# What lies beside the runs


def test_what_lies_beside_the_runs_is_told_and_no_problem(store, tmp_path):
    assert list(leftovers(store)) == []
    staged(store, THIRD)
    truncate(store.runs / ID / "scores.parquet")
    store.quarantine_run(ID)
    publish(store)
    publish(store, again=True)
    fail(store, store.stage("x"), spec=THIRD)
    assert found(store) == []
    told = list(leftovers(store))
    assert [text.split("/")[0] for text in told] == [
        "staging", "quarantine", "superseded", "failures",
    ]  # fmt: skip
    assert all(" holds 1 run " in text for text in told)
    pack(store, tmp_path / "archive")
    assert list(leftovers(results_at(tmp_path / "archive"))) == []


# The command


def test_the_command_says_that_everything_agrees(store, tmp_path, capsys):
    pack(store, tmp_path / "archive")
    before = tree(tmp_path)
    for results in (store.root, tmp_path / "archive"):
        assert bench(capsys, "verify", "--results", results) == (
            0,
            "2 runs, everything agrees\n",
            "",
        )
    assert tree(tmp_path) == before


def test_the_command_ends_with_1_and_a_line_for_each_problem(store, capsys):
    rewrite(store.runs / ID, lambda r: r["metrics"].update(auroc=0.99))
    store.table.unlink()
    fail(store, store.stage("x"), spec=THIRD)
    before = tree(store.root)
    code, out, err = bench(capsys, "verify", "--results", store.root)
    assert (code, err) == (1, "")
    assert out.splitlines() == [
        f"run {ID}: auroc is 0.99, its scores give 0.75",
        "note: runs.parquet lacks 2 of the runs: the next `bench run` brings it up to date",
        "note: failures/ holds 1 run that failed",
        "2 runs, 1 problem",
    ]
    assert tree(store.root) == before


def test_a_damaged_archive_is_a_problem(store, tmp_path, capsys):
    pack(store, tmp_path / "archive")
    flip(tmp_path / "archive" / "scores.parquet")
    code, out, err = bench(capsys, "verify", "--results", tmp_path / "archive")
    assert (code, err) == (1, "")
    assert out == (
        f"archive {tmp_path / 'archive'} is damaged:"
        " scores.parquet does not agree with its digest\n"
    )


def test_an_archive_whose_numbers_do_not_follow_is_a_problem(store, tmp_path, capsys):
    """`pack` looks at digests and scores; whoever makes all of them again is found by `verify`."""
    rewrite(store.runs / ID, lambda r: r["metrics"].update(auroc=0.99))
    store.compact()
    try:
        pack(store, tmp_path / "archive")
    except StoreError:
        return  # better still
    code, out, _ = bench(capsys, "verify", "--results", tmp_path / "archive")
    assert code == 1
    assert f"run {ID}: auroc is 0.99, its scores give 0.75" in out


def test_what_cannot_be_verified_is_one_line_with_exit_code_2(store, tmp_path, capsys):
    rewrite(store.runs / ID, lambda r: r.update(schema=99))
    newer = tmp_path / "newer"
    pack(store_at(tmp_path / "other", THIRD), newer)
    card = json.loads((newer / MANIFEST).read_bytes())
    for results, said in (
        (tmp_path / "nowhere", "neither a results folder"),
        (store.root, "update"),
    ):
        code, out, err = bench(capsys, "verify", "--results", results)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1
    assert card["content"]["runs"] == 1
    assert not (tmp_path / "nowhere").exists()


def test_results_that_cannot_be_written_are_verified(tmp_path):
    """It only looks: not even the folders that a results folder has are made."""
    bare = Store(tmp_path / "bare")
    whole = store_at(tmp_path / "whole", SPEC)
    bare.root.mkdir()
    whole.runs.rename(bare.runs)
    whole.table.rename(bare.table)
    assert found(bare) == []
    assert {p.name for p in bare.root.iterdir()} == {"runs", "runs.parquet"}
