"""Pixel-level metrics from maps, boxes and masks."""

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


def box_recall(boxes: NDArray[np.float32], masks: NDArray[np.bool_]) -> tuple[float, float]:
    """Return how much of a defect its image's box holds, and would hold by chance, in [0, 1].

    It is the mean share of the defect's pixels over the images that show one; by chance: of the
    same box at a place uniform over the image. `boxes` (N, 4): left, top, right, bottom as shares
    of the image; `masks` (N, H, W). Raises ValueError where no mask shows a defect.
    """
    shown = masks.any((1, 2))
    if not shown.any():
        raise ValueError("no mask shows a defect")
    boxes, masks = boxes[shown], masks[shown]
    down, across = ((np.arange(pixels) + 0.5) / pixels for pixels in masks.shape[1:])
    sides = ((boxes[:, 1::2], down), (boxes[:, 0::2], across))
    held, expected = (
        np.einsum("nhw,nh,nw->n", masks, *(within(*side) for side in sides), dtype=np.float64)
        for within in (_inside, _inside_by_chance)
    )
    pixels = masks.sum((1, 2))
    return float((held / pixels).mean()), float((expected / pixels).mean())


def _inside(side: NDArray[np.float32], middle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, pixels): 1 where a pixel's middle lies in a side (N, 2) from start to end."""
    return ((side[:, :1] <= middle) & (middle < side[:, 1:])).astype(float)


def _inside_by_chance(
    side: NDArray[np.float32], middle: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (N, pixels): how likely a pixel's middle lies in a side that starts anywhere."""
    length = np.diff(side.astype(float))
    room = 1 - length
    starts = np.minimum(middle, room) - np.maximum(middle - length, 0)
    likely: NDArray[np.float64] = np.ones(starts.shape)
    np.divide(starts, room, where=room > 0, out=likely)
    return likely


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
