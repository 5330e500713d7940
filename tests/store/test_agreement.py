"""How far two results of one run agree, and what two results folders have in common."""

import pytest

from bench.store.agreement import CLOSE as MARGIN
from bench.store.agreement import ENVIRONMENT, LATER, agreement, recorded_environment
from tests.fixtures.runs import (
    changed,
    receipt_of,
)


def result(auroc=0.75, digest="5", **provenance):
    metrics = {"auroc": auroc, "ap": 0.5, "scores_sha256": digest * 64}
    return receipt_of(metrics=metrics, provenance={"threads": 2, **provenance})


def test_the_same_bits_are_identical_wherever_they_come_from():
    found = agreement(result(), result(threads=1, cpu="other"))
    assert (found.kind, found.auroc_gap, str(found)) == ("identical", 0.0, "identical")


@pytest.mark.parametrize("gap", [0.0, 0.009, -0.009, 0.011, -0.011, 0.5, -0.5])
def test_other_bits_of_another_environment_are_close_or_different_by_their_auroc(gap):
    assert MARGIN == 0.010
    found = agreement(result(), result(0.75 + gap, "6", threads=1))
    assert found.kind == ("close" if abs(gap) < 0.01 else "different")
    assert found.auroc_gap == pytest.approx(gap)


@pytest.mark.parametrize("gap", [0.0, 0.001, -0.5])
def test_other_bits_of_the_same_environment_are_different_however_close(gap):
    """There the same spec gives the same bits: one of the two is not to be trusted."""
    same = {"hostname": "other", "load_average": 3.0, "commit": "c" * 40, "dirty": "yes"}
    found = agreement(result(), result(0.75 + gap, "6", **same))
    assert found.kind == "different"
    assert found.environment == ()
    assert "the environment is the same" in str(found)


@pytest.mark.parametrize("key", ENVIRONMENT)
def test_anything_that_differs_in_the_environment_makes_it_another(key):
    first, second = result(**{key: "one"}), result(0.751, "6", **{key: "two"})
    found = agreement(first, second)
    assert found.kind == "close"
    assert len(found.environment) == 1
    assert found.environment[0].endswith(" one and two")
    rest = {k: v for k, v in second.provenance.items() if k != key}
    second = changed(second, provenance=rest)
    if key in LATER:  # older receipts do not say
        assert agreement(first, second).environment == ()
        return
    (difference,) = agreement(first, second).environment
    assert difference.endswith(" one and none")


def test_how_steps_ran_on_a_gpu_is_environment_and_on_a_cpu_it_is_not():
    facts = {"graphed": True, "layout": "channels_last", "optimiser_steps": 3}
    recorded = recorded_environment(facts, "cuda:1")
    assert recorded == {"graphed": True, "layout": "channels_last"}
    assert recorded_environment(facts, "cpu") == recorded_environment({}, "cuda:0") == {}
    # Not captured, by today's code or older, is all the same.
    assert recorded_environment({"graphed": False}, "cuda:0") == {}
    found = agreement(result(), result(0.751, "6", **recorded))
    assert found.environment == ("captured steps none and True",)
    assert found.kind == "close"


def test_it_is_said_in_one_line():
    first, second = result(source_sha256="a" * 64), result(0.7525, "6", source_sha256="b" * 64)
    assert str(agreement(first, second)) == (
        "close: AUROC differs by +0.002500 (source aaaaaaaa and bbbbbbbb)"
    )
    second = changed(second, provenance={"device_name": "H200", "source_sha256": ""})
    assert str(agreement(first, second)) == (
        "close: AUROC differs by +0.002500"
        " (source aaaaaaaa and none, device none and H200, threads 2 and none)"
    )
    assert str(agreement(result(), result(0.5, "6"))) == (
        "different: AUROC differs by -0.250000 (the environment is the same)"
    )


def test_that_masks_differ_is_said_where_both_are_known():
    def masked(digest):
        metrics = {"auroc": 0.75, "ap": 0.5, "scores_sha256": "5" * 64, "masks_sha256": digest}
        return receipt_of(metrics=metrics)

    found = agreement(masked("a" * 64), masked("b" * 64))
    assert found.kind == "identical"
    assert str(found) == "identical; pixel metrics of other masks (aaaaaaaa and bbbbbbbb)"
    for one, other in (("a" * 64, "a" * 64), ("a" * 64, None), (None, "a" * 64), (None, None)):
        assert str(agreement(masked(one), masked(other))) == "identical"
