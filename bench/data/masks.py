"""Masks of defects, as MVTec's layout keeps them beside test images."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.decode import decode_image
from bench.data.listing import IMAGE_SUFFIXES, File
from bench.errors import DataError
from bench.system.untrusted import one_line

FOLDER = "ground_truth"


def find_mask(root: Path, file: File) -> Path | None:
    """Return an anomalous image's mask file, or None.

    `[category/]test/defect/name.png` has `[category/]ground_truth/defect/name_mask.png`, whatever
    its encoding.
    """
    *above, defect, name = PurePosixPath(file.path).parts
    if not above or above.pop() != "test":
        return None
    stem = root.joinpath(*above, FOLDER, defect, PurePosixPath(name).stem + "_mask")
    candidates = (stem.with_name(stem.name + suffix) for suffix in sorted(IMAGE_SUFFIXES))
    return next((path for path in candidates if path.is_file()), None)


def load_masks(root: Path, files: Sequence[File], size: int) -> NDArray[np.bool_] | None:
    """Return defect pixels (N, size, size), none for normals.

    None where an anomalous image has no mask. Masks are resized to the nearest pixel. Raises
    DataError for a file that does not decode, or shows nothing.
    """
    masks = np.zeros((len(files), size, size), bool)
    for mask, file in zip(masks, files, strict=True):
        if not file.anomalous:
            continue
        path = find_mask(root, file)
        if path is None:
            return None
        grey = decode_image(path)[0].convert("L")
        mask[:] = np.asarray(grey.resize((size, size), Image.Resampling.NEAREST)) >= 128
        if not mask.any():  # a defect that lies between the pixels, or none
            mask[:] = np.asarray(grey.resize((size, size), Image.Resampling.BOX)) > 0
        if not mask.any():
            raise DataError(f"{one_line(path)} marks no defect; replace or remove it")
    return masks
