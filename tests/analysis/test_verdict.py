import dataclasses
import functools
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from scipy import stats

from bench.analysis.verdict import Noise, departures, seeds_needed, verdict
from bench.published.tables import PublishedValue, half_unit, published_tables
from bench.registry import METHODS, load_class
from tests.fixtures.runs import SPEC, receipt_of


def judged(values, published, margin=0.010, **known):
    """Judge against a number that has digits enough for no rounding."""
    return verdict(values, PublishedValue(Decimal(f"{published:.15f}"), None), margin, **known)


def test_the_verdict_is_two_one_sided_t_tests():
    values, published, margin = [0.981, 0.985, 0.979, 0.983, 0.984], 0.985, 0.010
    low = stats.ttest_1samp(values, published - margin, alternative="greater").pvalue
    high = stats.ttest_1samp(values, published + margin, alternative="less").pvalue
    assert max(low, high) < 0.05
    assert judged(values, published).word == "reproduced"


@pytest.mark.parametrize("shift", np.linspace(-0.03, 0.03, 25))
def test_the_word_is_that_of_the_tests_wherever_the_mean_lies(shift):
    values = [0.9 + shift + d for d in (-0.006, -0.002, 0.001, 0.007)]
    low = stats.ttest_1samp(values, 0.89, alternative="greater").pvalue
    high = stats.ttest_1samp(values, 0.91, alternative="less").pvalue
    beyond = min(
        stats.ttest_1samp(values, 0.91, alternative="greater").pvalue,
        stats.ttest_1samp(values, 0.89, alternative="less").pvalue,
    )
    word = "reproduced" if max(low, high) < 0.05 else "differs" if beyond < 0.05 else "inconclusive"
    result = judged(values, 0.9)
    assert result.word == word
    assert result.difference == pytest.approx(shift)
    assert "the published number taken as exact" in result.why


@pytest.mark.parametrize("shift", np.linspace(-0.05, 0.05, 11))
def test_a_published_spread_makes_the_interval_welch_s(shift):
    """Scipy's Welch test of summary statistics gives the same two one-sided tests."""
    values, noise = [0.9 + shift + d for d in (-0.02, -0.01, 0.01, 0.02)], Noise(0.013, 3)
    mean, std = np.mean(values), np.std(values, ddof=1)

    def p(edge, side):
        return stats.ttest_ind_from_stats(
            mean, std, 4, edge, noise.std, noise.runs, equal_var=False, alternative=side
        ).pvalue

    within = max(p(0.89, "greater"), p(0.91, "less")) < 0.05
    beyond = min(p(0.91, "greater"), p(0.89, "less")) < 0.05
    word = "reproduced" if within else "differs" if beyond else "inconclusive"
    result = judged(values, 0.9, noise=noise)
    assert result.word == word
    assert "± 0.013 over 3 runs" in result.why


def test_the_rounding_of_the_published_number_widens_the_interval():
    values, number = [0.9041, 0.9039, 0.9040], Decimal("0.900")
    exact = judged(values, 0.9).interval
    rounded = verdict(values, PublishedValue(number, None), 0.010).interval
    assert np.subtract(rounded, exact) == pytest.approx([-0.0005, 0.0005])
    assert half_unit(Decimal("98.5")) == Decimal("0.05")


def test_it_takes_three_seeds():
    result = judged([0.985, 0.985], 0.985)
    assert (result.word, result.why) == ("inconclusive", "2 seeds; it takes 3")
    assert judged([0.5], 0.985).interval is None


@pytest.mark.parametrize("value", [0.991, 0.5, 0.985])
def test_seeds_that_are_all_alike_have_no_spread_to_test_over(value):
    result = judged([value] * 3, 0.985, images=(1000, 1000))
    assert (result.word, result.interval) == ("inconclusive", None)
    assert result.why == "all 3 seeds alike: no spread to test over"


