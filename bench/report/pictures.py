"""Pictures of scored images, where they are at hand."""

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from bench.data import synthetic
from bench.data.catalog import OWN_VERSION, SYNTHETIC
from bench.data.decode import decode_image, is_turned
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
            return _embedded(category, file) if EMBEDDED.get(category) == content else None
        stated, version, paths = self._category(dataset, category)
        if stated != content or file not in paths:
            return None
        lay = data_version is not None and data_version < min(version, OWN_VERSION)
        if lay and is_turned(paths[file]):
            return None
        try:
            return decode_image(paths[file])[0]
        except BenchError:
            return None

    def content(self, dataset: str, category: str) -> str:
        """Return a category's fingerprint in the data folder; empty where it is not there."""
        if dataset == SYNTHETIC.name:
            return EMBEDDED.get(category, "")
        return self._category(dataset, category)[0]

    def _look(self, dataset: str, category: str) -> tuple[str, int, Mapping[str, Path]]:
        """Return a category's fingerprint, data version and files; nothing for none."""
        if self._data is None or self._known is None:
            return "", 0, {}
        try:
            listing, content = find_category(dataset, category, self._data, self._known)
        except BenchError:
            return "", 0, {}
        return content, listing.data_version, {f.path: listing.root / f.path for f in listing.files}


def _embedded(category: str, file: str) -> Image.Image | None:
    """Draw an embedded image again; None for an unknown name."""
    match = re.fullmatch(rf"{re.escape(category)}/(train|test)/([a-z]+)/([0-9]{{3}})\.bmp", file)
    if not match:
        return None
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
        return None
    return Image.fromarray(synthetic.render_picture(category, defect, index)[0])
