"""Scores of images that no dataset holds, by the saved model of a stored run."""

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

from bench.data.decode import decode, decoding_pool
from bench.data.images import read_samples
from bench.data.listing import images_below
from bench.data.overlay import overlay
from bench.detector import Context, Seeds
from bench.errors import RequestError, StoreError
from bench.execution.contract import explained
from bench.registry import load_class, path_of
from bench.store.explanations import Explanations, box_columns, part_and_map_columns
from bench.store.layout import MODEL
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
        """Return left, top, right and bottom of the zoomed view in pixels of each file, (N, 4)."""
        if self.explanation is None or self.explanation.boxes is None:
            return None
        size = np.column_stack([self.width, self.height] * 2)
        return np.asarray(self.explanation.boxes * size, np.float64)


def find_images(places: Iterable[Path]) -> list[Path]:
    """Return the named files, and the images in the named folders and below, each once.

    Raises RequestError for a place that is not there and where no image is found.
    """
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            try:
                found |= dict.fromkeys(sorted(images_below(place)))
            except OSError as error:
                raise RequestError(f"cannot read {one_line(place)}: {os_reason(error)}") from None
        elif place.is_file():
            found[place] = None
        else:
            raise RequestError(f"there is no file or folder {one_line(place)}")
    if not found:
        raise RequestError(f"no images in {', '.join(one_line(p) for p in places)}")
    return list(found)


def saved_model(results: Results, run_id: str) -> tuple[Receipt, dict[str, NDArray[Any]]]:
    """Return a stored run's receipt and its model, digests checked.

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
    """Whether the code of a run's method is another today."""
    return receipt.provenance.standing(path_of(receipt.spec)).stale


def predict_images(
    receipt: Receipt,
    model: Mapping[str, NDArray[Any]],
    files: Sequence[Path],
    device: str,
    threads: int,
) -> Predictions:
    """Score and explain images under the settings of the run that trained the model.

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


def write_predictions(found: Predictions, out: Path, *, overlays: bool) -> None:
    """Write predictions.parquet, and the pictures, to a new folder that appears when it is whole.

    Raises RequestError where it is there already, StoreError where it cannot be written.
    """
    if os.path.lexists(out):
        raise RequestError(
            f"{one_line(out)} is there already: remove it, or name another with --out"
        )
    try:
        with staged_folder(out, ".predictions-") as staging:
            write_synced(staging / "predictions.parquet", _parquet(found))
            if overlays and found.explanation is not None:
                (staging / "overlays").mkdir()
                _draw(found, staging / "overlays")
    except OSError as error:
        raise StoreError(f"cannot write {one_line(out)}: {os_reason(error)}") from error


def _parquet(found: Predictions) -> bytes:
    """Return one row an image: file, size, score, box, and the maps and parts of the score."""
    import pyarrow as pa

    from bench.store.parquet import packed

    columns: dict[str, Any] = {
        "file": [one_line(f) for f in found.files],
        "width": found.width,
        "height": found.height,
        "score": found.scores,
    }
    columns |= box_columns(len(found.files), found.boxes(), pa.float64())
    if found.explanation is not None:
        columns |= part_and_map_columns(found.explanation.parts, found.explanation.maps)
    return packed(pa.table(columns))


def overlay_name(index: int, file: Path) -> str:
    """Return the name of an image's overlay: different for equal names in different folders."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in file.stem)
    return f"{index:05d}_{plain[:80]}.png"


def _draw(found: Predictions, folder: Path) -> None:
    """Draw every image with its first map, all in one scale, and its box."""
    assert found.explanation is not None
    maps = next(iter(found.explanation.maps.values()))
    boxes, top = found.boxes(), float(maps.max())
    for i, file in enumerate(found.files):
        image: Image.Image = decode(file)[0]
        picture = overlay(image, maps[i], top, None if boxes is None else boxes[i])
        picture.save(folder / overlay_name(i, file))
