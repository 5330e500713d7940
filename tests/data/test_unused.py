"""Files that look like images and are not used: each folder of them is named with a remedy."""

import os
from pathlib import Path

import pytest

from bench.data.catalog import BRAIN_MRI, HEAD_CT, MVTEC_AD, find_dataset
from bench.data.layouts import list_category
from bench.data.unused import passed_over, unused_files, unused_line
from bench.errors import DataError
from tests.fixtures.datasets import make, make_bottle


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_bottle(tmp_path)
    return tmp_path / "mvtec_ad" / "bottle"


def lines(home: Path, cache: Path) -> list[str]:
    data = home.parents[1]
    listing = list_category(MVTEC_AD, "bottle", data, cache)
    return [str(u) for u in unused_files(MVTEC_AD, "bottle", data, listing)]


@pytest.mark.parametrize(
    "path",
    [
        "readme.txt",
        "license.pdf",
        "scheme.svg",
        "train/good/labels.csv",
        "train/good/Thumbs.db",
        "train/good/desktop.ini",
        "train/good/._000.png",
        "test/.ipynb_checkpoints/000-checkpoint.png",
        "ground_truth/contamination/000_mask.png",
        "ground_truth/x/y/z.webp",
    ],
)
def test_what_is_used_or_no_image_is_no_line(home: Path, cache: Path, path: str) -> None:
    make(home, path)
    assert lines(home, cache) == []


@pytest.mark.parametrize(
    ("paths", "line"),
    [
        (
            ["train/good/batch2/1.png", "train/good/batch2/2.png"],
            "2 in train/good/batch2 (.png 2): move them into train/good",
        ),
        (["train/good/a/b/1.JPG"], "1 in train/good/a/b (.jpg 1): move them into train/good"),
        (["test/cut/left/1.png"], "1 in test/cut/left (.png 1): move them into test/cut"),
        (
            ["train/good/1.webp", "train/good/2.GIF", "train/good/3.npy"],
            "3 in train/good (.gif 1, .npy 1, .webp 1): save them as PNG, JPEG, BMP or TIFF",
        ),
        (
            ["test/good/1.geotiff", "test/good/1.tif.gz"],
            "2 in test/good (.geotiff 1, .gz 1): save them as PNG, JPEG, BMP or TIFF",
        ),
        (["test/good/0001"], "1 in test/good (no suffix 1): save them as PNG, JPEG, BMP or TIFF"),
        (
            ["train/1.png"],
            "1 in train (.png 1): training takes train/good alone; move normal images there",
        ),
        (
            ["train/bad/1.png"],
            "1 in train/bad (.png 1): training takes train/good alone; move normal images there",
        ),
        (
            ["test/1.bmp"],
            "1 in test (.bmp 1): move them into a folder named by what they show, as test/good",
        ),
        (
            ["validation/good/1.png"],
            "1 in validation/good (.png 1): only train/good and the folders of test are read",
        ),
        (
            ["1.png"],
            "1 beside train and test (.png 1): only train/good and the folders of test are read",
        ),
        (
            ["train/good/a\nb.webp"],
            "1 in train/good (.webp 1): save them as PNG, JPEG, BMP or TIFF",
        ),
    ],
)
def test_what_is_passed_over_is_counted_by_folder(
    home: Path, cache: Path, paths: list[str], line: str
) -> None:
    make(home, *paths)
    assert lines(home, cache) == [line]


def test_links_are_counted_too(home: Path, cache: Path, tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "1.png", "2.png")
    (home / "train/good/more").symlink_to(tmp_path / "elsewhere")
    (home / "test/linked").symlink_to(tmp_path / "elsewhere")  # a type, whose images are used
    (home / "test/good/nowhere.png").symlink_to("nothing.png")
    os.mkfifo(home / "test/good/pipe.png")
    assert lines(home, cache) == [
        "2 in test/good (.png 2): they are no regular files, or of formats other than PNG, JPEG,"
        " BMP and TIFF",
        "2 in train/good/more (.png 2): move them into train/good",
    ]


def test_a_plan_has_one_line_of_the_first_folders(home: Path, cache: Path) -> None:
    make(home, *(f"train/good/{n}/1.png" for n in range(5)))
    data = home.parents[1]
    listing = list_category(MVTEC_AD, "bottle", data, cache)
    line = unused_line("mvtec_ad/bottle", unused_files(MVTEC_AD, "bottle", data, listing))
    assert line.startswith(
        "mvtec_ad/bottle: 5 files that look like images and are not used: 1 in train/good/0 (.png"
        " 1): move them into train/good; 1 in train/good/1"
    )
    assert line.endswith("; and more, see `bench data verify mvtec_ad/bottle`")


