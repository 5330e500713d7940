"""Files of a category that look like images and are not used."""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench.data.catalog import Dataset
from bench.data.layouts import category_folder
from bench.data.listing import IMAGE_SUFFIXES, Listing, raised
from bench.data.masks import FOLDER as MASKS
from bench.errors import DataError
from bench.system.untrusted import one_line, os_reason
from bench.text import counted

NO_IMAGES = frozenset(
    (
        *(".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml"),
        *(".toml", ".ini", ".cfg", ".log", ".html", ".htm", ".pdf", ".doc", ".docx", ".xls"),
        *(".xlsx", ".py", ".m", ".sh", ".sha256", ".sha1", ".md5", ".db", ".lnk", ".url"),
    )
)
"""Suffixes that lie beside images and are none; whatever else lies among images may be one."""
LINES = 3
"""Folders that one line names."""


@dataclass(frozen=True)
class UnusedFiles:
    """Files of one folder that look like images and are not used."""

    folder: str
    """Relative to the category's folder; `.` for that itself."""
    count: int
    suffixes: str
    remedy: str

    def __str__(self) -> str:
        where = "beside train and test" if self.folder == "." else f"in {one_line(self.folder)}"
        return f"{self.count} {where} ({one_line(self.suffixes)}): {self.remedy}"


def unused_files(
    dataset: Dataset, category: str, data: Path, listing: Listing
) -> list[UnusedFiles]:
    """Return what looks like an image and is not in the listing, by folder.

    Hidden files and masks are left out. Raises DataError for a folder that cannot be read.
    """
    if dataset.layout == "synthetic":
        return []
    top = category_folder(dataset, category, data)
    used = {str(listing.root / file.path) for file in listing.files}
    folders = {str(PurePosixPath(path).parent) for path in used}
    counts: dict[str, Counter[str]] = {}
    try:
        for path in _files_below(top, ("yes", "no") if dataset.layout == "brain_mri" else ()):
            if str(path) not in used and _looks_like_image(path, top):
                suffix = path.suffix.lower() or "no suffix"
                counts.setdefault(str(path.parent), Counter())[suffix] += 1
    except OSError as error:
        path = Path(error.filename or top)
        raise DataError(f"cannot read {one_line(path)}: {os_reason(error)}") from error
    return [
        UnusedFiles(
            folder=Path(folder).relative_to(top).as_posix(),
            count=tally.total(),
            suffixes=", ".join(f"{suffix} {n}" for suffix, n in sorted(tally.items())),
            remedy=_remedy(Path(folder), top, folders, set(tally)),
        )
        for folder, tally in sorted(counts.items())
    ]


def unused_line(name: str, unused: list[UnusedFiles]) -> str:
    """Return one line about the unused files of a category, for a plan."""
    total = sum(u.count for u in unused)
    more = f"; and more, see `bench data verify {name}`" * (len(unused) > LINES)
    verb = "looks like an image and is" if total == 1 else "look like images and are"
    listed = "; ".join(map(str, unused[:LINES]))
    return f"{name}: {counted(total, 'file')} that {verb} not used: {listed}{more}"


def passed_over(folders: Iterable[Path], used: Collection[Path]) -> str:
    """Return a line about files below folders that look like images and are not used.

    Empty where there is none. Raises DataError for a folder that cannot be read.
    """
    tally: Counter[str] = Counter()
    for folder in folders:
        try:
            files = {p for p in _files_below(folder, ()) if _looks_like_image(p, folder.parent)}
        except OSError as error:
            path = one_line(error.filename or folder)
            raise DataError(f"cannot read {path}: {os_reason(error)}") from error
        tally.update(path.suffix.lower() or "no suffix" for path in files - {*used})
    if not tally:
        return ""
    suffixes = ", ".join(f"{one_line(suffix)} {n}" for suffix, n in sorted(tally.items()))
    return (
        f"{counted(tally.total(), 'file')} looking like images not used ({suffixes}): save them as"
        " PNG, JPEG, BMP or TIFF"
    )


def _files_below(top: Path, only: Sequence[str]) -> Iterator[Path]:
    """Yield files below a folder but masks; links to folders are followed one level.

    `only` names the folders directly below it that are looked at; all where there are none.
    """
    for parent, folders, names in os.walk(top, onerror=raised):
        hidden = {n for n in folders if n.startswith(".")}
        if parent == str(top):
            hidden |= {n for n in folders if n == MASKS or (only and n not in only)}
        links = [n for n in folders if n not in hidden and os.path.islink(os.path.join(parent, n))]
        folders[:] = sorted(set(folders) - hidden)
        yield from (Path(parent, name) for name in names)
        for link in links:
            target = Path(parent, link)
            yield from (target / n for n in os.listdir(target) if not (target / n).is_dir())


def _looks_like_image(path: Path, top: Path) -> bool:
    """Whether a name looks like an image's.

    Beside train and test only its suffix counts.
    """
    suffix = path.suffix.lower()
    if path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini"):
        return False
    return suffix in IMAGE_SUFFIXES or (path.parent != top and suffix not in NO_IMAGES)


def _remedy(folder: Path, top: Path, used: set[str], suffixes: set[str]) -> str:
    """Return what to do with the unused files of a folder."""
    if str(folder) in used and not suffixes & IMAGE_SUFFIXES:
        return "save them as PNG, JPEG, BMP or TIFF"
    if str(folder) in used:
        return "they are no regular files, or of formats other than PNG, JPEG, BMP and TIFF"
    place = folder.relative_to(top).parts
    above = next((p for p in folder.parents if str(p) in used), None)
    if above is not None:
        shown = above.relative_to(top).as_posix() if above != top else top.name
        return f"move them into {one_line(shown)}"
    if place[:1] == ("test",) and len(place) > 2:
        return f"move them into {one_line('/'.join(place[:2]))}"
    if place[:1] == ("train",):
        return "training takes train/good alone; move normal images there"
    if place == ("test",):
        return "move them into a folder named by what they show, as test/good"
    return "only train/good and the folders of test are read"
