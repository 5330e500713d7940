"""Pixel metrics of a run's maps, with today's masks."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.decode import upright_size
from bench.data.listing import File
from bench.data.masks import Masks, Size, find_masks, first_of, has_masks, load_masks, masks_digest
from bench.errors import CorruptRun
from bench.metrics import box_recall, pixel_auroc, pointing
from bench.planning.plan import Run
from bench.store.artifacts import DOUBTFUL, NO_PIXELS, with_pixel_metrics
from bench.store.explanations import Explanations
from bench.store.folder import Store
from bench.store.groups import Plain
from bench.store.receipt import Receipt
from bench.system.untrusted import one_line


def pixel_metrics(
    explanations: Explanations,
    root: Path,
    tested: Sequence[File],
    counted: NDArray[np.bool_],
    side: int,
    size_of: Callable[[File], Size],
    loaded: dict[object, Masks] | None = None,
) -> tuple[dict[str, Plain], str]:
    """Return pixel metrics of counted images, and why none or doubts.

    Of a method's maps the first is the one that is meant to show defects. A method with boxes also
    gets `box_recall`, and the same by chance. `tested` is the test fold, `size_of` as for
    `load_masks`. Beside them stands the digest of all masks of the fold. `loaded` keeps the last
    masks of a fold for the next call.
    """
    every = find_masks(root, tested)
    if not has_masks(every):
        expected = [mask.expected for mask in every if mask.expected]
        where = expected and expected[0].parent.parent.relative_to(root)
        return {}, f"{NO_PIXELS}there are no masks in {one_line(where)}" if where else ""
    digest = masks_digest(every, root)
    chosen = np.flatnonzero(counted)
    masks = None
    if loaded is not None:
        key = (root, side, digest)
        if key not in loaded:
            loaded.clear()
            loaded[key] = load_masks(root, tested, side, size_of)
        if not loaded[key].problems:
            masks = replace(loaded[key], pixels=loaded[key].pixels[chosen])
    if masks is None:
        masks = load_masks(root, [tested[int(i)] for i in chosen], side, size_of)
    problems = list(masks.problems)
    if masks_digest(every, root) != digest:
        problems.append("masks have changed while they were read; give the same command again")
    values: dict[str, Plain] = {}
    if not problems:
        try:
            values |= _measured(explanations, chosen, masks.pixels)
        except ValueError as error:
            problems.append(one_line(error))
    kind, lines = (NO_PIXELS, problems) if problems else (DOUBTFUL, masks.doubts)
    warning = kind + first_of(lines).replace(f"{one_line(root)}/", "") if lines else ""
    return {**values, "masks_sha256": digest}, warning


def _measured(
    explanations: Explanations, chosen: NDArray[np.int64], masks: NDArray[np.bool_]
) -> dict[str, Plain]:
    values: dict[str, Plain] = {}
    maps = next(iter(explanations.maps.values()))[chosen]
    values["pixel_auroc"] = pixel_auroc(maps, masks)
    values["pointing"], values["pointing_by_chance"] = pointing(maps, masks)
    if explanations.boxes is not None:
        recall = box_recall(explanations.boxes[chosen], masks)
        values["box_recall"] = recall.held
        values["box_recall_by_chance"] = recall.by_chance
        values["box_recall_centred"] = recall.centred
    return values


def measure_again(store: Store, run: Run, receipt: Receipt, loaded: dict[object, Masks]) -> Receipt:
    """Measure a stored run's maps with today's masks; publish it.

    Nothing is trained, and nothing else in the receipt changes. `loaded` is as for `pixel_metrics`.
    Raises CorruptRun where the run is damaged, StoreError where the disk refuses.
    """
    explanations, scores = store.explanations(run.run_id), store.scores(run.run_id)
    by_path = {file.path: file for file in run.listing.files}
    if explanations is None or not by_path.keys() >= set(scores.file):
        raise CorruptRun(f"run {run.run_id} is damaged: it has no maps of its images")
    counted = scores.counted() | (not run.spec.shots)
    root, tested = run.listing.root, [by_path[path] for path in scores.file]
    values, warning = pixel_metrics(
        explanations,
        root,
        tested,
        counted,
        run.spec.image_size,
        lambda file: upright_size(root / file.path),
        loaded,
    )
    again = with_pixel_metrics(receipt, values, [warning] if warning else [])
    store.publish_again(receipt, again)
    return again
