"""Best epoch on the test against the last."""

from dataclasses import replace

import pytest
from scipy import stats

from bench.analysis.configurations import StoredRuns
from bench.analysis.epochs import epochs_table, gain_of, selection_gain, written_gain
from bench.errors import CorruptRun
from bench.store.artifacts import EPOCHS
from bench.store.results import receipts
from tests.fixtures.runs import BY_EPOCH, OTHER, SCORES, SPEC, THIRD, publish, publish_with

RUNS = {
    0: {1: 0.7, 2: 0.9, 3: 0.8},
    1: {1: 0.6, 2: 0.7, 3: 0.7},
    2: {1: 0.95, 2: 0.8, 3: 0.9},
}


def test_the_gain_is_of_each_run_s_best_epoch_over_its_last():
    gain = selection_gain(RUNS)
    assert gain.best_epochs == {0: 2, 1: 2, 2: 1}, "of equal ones the earliest"
    assert gain.gain.mean == pytest.approx((0.1 + 0.0 + 0.05) / 3)
    low, high = stats.t.interval(0.95, 2, 0.05, stats.sem([0.1, 0.0, 0.05]))
    assert gain.gain.interval == pytest.approx((low, high))
    assert (gain.last.mean, gain.best.mean) == pytest.approx((0.8, 0.85))
    assert written_gain(gain) == "+0.050 (+0.000 to +0.174), 3 seeds, best of 3 epochs"


def test_one_seed_has_no_interval_and_one_epoch_no_choice():
    one = selection_gain({4: RUNS[0], 5: {1: 0.5}})
    assert written_gain(one) == "+0.100, 1 seed, best of 3 epochs"
    assert selection_gain({5: {1: 0.5}}) is None
    assert selection_gain({}) is None


def test_stored_runs_that_keep_scores_by_epoch_make_a_row(store):
    publish_with(store, EPOCHS)
    publish_with(store, EPOCHS, spec=OTHER)
    publish(store, THIRD)
    stored = StoredRuns(store, tuple(receipts(store)))
    (configuration,) = next(iter(stored.groups.values()))
    gain = gain_of(configuration, stored)
    assert gain.best_epochs == {0: 2, 1: 2}
    assert (gain.best.mean, gain.last.mean) == (1.0, 0.75)
    (row,) = epochs_table(stored).rows
    assert row == (
        "head_ct", "10", "shortcut", "0.750", "1.000",
        "+0.250 (+0.250 to +0.250), 2 seeds, best of 3 epochs", "2, 2",
    )  # fmt: skip


def test_each_draw_is_a_row_and_runs_without_make_none(store):
    publish(store, SPEC)
    stored = StoredRuns(store, tuple(receipts(store)))
    assert epochs_table(stored) is None
    for seed in (1, 2):
        publish_with(store, EPOCHS, spec=replace(SPEC, seed=seed, draw_seed=0))
    stored = StoredRuns(store, tuple(receipts(store)))
    assert [row[2] for row in epochs_table(stored).rows] == ["shortcut draw_seed=0"]


def test_scores_by_epoch_of_other_images_are_damage(store):
    publish_with(store, EPOCHS, by_epoch=replace(BY_EPOCH, file=("x", *SCORES.file[1:])))
    stored = StoredRuns(store, tuple(receipts(store)))
    with pytest.raises(CorruptRun, match="other images"):
        epochs_table(stored)