def test_the_medical_sets_are_looked_through_where_they_are_read(
    tmp_path: Path, cache: Path
) -> None:
    make(tmp_path, *(f"head_ct/head_ct/{n:03}.png" for n in range(200)), "head_ct/labels.csv")
    make(tmp_path, "head_ct/head_ct/more/200.png", "head_ct/scheme.png")
    listing = list_category(HEAD_CT, "head_ct", tmp_path, cache)
    assert [str(u) for u in unused_files(HEAD_CT, "head_ct", tmp_path, listing)] == [
        "1 in more (.png 1): move them into head_ct"
    ]
    make(tmp_path / "brain_mri", "no/1 no.jpeg", "no/10 no.jpg", "yes/Y1.jpg", "yes/Y2.webp")
    make(tmp_path / "brain_mri", "brain_tumor_dataset/yes/Y1.jpg")  # of the archive, the same again
    listing = list_category(BRAIN_MRI, "brain_mri", tmp_path, cache)
    assert [str(u) for u in unused_files(BRAIN_MRI, "brain_mri", tmp_path, listing)] == [
        "1 in yes (.webp 1): save them as PNG, JPEG, BMP or TIFF"
    ]


# Near misses, and what is missing


@pytest.mark.parametrize("fold", ["train", "test"])
@pytest.mark.parametrize(
    "name", ["Good", "GOOD", "good ", "ok", "OK", "normal", "Normals", "no_defect", "defect-free"]
)
def test_other_names_of_good_are_refused(tmp_path: Path, cache: Path, fold: str, name: str) -> None:
    for place in ("train/good", "test/good", "test/hole"):
        make(tmp_path / "nuts", f"{place}/1.png")
    (tmp_path / "nuts" / fold / "good").rename(tmp_path / "nuts" / fold / name)
    dataset = find_dataset("nuts", tmp_path)
    with pytest.raises(DataError, match=r"rename it to good$") as caught:
        list_category(dataset, "nuts", tmp_path, cache)
    assert f"{tmp_path}/nuts/{fold}/{name}'" in str(caught.value)
    make(tmp_path / "nuts" / fold, "good/1.png")
    with pytest.raises(DataError, match=f"to good, or move its images into {fold}/good$"):
        list_category(dataset, "nuts", tmp_path, cache)


@pytest.mark.parametrize("name", ["good", "broken", "not_ok", "normal_but_dirty", "goods.txt"])
def test_names_of_defects_are_names(tmp_path: Path, cache: Path, name: str) -> None:
    for place in ("train/good", "test/good", "test/hole", f"test/{name}"):
        make(tmp_path / "nuts", f"{place}/1.png")
    list_category(find_dataset("nuts", tmp_path), "nuts", tmp_path, cache)


def test_what_is_missing_of_a_category_is_said(tmp_path: Path, cache: Path) -> None:
    make(tmp_path / "nuts", "train/images/1.png", "test/good/1.png")
    make(tmp_path / "parts", "bolt/train/good/1.png", "bolt/test/good/1.png", "bolt/test/a/1.png")
    make(tmp_path / "parts", "nut/test/good/1.png", "notes/readme.txt", ".old/train/good/1.png")
    assert list(find_dataset("parts", tmp_path).categories) == ["bolt", "nut"]
    for name, category in (("nuts", "nuts"), ("parts", "nut")):
        folder = tmp_path / name / (category if name == "parts" else "")
        with pytest.raises(DataError, match=f"at {folder} has no train/good: put the images there"):
            list_category(find_dataset(name, tmp_path), category, tmp_path, cache)
    dataset = find_dataset("nuts", tmp_path)
    (tmp_path / "nuts").rename(tmp_path / "gone")
    with pytest.raises(DataError, match=f"nuts is not in {tmp_path}: there is no such folder"):
        list_category(dataset, "nuts", tmp_path, cache)


def test_images_that_all_lie_too_deep_are_named(tmp_path: Path, cache: Path) -> None:
    make(tmp_path / "nuts", "train/good/a/1.png", "test/good/1.png", "test/hole/left/1.png")
    dataset = find_dataset("nuts", tmp_path)
    with pytest.raises(DataError, match=r"has no normal training images; images lie in train/good/"
                       r"a: move them to train/good"):  # fmt: skip
        list_category(dataset, "nuts", tmp_path, cache)
    make(tmp_path / "nuts", "train/good/1.png")
    with pytest.raises(DataError, match=r"has no anomalous test images; images lie in test/hole/l"):
        list_category(dataset, "nuts", tmp_path, cache)


def test_files_below_folders_that_predict_passes_over_are_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.webp", "deep/c.webp", "deep/d", "notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    line = passed_over([tmp_path], [tmp_path / "a.png"])
    assert line == (
        "3 files looking like images not used (.webp 2, no suffix 1): save them as PNG, JPEG, BMP"
        " or TIFF"
    )
    assert passed_over([tmp_path], [tmp_path / n for n in ("a.png", "b.webp", "deep/c.webp",
                                                           "deep/d")]) == ""  # fmt: skip
    assert passed_over([], []) == ""
