"""One number per image that no anomaly detector should need: the bar that a result must clear.

On Head-CT image width alone, on Brain-MRI mean grey alone, matches most published one-shot results.
Each statistic is standardised on the training normals, its direction taken from the labelled
anomalies, and the best one chosen by its AUROC on the training set (ties: by the larger distance
between the means). Nothing is seen of the test set. Statistics of the file: width, height, aspect
ratio, bytes; of the resized image: mean grey, share of black pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.detector import Context, Samples, TrainingSet, parameter

AT_ONCE = 8
"""Images whose grey values are held at once, in float64; some parts have more, none has fewer."""
STATISTICS = ("width", "height", "aspect_ratio", "bytes", "mean_grey", "share_of_black")


class Shortcut:
    """The one statistic that separates the training set best."""

    name = "shortcut"
    version = 1
    supervision = "weak"
    settings = frozenset[str]()

    @dataclass(frozen=True, kw_only=True)
    class Parameters:
        """A pixel counts as black up to this grey value (0-255)."""

        black: int = parameter(10, least=0, most=255)

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def statistics(self, samples: Samples) -> NDArray[np.float64]:
        """Return (N, 6) statistics in the order of `STATISTICS`."""
        # A part of one image would be summed up in another order than several.
        parts = np.array_split(samples.images, max(1, len(samples) // AT_ONCE))
        return np.column_stack([
            samples.width,
            samples.height,
            samples.height / samples.width,
            samples.bytes,
            np.concatenate([self._of_pixels(part) for part in parts]),
        ])  # fmt: skip

    def _of_pixels(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return mean grey and share of black, (N, 2)."""
        grey = np.tensordot(images, (0.299, 0.587, 0.114), axes=([1], [0]))
        return np.column_stack([grey.mean((1, 2)), (grey <= self.parameters.black).mean((1, 2))])

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Choose the statistic and its direction on the training set."""
        normal = self.statistics(train.normal)
        self.mean, deviation = normal.mean(0), normal.std(0)
        self.scale = np.where(deviation > 0, deviation, np.inf)  # a constant says nothing: z = 0
        z_normal = (normal - self.mean) / self.scale
        z_anomalous = (self.statistics(train.anomalous) - self.mean) / self.scale
        distance = z_anomalous.mean(0)
        direction = np.where(distance < 0, -1.0, 1.0)
        above = z_anomalous[:, None] * direction > z_normal[None] * direction
        equal = z_anomalous[:, None] == z_normal[None]
        separation = (above + equal / 2).mean((0, 1))
        self.best = max(range(len(STATISTICS)), key=lambda i: (separation[i], abs(distance[i])))
        self.direction = direction[self.best]
        context.record("statistic", STATISTICS[self.best])
        context.record("training_auroc", float(separation[self.best]))

    def score(self, samples: Samples) -> NDArray[np.float32]:
        """Signed distance to the training mean in standard deviations."""
        z = (self.statistics(samples) - self.mean) / self.scale
        scores: NDArray[np.float32] = (z[:, self.best] * self.direction).astype(np.float32)
        return scores

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the statistic and its scale."""
        best, direction = np.array(self.best), np.array(self.direction)
        return {"mean": self.mean, "scale": self.scale, "best": best, "direction": direction}

    def load_state(self, arrays: Mapping[str, NDArray[Any]], context: Context) -> None:
        """Take over what `state` returned."""
        self.mean, self.scale = arrays["mean"], arrays["scale"]
        self.best, self.direction = int(arrays["best"]), float(arrays["direction"])
