from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bench.analysis.verdict import departures, verdict
from bench.published.tables import published_tables
from tests.fixtures.runs import SPEC, receipt_of


def test_the_verdict_is_two_one_sided_t_tests():
    values, published, margin = [0.981, 0.985, 0.979, 0.983, 0.984], 0.985, 0.010
    low = stats.ttest_1samp(values, published - margin, alternative="greater").pvalue
    high = stats.ttest_1samp(values, published + margin, alternative="less").pvalue
    assert max(low, high) < 0.05
    assert verdict(values, published, margin).word == "reproduced"


@pytest.mark.parametrize("shift", np.linspace(-0.03, 0.03, 25))
def test_the_word_is_that_of_the_tests_wherever_the_mean_lies(shift):
    values = [0.9 + shift + d for d in (-0.006, -0.002, 0.001, 0.007)]
    found = verdict(values, 0.9, 0.010)
    low = stats.ttest_1samp(values, 0.89, alternative="greater").pvalue
    high = stats.ttest_1samp(values, 0.91, alternative="less").pvalue
    beyond = min(
        stats.ttest_1samp(values, 0.91, alternative="greater").pvalue,
        stats.ttest_1samp(values, 0.89, alternative="less").pvalue,
    )
    word = "reproduced" if max(low, high) < 0.05 else "differs" if beyond < 0.05 else "inconclusive"
    assert found.word == word
    assert found.difference == pytest.approx(shift)


def test_it_takes_three_seeds():
    found = verdict([0.985, 0.985], 0.985, 0.010)
    assert (found.word, found.why) == ("inconclusive", "2 seeds; it takes 3")
    assert verdict([0.5], 0.985, 0.010).interval is None


@pytest.mark.parametrize(
    ("value", "word"),
    [(1.0, "reproduced"), (0.991, "reproduced"), (0.99, "inconclusive"), (0.989, "differs")],
)
def test_where_all_seeds_agree_the_interval_is_a_point(value, word):
    """At the margin itself neither is claimed, though 0.99 - 1.0 is below -0.01 in floats."""
    found = verdict([value] * 3, 1.0, 0.010)
    assert found.word == word
    assert found.interval == (found.difference, found.difference)
    assert found.why.startswith(f"all 3 seeds alike: a difference of {value - 1:+.3f}")


@pytest.mark.parametrize("published", [0.3, 0.5, 0.7, 0.9, 0.985])
@pytest.mark.parametrize("sign", [1, -1])
def test_on_the_margin_nothing_is_claimed(published, sign):
    assert verdict([published + sign * 0.01] * 3, published, 0.010).word == "inconclusive"


@pytest.mark.parametrize(("end", "word"), [(0.0099, "reproduced"), (0.01, "inconclusive")])
def test_an_end_of_the_interval_on_the_margin_is_not_within_it(end, word):
    """Three values whose 90 % interval is [-end, end] around the published number."""
    step = end / (stats.t.ppf(0.95, 2) / np.sqrt(3))
    found = verdict([0.9 - step, 0.9, 0.9 + step], 0.9, 0.010)
    assert found.interval == pytest.approx((-end, end))
    assert found.word == word


@pytest.mark.parametrize(("start", "word"), [(0.0101, "differs"), (0.01, "inconclusive")])
def test_an_interval_that_begins_on_the_margin_is_not_beyond_it(start, word):
    step = 0.002 / (stats.t.ppf(0.95, 2) / np.sqrt(3))
    middle = 0.9 + start + 0.002
    assert verdict([middle - step, middle, middle + step], 0.9, 0.010).word == word


@pytest.mark.parametrize("values", [[0.905], [0.905] * 4])
def test_without_randomness_the_difference_itself_is_judged(values):
    found = verdict(values, 0.9, 0.010, seedless=True)
    assert (found.word, found.interval) == ("reproduced", None)
    assert verdict(values, 0.88, 0.010, seedless=True).word == "differs"
    assert verdict(values, 0.915, 0.010, seedless=True).word == "inconclusive"  # on the margin


def test_values_that_differ_belie_that_there_is_no_randomness():
    values = [0.900, 0.902]
    assert verdict(values, 0.9, 0.010, seedless=True) == verdict(values, 0.9, 0.010)


def test_without_a_run_there_is_no_verdict():
    with pytest.raises(ValueError, match="at least one"):
        verdict([], 0.9, 0.010)
    with pytest.raises(ValueError, match="finite"):
        verdict([0.9, float("nan"), 0.9], 0.9, 0.010)


def test_it_is_wrong_no_more_often_than_it_says():
    """At the edge of the margin `reproduced` and `differs` come in 5 % of cases each."""
    random = np.random.RandomState(0)
    words = [verdict(list(random.normal(0.91, 0.003, 5)), 0.9, 0.010).word for _ in range(2000)]
    for word in ("reproduced", "differs"):
        assert 0.03 < words.count(word) / 2000 < 0.07


TRAINED = replace(
    SPEC, image_size=224, batch_size=16, backbone="resnet50", stage=4, weights="a" * 64,
    parameters={"epochs": 30, "steps_per_epoch": 0},
)  # fmt: skip


def made(*, spec=None, parameters=None, **changes):
    asked = {"parameters": {**TRAINED.parameters, **(parameters or {})}, **(spec or {})}
    groups = {
        "facts": {"optimiser_steps": 300},
        "split": {"train_normal": 74},
        "provenance": {"unofficial_copy": ""},
    }
    return receipt_of(replace(TRAINED, **asked), **{**groups, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ()),
        ({"spec": {"stage": 3}}, ("stage 3, not 4",)),
        ({"parameters": {"epochs": 10}}, ("epochs 10, not 30",)),
        ({"parameters": {"steps_per_epoch": 10}}, ()),
        ({"parameters": {"steps_per_epoch": 5}, "facts": {"optimiser_steps": 150}},
         ("150 steps, not 300",)),
        ({"spec": {"weights": None}}, ("no ImageNet weights",)),
        ({"provenance": {"unofficial_copy": "256x256 px, not 900x900"}},
         ("unofficial copy: 256x256 px, not 900x900",)),
    ],
)  # fmt: skip
def test_departures_from_the_stated_protocol_are_named(changes, said):
    assert departures(made(**changes), published_tables()["atacnet_table1"].protocol) == said


def test_what_a_run_does_not_know_is_no_departure():
    unknown = {"backbone": None, "stage": None, "batch_size": None, "weights": None}
    shortcut = made(spec={**unknown, "parameters": {}})
    assert departures(shortcut, published_tables()["atacnet_table1"].protocol) == ()
