"""Masks of a data folder as they are now, for runs that were measured earlier."""

import functools
from pathlib import Path

from bench.data.catalog import find_dataset
from bench.data.layouts import list_category
from bench.data.listing import Listing, fingerprint
from bench.data.masks import listed_masks_digest
from bench.errors import BenchError
from bench.spec import RunSpec
from bench.system.digests import FingerprintCache


class MaskLookup:
    """Looks up each category of a data folder once; writes nothing."""

    def __init__(self, data: Path, cache: Path) -> None:
        self._data, self._cache = data, cache
        self._digests = FingerprintCache(cache)
        self._masks = functools.cache(self._look)
        self._content = functools.cache(self._fingerprint)

    def have_changed(self, spec: RunSpec, stated: str) -> bool:
        """Whether a run's images are here with other masks than stated.

        False where the data folder has other images, none of the masks, or nothing.
        """
        listing, digest = self._masks(spec.dataset, spec.category)
        if listing is None or digest in (None, stated):
            return False
        return self._content(listing) == spec.fingerprint

    def _look(self, dataset: str, category: str) -> tuple[Listing | None, str | None]:
        try:
            card = find_dataset(dataset, self._data)
            if card.layout == "synthetic" or category not in card.categories:
                return None, None  # generated as it ever was, or not here
            listing = list_category(card, category, self._data, self._cache)
        except BenchError:
            return None, None
        return listing, listed_masks_digest(listing)

    def _fingerprint(self, listing: Listing) -> str:
        try:
            return fingerprint(listing, self._digests)
        except BenchError:
            return ""
