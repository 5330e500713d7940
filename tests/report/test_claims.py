"""What the paper says in words, on made-up runs of which each number is known."""

from dataclasses import replace

import numpy as np
import pytest

from bench.report.claims import claims, hot_in_box
from tests.fixtures.gallery import TRAINED, filled, publish, scores, sources_of
from tests.fixtures.runs import SPEC, store_at

TITLE, THRESHOLD, BOX, CLUSTERS, DENSITY, EPOCH = range(6)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    stored = filled(tmp_path_factory.mktemp("claims") / "results")
    for seed, held in enumerate((0.9, 0.7)):
        metrics = {
            "box_recall": held, "box_recall_centred": 0.5, "box_recall_by_chance": 0.4,
            "pointing": 0.25 * (seed + 1), "pointing_by_chance": 0.125,
        }  # fmt: skip
        marked = replace(TRAINED, seed=seed, category="washer", fingerprint="f" * 64)
        publish(stored, marked, scores(seed), metrics=metrics, seed=seed)
    return stored


@pytest.fixture(scope="module")
def told(results):
    return claims(sources_of(results))


def outcome(claim, place):
    (one,) = [o for o in claim.outcomes if o.where.startswith(f"synthetic/{place}, 10 shots")]
    return one


def test_every_claim_has_a_source_a_test_and_what_it_rests_on(told):
    for claim in told:
        assert claim.text
        assert claim.source
        assert claim.test
        assert claim.outcomes, claim.text
        for one in claim.outcomes:
            assert "version 1 of the method" in one.basis


def test_the_title_is_tested_against_the_whole_image_at_the_same_cost(told):
    one = outcome(told[TITLE], "weave")
    gaps = [
        scores(seed).metrics(full=False)["auroc"] - scores(20 + seed).metrics(full=False)["auroc"]
        for seed in range(2)
    ]
    assert f"AUROC {np.mean(gaps):+.3f} [" in one.result
    assert "against the whole image augmented twice" in one.result


def test_thresholds_are_carried_between_seeds(told):
    one = outcome(told[THRESHOLD], "weave")
    assert one.basis.startswith("2 seeds; resnet50 to stage 3, ")
    assert " at that of another seed; the best thresholds lie between " in one.result


def test_the_box_is_compared_with_a_centred_one_over_seeds(told):
    one = outcome(told[BOX], "washer")
    assert "the box holds 0.800 [" in one.result
    assert "pixels, 0.300 [" in one.result
    assert "on the defect in 0.375 [" in one.result
    assert "by chance 0.125" in one.result


def test_silhouettes_are_of_all_three_versions(told):
    one = outcome(told[CLUSTERS], "weave")
    assert one.result.count(" above ") == 2
    assert "silhouettes CutMix (cross-entropy) 0." in one.result
    assert one.basis.startswith("2 seeds")


def test_the_density_is_compared_with_the_same_crop_of_the_same_map(told):
    one = outcome(told[DENSITY], "weave")
    assert one.basis.startswith("2 seeds")
    assert "of the zoomed view is hot" in one.result


def test_the_best_epoch_on_the_test_is_compared_with_the_last(told):
    one = outcome(told[EPOCH], "washer")
    last = np.mean([scores(seed).metrics(full=False)["auroc"] for seed in range(2)])
    assert f"lies +{1 - last:.3f} (" in one.result
    assert "2 seeds, best of 2 epochs above the last" in one.result


def test_without_such_runs_a_claim_says_what_it_takes(tmp_path):
    told = claims(sources_of(store_at(tmp_path, SPEC)))
    assert all(not claim.outcomes and claim.needs for claim in told)


def test_hot_cells_are_counted_inside_the_box_by_its_own_maximum():
    maps = np.array([[[9, 0, 0, 0], [0, 4, 2, 0], [0, 1, 1, 0], [0, 0, 0, 0]]], np.float32)
    inner = np.array([[0.25, 0.25, 0.75, 0.75]], np.float32)  # holds 4, 2, 1, 1
    assert hot_in_box(maps, inner) == pytest.approx([0.5])
    everything = np.array([[0, 0, 1, 1]], np.float32)
    assert hot_in_box(maps, everything) == pytest.approx([1 / 16])
    wider = np.array([[0.25, 0.25, 0.8125, 0.75]], np.float32)  # and a quarter of cells of nothing
    assert hot_in_box(maps, wider) == pytest.approx([2 / 4.5])
    assert hot_in_box(np.zeros_like(maps), inner) == [0]
