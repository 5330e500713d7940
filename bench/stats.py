"""Statistics over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % t-interval; the interval is None below two values."""

    mean: float
    n: int
    interval: tuple[float, float] | None


def mean_interval(values: Sequence[float]) -> Estimate:
    """Estimate a mean from values that are taken as normal; raises ValueError without any."""
    mean, n = fmean(values), len(values)
    if n < 2:
        return Estimate(mean, n, None)
    from scipy.stats import t

    half = float(t.ppf(0.975, n - 1)) * stdev(values) / math.sqrt(n)
    return Estimate(mean, n, (mean - half, mean + half))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Estimate the mean of first minus second, pair by pair; both of the same length."""
    return mean_interval([a - b for a, b in zip(first, second, strict=True)])
