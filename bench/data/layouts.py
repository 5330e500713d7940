"""List a category's files by the rules of each dataset's layout."""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from bench.data.catalog import Dataset, has_mvtec_layout, is_meant_as_category
from bench.data.folds import read_manifest
from bench.data.listing import File, Listing, check_names, images_below, images_in
from bench.data.pixel_digests import PixelDigests
from bench.errors import DataError, MissingData
from bench.spec import place_name
from bench.system.digests import FingerprintCache
from bench.system.untrusted import one_line, os_reason, read_regular

MAX_LABELS = 1 << 20
NAMES_OF_GOOD = frozenset(
    {
        *("good", "goods", "ok", "okay", "normal", "normals", "nominal", "healthy"),
        *("nodefect", "nodefects", "defectfree", "nondefective", "notdefective", "nonanomalous"),
        *("pass", "passed"),
    }
)
"""What others call `good`, without spaces and signs, in any letter case."""
SECOND_GOOD = re.compile(r"(good|ok|okay)[\W\d_].*")
"""Further folders of good images, as `good_2`, `good-old` or `ok1`."""

HEAD_CT_TEST_NORMALS = frozenset(
    (
        *(100, 104, 110, 112, 118, 122, 126, 130, 131, 133, 139, 142, 144, 145, 153, 155, 169),
        *(170, 173, 176, 177, 180, 183, 188, 190),
    )
)
"""Test normals of the converters of DevNet, DRA and AHL (3:1, seed 42)."""


def list_category(
    dataset: Dataset, category: str, data: Path, cache: Path, known: PixelDigests | None = None
) -> Listing:
    """Return a category's images, sorted, without decoding them.

    Only where a manifest tells the folds by content are files read, each once: `known` are the
    digests of whoever reads them, too. Raises MissingData
    with the remedy where the folder is absent, DataError where it does not hold what the layout
    asks for.
    """
    try:
        known = known or PixelDigests(cache, FingerprintCache(cache))
        root, files, official = _listed(dataset, category, data, known)
    except OSError as error:
        path = one_line(error.filename or data / dataset.name)
        raise DataError(f"cannot read {path}: {os_reason(error)}") from error
    check_names(root, (f.path for f in files))
    ordered = tuple(sorted(files, key=lambda f: f.path))
    for kind, fold, present in (
        ("normal training images", "train", any(f.fold == "train" for f in ordered)),
        ("normal test images", "test", any(f.fold == "test" and not f.anomalous for f in ordered)),
        ("anomalous test images", "test", any(f.anomalous for f in ordered)),
    ):
        if not present:
            other = _other_folders(dataset, category, data, fold)
            name = place_name(dataset.name, category)
            raise DataError(f"{name} at {one_line(root)} has no {kind}{other}")
    by_hand = _copies_by_hand(dataset, official)
    return Listing(root, ordered, dataset.data_version, dataset.near_copies, by_hand)


