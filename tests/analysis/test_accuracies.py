"""Accuracies at a threshold fixed on normal images, beside what CAVGA's paper prints."""

from dataclasses import replace

import pytest

from bench.analysis.accuracies import accuracy_table
from bench.analysis.configurations import StoredRuns
from bench.metrics import mean_class_accuracy
from bench.store.results import receipts
from bench.store.verify import problems
from tests.fixtures.runs import MIDDLE, SCORES, SPEC, publish

CAVGA = replace(
    SPEC, method="cavga", dataset="mvtec_ad", category="bottle", parameters={"variant": "R_w"}
)
UNLABELLED = replace(CAVGA, shots=0, parameters={"variant": "D_u"})


def with_threshold(store, spec, scores, threshold):
    """Publish a run as the worker does of a method that records a threshold."""
    measured = scores.metrics(full=not spec.shots, threshold=threshold)
    publish(
        store, spec, scores, facts={"normal_threshold": threshold},
        metrics={**measured, "scores_sha256": scores.digest()},
    )  # fmt: skip


def rows(store):
    return accuracy_table(StoredRuns(store, tuple(receipts(store)))).rows


def test_the_accuracy_is_the_mean_of_both_classes_and_a_score_at_the_threshold_is_anomalous():
    scores, labels = [0.1, 0.4, 0.3, 0.35, 0.8], [0, 0, 0, 1, 1]
    assert mean_class_accuracy(scores, labels, 0.4) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert mean_class_accuracy(scores, labels, 0.35) == pytest.approx((2 / 3 + 1) / 2)
    with pytest.raises(ValueError, match="only one"):
        mean_class_accuracy([0.1], [0], 0.5)


def test_the_published_accuracy_of_a_variant_stands_beside_ours_and_never_in_its_place(store):
    with_threshold(store, CAVGA, SCORES, 0.3)
    with_threshold(store, replace(CAVGA, seed=1), MIDDLE, 0.32)
    with_threshold(store, UNLABELLED, SCORES, 0.3)
    # Of labels the four images that count, (1/2 + 2/2) / 2 and (1/2 + 1/2) / 2; without, all five.
    assert [row[:2] + row[3:] for row in rows(store)] == [
        ("mvtec_ad/bottle", "0", "0.89", "0.750", "1 seed", "0.833"),
        ("mvtec_ad/bottle", "10", "0.96", "0.625 ± 0.177", "2 seeds", "0.625"),
    ]
    assert list(problems(store)) == []


def test_other_methods_have_accuracies_of_their_own_and_runs_without_make_no_table(store):
    publish(store)
    assert accuracy_table(StoredRuns(store, tuple(receipts(store)))) is None
    with_threshold(store, replace(SPEC, seed=1), SCORES, 0.3)
    ((*_, published, accuracy, seeds, _),) = rows(store)
    assert (published, accuracy, seeds) == ("", "0.750", "1 seed")
