"""Prediction on your own images by a saved model."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.decode import decode_image, decoding_pool
from bench.data.images import read_samples
from bench.data.listing import images_below
from bench.data.overlay import overlay
from bench.detector import Context, Seeds
from bench.errors import RequestError, StoreError
from bench.execution.contract import explained
from bench.registry import load_class, path_of
from bench.store.artifacts import MODEL
from bench.store.explanations import Explanations, box_columns, part_and_map_columns
from bench.store.models import read_model
from bench.store.receipt import Receipt, read_artifact
from bench.store.results import Results
from bench.system.files import staged_folder, write_synced
from bench.system.untrusted import one_line, os_reason


@dataclass(frozen=True)
class Predictions:
    """What a saved model says of N images."""

    files: tuple[Path, ...]
    width: NDArray[np.int64]
    """(N,), of the files, in pixels."""
    height: NDArray[np.int64]
    scores: NDArray[np.float32]
    """(N,), higher = more anomalous; comparable within one run only."""
    explanation: Explanations | None

    def boxes(self) -> NDArray[np.float64] | None:
        """Return the zoomed views, (N, 4): left, top, right, bottom in pixels of each file."""
        if self.explanation is None or self.explanation.boxes is None:
            return None
        size = np.column_stack([self.width, self.height] * 2)
        return np.asarray(self.explanation.boxes * size, np.float64)


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


def has_changed(receipt: Receipt) -> bool:
    """Whether a method's code differs from the run's."""
    return receipt.provenance.standing(path_of(receipt.spec)).stale


def predict_images(
    receipt: Receipt,
    model: Mapping[str, NDArray[Any]],
    files: Sequence[Path],
    device: str,
    threads: int,
) -> Predictions:
    """Score and explain images with the run's settings.

    With its threads and device the scores of its own test images are the stored ones. Raises
    DataError naming a file that does not decode, RequestError where the method cannot be imported,
    MethodError where the model does not fit it.
    """
    from bench.execution.contract import check_scores, spec_settings
    from bench.execution.determinism import make_deterministic

    spec, about = receipt.spec, receipt.provenance
    with decoding_pool() as pool:
        samples = read_samples(files, spec.image_size, spec.resize, pool.map)
    seeds = Seeds(spec.seed, spec.dataset, spec.category)
    make_deterministic(threads, seeds["init"], device)
    method = load_class(path_of(spec))
    context = Context(device=device, seeds=seeds, score_batch_size=about.score_batch_size)
    settings = spec_settings(spec, None, about.strides or "")
    detector = method(method.Parameters(**spec.parameters))
    detector.load_state(model, dataclasses.replace(context, **settings))
    scores = check_scores(detector.score(samples), len(samples))
    explanation = None
    if hasattr(detector, "explain"):
        with contextlib.suppress(NotImplementedError):
            explanation = explained(samples.names, detector.explain(samples))
    return Predictions(tuple(files), samples.width, samples.height, scores, explanation)


def write_predictions(predictions: Predictions, out: Path, *, overlays: bool) -> None:
    """Write predictions.parquet and overlays to a new folder.

    Raises RequestError where it is there already, StoreError where it cannot be written.
    """
    if os.path.lexists(out):
        raise RequestError(
            f"{one_line(out)} is there already: remove it, or name another with --out"
        )
    try:
        with staged_folder(out, ".predictions-") as staging:
            write_synced(staging / "predictions.parquet", _parquet(predictions))
            if overlays and predictions.explanation is not None:
                (staging / "overlays").mkdir()
                _draw(predictions, staging / "overlays")
    except OSError as error:
        raise StoreError(f"cannot write {one_line(out)}: {os_reason(error)}") from error


def _parquet(predictions: Predictions) -> bytes:
    """Return predictions.parquet, one row an image."""
    import pyarrow as pa

    from bench.store.parquet import packed

    columns: dict[str, Any] = {
        "file": [one_line(f) for f in predictions.files],
        "width": predictions.width,
        "height": predictions.height,
        "score": predictions.scores,
    }
    columns |= box_columns(len(predictions.files), predictions.boxes(), pa.float64())
    if (explanation := predictions.explanation) is not None:
        columns |= part_and_map_columns(explanation.parts, explanation.maps)
    return packed(pa.table(columns))


def overlay_name(index: int, file: Path) -> str:
    """Return a unique name for an image's overlay."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in file.stem)
    return f"{index:05d}_{plain[:80]}.png"


def _draw(predictions: Predictions, folder: Path) -> None:
    """Draw images with their first map, on one scale."""
    assert predictions.explanation is not None
    maps = next(iter(predictions.explanation.maps.values()))
    boxes, top = predictions.boxes(), float(maps.max())
    for i, file in enumerate(predictions.files):
        image: Image.Image = decode_image(file)[0]
        picture = overlay(image, maps[i], top, None if boxes is None else boxes[i])
        picture.save(folder / overlay_name(i, file))
