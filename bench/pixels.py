"""Pixel-level metrics from maps and masks."""

import numpy as np
from numpy.typing import NDArray

from bench.metrics import auroc


def pixel_auroc(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """Return the AUROC over all pixels of all images, in [0, 1].

    `maps` (N, h, w) are brought to the size of `masks` (N, H, W) bilinearly. Raises ValueError
    where the masks show no defect, or nothing else.
    """
    down, across = (
        bilinear(cells, pixels)
        for cells, pixels in zip(maps.shape[1:], masks.shape[1:], strict=True)
    )
    return auroc((down @ maps @ across.T).ravel(), masks.ravel())


def bilinear(cells: int, pixels: int) -> NDArray[np.float32]:
    """Return the weights (pixels, cells) of a line of cells stretched over a line of pixels.

    Cells are centred in their stretch, and the outer ones reach to the edges.
    """
    place = ((np.arange(pixels) + 0.5) * cells / pixels - 0.5).clip(0, cells - 1)
    low = place.astype(int)
    weights = np.zeros((pixels, cells), np.float32)
    each = np.arange(pixels)
    weights[each, low] = 1 - (place - low)
    weights[each, np.minimum(low + 1, cells - 1)] += place - low
    return weights
