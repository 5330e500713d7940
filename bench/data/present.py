"""Categories as they lie in a data folder now."""

from dataclasses import replace
from pathlib import Path

from bench.data.catalog import OWN_VERSION, Dataset, find_dataset
from bench.data.decode import is_turned
from bench.data.layouts import list_category
from bench.data.listing import Listing, fingerprint
from bench.data.pixel_digests import PixelDigests
from bench.errors import MissingData


def find_category(
    dataset: str, category: str, data: Path, known: PixelDigests
) -> tuple[Listing, str]:
    """Return a category's files and their fingerprint.

    Raises RequestError, MissingData and DataError as `find_dataset` and `list_category` do.
    """
    card = find_dataset(dataset, data)
    if category not in card.categories:
        raise MissingData(f"{dataset} has no category {category!r:.80}")
    listing = list_category(card, category, data, known.cache, known)
    content = fingerprint(listing, known.digests)
    return as_seen(card, listing, content), content


def as_seen(card: Dataset, listing: Listing, content: str) -> Listing:
    """Return a listing with the data version of what its files show.

    Versions before OWN_VERSION did not turn images as their EXIF says. The official files need no
    turn; a copy with files that do is another one than it was.
    """
    if listing.data_version >= OWN_VERSION or card.layout == "synthetic":
        return listing
    if card.fingerprint and content == card.fingerprint:
        return listing
    # MVTec AD has gigabytes of PNGs, and no fingerprint that would tell its official copy.
    passed_over = () if card.fingerprint else (".png",)
    files = [f.path for f in listing.files if not f.path.lower().endswith(passed_over)]
    turned = any(is_turned(listing.root / path) for path in files)
    return replace(listing, data_version=OWN_VERSION) if turned else listing
