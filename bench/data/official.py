"""Differences between a dataset's copy and the official one."""

from collections.abc import Sequence
from pathlib import Path

from bench.data.catalog import CategoryFacts, Dataset
from bench.data.decode import ImageFacts
from bench.data.images import CategoryImages
from bench.data.layouts import list_category
from bench.data.listing import File, fingerprint
from bench.system.digests import FingerprintCache


def why_unofficial(
    dataset: Dataset, category: str, fingerprint: str, images: CategoryImages
) -> str:
    """Return why a copy seems unofficial; empty if official.

    By the content fingerprint where the official one is known, else by counts and native size.
    """
    if dataset.folder is not None:
        return "not in the catalogue"
    reasons = [other_content(dataset, category, fingerprint, images.facts)]
    if dataset.layout != "synthetic" and not dataset.fingerprint:
        facts = dataset.categories[category]
        if len(images.facts) != facts.images:
            reasons.insert(0, f"{len(images.facts)} of {facts.images} images")
    return "; ".join(filter(None, reasons))


def other_content(
    dataset: Dataset, category: str, fingerprint: str, facts: Sequence[ImageFacts]
) -> str:
    """Return how images differ from the official ones."""
    if dataset.fingerprint:
        return "" if fingerprint == dataset.fingerprint else "content differs"
    native = dataset.categories[category].native_size if dataset.layout != "synthetic" else None
    sizes = {(f.width, f.height) for f in facts} - {(native, native)}
    if not native or not sizes:
        return ""
    width, height = min(sizes)
    return f"{width}x{height} px, not {native}x{native}"


def other_counts(official: CategoryFacts, files: Sequence[File]) -> list[str]:
    """Return how the counts differ from the official ones."""
    known = (official.train, official.test_normal, official.test_anomalous, official.defect_types)
    if not any(known):  # a folder of one's own
        return []
    names = ("normal training images", "normal test images", "anomalous images", "defect types")
    return [
        f"{count} of {expected} {name}"
        for name, count, expected in zip(names, count_files(files), known, strict=True)
        if count != expected
    ]


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
    for category, facts in dataset.categories.items():
        listing = list_category(dataset, category, data, cache)
        if counts := other_counts(facts, listing.files):
            return f"{category} has {', '.join(counts)}"
        if dataset.fingerprint and fingerprint(listing, digests) != dataset.fingerprint:
            return "as many images, but other content"
    return ""
