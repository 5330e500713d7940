"""Methods that break their contract, each in its own way."""

import errno
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


class Keeps(Good):
    """Has all that a run can keep, and tries to change by it what was scored."""

    name = "keeps"

    def score(self, samples: Any) -> Any:
        self.scored = super().score(samples)
        return self.scored

    def embed(self, samples: Any) -> Any:
        self.scored[:] = 0
        samples.images[:] = 0
        return np.random.RandomState(len(samples)).normal(size=(len(samples), 60))

    def explain(self, samples: Any) -> Any:
        from bench.detector import Explanation

        return Explanation({"grey": samples.images.mean(1).astype(np.float32)[:, ::8, ::8]})

    def state(self) -> Any:
        return {"nothing": np.zeros(1, np.float32)}

    def load_state(self, arrays: Any, context: Any) -> None:
        pass


class KeepsLess(Keeps):
    """Its class has `explain`, which then says that there is none."""

    name = "keeps-less"

    def explain(self, samples: Any) -> Any:
        raise NotImplementedError("not for\nthese images")


class Mismaps(Keeps):
    name = "mismaps"

    def explain(self, samples: Any) -> Any:
        found = super().explain(samples)
        found.maps["grey"][3, 0, 0] = np.nan
        return found


class ForksWhileEmbedding(Keeps):
    name = "forks-while-embedding"

    def embed(self, samples: Any) -> Any:
        if os.fork() == 0:
            time.sleep(0.3)
        return super().embed(samples)


class Raises(Good):
    name = "raises"

    def fit(self, train: Any, context: Any) -> None:
        raise ValueError("this method never works")


class Exits(Good):
    name = "exits"

    def fit(self, train: Any, context: Any) -> None:
        os._exit(0)


class ExitsLikeALostServer(Good):
    """With the code that `multiprocessing` gives to processes whose server is gone."""

    name = "exits-255"

    def fit(self, train: Any, context: Any) -> None:
        os._exit(255)


class MeetsAFullDisk(Good):
    """One of its own: nobody else's runs need to stop for that."""

    name = "meets-a-full-disk"

    def fit(self, train: Any, context: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/elsewhere/cache.bin")


class Masked(Good):
    """Its scores would lose values on the way to disk."""

    name = "masked"

    def score(self, samples: Any) -> Any:
        scores = super().score(samples)
        return np.ma.MaskedArray(scores, mask=np.arange(len(scores)) == 3)


class Segfaults(Good):
    name = "segfaults"

    def fit(self, train: Any, context: Any) -> None:
        import ctypes

        ctypes.string_at(0)


class ExitsPolitely(Good):
    name = "exits-politely"

    def fit(self, train: Any, context: Any) -> None:
        raise SystemExit(0)


class Forks(Good):
    """Goes on twice from here: the copy must neither publish nor stay."""

    name = "forks"

    def fit(self, train: Any, context: Any) -> None:
        if os.fork() == 0:
            time.sleep(0.3)


class LeavesAChild(Good):
    """Ends with a process of its own still running."""

    name = "leaves-a-child"

    def fit(self, train: Any, context: Any) -> None:
        if os.fork() == 0:
            time.sleep(3600)


class FillsMemory(Good):
    name = "fills-memory"

    def fit(self, train: Any, context: Any) -> None:
        held = []
        while True:
            held.append(np.empty(1 << 30, np.uint8))  # never touched, so nobody else suffers


class Prints(Good):
    """A gigabyte, fast."""

    name = "prints"

    def fit(self, train: Any, context: Any) -> None:
        line = "x" * (1 << 20)
        for _ in range(1024):
            print(line)


class FillsTheDisk(Good):
    """Fills the disk that $FILL lies on, and goes on as if nothing were."""

    name = "fills-the-disk"

    def fit(self, train: Any, context: Any) -> None:
        if "FILL" in os.environ:
            with open(os.environ["FILL"], "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass


class HoldsTheInterpreter(Good):
    """Hangs in C code that never lets another Python thread run."""

    name = "holds-the-interpreter"

    def fit(self, train: Any, context: Any) -> None:
        import ctypes

        print("hanging", flush=True)
        ctypes.PyDLL(None).sleep(3600)


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
    """Never the same twice."""

    name = "restless"

    def score(self, samples: Any) -> Any:
        rng = np.random.default_rng()
        return rng.random(len(samples)).astype(np.float32)


class SlowA(Good):
    """Slow enough that two commands overlap."""

    name = "slow-a"

    def fit(self, train: Any, context: Any) -> None:
        time.sleep(1.5)


class SlowB(SlowA):
    name = "slow-b"


class SlowC(SlowA):
    name = "slow-c"


class SlowD(SlowA):
    name = "slow-d"
