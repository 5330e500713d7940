"""Runs beside those of a reference: states, the rule for a group, and its error rates."""

from dataclasses import replace

import numpy as np
import pytest

from bench.analysis.regress import LEAST_PAIRS, judge, regression
from tests.fixtures.runs import (
    CLOSE,
    ELSEWHERE,
    FAR,
    HERE,
    MIDDLE,
    SPEC,
    fail,
    flip,
    publish,
    staged,
    store_at,
)  # fmt: skip

NEXT = replace(SPEC, method_version=2)
TRAINED = replace(SPEC, method="devnet", precision="float32", parameters={"epochs": 30})
PROBE = replace(TRAINED, parameters={"epochs": 2, "steps_per_epoch": 1})


@pytest.fixture
def reference(tmp_path):
    return store_at(tmp_path / "reference")


def states(reference, store, **given):
    return [run.state for run in regression(reference, store, **given).runs]


def test_equal_bits_are_identical_and_others_of_the_same_environment_are_a_change(reference, store):
    publish(reference)
    publish(reference, replace(SPEC, seed=1))
    publish(store)
    publish(store, replace(SPEC, seed=1), CLOSE)
    check = regression(reference, store)
    by_seed = {run.spec.seed: run.state for run in check.runs}
    assert by_seed == {0: "identical", 1: "changed"}
    (fault,) = check.faults
    assert str(fault) == "shortcut on head_ct, seed 1: changed (same version and environment)"


def test_other_code_of_the_same_version_is_a_change_too(reference, store):
    publish(reference)
    publish(store, scores=CLOSE, provenance={**HERE, "source_sha256": "b" * 64})
    assert states(reference, store) == ["changed"]


def test_a_raised_version_and_an_accepted_method_are_meant(reference, store):
    publish(reference)
    publish(store, NEXT, FAR)
    check = regression(reference, store, [NEXT])
    assert [(r.state, r.detail, r.old, r.new) for r in check.runs] == [
        ("meant", "version 1 -> 2", 0.75, 0.0)
    ]
    publish(store, scores=FAR)
    assert states(reference, store, meant=["shortcut"]) == ["meant"]
    assert states(reference, store, meant=["devnet"]) == ["changed"]


def test_a_run_is_compared_with_its_own_version_where_the_reference_has_several(reference, store):
    publish(reference)
    publish(reference, NEXT, FAR)
    publish(store)
    publish(store, NEXT, FAR)
    assert states(reference, store) == ["identical"] * 2


def test_another_environment_moves_a_run_which_is_no_fault_alone(reference, store):
    publish(reference)
    publish(store, scores=FAR, provenance=ELSEWHERE)
    check = regression(reference, store)
    assert [(r.state, r.detail) for r in check.runs] == [("moved", "threads")]
    assert check.faults == []
    (method,) = check.methods
    assert (method.verdict, method.pairs, method.mean) == ("too few", 1, -0.75)
    assert method.pairs_needed == LEAST_PAIRS


def test_what_is_wanted_and_not_there_is_a_fault_by_its_kind(reference, store):
    specs = [replace(SPEC, seed=seed) for seed in range(4)]
    for spec in specs:
        publish(reference, spec)
    publish(store, specs[0])
    publish(store, specs[1])
    flip(store.folder(specs[1].run_id) / "scores.parquet")
    fail(store, staged(store, specs[2]), "no memory left", specs[2])
    check = regression(reference, store)
    assert {r.spec.seed: (r.state, r.detail) for r in check.runs} == {
        0: ("identical", ""), 1: ("damaged", ""), 2: ("failed", "no memory left"),
        3: ("missing", ""),
    }  # fmt: skip
    assert len(check.faults) == 3


def test_runs_that_the_reference_lacks_are_new_and_cannot_be_judged_alone(reference, store):
    publish(store)
    check = regression(reference, store, [SPEC])
    assert ([r.state for r in check.runs], check.judged) == (["new"], False)
    assert regression(reference, store).runs == ()


def probe(one, two):
    return {"facts": {"loss_1": one, "loss_2": two}}


