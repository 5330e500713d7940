"""What a method is given, and checks of its output."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.external import load_external
from bench.detector import BackboneSource, Context, Explanation, Seeds
from bench.errors import MethodError
from bench.execution.job import Job
from bench.execution.messages import Message, Progress
from bench.execution.phases import PhaseTimer
from bench.spec import RunSpec
from bench.store.embeddings import COMPONENTS, Embeddings
from bench.store.explanations import EXTENTS, Explanations
from bench.system.untrusted import is_one_line

FIRST_EPOCHS = 2
"""Epochs whose loss is a fact of the run, see `bench.analysis.regress`."""


def make_context(
    job: Job,
    seeds: Seeds,
    facts: dict[str, Any],
    timer: PhaseTimer,
    send: Callable[[Message], None],
) -> Context:
    """Build what `fit` is given."""
    spec = job.spec

    def progress(epoch: int, epochs: int, loss: float) -> None:
        if epoch:
            print(f"epoch {epoch}/{epochs} loss {loss:.6g}", flush=True)
            if epoch <= FIRST_EPOCHS:
                record(f"loss_{epoch}", float(loss))
        else:
            timer.step()
        send(Progress(int(epoch), int(epochs), f"{loss:.4g}"))

    def record(name: str, value: Any) -> None:
        if isinstance(value, np.generic):
            value = value.item()
        if type(name) is not str:
            raise MethodError(f"record() takes a text for a name, not {name!r}")
        if type(value) not in (bool, int, float, str):
            raise MethodError(f"record({name!r}) takes a bool, int, float or str, not {value!r}")
        if type(value) is float and not math.isfinite(value):
            warnings.warn(f"{name} is {value}", stacklevel=2)
            value = None  # neither JSON nor a mean has a place for it
        facts[name] = value

    context = Context(
        device=job.device,
        seeds=seeds,
        score_batch_size=job.score_batch_size,
        progress=progress,
        record=record,
    )
    changes = spec_settings(spec, job.weights_file, job.strides)
    if job.external is not None:
        changes["external"] = load_external(job.external, spec.image_size)
    return dataclasses.replace(context, **changes)


def spec_settings(spec: RunSpec, weights_file: Path | None, strides: str) -> dict[str, Any]:
    """Return a context's fields that a spec sets."""
    changes: dict[str, Any] = {}
    if spec.precision is not None:
        changes["precision"] = spec.precision
    if spec.batch_size is not None:
        changes["batch_size"] = spec.batch_size
    if spec.backbone is not None and spec.stage is not None:
        changes["backbone"] = BackboneSource(spec.backbone, spec.stage, weights_file, strides)
    return changes


def check_scores(scores: Any, expected: int) -> NDArray[np.float32]:
    """Return scores if float32 (N,) and finite; raises MethodError."""
    if type(scores) is not np.ndarray or scores.dtype != np.float32:
        plain = type(scores) is np.ndarray  # a masked array would lose values on the way to disk
        kind = scores.dtype if plain else type(scores).__name__
        raise MethodError(f"score() must return a float32 array, not {kind}")
    if scores.shape != (expected,):
        raise MethodError(f"score() must return shape ({expected},), not {scores.shape}")
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise MethodError(f"score() returned {bad} of {expected} values that are not finite")
    return scores


def project(file: Sequence[str], features: Any) -> Embeddings:
    """Return the first principal components of `embed`'s features.

    A component points to where its largest loading is positive. Features without any variance give
    one component of zeros. Raises MethodError unless they are (N, D) finite floats.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        exact = _checked(features, len(file)).astype(np.float64)
        centred = exact - exact.mean(axis=0)
        if not np.isfinite(centred).all():
            raise MethodError("embed() returned values that are too large to be centred")
        scores, loadings, shares = _components(centred)
        values = scores.astype(np.float32)
    if not np.isfinite(values).all():
        raise MethodError("embed() returned values that are too large for float32")
    count = max(1, min(COMPONENTS, int((shares > 0).sum())))
    turned = loadings[np.arange(count), np.abs(loadings[:count]).argmax(axis=1)] < 0
    values = np.where(turned, -values[:, :count], values[:, :count]) + np.float32(0)  # no -0
    share = min(1.0, float(shares[:count].sum())) if shares.any() else 1.0
    return Embeddings(tuple(file), values, share)


def _components(
    centred: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return scores (N, r), loadings (r, D), variance shares (r,).

    The largest share comes first.
    What is zero but for rounding has the share 0.
    """
    left, sizes, loadings = np.linalg.svd(centred, full_matrices=False)
    sizes = np.where(sizes > sizes[0] * max(centred.shape) * np.finfo(float).eps, sizes, 0.0)
    variances = (sizes / (sizes[0] or 1.0)) ** 2
    return left * sizes, loadings, variances / (variances.sum() or 1.0)


def _checked(features: Any, expected: int) -> NDArray[Any]:
    """Return features if (N, D) finite floats; raises MethodError."""
    plain = type(features) is np.ndarray
    if not plain or features.dtype.kind != "f":
        kind = features.dtype if plain else type(features).__name__
        raise MethodError(f"embed() must return an array of floats, not {kind}")
    if features.ndim != 2 or len(features) != expected or not features.size:
        raise MethodError(f"embed() must return shape ({expected}, D), not {features.shape}")
    bad = int((~np.isfinite(features)).any(axis=1).sum())
    if bad:
        raise MethodError(f"embed() returned {bad} of {expected} rows that are not finite")
    checked: NDArray[Any] = features
    return checked


def explained(file: Sequence[str], explanation: Any) -> Explanations:
    """Return `explain`'s output if sound; raises MethodError.

    Sound are finite float32 arrays by names that fit a line: one map at least, all of N images.
    """
    if not isinstance(explanation, Explanation):
        raise MethodError(f"explain() must return an Explanation, not {type(explanation).__name__}")
    count = len(file)
    for kind, arrays in (("maps", explanation.maps), ("parts", explanation.parts)):
        if not isinstance(arrays, Mapping):
            raise MethodError(
                f"explain().{kind} must be arrays by name, not {type(arrays).__name__}"
            )
        for name in arrays:
            if type(name) is not str or not name or not is_one_line(name):
                raise MethodError(f"explain().{kind} must be named by a text, not {name!r:.80}")
            if name.endswith(EXTENTS):
                raise MethodError(
                    f"the name of a map or part must not end in _height or _width,"
                    f" as {name!r:.80} does"
                )
    if not explanation.maps:
        raise MethodError("explain() must return at least one map")
    for name, array in explanation.maps.items():
        _check(f"maps[{name!r:.80}]", array, (count, None, None))
    for name, array in explanation.parts.items():
        _check(f"parts[{name!r:.80}]", array, (count,))
    if explanation.boxes is not None:
        _check("boxes", explanation.boxes, (count, 4))
    return Explanations(
        tuple(file), dict(explanation.maps), explanation.boxes, dict(explanation.parts)
    )


def _check(what: str, array: Any, shape: tuple[int | None, ...]) -> None:
    """Raise MethodError unless `array` is finite float32 of `shape`.

    None in `shape` allows any length.
    """
    plain = type(array) is np.ndarray
    if not plain or array.dtype != np.float32:
        kind = array.dtype if plain else type(array).__name__
        raise MethodError(f"explain().{what} must be a float32 array, not {kind}")
    fits = len(shape) == array.ndim and array.size > 0
    if not fits or any(w not in (None, n) for w, n in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise MethodError(f"explain().{what} must have shape ({wanted}), not {array.shape}")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise MethodError(f"explain().{what} holds {bad} values that are not finite")
