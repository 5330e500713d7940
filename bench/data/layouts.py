"""List a category's files by the rules of each dataset's layout."""

import csv
import json
from importlib import resources
from pathlib import Path

from bench.data.catalog import Dataset, has_mvtec_layout
from bench.data.listing import File, Listing, check_names, images_in
from bench.errors import DataError, MissingData
from bench.spec import place_name
from bench.system.untrusted import one_line, os_reason, read_regular

MAX_LABELS = 1 << 20

HEAD_CT_TEST_NORMALS = frozenset(
    (
        *(100, 104, 110, 112, 118, 122, 126, 130, 131, 133, 139, 142, 144, 145, 153, 155, 169),
        *(170, 173, 176, 177, 180, 183, 188, 190),
    )
)
"""Test normals of the converters of DevNet, DRA and AHL (3:1, seed 42)."""


def list_category(dataset: Dataset, category: str, data: Path, cache: Path) -> Listing:
    """Return a category's images, sorted, without opening them.

    Raises MissingData with the remedy where the folder is absent, DataError where it does not
    hold what the layout asks for.
    """
    try:
        root, files = _listed(dataset, category, data, cache)
    except OSError as error:
        path = one_line(error.filename or data / dataset.name)
        raise DataError(f"cannot read {path}: {os_reason(error)}") from error
    check_names(root, (f.path for f in files))
    ordered = tuple(sorted(files, key=lambda f: f.path))
    for kind, present in (
        ("normal training images", any(f.fold == "train" for f in ordered)),
        ("normal test images", any(f.fold == "test" and not f.anomalous for f in ordered)),
        ("anomalous test images", any(f.anomalous for f in ordered)),
    ):
        if not present:
            raise DataError(f"{dataset.name}/{category} at {one_line(root)} has no {kind}")
    return Listing(root, ordered, dataset.data_version)


def _listed(dataset: Dataset, category: str, data: Path, cache: Path) -> tuple[Path, list[File]]:
    """Return the root folder and the files of a category."""
    if dataset.layout == "synthetic":
        from bench.data import synthetic

        root = synthetic.generated(cache, category)
        return root, _mvtec_files(root / category, root)
    if dataset.layout == "mvtec":
        home = dataset.folder or data / dataset.name
        is_category = category == dataset.name and has_mvtec_layout(home)
        folder = home if is_category else home / category
        if not (folder / "train" / "good").is_dir() or not (folder / "test").is_dir():
            raise _missing(dataset, category, data)
        return home, _mvtec_files(folder, home)
    root = data / dataset.name
    if dataset.layout == "head_ct":
        if not (root / "head_ct").is_dir():
            raise _missing(dataset, category, data)
        return root, _head_ct_files(root)
    if not (root / "yes").is_dir() or not (root / "no").is_dir():
        raise _missing(dataset, category, data)
    return root, _brain_mri_files(root)


def _missing(dataset: Dataset, category: str, data: Path) -> MissingData:
    name = place_name(dataset.name, category)
    return MissingData(one_line(f"{name} is not in {data}: {dataset.remedy(data)}"))


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
            number = int(path.stem)
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


def _brain_mri_files(root: Path) -> list[File]:
    test = brain_mri_test_normals()
    files = [File(f"yes/{p.name}", "test", "tumor") for p in images_in(root / "yes")]
    files += [
        File(f"no/{p.name}", "test" if p.name in test else "train", "good")
        for p in images_in(root / "no")
    ]
    return files


def brain_mri_test_normals() -> frozenset[str]:
    """Return the 25 test normals of the project's manifest.

    The baselines split an unsorted listing, so theirs is lost. Ours: the 98 normals sorted by name,
    grouped by equal decoded pixels, the groups shuffled with seed 42, and whole groups taken while
    they fit until 25 files are reached (`tests/data/test_splits.py` makes it again).
    """
    manifest = resources.files("bench.data").joinpath("manifests/brain_mri.json")
    text = manifest.read_text(encoding="utf-8")
    return frozenset(json.loads(text)["test_normals"])
