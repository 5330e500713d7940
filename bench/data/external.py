"""Images from outside a category, for methods that learn what is from elsewhere.

They are named by a source and fingerprinted like a category; never is a test image among them.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.catalog import find_dataset
from bench.data.files import File, Listing, fingerprint, list_category
from bench.data.images import load
from bench.digests import FingerprintCache
from bench.errors import DataError, MissingData
from bench.outside import shown

SOURCES = ("none", "textures", "mvtec_ad")
"""`textures`: brick, grass and gravel as they come with scikit-image, in tiles; `mvtec_ad`: normal
training images of the other categories that are here."""

TEXTURES = ("brick.png", "grass.png", "gravel.png")
TILES = 4
"""Along each side of a texture of 512 px."""
PER_CATEGORY = 32
"""Images taken of a category, evenly over its sorted names."""


@dataclass(frozen=True)
class External:
    """Found external images, not decoded yet."""

    source: str
    listing: Listing
    fingerprint: str

    @property
    def identity(self) -> str:
        """What enters a run's identity."""
        return f"{self.source}:{self.fingerprint}"

    def prepared_size(self, image_size: int) -> int:
        """Return the side at which to prepare them for images of a side."""
        return image_size * (TILES if self.source == "textures" else 1)


def find_external(
    source: str, dataset: str, category: str, data: Path, cache: Path, digests: FingerprintCache
) -> External | None:
    """Look up the images of a source for one category; None for `none`.

    Raises MissingData with the remedy where they are not here.
    """
    if source == "none":
        return None
    if source == "textures":
        listing = _textures()
    else:
        listing = _other_categories(dataset, category, data, cache)
    return External(source, listing, fingerprint(listing, digests))


def _textures() -> Listing:
    found = importlib.util.find_spec("skimage")
    root = Path(found.origin).parent / "data" if found and found.origin else Path("skimage")
    for name in TEXTURES:
        if not (root / name).is_file():
            raise MissingData(f"{shown(root / name)} is not there: pip install scikit-image")
    return Listing(root, tuple(File(name, "train", "good") for name in TEXTURES))


def _other_categories(dataset: str, category: str, data: Path, cache: Path) -> Listing:
    mvtec = find_dataset("mvtec_ad", data)
    files: list[File] = []
    for other in mvtec.categories:
        if (dataset, category) == (mvtec.name, other):
            continue
        try:
            listing = list_category(mvtec, other, data, cache)
        except MissingData:
            continue
        normal = [f for f in listing.files if f.fold == "train"]
        taken = np.linspace(0, len(normal) - 1, min(PER_CATEGORY, len(normal))).round()
        files += [normal[int(i)] for i in taken]
        root = listing.root
    if not files:
        raise MissingData(
            f"external images: no other category of mvtec_ad is in {shown(data)};"
            " fetch one, or --set external=textures"
        )
    return Listing(root, tuple(sorted(files, key=lambda f: f.path)))


def load_external(folder: Path, image_size: int) -> NDArray[np.uint8]:
    """Return prepared external images as (M, 3, S, S), larger ones cut into tiles.

    Raises DataError where the cache does not hold what it should.
    """
    pixels = load(folder).pixels
    count, channels, side = pixels.shape[:3]
    tiles = side // image_size
    if tiles * image_size != side:
        raise DataError(f"{shown(folder)} holds images of {side} px, for {image_size} px")
    cut = pixels.reshape(count, channels, tiles, image_size, tiles, image_size)
    return np.ascontiguousarray(
        cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, channels, image_size, image_size)
    )