@pytest.mark.parametrize(
    ("published", "images", "word"),
    [
        (1.0, None, "inconclusive"),
        (1.0, (25, 90), "inconclusive"),
        (1.0, (300, 400), "reproduced"),
        (0.985, (25, 90), "inconclusive"),
        (0.985, (1000, 1000), "differs"),
        (0.8, (25, 90), "differs"),
    ],
)
def test_at_the_ceiling_the_test_images_decide(published, images, word):
    assert judged([1.0] * 3, published, images=images).word == word


def test_at_the_ceiling_the_bound_is_that_of_so_many_pairs_in_order():
    low, high = judged([1.0] * 5, 1.0, images=(25, 90)).interval
    assert high == pytest.approx(0)
    assert (1 + low) ** 25 == pytest.approx(0.05)


@pytest.mark.parametrize(("end", "word"), [(0.0099, "reproduced"), (0.01, "inconclusive")])
def test_an_end_of_the_interval_on_the_margin_is_not_within_it(end, word):
    """Three values whose 90 % interval is [-end, end] around the published number."""
    step = end / (stats.t.ppf(0.95, 2) / np.sqrt(3))
    result = judged([0.9 - step, 0.9, 0.9 + step], 0.9)
    assert result.interval == pytest.approx((-end, end))
    assert result.word == word


@pytest.mark.parametrize(("start", "word"), [(0.0101, "differs"), (0.01, "inconclusive")])
def test_an_interval_that_begins_on_the_margin_is_not_beyond_it(start, word):
    step = 0.002 / (stats.t.ppf(0.95, 2) / np.sqrt(3))
    middle = 0.9 + start + 0.002
    assert judged([middle - step, middle, middle + step], 0.9).word == word


@pytest.mark.parametrize("values", [[0.905], [0.905] * 4])
def test_without_randomness_the_difference_itself_is_judged(values):
    result = judged(values, 0.9, seedless=True)
    assert result.word == "reproduced"
    assert result.interval == pytest.approx((0.005, 0.005))
    assert judged(values, 0.88, seedless=True).word == "differs"
    assert judged(values, 0.895, seedless=True).word == "inconclusive"  # on the margin
    assert judged(values, 0.88, seedless=True, noise=Noise(0.02, 3)).word == "inconclusive"


@pytest.mark.parametrize("published", [0.3, 0.5, 0.7, 0.9, 0.985])
@pytest.mark.parametrize("sign", [1, -1])
def test_on_the_margin_nothing_is_claimed(published, sign):
    """Though 0.99 - 1.0 is below -0.01 in floats."""
    assert judged([published + sign * 0.01], published, seedless=True).word == "inconclusive"


def test_values_that_differ_belie_that_there_is_no_randomness():
    values = [0.900, 0.902]
    assert judged(values, 0.9, seedless=True) == judged(values, 0.9)


@pytest.mark.parametrize("values", [[], [0.9, float("nan"), 0.9]])
def test_without_finite_values_there_is_no_verdict(values):
    with pytest.raises(ValueError, match="at least one value, and finite"):
        judged(values, 0.9)


# Error rates and power, at the values of the review of 88926ad


def share(word, draw, published, n, *, noise_of=None, images=None, repeats=1000):
    """Return how often a verdict is `word` when `draw(random, n)` gives our seeds."""
    random, count = np.random.RandomState(0), 0
    for _ in range(repeats):
        number, noise = noise_of(random) if noise_of else (published, None)
        result = judged(list(draw(random, n)), number, noise=noise, images=images)
        count += result.word == word
    return count / repeats


def normal(mean, std):
    return lambda random, n: random.normal(mean, std, n)


def ceiling(random, n):
    """An AUROC of 1 in four of five trainings, else 0.9: in truth 0.980."""
    return np.where(random.rand(n) < 0.8, 1.0, 0.9)


def test_it_is_wrong_no_more_often_than_it_says():
    """At the edge of the margin `reproduced` and `differs` come in 5 % of cases each."""
    for word in ("reproduced", "differs"):
        assert 0.03 < share(word, normal(0.91, 0.003), 0.9, 5) < 0.07