def _copies_by_hand(dataset: Dataset, official: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """Return the paths of each group that the card lists; `official` gives theirs by path."""
    groups: dict[tuple[str, ...], list[str]] = {}
    of_name = {name: group for group in dataset.copies_by_hand for name in group}
    for path, official_path in sorted(official.items()):
        name = PurePosixPath(official_path).with_suffix("").as_posix()
        if name in of_name:
            groups.setdefault(of_name[name], []).append(path)
    return tuple(tuple(paths) for paths in groups.values() if len(paths) > 1)


def _listed(
    dataset: Dataset, category: str, data: Path, known: PixelDigests
) -> tuple[Path, list[File], Mapping[str, str]]:
    """Return a category's root folder and files.

    The third is where each lies in the official copy, by its path; nothing where the card does not
    ask for it.
    """
    if dataset.layout == "synthetic":
        from bench.data import synthetic

        root = synthetic.generated(known.cache, category)
        return root, _mvtec_files(root / category, root), {}
    if dataset.layout == "mvtec":
        home, folder = data / dataset.name, category_folder(dataset, category, data)
        _refuse_other_names_of_good(folder)
        _check_parts(dataset, category, data, folder, ("train/good", "test"))
        return home, _mvtec_files(folder, home), {}
    root = data / dataset.name
    if dataset.layout == "head_ct":
        _check_parts(dataset, category, data, root, ("head_ct",))
        files = _head_ct_files(root)
        return root, files, {f.path: f"head_ct/{_number(f.path):03d}.png" for f in files}
    _check_parts(dataset, category, data, root, ("yes", "no"))
    return _brain_mri_files(root, known)


def category_folder(dataset: Dataset, category: str, data: Path) -> Path:
    """Return the folder that a category's images lie in or below; not of the embedded dataset."""
    home = data / dataset.name
    if dataset.layout == "head_ct":
        return home / "head_ct"
    if dataset.layout == "brain_mri":
        return home
    is_category = category == dataset.name and (
        has_mvtec_layout(home) or not is_meant_as_category(home / category)
    )
    return home if is_category else home / category


def _other_folders(dataset: Dataset, category: str, data: Path, fold: str) -> str:
    """Return where images lie that the layout does not look for; empty where nowhere."""
    if dataset.layout != "mvtec":
        return ""
    top = category_folder(dataset, category, data)
    parents = {path.parent.relative_to(top) for path in images_below(top / fold)}
    if fold == "train":
        read, other = "train/good", [p for p in parents if p.parts != ("train", "good")]
    else:
        read, other = "test/good or test/TYPE", [p for p in parents if len(p.parts) != 2]
    if not other:
        return ""
    places = one_line(", ".join(sorted(p.as_posix() for p in other)[:3]))
    return f"; images lie in {places}: move them to {read}"


def _check_parts(
    dataset: Dataset, category: str, data: Path, folder: Path, parts: Sequence[str]
) -> None:
    """Raise MissingData, with the remedy, for a folder or a part of it that is absent."""
    absent = [part for part in parts if not (folder / part).is_dir()]
    if not absent:
        return
    name, remedy = place_name(dataset.name, category), dataset.remedy(data)
    if not folder.is_dir():
        raise MissingData(one_line(f"{name} is not in {data}: {remedy}"))
    if dataset.archive is None:
        remedy = "put the images there"
    raise MissingData(one_line(f"{name} at {folder} has no {' and no '.join(absent)}: {remedy}"))


def _refuse_other_names_of_good(folder: Path) -> None:
    """Refuse folders that are misspelt `good`."""
    for fold in ("train", "test"):
        if not (folder / fold).is_dir():
            continue
        for images in sorted(folder / fold / name for name in os.listdir(folder / fold)):
            if not _is_other_name_of_good(images.name) or not images.is_dir():
                continue
            exists = (folder / fold / "good").is_dir()
            also = f", or move its images into {fold}/good" if exists else ""
            raise DataError(
                f"{one_line(images)!r} would not be read as normal images: rename it to good{also}"
            )


def _is_other_name_of_good(name: str) -> bool:
    """Whether a folder's name means `good` and is not that."""
    lower = name.casefold()
    letters = re.sub(r"[\W_]", "", lower)
    return name != "good" and bool(letters in NAMES_OF_GOOD or SECOND_GOOD.fullmatch(lower))


def _mvtec_files(folder: Path, root: Path) -> list[File]:
    def files(images: Path) -> list[File]:
        fold, defect = images.parent.name, images.name
        return [File(i.relative_to(root).as_posix(), fold, defect) for i in images_in(images)]

    normal = files(folder / "train" / "good")
    tests = sorted(p for p in (folder / "test").iterdir() if not p.name.startswith("."))
    return normal + [file for images in tests if images.is_dir() for file in files(images)]


def _head_ct_files(root: Path) -> list[File]:
    labels = _head_ct_labels(root / "labels.csv")
    files = []
    for path in images_in(root / "head_ct"):
        try:
            number = _number(path)
        except ValueError:
            raise DataError(
                f"{one_line(path)} is not one of Head-CT's numbered files; move it away"
            ) from None
        if labels.get(number, number < 100) != (number < 100):
            labels_file = one_line(root / "labels.csv")
            raise DataError(f"{labels_file} disagrees with Head-CT about {one_line(path.name)}")
        if number < 100:
            fold, defect = "test", "hemorrhage"
        else:
            fold, defect = ("test" if number in HEAD_CT_TEST_NORMALS else "train"), "good"
        files.append(File(path.relative_to(root).as_posix(), fold, defect))
    return files


def _number(path: str | Path) -> int:
    """Return the number of one of Head-CT's files; raises ValueError."""
    return int(PurePosixPath(path).stem)


def _head_ct_labels(path: Path) -> dict[int, bool]:
    """Read the `id, hemorrhage` table; empty where the archive has none."""
    if not path.is_file():
        return {}
    try:
        lines = read_regular(path, MAX_LABELS).decode("utf-8-sig").splitlines()
        rows = list(csv.reader(lines, skipinitialspace=True))[1:]
        return {int(row[0]): bool(int(row[1])) for row in rows if row}
    except (ValueError, IndexError, csv.Error):
        raise DataError(f"{one_line(path)} does not hold lines of `id, hemorrhage`") from None


def _brain_mri_files(root: Path, known: PixelDigests) -> tuple[Path, list[File], Mapping[str, str]]:
    tumours = sorted(f"yes/{p.name}" for p in images_in(root / "yes"))
    normals = sorted(f"no/{p.name}" for p in images_in(root / "no"))
    manifest, paths = read_manifest("brain_mri"), [*tumours, *normals]
    located = manifest.official_paths("brain_mri", root, paths, known)
    official = dict(zip(paths, located, strict=True))
    tested = {path for path in normals if official[path] in manifest.test_normals}
    files = [File(path, "test", "tumor") for path in tumours]
    files += [File(path, "test" if path in tested else "train", "good") for path in normals]
    return root, files, official


def brain_mri_test_normals() -> frozenset[str]:
    """Return the names of the test normals in the project's manifest.

    The baselines split an unsorted listing, so theirs is lost. Ours: a quarter of the pictures that
    the 98 normals show, each with all of its copies. `tests/campaigns/brain_mri_manifest.py` makes
    it.
    """
    tested = read_manifest("brain_mri").test_normals
    return frozenset(path.removeprefix("no/") for path in tested)
