"""Differences between two configurations, and how sure they are."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from bench.analysis.paired import (
    crossed_interval,
    difference,
    family,
    seed_difference,
    written_difference,
)
from bench.store.groups import Provenance
from bench.store.scores import Scores
from bench.store.tuning import Tuned, tuned_text
from tests.fixtures.runs import SPEC, receipt_of

FILES = tuple(f"good/{i}" for i in range(12)) + tuple(f"hole/{i}" for i in range(30))
LABEL = np.array([f.startswith("hole") for f in FILES])


def scored(random, shift, drawn=()):
    """Return scores of all files, the anomalies higher by `shift`; those drawn do not count."""
    score = random.normal(LABEL * shift, 1).astype(np.float32)
    roles = tuple("drawn" if f in drawn else "test" for f in FILES)
    return Scores(FILES, LABEL, tuple(f[:4] for f in FILES), roles, score)


def seeds_of(count, shifts, random=None):
    """Return pairs of scores, a draw of its own for each seed."""
    random = random or np.random.RandomState(0)
    pairs = []
    for _ in range(count):
        drawn = [FILES[i] for i in 12 + random.permutation(30)[:10]]
        pairs.append(tuple(scored(random, shift, drawn) for shift in shifts))
    return pairs


def by_loop(pairs, repeats):
    """Resample one by one, with scikit-learn's weighted AUROC."""
    rng, means = np.random.default_rng(0), []
    tested = [[f for f, r in zip(p.file, p.role, strict=True) if r == "test"] for p, _ in pairs]
    weights = {}
    for kind in ("good", "hole"):
        files = sorted({f for fs in tested for f in fs if f.startswith(kind)})
        drawn = rng.multinomial(len(files), [1 / len(files)] * len(files), repeats)
        weights |= {f: drawn[:, i] for i, f in enumerate(files)}
    seeds = rng.multinomial(len(pairs), [1 / len(pairs)] * len(pairs), repeats)
    for b in range(repeats):
        gains = []
        for pair, files in zip(pairs, tested, strict=True):
            weight = [weights[f][b] for f in files]
            one, two = (roc_auc_score(s.label[s.counted()], s.score[s.counted()],
                                      sample_weight=weight) for s in pair)  # fmt: skip
            gains.append(one - two)
        means.append(np.dot(seeds[b], gains) / len(pairs))
    return np.quantile(means, [0.025, 0.975])


def test_the_crossed_interval_is_that_of_a_loop_over_all_draws():
    pairs = seeds_of(4, (1.5, 1.0))
    assert crossed_interval(pairs, 60) == pytest.approx(by_loop(pairs, 60))


def test_equal_scores_differ_by_nothing():
    pairs = [(one, one) for one, _ in seeds_of(3, (1.0, 1.0))]
    assert crossed_interval(pairs) == (0.0, 0.0)


def test_it_is_wider_than_the_interval_of_seeds_alone_where_images_are_few():
    pairs = seeds_of(10, (1.2, 1.0))
    gaps = [a.metrics(full=False)["auroc"] - b.metrics(full=False)["auroc"] for a, b in pairs]
    low, high = crossed_interval(pairs)
    of_seeds = stats.t.interval(0.95, 9, np.mean(gaps), stats.sem(gaps))
    assert high - low > of_seeds[1] - of_seeds[0]
    assert low < np.mean(gaps) < high


def test_of_equal_methods_it_leaves_out_zero_no_more_often_than_it_says():
    random = np.random.RandomState(1)
    outside = 0
    for _ in range(40):
        low, high = crossed_interval(seeds_of(5, (1.0, 1.0), random), 400)
        outside += not low <= 0 <= high
    assert outside <= 5


def test_other_images_and_one_seed_have_no_crossed_interval():
    (one, two), (three, four) = seeds_of(2, (1.0, 1.0))
    assert crossed_interval([(one, two)]) is None
    assert crossed_interval([(one, two), (three, two)]) is None
    other = replace(four, file=("other", *FILES[1:]))
    assert crossed_interval([(one, two), (three, other)]) is None


def runs_of(pairs, side):
    return {
        seed: receipt_of(replace(SPEC, seed=seed, method=f"m{side}"), scores=pair[side])
        for seed, pair in enumerate(pairs)
    }


def compared(pairs):
    runs = [runs_of(pairs, side) for side in (0, 1)]
    scores = {r.run_id: pair[side] for side, by_seed in enumerate(runs)
              for pair, r in zip(pairs, by_seed.values(), strict=True)}  # fmt: skip
    return difference(*runs, lambda receipt: scores[receipt.run_id])


def test_a_difference_has_both_intervals_and_a_p():
    pairs = seeds_of(5, (2.5, 0.5))
    gap = compared(pairs)
    values = np.array([[s.metrics(full=False)["auroc"] for s in pair] for pair in pairs])
    assert gap.over_seeds.mean == pytest.approx(np.subtract(*values.T).mean())
    assert gap.p == pytest.approx(stats.ttest_rel(*values.T).pvalue)
    assert gap.with_images[0] > 0
    assert written_difference(gap).startswith(f"{gap.over_seeds.mean:+.3f} [")
    assert "with images [+" in written_difference(gap)


def test_a_difference_is_given_without_the_seeds_that_chose_a_setting():
    pairs = seeds_of(5, (1.5, 1.0))
    runs = [runs_of(pairs, side) for side in (0, 1)]
    gaps = [a.metrics.auroc - b.metrics.auroc for a, b in zip(*map(dict.values, runs), strict=True)]
    plain = seed_difference(*runs)
    assert (plain.without_tuning, plain.tuned_by) == (None, ())
    text = tuned_text({"lr": Tuned((0, 7), "training loss")})
    named = {s: changed_provenance(r, text) for s, r in runs[0].items()}
    for gap in (seed_difference(*runs, tuned_by=[0, 7]), seed_difference(named, runs[1])):
        assert gap.over_seeds == plain.over_seeds
        assert gap.without_tuning.mean == pytest.approx(np.mean(gaps[1:]))
        assert gap.tuned_by == (0,)
        wanted = f"; without seed 0, which chose a setting: {np.mean(gaps[1:]):+.3f} ["
        assert wanted in written_difference(gap)
    all_chose = seed_difference(*runs, tuned_by=range(5))
    assert "all of them chose a setting" in written_difference(all_chose)


def changed_provenance(receipt, text):
    return replace(receipt, provenance=Provenance({**receipt.provenance, "tuned": text}))


def test_p_values_of_a_family_are_adjusted_and_single_seeds_take_no_part():
    clear, close = compared(seeds_of(5, (2.5, 0.5))), compared(seeds_of(5, (1.3, 1.0)))
    single = compared(seeds_of(1, (2.0, 1.0)))
    gaps = family({"clear": clear, "close": close, "single": single})
    assert gaps["clear"].p == pytest.approx(2 * clear.p)
    assert gaps["close"].p == pytest.approx(close.p)
    assert written_difference(gaps["single"]).endswith(", 1 seed")
    assert "p" not in written_difference(gaps["single"])
    assert difference({}, runs_of(seeds_of(1, (1, 1)), 0), None) is None