@pytest.mark.parametrize(
    ("precision", "losses", "state"),
    [
        ("float32", (1.0, 0.9), "moved"),
        ("float32", (1.0004, 0.9), "moved"),
        ("float32", (1.0, 0.9006), "first steps"),
        ("bfloat16", (1.0, 0.9006), "moved"),
        ("bfloat16", (1.0, 0.93), "first steps"),
        ("float32", (1.0, None), "first steps"),
        ("float32", (1.0, 0.0), "first steps"),
    ],
)
def test_the_losses_of_two_steps_tell_a_change_from_rounding(
    reference, store, precision, losses, state
):
    spec = replace(PROBE, precision=precision)
    publish(reference, spec, **probe(1.0, 0.9))
    publish(store, spec, FAR, provenance=ELSEWHERE, **probe(*losses))
    check = regression(reference, store)
    assert [run.state for run in check.runs] == [state]
    assert check.methods == (), "a probe is cut short: its AUROC is of no use"


def test_a_longer_run_is_no_probe(reference, store):
    facts = {"loss_1": 1.0, "loss_2": 0.9}
    publish(reference, TRAINED, facts=facts)
    publish(store, TRAINED, MIDDLE, provenance=ELSEWHERE, facts={**facts, "loss_1": 2.0})
    assert states(reference, store) == ["moved"]


def test_a_method_is_judged_over_all_places_and_seeds_that_moved(reference, store):
    specs = [replace(SPEC, seed=seed) for seed in range(LEAST_PAIRS)]
    for spec in specs:
        publish(reference, spec)
        publish(store, spec, MIDDLE, provenance=ELSEWHERE)
    (method,) = regression(reference, store).worse
    assert (method.pairs, method.mean) == (LEAST_PAIRS, pytest.approx(-0.25))


def test_equal_needs_a_narrow_interval_and_says_how_many_pairs_else():
    random = np.random.RandomState(0)
    gaps = random.normal(0.0, 0.01, 15)
    gaps -= gaps.mean()
    assert judge("m", gaps.tolist(), 1).verdict == "equal"
    wide = judge("m", (6 * gaps).tolist(), 1)
    assert wide.verdict == "inconclusive"
    assert wide.pairs < wide.pairs_needed < 1000
    again = judge("m", np.resize(6 * gaps, wide.pairs_needed + 40).tolist(), 1)
    assert again.verdict == "equal"
    one = judge("m", [0.3], 1)
    assert (one.verdict, one.interval, one.p) == ("too few", None, None)


@pytest.mark.parametrize(
    ("pairs", "sigma", "drop", "least", "most"),
    [
        (15, 0.01, 0.0, 0.0, 0.01),
        (15, 0.04, 0.0, 0.0, 0.01),
        (85, 0.04, 0.0, 0.0, 0.01),
        (15, 0.01, -0.05, 1.0, 1.0),
        (15, 0.01, -0.02, 0.98, 1.0),
        (85, 0.04, -0.02, 0.6, 1.0),
        (85, 0.04, -0.05, 1.0, 1.0),
    ],
)
def test_six_methods_at_once_alarm_falsely_in_one_night_of_a_hundred_at_most(
    pairs, sigma, drop, least, most
):
    """Rates over 1,000 nights, vectorised; `judge` itself is compared on some of them."""
    from scipy.stats import t

    gaps = np.random.RandomState(1).normal(0, sigma, (1000, 6, pairs))
    gaps[:, 0] += drop
    mean, spread = gaps.mean(2), gaps.std(2, ddof=1)
    p = t.cdf(mean / (spread / np.sqrt(pairs)), pairs - 1)
    worse = (mean < -0.005) & (p < 0.01 / 6)
    for night in range(3):
        judged = [judge("m", g.tolist(), 6).verdict == "worse" for g in gaps[night]]
        assert judged == worse[night].tolist()
    rate = (worse[:, 0] if drop else worse.any(1)).mean()
    slack = 2 * np.sqrt(0.01 * 0.99 / 1000) if not drop else 0
    assert least <= rate <= most + slack
