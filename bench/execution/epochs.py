"""Scores after each epoch, by a hook that changes no number of the run."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.detector import Samples
from bench.errors import MethodError
from bench.execution.contract import check_scores
from bench.execution.parts import OwnDraws
from bench.execution.phases import PhaseTimer
from bench.store.epochs import ScoresByEpoch
from bench.system.device import synchronize


class EpochScorer:
    """What `Context.after_epoch` calls: scores the tested images.

    Generators, recorded facts and the time of training are afterwards as they were before.
    `tested` gives the images, anew with every call.
    """

    def __init__(
        self,
        tested: Callable[[], Samples],
        facts: dict[str, Any],
        timer: PhaseTimer,
        device: str,
    ) -> None:
        self._tested, self._facts, self._timer, self._device = tested, facts, timer, device
        self._scores: dict[int, NDArray[np.float32]] = {}

    def __call__(self, epoch: int, detector: Any) -> None:
        """Score after an epoch; raises MethodError for epochs out of order."""
        synchronize(self._device)
        with self._timer.aside("epochs_s"):
            if type(epoch) is not int or epoch <= max(self._scores, default=0):
                raise MethodError(f"after_epoch() takes epochs from 1 on, in order, not {epoch!r}")
            facts, draws, tested = dict(self._facts), OwnDraws(detector), self._tested()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the last epoch's are the run's
                scores = detector.score(tested)
            self._scores[epoch] = check_scores(scores, len(tested)).copy()
            draws.restore()
            self._facts.clear()
            self._facts.update(facts)
            synchronize(self._device)

    def made(self, file: Sequence[str]) -> ScoresByEpoch:
        """Return the scores of these images by epoch.

        Raises NotImplementedError where the method never called.
        """
        if not self._scores:
            raise NotImplementedError("it never calls after_epoch()")
        return ScoresByEpoch(tuple(file), tuple(self._scores), np.stack([*self._scores.values()]))
