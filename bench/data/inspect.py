"""What a copy of a dataset holds, file by file: read and decoded anew, compared, not changed."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data.catalog import Dataset, find_dataset
from bench.data.decode import ImageFacts, decode, decoding_pool, facts_of, read
from bench.data.layouts import list_category
from bench.data.listing import File, Listing, combined
from bench.data.official import count_files, other_content, other_counts
from bench.errors import DataError, RequestError
from bench.system.digests import FingerprintCache
from bench.system.untrusted import shown

WIDTH = 100


@dataclass(frozen=True)
class Inspection:
    """What was found in one category."""

    dataset: Dataset
    category: str
    files: tuple[File, ...] = ()
    facts: tuple[ImageFacts, ...] = ()
    """Of the files that decode."""
    fingerprint: str = ""
    """Of all files; empty where one could not be read."""
    unusable: tuple[str, ...] = ()
    """One line for each file that does not decode, or for the whole category."""
    differences: tuple[str, ...] = ()
    """From the official copy, where the catalogue knows one."""
    duplicates: tuple[tuple[File, ...], ...] = ()
    """Groups of files that show the same pixels."""

    @property
    def good(self) -> bool:
        """Whether every file can be used and nothing differs from the catalogue."""
        return not self.unusable and not self.differences

    @property
    def place(self) -> str:
        """`dataset` or `dataset/category`, for people."""
        same = self.category == self.dataset.name
        return self.category if same else f"{self.dataset.name}/{self.category}"


def places(names: Iterable[str], data: Path) -> list[tuple[Dataset, str]]:
    """Return what `dataset` and `dataset/category` stand for, each category once."""
    found: dict[tuple[str, str], tuple[Dataset, str]] = {}
    for name in names:
        dataset_name, slash, only = name.partition("/")
        dataset = find_dataset(dataset_name, data)
        if slash and only not in dataset.categories:
            known = ", ".join(dataset.categories)
            raise RequestError(f"{dataset_name} has no category {only!r}; it has: {known}")
        for category in [only] if slash else dataset.categories:
            found[dataset_name, category] = (dataset, category)
    return list(found.values())


def inspect(
    dataset: Dataset, category: str, data: Path, cache: Path, digests: FingerprintCache
) -> Inspection:
    """Read and decode every file of a category; what is wrong with it is part of the result."""
    try:
        listing = list_category(dataset, category, data, cache)
    except DataError as error:
        return Inspection(dataset, category, unusable=(str(error),))
    with decoding_pool() as pool:
        looks = list(pool.map(lambda file: _look(listing, file, digests), listing.files))
    facts = tuple(said for _, said in looks if isinstance(said, ImageFacts))
    content = [digest for digest, _ in looks]
    fingerprint = combined(listing.files, content) if all(content) else ""
    different = [
        *other_counts(dataset.categories[category], listing.files),
        other_content(dataset, category, fingerprint, facts),
    ]
    return Inspection(
        dataset,
        category,
        files=listing.files,
        facts=facts,
        fingerprint=fingerprint,
        unusable=tuple(said for _, said in looks if isinstance(said, str)),
        differences=tuple(filter(None, different)),
        duplicates=_duplicates(listing.files, facts),
    )


def _look(listing: Listing, file: File, digests: FingerprintCache) -> tuple[str, ImageFacts | str]:
    """Return the digest of a file, and what it said or why it cannot be used."""
    path, digest = listing.root / file.path, ""
    try:
        content, digest = read(path, digests)
        return digest, facts_of(file.path, content, *decode(path, content))
    except DataError as error:
        return digest, str(error)


def _duplicates(files: Sequence[File], facts: Sequence[ImageFacts]) -> tuple[tuple[File, ...], ...]:
    by_path = {f.path: f for f in files}
    groups: dict[str, list[File]] = {}
    for fact in facts:
        groups.setdefault(fact.pixels, []).append(by_path[fact.path])
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def report(found: Inspection) -> Iterator[str]:
    """Yield an inspection in lines for people."""
    yield f"{found.place}: {_verdict(found)}"
    if found.files:
        train, normal, anomalous, types = count_files(found.files)
        yield from _entry(
            "images",
            f"{len(found.files)}: train {train} normal; test {normal} normal, {anomalous}"
            f" anomalous of {types} defect type{'s' if types > 1 else ''}",
        )
        yield from _entry("sizes", _sizes(found))
        modes = Counter(f.mode for f in found.facts)
        suffixes = Counter(Path(f.path).suffix for f in found.files)
        yield from _entry("modes", f"{_tally(modes)}; files {_tally(suffixes)}")
        content = found.fingerprint or "not all files can be read"
        if content == found.dataset.fingerprint:
            content += "  (the official one)"
        yield from _entry("content", content)
    for difference in found.differences:
        yield from _entry("differs", difference)
    for line in found.unusable:
        yield from _entry("unusable", line)
    yield from _duplicate_lines(found)


def _verdict(found: Inspection) -> str:
    if not found.files:
        return "cannot be used"
    if found.unusable:
        count = len(found.unusable)
        return f"{count} of {len(found.files)} files cannot be used"
    if found.dataset.folder is not None:
        return "every file can be used"
    if found.differences:
        return "every file can be used, but this is not the official copy"
    if found.dataset.layout == "synthetic" or found.dataset.fingerprint:
        return "the official copy"
    return "the official copy, as far as counts and sizes tell"


def _sizes(found: Inspection) -> str:
    sizes = Counter((f.width, f.height) for f in found.facts)
    if not sizes:
        return "none"
    if len(sizes) > 1:
        small, large = (pick(sizes, key=lambda s: (s[0] * s[1], s)) for pick in (min, max))
        return f"{len(sizes)} sizes, {small[0]}x{small[1]} to {large[0]}x{large[1]} px"
    ((width, height),) = sizes
    native = found.dataset.categories[found.category].native_size
    return f"{width}x{height} px" + (", native" if width == height == native else "")


def _tally(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _duplicate_lines(found: Inspection) -> Iterator[str]:
    """Name all duplicates, the kinds that spoil a test first."""
    kinds: dict[str, list[tuple[File, ...]]] = {
        "normal and anomalous alike": [],
        "in both train and test": [],
        "within test": [],
        "within train": [],
    }
    for group in found.duplicates:
        folds = {f.fold for f in group}
        if len({f.anomalous for f in group}) > 1:
            kind = "normal and anomalous alike"
        else:
            kind = f"within {folds.pop()}" if len(folds) == 1 else "in both train and test"
        kinds[kind].append(group)
    if found.facts and not found.duplicates:
        yield from _entry("same pixels", "no two files")
    for kind, groups in kinds.items():
        if groups:
            surplus = sum(len(g) - 1 for g in groups)
            files = "1 file" if surplus == 1 else f"{surplus} files"
            yield from _entry("same pixels", f"{kind}: {files} more than pictures")
            for group in groups:
                yield from _entry("", " = ".join(shown(f.path) for f in group))


def _entry(title: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"  {title:13}",
        subsequent_indent=" " * 15 + "  " * (not title),
        break_long_words=False,
        break_on_hyphens=False,
    )
