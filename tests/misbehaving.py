"""Methods that break their contract, each in its own way."""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class NoParameters:
    """Nothing to be told."""


class Good:
    """Scores by mean grey; the base of the others."""

    name, version, supervision = "good", 1, "weak"
    settings: frozenset[str] = frozenset()
    Parameters = NoParameters

    def __init__(self, parameters: NoParameters) -> None:
        pass

    def fit(self, train: Any, context: Any) -> None:
        print("fitting", len(train.normal))

    def score(self, samples: Any) -> Any:
        return samples.images.mean((1, 2, 3)).astype(np.float32)


class Raises(Good):
    name = "raises"

    def fit(self, train: Any, context: Any) -> None:
        raise ValueError("this method never works")


class Exits(Good):
    name = "exits"

    def fit(self, train: Any, context: Any) -> None:
        os._exit(0)


class Segfaults(Good):
    name = "segfaults"

    def fit(self, train: Any, context: Any) -> None:
        import ctypes

        ctypes.string_at(0)


class Hangs(Good):
    name = "hangs"

    def fit(self, train: Any, context: Any) -> None:
        time.sleep(3600)


class NotFinite(Good):
    name = "not-finite"

    def score(self, samples: Any) -> Any:
        return np.full(len(samples), np.nan, np.float32)


class TooShort(Good):
    name = "too-short"

    def score(self, samples: Any) -> Any:
        return np.zeros(len(samples) - 1, np.float32)


class WrongType(Good):
    name = "wrong-type"

    def score(self, samples: Any) -> Any:
        return np.zeros(len(samples), np.float64)


class Constant(Good):
    name = "constant"

    def score(self, samples: Any) -> Any:
        return np.zeros(len(samples), np.float32)


class Restless(Good):
    """Slow enough that two commands overlap, and never the same twice."""

    name = "restless"

    def fit(self, train: Any, context: Any) -> None:
        time.sleep(15)

    def score(self, samples: Any) -> Any:
        rng = np.random.default_rng()
        return rng.random(len(samples)).astype(np.float32)
