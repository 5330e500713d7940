"""Prediction on your own images by a saved model."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.decode import decoding_pool
from bench.data.images import read_samples
from bench.data.listing import images_below
from bench.detector import Context, Samples
from bench.errors import DataError, MethodError, RequestError
from bench.execution.contract import check_scores, explained, spec_settings
from bench.execution.failure import memory_line, out_of_memory
from bench.execution.parts import OwnDraws, images_of_a_part, in_parts
from bench.execution.predictions import Predictions
from bench.registry import load_class, outside_source, path_of
from bench.spec import RunSpec
from bench.store.artifacts import MODEL
from bench.store.models import read_model
from bench.store.receipt import Receipt, read_artifact
from bench.store.results import Results
from bench.system.untrusted import one_line, os_reason

DECODED_AT_ONCE = 32
"""Images that are decoded ahead of the method."""


Decoded = tuple[Path, Samples | DataError]
"""A file with its image, or with why there is none."""


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Return named files and all images below named folders.

    Raises RequestError for a path that is not there and where no image is found.
    """
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            try:
                files |= dict.fromkeys(sorted(images_below(path)))
            except OSError as error:
                raise RequestError(f"cannot read {one_line(path)}: {os_reason(error)}") from None
        elif path.is_file():
            files[path] = None
        else:
            raise RequestError(f"there is no file or folder {one_line(path)}")
    if not files:
        raise RequestError(f"no images in {', '.join(one_line(p) for p in paths)}")
    return list(files)


def saved_model(results: Results, run_id: str) -> tuple[Receipt, dict[str, NDArray[Any]]]:
    """Return a run's receipt and model, digests checked.

    Raises CorruptRun where they do not agree, RequestError where the run has no model.
    """
    receipt, folder = results.read(run_id), results.folder(run_id)
    model = read_artifact(folder, run_id, MODEL, read_model) if folder else None
    if model is None:
        raise RequestError(
            f"run {run_id} has no saved model: give its `bench run` command again with"
            " --save-models"
        )
    return receipt, model


def method_changed(receipt: Receipt) -> bool:
    """Whether a method's code differs from the run's."""
    path, source = path_of(receipt.spec), receipt.spec.method_source
    other = source is not None and source != outside_source(path)
    return other or receipt.provenance.standing(path).stale


def predict_images(
    receipt: Receipt,
    model: Mapping[str, NDArray[Any]],
    files: Sequence[Path],
    device: str,
    threads: int,
) -> Iterator[Predictions]:
    """Score and explain images with the run's settings, part by part.

    With its threads and device the scores of its own test images are the stored ones. A file that
    does not decode is a problem of its part. Raises DataError where none decodes, RequestError
    where the method cannot be imported, MethodError where the model does not fit it.
    """
    from bench.execution.determinism import make_deterministic

    spec, about = receipt.spec, receipt.provenance
    seeds = spec.seeds
    make_deterministic(threads, seeds["init"], device)
    method = load_class(path_of(spec))
    context = Context(device=device, seeds=seeds, score_batch_size=about.score_batch_size)
    settings = spec_settings(spec, None, about.strides or "")
    detector = method(method.Parameters(**spec.parameters))
    detector.load_state(model, dataclasses.replace(context, **settings))
    draws = OwnDraws(detector)
    size = images_of_a_part(about.score_batch_size)
    parts = in_parts(_decoded(files, spec), size, lambda pair: isinstance(pair[1], Samples))
    try:
        for part in parts:
            predictions = _predicted(detector, part)
            if draws.drawn() and (rest := [*itertools.chain.from_iterable(parts)]):
                draws.restore()  # each call draws anew, so the images have to be one part
                predictions = _predicted(detector, [*part, *rest])
            yield predictions
    except Exception as error:
        if isinstance(error, OSError) and not out_of_memory(error):  # else it passes for OUT's
            reason = one_line(error)
            raise MethodError(f"{spec.method} cannot score the images: {reason}") from error
        if not out_of_memory(error):
            raise
        who = f"{spec.method} with images of {spec.image_size} px"
        remedy = "close other programs, name fewer images, or take another --device or machine"
        raise MethodError(memory_line(error, who, device, remedy)) from error


def _decoded(files: Sequence[Path], spec: RunSpec) -> Iterator[Decoded]:
    """Yield decoded files in order; raises DataError where none decodes."""

    def one(path: Path) -> Decoded:
        try:
            return path, read_samples([path], spec.image_size, spec.resize)
        except DataError as error:
            return path, error
        except OSError as error:  # it went away meanwhile
            return path, DataError(f"cannot read {one_line(path)}: {os_reason(error)}")

    problem: DataError | None = None
    decodes = False
    with decoding_pool() as pool:
        for start in range(0, len(files), DECODED_AT_ONCE):
            for path, image in pool.map(one, files[start : start + DECODED_AT_ONCE]):
                if isinstance(image, DataError):
                    problem = problem or image
                else:
                    decodes = True
                yield path, image
    if problem and not decodes:
        raise problem


def _predicted(detector: Any, part: Sequence[Decoded]) -> Predictions:
    """Score and explain the images of one part."""
    rows = [i for i, (_, image) in enumerate(part) if isinstance(image, Samples)]
    samples = _joined([image for _, image in part if isinstance(image, Samples)])
    scores = check_scores(detector.score(samples), len(samples))
    explanation = None
    if hasattr(detector, "explain"):
        with contextlib.suppress(NotImplementedError):
            explanation = explained(samples.names, detector.explain(samples))
    return Predictions(
        files=tuple(part[i][0] for i in rows),
        width=samples.width,
        height=samples.height,
        scores=scores,
        explanation=explanation,
        rows=tuple(rows),
        problems={i: (f, str(e)) for i, (f, e) in enumerate(part) if isinstance(e, DataError)},
    )


def _joined(parts: Sequence[Samples]) -> Samples:
    """Return several samples as one."""
    return Samples(
        images=np.concatenate([part.images for part in parts]),
        names=tuple(name for part in parts for name in part.names),
        width=np.concatenate([part.width for part in parts]),
        height=np.concatenate([part.height for part in parts]),
        mode=tuple(mode for part in parts for mode in part.mode),
        bytes=np.concatenate([part.bytes for part in parts]),
    )
