"""Statistics over seeds and datasets; `bench.metrics` has those over images.

They are never mixed: seeds say what training again gives, images what other test images give.
"""

import itertools
import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
DIGITS = 9
"""Decimals to which equal AUROC agree; the rest is rounding."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its t-interval, None below two values."""

    mean: float
    n: int
    interval: tuple[float, float] | None


def mean_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Estimate a mean of normal values by Student's t.

    Values that are all alike give an interval of no width: true of a method without randomness,
    too sure of one whose AUROC has come to its ceiling. Raises ValueError without values and for
    values that are not finite.
    """
    if not all(map(math.isfinite, values)):
        raise ValueError("a mean takes finite values only")
    mean, n = fmean(values), len(values)
    if n < 2:
        return Estimate(mean, n, None)
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, (1 + level) / 2)) * stdev(values) / math.sqrt(n)
    return Estimate(mean, n, (mean - half, mean + half))


def deviation(values: Collection[float]) -> float | None:
    """Return the standard deviation; None below two values."""
    return stdev(values) if len(values) > 1 else None


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Estimate the mean paired difference of equally long values."""
    return mean_interval([a - b for a, b in zip(first, second, strict=True)])


def shared_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Estimate | None:
    """Estimate the mean difference over shared seeds; None for none."""
    seeds = sorted(first.keys() & second.keys())
    return (
        paired_difference([first[s] for s in seeds], [second[s] for s in seeds]) if seeds else None
    )


def paired_p(first: Mapping[int, float], second: Mapping[int, float]) -> float:
    """Return the two-sided p of a paired t-test over shared seeds.

    1 where the differences are all alike: they have no spread to test against.
    """
    seeds = sorted(first.keys() & second.keys())
    gaps = [round(first[s] - second[s], DIGITS) for s in seeds]
    if len(set(gaps)) < 2:
        return 1.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(gaps, 0.0).pvalue)


def paired_ratio(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Estimate the mean paired ratio of positive values.

    By logarithms, so that turning the ratio round turns mean and interval round.
    """
    logarithms = mean_interval([math.log(a / b) for a, b in zip(first, second, strict=True)])
    ends = logarithms.interval
    interval = None if ends is None else (math.exp(ends[0]), math.exp(ends[1]))
    return Estimate(math.exp(logarithms.mean), logarithms.n, interval)


@dataclass(frozen=True)
class Ranking:
    """Methods compared over datasets, best mean rank first."""

    ranks: Mapping[str, float]
    """Mean rank over datasets; 1 is best, ties share."""
    datasets: int
    p: float
    """Of Friedman's test that all methods are alike."""
    pairs: Mapping[tuple[str, str], float]
    """p of each pair by Wilcoxon's exact signed-rank test, adjusted by Holm over all pairs."""


def ranking(values: Mapping[str, Sequence[float]]) -> Ranking:
    """Rank methods by one value per dataset, higher is better.

    Friedman's test, then Wilcoxon's with Holm's correction (Demšar 2006; Holm 1979). Values that
    differ by rounding alone are ties. Raises ValueError for fewer than three methods, lists of
    unequal length, or values that are not finite.
    """
    from scipy.stats import friedmanchisquare, rankdata

    lengths = {len(v) for v in values.values()}
    if len(values) < 3 or len(lengths) != 1 or not max(lengths):
        raise ValueError("a ranking takes three methods or more, each with every dataset")
    exact = {method: [round(v, DIGITS) for v in column] for method, column in values.items()}
    if not all(math.isfinite(v) for column in exact.values() for v in column):
        raise ValueError("a ranking takes finite values only")
    columns = list(zip(*exact.values(), strict=True))
    ranks = [fmean(c) for c in zip(*(rankdata([-v for v in c]) for c in columns), strict=True)]
    mean_ranks = dict(sorted(zip(exact, map(float, ranks), strict=True), key=lambda item: item[1]))
    alike = all(len(set(column)) == 1 for column in columns)  # no ranks to test: 0 / 0
    p = 1.0 if alike else float(friedmanchisquare(*exact.values()).pvalue)
    raw = {(a, b): signed_rank(exact[a], exact[b]) for a, b in itertools.combinations(exact, 2)}
    return Ranking(mean_ranks, lengths.pop(), p, holm(raw))


def signed_rank(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Wilcoxon's exact two-sided signed-rank p; 1 for equal pairs.

    Equal pairs are left out, ties share their ranks, and the p is over all ways to set the signs.
    With ties scipy takes a normal law for that, or not, by its version; categories at 1.000 tie.
    """
    import numpy as np
    from scipy.stats import rankdata

    gaps = [round(a - b, DIGITS) for a, b in zip(first, second, strict=True)]
    gaps = [gap for gap in gaps if gap]
    doubled = [int(2 * r) for r in rankdata([abs(gap) for gap in gaps])]  # mid-ranks are halves
    positive = sum(rank for rank, gap in zip(doubled, gaps, strict=True) if gap > 0)
    least = min(positive, sum(doubled) - positive)
    shares = np.zeros(least + 1)  # of all ways, those whose positive ranks have this sum
    shares[0] = 1.0
    for rank in doubled:
        shares[rank:] += shares[:-rank]
        shares /= 2
    return min(1.0, 2 * float(shares.sum()))


def holm(p: Mapping[Name, float]) -> dict[Name, float]:
    """Adjust p values by Holm's step-down procedure."""
    adjusted: dict[Name, float] = {}
    least = 0.0
    for i, name in enumerate(sorted(p, key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - i) * p[name]))
        adjusted[name] = least
    return adjusted


def clipped(interval: tuple[float, float]) -> tuple[float, float]:
    """Return an interval of AUROC within [0, 1]."""
    low, high = (min(1.0, max(0.0, end)) for end in interval)
    return low, high


def estimated(estimate: Estimate) -> str:
    """Write a mean AUROC with its seeds and clipped interval."""
    if estimate.interval is None:
        return f"{estimate.mean:.3f} (one seed)"
    low, high = clipped(estimate.interval)
    return f"{estimate.mean:.3f} ({low:.3f} to {high:.3f}, {estimate.n} seeds)"
