"""Check a dataset's copy: read and decode every file, compare, change nothing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.data.catalog import Dataset, find_dataset
from bench.data.decode import ImageFacts, decode_image, decoding_pool, facts_of, read
from bench.data.layouts import list_category
from bench.data.listing import File, Listing, content_fingerprint
from bench.data.masks import check_masks, first_of, surplus_masks
from bench.data.near_copies import likely_copies, pictures, thumbnail
from bench.data.official import count_files, unofficial_reasons
from bench.data.preconditions import unmet_preconditions
from bench.data.splits import defect_counts
from bench.data.unused import UnusedFiles, unused_files
from bench.errors import DataError, RequestError
from bench.spec import place_name
from bench.system.digests import FingerprintCache
from bench.system.files import cannot_read
from bench.system.untrusted import one_line
from bench.text import counted, meant, wrapped

WIDTH = 100


@dataclass(frozen=True)
class Inspection:
    """Result of checking one category."""

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
    unmet: tuple[str, ...] = ()
    """Why no run can be made of the files that decode."""
    unused: tuple[UnusedFiles, ...] = ()
    """Files that look like images and are passed over."""
    duplicates: tuple[tuple[File, ...], ...] = ()
    """Groups of files that show the same pixels."""
    pictures: int = 0
    """Different pictures, where near copies count as one."""
    near_copies: tuple[tuple[File, ...], ...] = ()
    """Groups of files that show one picture, not all in the same pixels."""
    likely_copies: tuple[str, ...] = ()
    """A line for each test image of an own dataset that looks like a training image."""
    masks: tuple[str, ...] = ()
    """One line for each mask that cannot be used."""
    doubts: tuple[str, ...] = ()
    """Lines about masks that mark so much that they may be wrong."""
    surplus: tuple[Path, ...] = ()
    """Masks of no anomalous image."""

    @property
    def good(self) -> bool:
        """Whether files can be run on and match the catalogue."""
        spoilt = self.unusable or self.unmet or self.masks
        return not spoilt and not self.differences

    @property
    def place(self) -> str:
        """`dataset` or `dataset/category`."""
        return place_name(self.dataset.name, self.category)


def named_categories(names: Iterable[str], data: Path) -> list[tuple[Dataset, str]]:
    """Return categories of `dataset[/category]` names, each once."""
    selected: dict[tuple[str, str], tuple[Dataset, str]] = {}
    for name in names:
        dataset_name, slash, only = name.partition("/")
        dataset = find_dataset(dataset_name, data)
        if slash and only not in dataset.categories:
            known = f"{meant(only, dataset.categories)}; it has: {', '.join(dataset.categories)}"
            raise RequestError(f"{dataset_name} has no category {only!r}{known}")
        for category in [only] if slash else dataset.categories:
            selected[dataset_name, category] = (dataset, category)
    return list(selected.values())


def inspect(
    dataset: Dataset, category: str, data: Path, cache: Path, digests: FingerprintCache
) -> Inspection:
    """Decode every file of a category; collect problems."""
    try:
        listing = list_category(dataset, category, data, cache)
        unused = unused_files(dataset, category, data, listing)
        surplus = _surplus_masks(listing)
    except DataError as error:
        return Inspection(dataset, category, unusable=(str(error),))
    with decoding_pool() as pool:
        small = listing.near_copies or dataset.folder is not None
        results = list(pool.map(partial(_read_file, listing, digests, small), listing.files))
    facts = tuple(r.facts for r in results if r.facts)
    contents = [r.digest for r in results]
    fingerprint = content_fingerprint(listing.files, contents) if all(contents) else ""
    pixels = {f.path: f.pixels for f in facts}
    decoded = [f for f in listing.files if f.path in pixels]
    shown = [pixels.get(f.path, f.path) for f in listing.files]
    thumbnails = [r.thumbnail for r in results]
    if listing.near_copies:
        shown = [*pictures(listing, shown, thumbnails)]
    picture = dict(zip((f.path for f in listing.files), shown, strict=True))
    place = place_name(dataset.name, category)
    sizes = {(f.width, f.height) for f in facts}
    problems, doubts = _check_masks(listing, facts)
    return Inspection(
        dataset,
        category,
        files=listing.files,
        facts=facts,
        fingerprint=fingerprint,
        unusable=tuple(r.problem for r in results if r.problem),
        differences=tuple(unofficial_reasons(dataset, category, listing.files, fingerprint, sizes)),
        unmet=tuple(unmet_preconditions(decoded, [picture[f.path] for f in decoded], place)),
        unused=tuple(unused),
        duplicates=_groups(decoded, pixels),
        pictures=len({picture[f.path] for f in decoded}) if listing.near_copies else 0,
        near_copies=_near_copies(decoded, picture, pixels) if listing.near_copies else (),
        likely_copies=_likely_copies(listing.files, thumbnails, pixels) if dataset.folder else (),
        masks=tuple(problems),
        doubts=tuple(doubts),
        surplus=tuple(surplus),
    )


def _surplus_masks(listing: Listing) -> list[Path]:
    """Return the masks of no anomalous image, relative to the root; raises DataError."""
    try:
        paths = surplus_masks(listing.root, listing.files)
    except OSError as error:
        raise DataError(cannot_read(Path(error.filename or listing.root), error)) from error
    return [path.relative_to(listing.root) for path in paths]


def _check_masks(listing: Listing, facts: Sequence[ImageFacts]) -> tuple[list[str], list[str]]:
    """Return problems and doubts of the masks, of the images that decode."""
    sizes = {fact.path: (fact.width, fact.height) for fact in facts}
    decoded = [file for file in listing.files if file.path in sizes]
    return check_masks(listing.root, decoded, lambda file: sizes[file.path])


@dataclass(frozen=True)
class _Looked:
    """What a file holds, as far as it could be read."""

    digest: str = ""
    facts: ImageFacts | None = None
    thumbnail: str = ""
    problem: str = ""


def _read_file(listing: Listing, digests: FingerprintCache, small: bool, file: File) -> _Looked:
    """Read and decode a file, or say why it cannot be used; `small`: with its thumbnail."""
    path, digest = listing.root / file.path, ""
    try:
        content, digest = read(path, digests)
        rgb, mode = decode_image(path, content)
        facts = facts_of(file.path, content, rgb, mode)
        return _Looked(digest, facts, thumbnail(rgb) if small else "")
    except DataError as error:
        return _Looked(digest, problem=str(error))


def _groups(files: Sequence[File], keys: Mapping[str, str]) -> tuple[tuple[File, ...], ...]:
    """Return the groups of several files whose paths have one key."""
    groups: dict[str, list[File]] = {}
    for file in files:
        groups.setdefault(keys[file.path], []).append(file)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _near_copies(
    files: Sequence[File], picture: Mapping[str, str], pixels: Mapping[str, str]
) -> tuple[tuple[File, ...], ...]:
    groups = _groups(files, picture)
    return tuple(group for group in groups if len({pixels[f.path] for f in group}) > 1)


def _likely_copies(
    files: Sequence[File], thumbnails: Sequence[str], pixels: Mapping[str, str]
) -> tuple[str, ...]:
    """Return a line for each likely near copy in the test folders; those of equal pixels aside."""
    train = [i for i, f in enumerate(files) if f.fold == "train"]
    known = {pixels.get(files[i].path) for i in train}
    test = [
        i
        for i, f in enumerate(files)
        if f.fold == "test" and f.path in pixels and pixels[f.path] not in known
    ]
    likely = likely_copies([thumbnails[i] for i in train], [thumbnails[i] for i in test])
    return tuple(
        f"{one_line(files[test[pair.test]].path)} is like {one_line(files[train[pair.train]].path)}"
        f" (r {pair.likeness:.4f})"
        for pair in likely
    )


def inspection_lines(inspection: Inspection) -> Iterator[str]:
    """Yield an inspection as lines of text."""
    yield f"{inspection.place}: {_verdict(inspection)}"
    for line in inspection.unmet:
        yield from _entry("needs", line)
    for line in map(str, inspection.unused):
        yield from _entry("not used", line)
    for difference in inspection.differences:
        yield from _entry("differs", difference)
    if inspection.files:
        train, normal, anomalous, types = count_files(inspection.files)
        yield from _entry(
            "images",
            f"{len(inspection.files)}: train {train} normal; test {normal} normal, {anomalous}"
            f" anomalous of {counted(types, 'defect type')}",
        )
        defects = Counter(defect_counts(inspection.files))
        yield from _entry("defect types", one_line(_tally(defects)))
        yield from _entry("sizes", _sizes(inspection))
        modes = Counter(f.mode for f in inspection.facts)
        suffixes = Counter(Path(f.path).suffix for f in inspection.files)
        yield from _entry("modes", f"{_tally(modes)}; files {_tally(suffixes)}")
        content = inspection.fingerprint or "not all files can be read"
        if content == inspection.dataset.fingerprint:
            content += "  (the official one)"
        yield from _entry("content", content)
    for line in inspection.unusable:
        yield from _entry("unusable", line)
    for line in inspection.masks:
        yield from _entry("mask", line)
    if inspection.doubts:
        yield from _entry("warning", first_of(inspection.doubts))
    if inspection.surplus:
        names = first_of([one_line(path) for path in inspection.surplus])
        total = counted(len(inspection.surplus), "mask")
        yield from _entry("not used", f"{total} of no anomalous image: {names}")
    yield from _duplicate_lines(inspection)
    yield from _near_copy_lines(inspection)
    if inspection.dataset.note:
        yield from _entry("note", inspection.dataset.note)


def _verdict(inspection: Inspection) -> str:
    verdict = _of_images(inspection) + _of_masks(inspection)
    total = sum(u.count for u in inspection.unused)
    more = f"; {counted(total, 'more file')} looking like images not used" if total else ""
    return verdict + more


def _of_masks(inspection: Inspection) -> str:
    """Return how many masks spoil the pixel metrics."""
    count = len(inspection.masks)
    return f"; {counted(count, 'mask')} cannot be used: no pixel metrics" if count else ""


def _of_images(inspection: Inspection) -> str:
    if not inspection.files:
        return "cannot be used"
    if inspection.unusable:
        count = len(inspection.unusable)
        return f"{count} of {len(inspection.files)} files cannot be used"
    if inspection.unmet:
        return "every file can be used, but no run can be made of them"
    if inspection.dataset.folder is not None:
        return "every file can be used"
    if inspection.differences:
        return "every file can be used, but this is not the official copy"
    if inspection.dataset.layout == "synthetic" or inspection.dataset.fingerprint:
        return "the official copy"
    return "the official copy, as far as counts and sizes tell"


def _sizes(inspection: Inspection) -> str:
    sizes = Counter((f.width, f.height) for f in inspection.facts)
    if not sizes:
        return "none"
    if len(sizes) > 1:
        small, large = (pick(sizes, key=lambda s: (s[0] * s[1], s)) for pick in (min, max))
        return f"{len(sizes)} sizes, {small[0]}x{small[1]} to {large[0]}x{large[1]} px"
    ((width, height),) = sizes
    native = inspection.dataset.categories[inspection.category].native_size
    return f"{width}x{height} px" + (", native" if width == height == native else "")


def _tally(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _duplicate_lines(inspection: Inspection) -> Iterator[str]:
    if inspection.facts and not inspection.duplicates:
        yield from _entry("same pixels", "no two files")
    yield from _group_lines("same pixels", inspection.duplicates)


def _near_copy_lines(inspection: Inspection) -> Iterator[str]:
    if inspection.pictures:
        total = f"{counted(inspection.pictures, 'picture')} in {len(inspection.facts)} files"
        yield from _entry("near copies", f"{total}; copies of other pixels count as one picture")
    yield from _group_lines("near copies", inspection.near_copies)
    if likely := inspection.likely_copies:
        images = counted(len(likely), "test image")
        text = f"{images} may show a training image in other pixels, which a run does not notice"
        yield from _entry("warning", f"{text}: {first_of(likely)}")


def _group_lines(title: str, copies: Iterable[tuple[File, ...]]) -> Iterator[str]:
    """List groups of files that show one picture, those that spoil a test first."""
    titles = ("normal and anomalous alike", "in both train and test", "within test", "within train")
    kinds: dict[str, list[tuple[File, ...]]] = {kind: [] for kind in titles}
    for group in copies:
        folds = {f.fold for f in group}
        if len({f.anomalous for f in group}) > 1:
            kind = "normal and anomalous alike"
        else:
            kind = f"within {folds.pop()}" if len(folds) == 1 else "in both train and test"
        kinds[kind].append(group)
    for kind, groups in kinds.items():
        if groups:
            surplus = sum(len(g) - 1 for g in groups)
            text = f"{kind}: {counted(surplus, 'file')} more than pictures"
            yield from _entry(title, text)
            for group in groups:
                yield from _entry("", " = ".join(one_line(f.path) for f in group))


def _entry(title: str, text: str) -> list[str]:
    return wrapped(text, WIDTH, f"  {title:13}", " " * 15 + "  " * (not title))
