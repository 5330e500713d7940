"""Pictures of scored images, where they are at hand."""

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from bench.data import synthetic
from bench.data.catalog import OWN_VERSION, SYNTHETIC
from bench.data.decode import decode_image, is_turned, upright_size
from bench.data.listing import Listing
from bench.data.masks import find_masks, read_mask
from bench.data.pixel_digests import PixelDigests
from bench.data.present import find_category
from bench.errors import BenchError
from bench.system.digests import FingerprintCache

EMBEDDED: Mapping[str, str] = {
    "weave": "5eaff3832ae367b75fc6f0ef3c87788e4a6733318c48a4099a85deb427f4d881",
    "speckle": "887bdf259df475ea8762198744ffd21188e3cd24e12142f302514e1420eeb86e",
    "washer": "77ae0eabfd3d485c2411795a0ff708ffd64e396c5e6613335856c5699be4967d",
    "pellet": "ba5adec3ad1fa7e872c7a8eed4f6c864c4aec19136471e5d063c72ea55a71741",
}
"""Content fingerprints of the embedded dataset's categories, as its runs state them."""


class Pictures:
    """Images by dataset, category and file, with unchanged content.

    Nothing is written: of the cache only the known digests of files are read. Without a data folder
    and a cache only the embedded dataset has pictures.
    """

    def __init__(self, data: Path | None, cache: Path | None = None) -> None:
        self._data = data
        self._known = PixelDigests(cache, FingerprintCache(cache)) if cache else None
        self._category = functools.cache(self._look)

    def picture(
        self,
        dataset: str,
        category: str,
        file: str,
        content: str,
        data_version: int | None = None,
    ) -> Image.Image | None:
        """Return an image in RGB at its own size.

        `content` is the category's fingerprint that the run states, `data_version` the run's; None
        stands for today's. None where the image is not there, does not decode, its category has
        another content, or an older run has seen it lying on its side.
        """
        if dataset == SYNTHETIC.name:
            return _embedded(category, file, content)[0]
        listing = self._listing(dataset, category, content)
        if listing is None or file not in {f.path for f in listing.files}:
            return None
        path = listing.root / file
        lay = data_version is not None and data_version < min(listing.data_version, OWN_VERSION)
        if lay and is_turned(path):
            return None
        try:
            return decode_image(path)[0]
        except BenchError:
            return None

    def mask(self, dataset: str, category: str, file: str, content: str) -> Image.Image | None:
        """Return what marks an image's defect, at its size; None without a mask that fits."""
        if dataset == SYNTHETIC.name:
            return _embedded(category, file, content)[1]
        listing = self._listing(dataset, category, content)
        if listing is None:
            return None
        path = listing.root / file
        masks = {m.image: m for m in find_masks(listing.root, listing.files)}
        try:
            return Image.fromarray(read_mask(masks[path], upright_size(path)))
        except (KeyError, BenchError):
            return None

    def content(self, dataset: str, category: str) -> str:
        """Return a category's fingerprint in the data folder; empty where it is not there."""
        if dataset == SYNTHETIC.name:
            return EMBEDDED.get(category, "")
        return self._category(dataset, category)[1]

    def _listing(self, dataset: str, category: str, content: str) -> Listing | None:
        """Return a category's files where they have this content."""
        listing, stated = self._category(dataset, category)
        return listing if stated == content else None

    def _look(self, dataset: str, category: str) -> tuple[Listing | None, str]:
        """Return a category's files and their fingerprint; nothing for none."""
        if self._data is None or self._known is None:
            return None, ""
        try:
            return find_category(dataset, category, self._data, self._known)
        except BenchError:
            return None, ""


def _embedded(
    category: str, file: str, content: str
) -> tuple[Image.Image | None, Image.Image | None]:
    """Draw an embedded image and its mask again; None for an unknown name or other content."""
    if EMBEDDED.get(category) != content:
        return None, None
    match = re.fullmatch(rf"{re.escape(category)}/(train|test)/([a-z]+)/([0-9]{{3}})\.bmp", file)
    if not match:
        return None, None
    fold, defect, number = match[1], match[2], int(match[3])
    facts = SYNTHETIC.categories[category]
    defects = synthetic.CATEGORIES[category][1]
    if defect == "good":
        count = facts.train if fold == "train" else facts.test_normal
        index = number + facts.train * (fold == "test")
    else:
        count = facts.test_anomalous // len(defects) if fold == "test" and defect in defects else 0
        index = number
    if number >= count:
        return None, None
    picture, mask = synthetic.render_picture(category, defect, index)
    return Image.fromarray(picture), Image.fromarray(mask) if mask.any() else None
