"""Scores by epoch: their file, and where they lie."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from bench.store.archive import Archive, pack
from bench.store.artifacts import EPOCHS
from bench.store.epochs import SCHEMA, ScoresByEpoch, epochs_bytes, read_epochs
from bench.store.merge import merge_results
from bench.store.verify import problems
from tests.fixtures.runs import BY_EPOCH, ID, OTHER, SCORES, publish, publish_with, store_at
from tests.fixtures.stores import kept


def test_they_survive_their_file():
    back = read_epochs(epochs_bytes(BY_EPOCH))
    assert (back.file, back.epochs) == (BY_EPOCH.file, BY_EPOCH.epochs)
    assert np.array_equal(back.scores, BY_EPOCH.scores)
    assert epochs_bytes(back) == epochs_bytes(BY_EPOCH)


def test_auroc_by_epoch_is_of_the_images_that_count():
    assert BY_EPOCH.auroc(SCORES) == {1: 0.5, 2: 1.0, 4: 0.75}
    with pytest.raises(ValueError, match="other images"):
        BY_EPOCH.auroc(replace(SCORES, file=("x", *SCORES.file[1:])))


def rows(epochs, scores):
    return pa.table([["a", "b"], epochs, scores], schema=SCHEMA)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (pa.table({"file": ["a"]}), "have columns file"),
        (rows([[1], None], [[0.1], [0.2]]), "have columns"),
        (rows([[1], [2]], [[0.1], [0.2]]), "several lists"),
        (rows([[2, 1]] * 2, [[0.1, 0.2]] * 2), "do not rise"),
        (rows([[0, 1]] * 2, [[0.1, 0.2]] * 2), "do not rise"),
        (rows([[1, 1]] * 2, [[0.1, 0.2]] * 2), "do not rise"),
        (rows([[1, None]] * 2, [[0.1, 0.2]] * 2), "do not rise"),
        (rows([[]] * 2, [[]] * 2), "do not rise"),
        (rows([[1, 2]] * 2, [[0.1, 0.2], [0.1]]), "differ in length"),
        (rows([[1]] * 2, [[0.1], [None]]), "differ in length"),
        (rows([[1]] * 2, [[0.1], [float("nan")]]), "not finite"),
        (SCHEMA.empty_table(), "several lists"),
    ],
)
def test_a_table_that_is_none_of_them_is_refused(table, why):
    with pytest.raises(ValueError, match=why):
        ScoresByEpoch.from_table(table)


def test_an_archive_and_a_merge_keep_them(tmp_path):
    store = store_at(tmp_path / "results")
    publish_with(store, EPOCHS)
    publish(store, OTHER)
    pack(store, tmp_path / "archive")
    archive, merged = Archive(tmp_path / "archive"), store_at(tmp_path / "merged")
    publish(merged)
    assert {m.kind for m in merge_results(archive, merged)} == {"new"}
    for results in (store, archive, merged):
        assert epochs_bytes(results.epoch_scores(ID)) == epochs_bytes(BY_EPOCH)
        assert results.epoch_scores(OTHER.run_id) is None
        assert (kept(results), kept(results, OTHER.run_id)) == ({EPOCHS}, set())
        assert list(problems(results)) == []


def test_those_of_other_images_are_a_problem(store):
    publish_with(store, EPOCHS, by_epoch=replace(BY_EPOCH, file=("x", *SCORES.file[1:])))
    store.compact()
    assert list(problems(store)) == [f"run {ID}: {EPOCHS} is of 5 other images than its 5 scores"]
