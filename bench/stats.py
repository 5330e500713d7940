"""Statistics over seeds, over images and over datasets; the three are never mixed."""

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """A mean with its t-interval; the interval is None below two values."""

    mean: float
    n: int
    interval: tuple[float, float] | None


def mean_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Estimate a mean from values that are taken as normal; raises ValueError without any."""
    mean, n = fmean(values), len(values)
    if n < 2:
        return Estimate(mean, n, None)
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, n - 1)) * stdev(values) / math.sqrt(n)
    return Estimate(mean, n, (mean - half, mean + half))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Estimate the mean of first minus second, pair by pair; both of the same length."""
    return mean_interval([a - b for a, b in zip(first, second, strict=True)])


@dataclass(frozen=True)
class Ranking:
    """Methods compared over datasets, best mean rank first."""

    ranks: Mapping[str, float]
    """Mean rank over datasets; 1 is best, ties share."""
    datasets: int
    p: float
    """Of Friedman's test that all methods are alike."""
    pairs: Mapping[tuple[str, str], float]
    """p of each pair by Wilcoxon's signed-rank test, adjusted by Holm over all pairs."""


def ranking(values: Mapping[str, Sequence[float]]) -> Ranking:
    """Rank methods by one value a dataset each, in the same order of datasets, higher is better.

    Friedman's test, then Wilcoxon's with Holm's correction (Demšar 2006; Holm 1979). Raises
    ValueError for fewer than three methods or lists of unequal length.
    """
    from scipy.stats import friedmanchisquare, rankdata, wilcoxon

    lengths = {len(v) for v in values.values()}
    if len(values) < 3 or len(lengths) != 1:
        raise ValueError("a ranking takes three methods or more, each with every dataset")
    columns = list(zip(*values.values(), strict=True))
    ranks = [fmean(c) for c in zip(*(rankdata([-v for v in c]) for c in columns), strict=True)]
    raw = {
        (a, b): float(wilcoxon(values[a], values[b]).pvalue) if values[a] != values[b] else 1.0
        for a, b in itertools.combinations(values, 2)
    }
    mean_ranks = dict(sorted(zip(values, map(float, ranks), strict=True), key=lambda item: item[1]))
    return Ranking(mean_ranks, lengths.pop(), float(friedmanchisquare(*values.values()).pvalue),
                   holm(raw))  # fmt: skip


def holm(p: Mapping[Name, float]) -> dict[Name, float]:
    """Adjust p values for their number by Holm's step-down procedure."""
    found: dict[Name, float] = {}
    least = 0.0
    for i, name in enumerate(sorted(p, key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - i) * p[name]))
        found[name] = least
    return found
