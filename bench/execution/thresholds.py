"""Where scores of own images lie among a run's own test scores."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.errors import RequestError
from bench.store.scores import Scores

OK, DEFECT = "ok", "defect"


@dataclass(frozen=True)
class OwnScores:
    """A run's test scores that count, and a threshold among them."""

    normal: NDArray[np.float32]
    """Of the normal test images, sorted."""
    anomalous: NDArray[np.float32]
    threshold: float | None = None
    """What scores above it is a defect; None where nothing was asked."""

    @classmethod
    def of_run(cls, scores: Scores, threshold: str | None = None) -> "OwnScores":
        """Take a run's scores, and `fpr=SHARE` or `score=NUMBER`; raises RequestError."""
        counted = scores.counted()
        normal = np.sort(scores.score[counted & ~scores.label])
        value = None if threshold is None else _threshold(threshold, normal)
        return cls(normal, scores.score[counted & scores.label], value)

    def ranks(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the share of normal test images with a lower score, (N,)."""
        below = np.searchsorted(self.normal, scores, "left")
        return np.asarray(below / max(1, len(self.normal)), np.float64)

    def verdicts(self, scores: NDArray[np.float32]) -> list[str | None]:
        """Return `ok` or `defect` for each score; None without a threshold."""
        if self.threshold is None:
            return [None] * len(scores)
        return [DEFECT if score > self.threshold else OK for score in scores.tolist()]

    @property
    def reading(self) -> str:
        """What the threshold does to the run's own test images."""
        if self.threshold is None:
            return ""
        false, true = (int((s > self.threshold).sum()) for s in (self.normal, self.anomalous))
        return (
            f"threshold {self.threshold:.4g}: of the run's own test images {false} of"
            f" {len(self.normal)} normal and {true} of {len(self.anomalous)} anomalous ones are"
            " above it"
        )


def _threshold(text: str, normal: NDArray[np.float32]) -> float:
    """Return the lowest score that lets at most this share of normal images pass it."""
    key, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if key.strip() == "score" and math.isfinite(value):
        return value
    if key.strip() != "fpr" or not 0 <= value < 1:
        raise RequestError(
            "--threshold takes fpr=SHARE, say fpr=0.01 (at most 1 % of normal images are called"
            f" defects), or score=NUMBER; not {text!r:.80}"
        )
    allowed = math.floor(value * len(normal) + 1e-9)
    return float(normal[len(normal) - 1 - allowed])


def too_fine(text: str | None, test: OwnScores) -> str:
    """Say where a false positive rate is finer than the normal test images can tell."""
    key, _, number = (text or "").partition("=")
    if key.strip() != "fpr" or float(number) * len(test.normal) >= 1:
        return ""
    return (
        f"the run's {len(test.normal)} normal test images cannot tell a rate below"
        f" {1 / len(test.normal):.2g}: the threshold is the highest of their scores"
    )
