"""Near copies: files that show one picture, rescaled, encoded anew, brighter or cropped.

The likeness of two files is the correlation of their thumbnails: the upright image in RGB, alpha on
black (`bench.data.decode`), in grey (Pillow's `L`: ITU-R 601 luma), shrunk to 48x48 without keeping
the aspect ratio by Pillow's antialiasing Hamming filter. A change of brightness or contrast leaves
it; another crop does not, so that such copies are listed by hand (`bench.data.catalog`).
"""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.listing import Listing

SIDE = 48
LIKE = 0.99
"""Least likeness of near copies. Brain-MRI's copies of one crop lie above .998, other pairs below
.979."""
CLEAR = 1.0
"""How far a pair stands clear of usual likeness, in Fisher's z: 1 - r is some seven times less."""
_BLOCK = 512


@dataclass(frozen=True)
class LikelyCopy:
    """A test image that is likely a near copy of a training image."""

    test: int
    train: int
    likeness: float


def thumbnail(rgb: Image.Image) -> str:
    """Return an image as 48x48 grey, in base64."""
    grey = rgb.convert("L").resize((SIDE, SIDE), Image.Resampling.HAMMING)
    return base64.b64encode(grey.tobytes()).decode("ascii")


def standardised(thumbnails: Sequence[str]) -> NDArray[np.float32]:
    """Return thumbnails of mean 0 and length 1, (N, 48 * 48).

    The likeness of two is their product. One of a single grey, or empty for a file that does not
    decode, is all 0: it is like none.
    """
    rows = np.zeros((len(thumbnails), SIDE * SIDE), np.float32)
    for row, text in zip(rows, thumbnails, strict=True):
        pixels = np.frombuffer(base64.b64decode(text), np.uint8)
        if pixels.size == row.size:
            row[:] = pixels - pixels.mean()
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = np.divide(rows, lengths, out=rows, where=lengths > 0)
    return scaled


def pictures(listing: Listing, pixels: Sequence[str], thumbnails: Sequence[str]) -> tuple[str, ...]:
    """Return a key for the picture that each file of a category shows.

    Files of equal keys show one picture: they have the same pixels, are alike or are listed by
    hand, be it by way of others. The key is the pixel digest of the first of them.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    scaled = standardised(thumbnails)
    one, other = np.nonzero(scaled @ scaled.T >= LIKE)
    linked = [*_chained(pixels), *_by_hand(listing)]
    one = np.concatenate([one, [i for i, _ in linked]]).astype(int)
    other = np.concatenate([other, [j for _, j in linked]]).astype(int)
    shape = (len(pixels), len(pixels))
    links = coo_array((np.ones(len(one), bool), (one, other)), shape=shape)
    _, groups = connected_components(links, directed=False)
    first: dict[int, str] = {}
    return tuple(first.setdefault(int(g), p) for g, p in zip(groups, pixels, strict=True))


def _chained(keys: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield each index with the first one of the same key."""
    first: dict[str, int] = {}
    for i, key in enumerate(keys):
        yield first.setdefault(key, i), i


def _by_hand(listing: Listing) -> Iterator[tuple[int, int]]:
    index = {file.path: i for i, file in enumerate(listing.files)}
    for paths in listing.copies_by_hand:
        yield from ((index[paths[0]], index[path]) for path in paths)


def likely_copies(train: Sequence[str], test: Sequence[str]) -> list[LikelyCopy]:
    """Return test images that are likely near copies of training images, the likest first.

    Both are given as thumbnails. Different parts that lie alike reach LIKE, too, so that a pair
    counts only if it also stands clear of how like a training image usually is to the next one: by
    CLEAR above the median of these, in Fisher's z. Equal training images count once. Each
    test image stands once, with the training image that is most like it.
    """
    known = standardised(list(dict.fromkeys(train)))
    if len(known) < 3:
        return []
    _, usual = _nearest(known, known, apart=True)
    least = np.tanh(max(np.arctanh(LIKE), np.median(_fisher(usual)) + CLEAR))
    nearest, likeness = _nearest(standardised(test), standardised(train))
    order = np.argsort(-likeness, kind="stable")
    return [
        LikelyCopy(int(i), int(nearest[i]), float(likeness[i]))
        for i in order
        if likeness[i] >= least
    ]


def _fisher(likeness: NDArray[np.float32]) -> NDArray[np.float64]:
    z: NDArray[np.float64] = np.arctanh(np.clip(likeness.astype(float), -1, 1 - 1e-9))
    return z


def _nearest(
    rows: NDArray[np.float32], others: NDArray[np.float32], apart: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the likest of `others` to each row, and its likeness; `apart`: not itself."""
    nearest = np.zeros(len(rows), np.int64)
    likeness = np.zeros(len(rows), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK] @ others.T
        if apart:
            each = np.arange(len(block))
            block[each, start + each] = -1
        nearest[start : start + len(block)] = block.argmax(1)
        likeness[start : start + len(block)] = block.max(1)
    return nearest, likeness