@pytest.mark.parametrize(("std", "least"), [(0.01, 0.76), (0.003, 0.99)])
def test_ten_seeds_of_little_spread_show_what_is_equal(std, least):
    assert share("reproduced", normal(0.9, std), 0.9, 10) > least


@pytest.mark.parametrize(("n", "least"), [(3, 0.28), (5, 0.54), (10, 0.87)])
def test_what_is_twice_the_margin_off_is_called_so(n, least):
    assert share("differs", normal(0.92, 0.01), 0.9, n) > least


@pytest.mark.parametrize(
    ("std", "n", "most"),
    [(0.03, 3, 0.07), (0.03, 5, 0.07), (0.03, 10, 0.07), (0.03, 30, 0.07), (0.06, 10, 0.10)],
)
def test_a_perfect_replication_of_a_noisy_mean_seldom_differs(std, n, most):
    """A mean of three runs was called different in 9 to 29 % of cases, its spread not counted."""

    def published(random):
        runs = random.normal(0.9, std, 3)
        return runs.mean(), Noise(runs.std(ddof=1), 3)

    def as_exact(random):
        return random.normal(0.9, std, 3).mean(), None

    assert share("differs", normal(0.9, std), None, n, noise_of=published) <= most
    assert share("differs", normal(0.9, std), None, n, noise_of=as_exact) > 0.07


@pytest.mark.parametrize("n", [3, 5, 10])
def test_seeds_at_the_ceiling_do_not_fake_a_verdict(n):
    """By seeds alone three were `reproduced` against 1.000, or `differs` from .98, in half."""
    assert share("reproduced", ceiling, 1.0, n, images=(25, 90)) < 0.01
    assert share("differs", ceiling, 0.98, n, images=(25, 90)) < 0.05


@pytest.mark.parametrize(
    ("std", "seeds"), [(0.01, 11), (0.02, 36), (0.03, 79), (0.04, 139), (0.05, 216)]
)
def test_the_seeds_that_a_spread_needs(std, seeds):
    assert seeds_needed(std, 0.010) == seeds


def test_the_seeds_needed_give_the_power_that_they_promise():
    n = seeds_needed(0.01, 0.010)
    assert share("reproduced", normal(0.9, 0.01), 0.9, n) > 0.78
    assert share("reproduced", normal(0.9, 0.01), 0.9, n - 2) < 0.78


def test_no_number_of_seeds_makes_up_for_a_noisy_published_mean():
    assert seeds_needed(0.01, 0.010, Noise(0.03, 3)) is None
    result = judged([0.88, 0.9, 0.92], 0.9, noise=Noise(0.03, 3))
    assert result.seeds_needed is None
    assert result.why.endswith("no number of seeds up to 1000 would show it reproduced")
    result = judged([0.88, 0.9, 0.92], 0.9)
    assert result.why.endswith(
        f"about {result.seeds_needed} seeds would show it reproduced, if it is"
    )


# Departures

TABLE_1, TABLE_2 = (published_tables()[f"atacnet_table{n}"] for n in (1, 2))
SETTINGS = ("setting", "image_size", "resize", "precision", "batch_size", "backbone", "stage")
WEAK = ("devnet", "dra", "saoe", "cutmix", "atacnet")


def value_of(stated):
    """Return a value that fits a stated one."""
    return stated["above"] + 0.5 if isinstance(stated, dict) else stated


def bent(stated):
    """Return a value of the same type that does not fit a stated one."""
    if isinstance(stated, dict):
        return float(stated["above"])
    if isinstance(stated, bool):
        return not stated
    if isinstance(stated, str):
        return f"other than {stated}"
    return stated * 2 + 1


def protocol_of(table, method):
    """Return all values that a table compares of a method, as the method's parameters allow."""
    compared = {**table.chosen, **table.stated(method)}
    known = {*defaults(method), *SETTINGS}
    return {key: value for key, value in compared.items() if key in known}


