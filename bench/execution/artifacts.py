"""Artifacts that a run makes."""

from collections.abc import Callable, Sequence
from typing import Any

from bench.detector import Samples
from bench.execution.contract import explained, project
from bench.execution.epochs import EpochScorer
from bench.execution.failure import reason
from bench.execution.job import Job
from bench.execution.parts import OwnDraws, images_of_a_part, spans
from bench.execution.phases import PhaseTimer
from bench.store.artifacts import FILES
from bench.store.embeddings import embeddings_bytes
from bench.store.epochs import epochs_bytes
from bench.store.explanations import Explanations, explanations_bytes, joined
from bench.store.models import model_bytes
from bench.system.device import synchronize


def collect_artifacts(
    detector: Any,
    job: Job,
    file: Sequence[str],
    tested: Callable[[slice], Samples],
    timer: PhaseTimer,
    by_epoch: EpochScorer | None = None,
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return a run's artifacts by file name, each timed.

    Also why there is none, by the ability that the method lacks after all: its function raised
    NotImplementedError. `tested` gives a slice of the images that were scored, anew with every
    call.
    """

    def content(ability: str) -> bytes:
        if ability == "state":
            return model_bytes(detector.state())
        if ability == "epochs":
            if by_epoch is None:
                raise NotImplementedError("a run for time is scored once, at its end")
            return epochs_bytes(by_epoch.made(file))
        if ability == "embed":
            return embeddings_bytes(project(file, detector.embed(tested(slice(None)))))
        return explanations_bytes(_explained_in_parts(detector, job, file, tested))

    files: dict[str, bytes] = {}
    unsupported: dict[str, str] = {}
    for ability, name in FILES.items():
        if ability not in job.keep:
            continue
        timer.pass_over()
        try:
            files[name] = content(ability)
        except NotImplementedError as error:
            unsupported[ability] = reason(error).partition("\n")[0]
            continue
        synchronize(job.device)
        if ability != "epochs":  # which took its time between epochs
            timer.mark(f"{ability}_s")
    return files, unsupported


def _explained_in_parts(
    detector: Any, job: Job, file: Sequence[str], tested: Callable[[slice], Samples]
) -> Explanations:
    """Return explanations of all images, made in parts."""
    draws, parts = OwnDraws(detector), []
    for span in spans(len(file), images_of_a_part(job.score_batch_size)):
        parts.append(explained(file[span], detector.explain(tested(span))))
        if draws.drawn() and len(parts[0].file) < len(file):
            draws.restore()
            return explained(file, detector.explain(tested(slice(None))))
    return joined(parts)
