"""Official copies told from others."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from bench.cli import main
from bench.data.catalog import BRAIN_MRI, HEAD_CT, MVTEC_AD, SYNTHETIC, find_dataset, is_own
from bench.data.inspect import inspect, inspection_lines
from bench.data.layouts import list_category
from bench.data.listing import File, fingerprint
from bench.data.official import reasons_on_disk, unofficial_reasons, why_unofficial
from bench.data.splits import defect_counts
from bench.system.digests import FingerprintCache

TRAIN, GOOD, BAD = File("t", "train", "good"), File("g", "test", "good"), File("b", "test", "bad")
LARGE, SMALL, DIRTY = (
    File("b", "test", d) for d in ("broken_large", "broken_small", "contamination")
)
BOTTLE = [TRAIN] * 209 + [GOOD] * 20 + [LARGE] * 20 + [SMALL] * 22 + [DIRTY] * 21
"""Files that count as the official bottle's."""


def test_an_official_copy_has_the_counts_and_the_size_of_the_catalogue():
    assert why_unofficial(MVTEC_AD, "bottle", BOTTLE, "f" * 64, {(900, 900)}) == ""
    other = why_unofficial(MVTEC_AD, "bottle", BOTTLE, "", {(900, 900), (256, 256)})
    assert other == "256x256 px, not 900x900"
    assert unofficial_reasons(MVTEC_AD, "bottle", BOTTLE[1:], "", {(900, 900)}) == [
        "208 of 209 normal training images"
    ]


def test_counts_are_compared_by_fold_and_type():
    """Ten training images that were moved to the test leave the total as it was."""
    moved = BOTTLE[10:] + [GOOD] * 10
    assert len(moved) == len(BOTTLE)
    assert unofficial_reasons(MVTEC_AD, "bottle", moved, "", {(900, 900)}) == [
        "199 of 209 normal training images",
        "30 of 20 normal test images",
    ]
    other_types = [TRAIN] * 209 + [GOOD] * 20 + [BAD] * 63
    assert unofficial_reasons(MVTEC_AD, "bottle", other_types, "", {(900, 900)}) == [
        "1 of 3 defect types"
    ]


@pytest.mark.parametrize(
    ("types", "differences"),
    [
        (
            [LARGE] * 20 + [SMALL] * 28 + [DIRTY] * 15,
            ["28 of 22 broken_small", "15 of 21 contamination"],
        ),
        (
            [File("b", "test", "broken")] * 20 + [SMALL] * 22 + [DIRTY] * 21,
            ["no broken_large", "unknown type broken"],
        ),
    ],
    ids=["moved", "renamed"],
)
def test_images_moved_between_defect_types_are_a_difference(types, differences):
    files = [TRAIN] * 209 + [GOOD] * 20 + types
    assert len(files) == len(BOTTLE)
    assert unofficial_reasons(MVTEC_AD, "bottle", files, "", {(900, 900)}) == differences


@pytest.mark.parametrize("category", ["bottle", "capsule", "pill"])
def test_the_catalogue_has_the_defect_types_of_the_official_copy(shared, cache, category):
    listing = list_category(MVTEC_AD, category, shared / "data", cache)
    assert defect_counts(listing.files) == MVTEC_AD.categories[category].defects


def test_where_the_official_fingerprint_is_known_it_decides():
    head = [TRAIN] * 75 + [GOOD] * 25 + [File("b", "test", "hemorrhage")] * 100
    assert why_unofficial(HEAD_CT, "head_ct", [TRAIN], HEAD_CT.fingerprint, {(8, 8)}) == ""
    assert why_unofficial(HEAD_CT, "head_ct", head, "f" * 64, {(8, 8)}) == "content differs"
    fewer = why_unofficial(HEAD_CT, "head_ct", head[1:], "f" * 64, {(8, 8)})
    assert fewer == "74 of 75 normal training images; content differs"


