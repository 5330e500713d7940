"""Thresholds of anomaly scores: how well one that was found elsewhere separates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.analysis.statistics import Estimate, mean_interval
from bench.metrics import mean_class_accuracy

Scored = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Scores (N,) and labels (N,) of one run's test images."""


def balanced_error(scored: Scored, threshold: float) -> float:
    """Return the mean of both classes' error rates, in [0, 1]."""
    return 1 - mean_class_accuracy(*scored, threshold)


def best_threshold(scored: Scored) -> float:
    """Return the threshold of least balanced error on these images.

    It lies in the middle between two scores; of several equally good ones it is the median.
    """
    score, label = scored
    order = np.argsort(score, kind="stable")
    values, anomalous = score[order].astype(float), label[order]
    missed = np.concatenate([[0], np.cumsum(anomalous)]) / anomalous.sum()
    alarms = 1 - np.concatenate([[0], np.cumsum(~anomalous)]) / (~anomalous).sum()
    ends = np.concatenate([[values[0] - 1], values, [values[-1] + 1]])
    middles = (ends[:-1] + ends[1:]) / 2
    between = np.concatenate([[True], values[1:] > values[:-1], [True]])
    errors = np.where(between, missed + alarms, np.inf)
    best = np.flatnonzero(errors <= errors.min() + 1e-12)
    return float(middles[best[(len(best) - 1) // 2]])


@dataclass(frozen=True)
class Transfer:
    """Balanced errors of several runs at thresholds from various sources, over seeds."""

    own: Estimate
    """At the best threshold of the test images themselves, which nobody knows beforehand."""
    other: Estimate
    """At the best threshold of another seed's run, the mean over the others. Runs share their
    thresholds, so the interval is somewhat narrow."""
    half_margin: Estimate | None
    """At half the margin of the loss, where there is one."""
    best: tuple[float, float]
    """Lowest and highest of the best thresholds."""


def transfer(runs: Sequence[Scored], margin: float | None) -> Transfer | None:
    """Return how thresholds carry over between runs; None for fewer than two."""
    if len(runs) < 2:
        return None
    best = [best_threshold(run) for run in runs]
    crossed = np.array([[balanced_error(run, threshold) for threshold in best] for run in runs])
    own = np.diag(crossed)
    other = (crossed.sum(1) - own) / (len(runs) - 1)
    half = [balanced_error(run, margin / 2) for run in runs] if margin else None
    return Transfer(
        mean_interval(own.tolist()),
        mean_interval(other.tolist()),
        mean_interval(half) if half else None,
        (min(best), max(best)),
    )
