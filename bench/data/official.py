"""Differences between a dataset's copy and the official one, said alike wherever they are said."""

import contextlib
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from bench.data.catalog import CategoryFacts, Dataset
from bench.data.decode import FORMATS
from bench.data.layouts import list_category
from bench.data.listing import File, Listing, fingerprint
from bench.data.masks import Size
from bench.data.splits import defect_counts
from bench.system.digests import FingerprintCache
from bench.system.untrusted import one_line

OTHER_CONTENT = "content differs"


def unofficial_reasons(
    dataset: Dataset, category: str, files: Sequence[File], content: str, sizes: Iterable[Size]
) -> list[str]:
    """Return how a category differs from the official copy; none if it is that.

    By the content fingerprint where the official one is known, else by counts of each fold and type
    and by native sizes. An own dataset and the embedded one are nobody's copy.
    """
    if dataset.folder is not None or dataset.layout == "synthetic":
        return []
    if dataset.fingerprint and content == dataset.fingerprint:
        return []
    official = dataset.categories[category]
    different = _other_counts(official, files)
    if dataset.fingerprint:
        return [*different, OTHER_CONTENT]
    side = official.native_size
    other = set(sizes) - {(side, side)} if side else set()
    if other:
        width, height = min(other)
        different.append(f"{width}x{height} px, not {side}x{side}")
    return different


def why_unofficial(
    dataset: Dataset, category: str, files: Sequence[File], content: str, sizes: Iterable[Size]
) -> str:
    """Return `unofficial_reasons` as one text; empty if official."""
    return "; ".join(unofficial_reasons(dataset, category, files, content, sizes))


def reasons_on_disk(
    dataset: Dataset, category: str, listing: Listing, digests: FingerprintCache
) -> list[str]:
    """Return `unofficial_reasons` without decoding; raises DataError."""
    content, sizes = "", set()
    if dataset.fingerprint:
        content = fingerprint(listing, digests)
    elif dataset.folder is None and dataset.layout != "synthetic":
        sizes = _native_sizes(listing)
    return unofficial_reasons(dataset, category, listing.files, content, sizes)


def _native_sizes(listing: Listing) -> set[Size]:
    """Return the sizes that the headers of the images state."""
    sizes = set()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        for file in listing.files:
            path = listing.root / file.path
            # Whatever Pillow meets: who decodes the file will say so.
            with contextlib.suppress(Exception), Image.open(path, formats=FORMATS) as image:
                sizes.add(image.size)
    return sizes


def _other_counts(official: CategoryFacts, files: Sequence[File]) -> list[str]:
    """Return how the counts of each fold and type differ."""
    known = (official.train, official.test_normal, official.test_anomalous, official.defect_types)
    names = ("normal training images", "normal test images", "anomalous images", "defect types")
    counts = count_files(files)
    different = [
        f"{count} of {expected} {name}"
        for name, count, expected in zip(names, counts, known, strict=True)
        if count != expected
    ]
    if counts[2:] == known[2:]:
        different += _other_types(official, files)
    return different


def _other_types(official: CategoryFacts, files: Sequence[File]) -> list[str]:
    """Return how the images of each defect type differ where their totals do not."""
    counts = defect_counts(files)
    fewer = [
        f"{counts[name]} of {expected} {name}" if name in counts else f"no {name}"
        for name, expected in official.defects.items()
        if counts.get(name) != expected
    ]
    return fewer + [f"unknown type {one_line(n)}" for n in counts if n not in official.defects]


def count_files(files: Sequence[File]) -> tuple[int, int, int, int]:
    """Count train, normal test, anomalous images and defect types."""
    return (
        sum(f.fold == "train" for f in files),
        sum(f.fold == "test" and not f.anomalous for f in files),
        sum(f.anomalous for f in files),
        len({f.defect for f in files if f.anomalous}),
    )


def copy_differences(dataset: Dataset, data: Path, cache: Path, digests: FingerprintCache) -> str:
    """Return differences from the official copy; raises DataError."""
    for category in dataset.categories:
        listing = list_category(dataset, category, data, cache)
        reasons = reasons_on_disk(dataset, category, listing, digests)
        if reasons == [OTHER_CONTENT]:
            return "as many images, but other content"
        if reasons:
            return f"{category} has {', '.join(r for r in reasons if r != OTHER_CONTENT)}"
    return ""