@functools.cache
def defaults(method):
    """Return a method's parameters."""
    return dataclasses.asdict(load_class(METHODS[method].path).Parameters())


def as_stated(table, method, **bends):
    """Return a run that follows a table in every value, but for those given."""
    values = {k: value_of(v) for k, v in protocol_of(table, method).items()} | bends
    settings = {k: values.pop(k) for k in SETTINGS if k in values}
    settings = {"batch_size": 16, "weights": "a" * 64} | settings
    spec = replace(SPEC, method=method, **settings)
    spec = replace(spec, parameters={**defaults(method), **values})
    epochs = spec.parameters.get("epochs", 0)
    steps = spec.parameters.get("steps_per_epoch") or -(-74 // max(1, spec.batch_size // 2))
    return receipt_of(spec, facts={"optimiser_steps": steps * epochs},
                      split={"train_normal": 74}, provenance={"unofficial_copy": ""})  # fmt: skip


@pytest.mark.parametrize("method", WEAK)
def test_a_run_that_follows_the_table_is_as_stated(method):
    assert departures(as_stated(TABLE_1, method), TABLE_1) == ()


@pytest.mark.parametrize(
    ("table", "method"),
    [(t, m) for t in (TABLE_1, TABLE_2) for m in METHODS if any(k.method == m for k in t.cells)],
    ids=lambda value: getattr(value, "name", value),
)
def test_each_value_that_is_bent_is_a_departure(table, method):
    protocol = protocol_of(table, method)
    assert {"image_size", "backbone", "resize", "precision"} <= protocol.keys()
    for key, stated in protocol.items():
        if key != "steps_per_epoch":  # the number of steps is compared
            other = bent(stated)
            (departure,) = departures(as_stated(table, method, **{key: other}), table)
            assert departure.startswith(f"{key} {other}, not ")
            assert ("the chosen" in departure) == (key not in table.stated(method))


@pytest.mark.parametrize(
    ("method", "bends"),
    [
        ("atacnet", {"threshold": 0.9}), ("atacnet", {"channels": 8}), ("atacnet", {"top_k": 0.5}),
        ("atacnet", {"lr_step": 3}), ("atacnet", {"lr_gamma": 0.9}), ("dra", {"top_k": 0.5}),
        ("atacnet", {"loss_form": "literal"}), ("atacnet", {"precision": "bfloat16"}),
        ("atacnet", {"resize": "bicubic"}), ("atacnet", {"padding": 0.5}),
        ("atacnet", {"backbone_multiplier": 0.0}), ("cutmix", {"pseudo_probability": 0.0}),
        ("devnet", {"precision": "bfloat16"}), ("devnet", {"epochs": 3}),
    ],
)  # fmt: skip
def test_what_was_once_passed_over_is_a_departure(method, bends):
    ((key, value),) = bends.items()
    (found,) = departures(as_stated(TABLE_1, method, **bends), TABLE_1)
    assert found.startswith(f"{key} {value}, not ")


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
        ({"parameters": {"epochs": 10}}, ("epochs 10, not the chosen 30",)),
        ({"parameters": {"steps_per_epoch": 10}}, ()),
        ({"parameters": {"steps_per_epoch": 5}, "facts": {"optimiser_steps": 150}},
         ("150 steps, not 300",)),
        ({"spec": {"weights": None}}, ("no ImageNet weights",)),
        ({"spec": {"weights": "none"}}, ("no ImageNet weights",)),
        ({"provenance": {"unofficial_copy": "256x256 px, not 900x900"}},
         ("unofficial copy: 256x256 px, not 900x900",)),
    ],
)  # fmt: skip
def test_departures_from_the_stated_protocol_are_named(changes, said):
    assert departures(made(**changes), TABLE_1) == said


def test_what_a_run_does_not_know_is_no_departure():
    unknown = {"backbone": None, "stage": None, "batch_size": None, "weights": None}
    shortcut = made(spec={**unknown, "parameters": {}})
    assert departures(shortcut, TABLE_1) == ()