def test_the_embedded_dataset_and_a_folder_of_the_users_are_nobodys_copy(tmp_path):
    (tmp_path / "nuts" / "train" / "good").mkdir(parents=True)
    assert why_unofficial(SYNTHETIC, "weave", [TRAIN], "", {(8, 8)}) == ""
    dataset = find_dataset("nuts", tmp_path)
    assert why_unofficial(dataset, "nuts", [TRAIN], "", {(8, 8)}) == ""
    assert is_own("nuts")
    assert not is_own("synthetic")


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A bottle of 209 + 20 + 63 small images, ten of which have changed their fold."""
    home = tmp_path / "data/mvtec_ad/bottle"
    counts = {
        "train/good": 199,
        "test/good": 30,
        **{f"test/{name}": n for name, n in MVTEC_AD.categories["bottle"].defects.items()},
    }
    for n, (place, count) in enumerate(counts.items()):
        (home / place).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (20, 20), (50 * n, i, 0)).save(home / place / f"{i:03}.png")
    return tmp_path / "data"


def test_every_command_says_alike_what_differs(moved, cache, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    reasons = (
        "199 of 209 normal training images",
        "30 of 20 normal test images",
        "20x20 px, not 900x900",
    )
    digests = FingerprintCache(cache)
    listing = list_category(MVTEC_AD, "bottle", moved, cache)
    assert reasons_on_disk(MVTEC_AD, "bottle", listing, digests) == list(reasons)
    inspection = inspect(MVTEC_AD, "bottle", moved, cache, digests)
    assert inspection.differences == reasons
    assert "differs      20x20 px, not 900x900" in "\n".join(inspection_lines(inspection))
    folders = ("--data", str(moved), "--cache", str(cache))
    for command in (("list",), ("prepare", "mvtec_ad/bottle", "--image-size", "16")):
        with pytest.raises(SystemExit):
            main(["data", *command, *folders])
        assert f"unofficial copy: {'; '.join(reasons)}" in capsys.readouterr().out
    content = fingerprint(listing, digests)
    assert why_unofficial(MVTEC_AD, "bottle", listing.files, content, {(20, 20)}) == "; ".join(
        reasons
    )


# Manifests


def test_a_manifest_goes_by_what_files_hold_and_not_by_their_names(shared, tmp_path, warm_cache):
    """The split of the official files is that of their names; new names and formats change none."""
    source = shared / "data" / "brain_mri"
    official = list_category(BRAIN_MRI, "brain_mri", shared / "data", warm_cache)
    folds = {f.path.removeprefix("no/"): f.fold for f in official.files if not f.anomalous}
    assert sorted(folds.values()) == ["test"] * 26 + ["train"] * 72
    copy = tmp_path / "brain_mri"
    shutil.copytree(source / "yes", copy / "yes")
    (copy / "yes/Y36.JPG").rename(copy / "yes/of mine.JPG")
    (copy / "no").mkdir()
    names = sorted(folds)
    renamed = {}
    for name, other in zip(names, [*names[1:], names[0]], strict=True):  # each has another's name
        if len(renamed) % 10:
            renamed[other] = name
            shutil.copyfile(source / "no" / name, copy / "no" / other)
        else:  # other bytes, the same pixels
            renamed[f"{other}.png"] = name
            with Image.open(source / "no" / name) as image:
                image.convert("RGB").save(copy / "no" / f"{other}.png", compress_level=1)
    listing = list_category(BRAIN_MRI, "brain_mri", tmp_path, warm_cache)
    found = {f.path.removeprefix("no/"): f.fold for f in listing.files if not f.anomalous}
    assert found == {name: folds[original] for name, original in renamed.items()}
    assert ("yes/Y65.JPG", "yes/of mine.JPG") in listing.copies_by_hand
    assert len(listing.copies_by_hand) == len(BRAIN_MRI.copies_by_hand)


def test_what_a_manifest_does_not_know_is_taken_by_its_name(tmp_path, cache):
    """So that resized images keep the split of the files that they were made from."""
    names = {"1 no.jpeg": "test", "10 no.jpg": "train", "of mine.jpg": "train"}
    for place in ("no", "yes"):
        (tmp_path / "brain_mri" / place).mkdir(parents=True)
    for i, name in enumerate(names):
        Image.new("L", (9, 9), 20 * i).save(tmp_path / "brain_mri/no" / name)
    Image.new("L", (9, 9), 250).save(tmp_path / "brain_mri/yes/Y1.jpg")
    listing = list_category(BRAIN_MRI, "brain_mri", tmp_path, cache)
    assert {f.path: f.fold for f in listing.files if not f.anomalous} == {
        f"no/{name}": fold for name, fold in names.items()
    }
