import os
import shutil
from pathlib import Path

import pytest

from bench.data.catalog import BRAIN_MRI, HEAD_CT, MVTEC_AD, find_dataset
from bench.data.layouts import HEAD_CT_TEST_NORMALS, brain_mri_test_normals, list_category
from bench.data.listing import fingerprint
from bench.errors import DataError, MissingData
from bench.system.digests import FingerprintCache
from tests.fixtures.datasets import make, make_bottle


def make_head_ct(data, labels=True):
    make(data / "head_ct", *(f"head_ct/{n:03d}.png" for n in range(200)))
    if labels:
        lines = [f"{n},{int(n < 100)}" for n in range(200)]
        (data / "head_ct" / "labels.csv").write_text("id, hemorrhage\n" + "\n".join(lines))


def counts(listing):
    files = listing.files
    return (
        sum(f.fold == "train" for f in files),
        sum(f.fold == "test" and not f.anomalous for f in files),
        sum(f.anomalous for f in files),
    )


@pytest.fixture
def listed(tmp_path, cache):
    return lambda dataset, category: list_category(dataset, category, tmp_path, cache)


# MVTec's layout


def test_mvtec_files_have_fold_and_defect_and_are_sorted(tmp_path, listed):
    make_bottle(tmp_path)
    listing = listed(MVTEC_AD, "bottle")
    assert [(f.path, f.fold, f.defect) for f in listing.files] == [
        ("bottle/test/broken_large/000.png", "test", "broken_large"),
        ("bottle/test/contamination/000.png", "test", "contamination"),
        ("bottle/test/good/000.png", "test", "good"),
        ("bottle/train/good/000.png", "train", "good"),
    ]
    assert all((listing.root / f.path).is_file() for f in listing.files)


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPG", "a.Jpeg", "a.jpeg", "a.PNG", "a.bmp", "a.TIF", "a.tiff", "a.b.png"]
)
def test_an_image_has_one_of_six_extensions_in_any_letter_case(tmp_path, listed, name):
    make_bottle(tmp_path)
    make(tmp_path / "mvtec_ad" / "bottle", f"train/good/{name}")
    assert counts(listed(MVTEC_AD, "bottle")) == (2, 1, 2)


@pytest.mark.parametrize(
    "path",
    [
        "train/good/._000.png",
        "train/good/.hidden.png",
        "train/good/Thumbs.db",
        "train/good/notes.txt",
        "train/good/000.gif",
        "train/good/png",
        "train/bad/000.png",
        "test/000.png",
        "test/good/.DS_Store",
        "test/.ipynb_checkpoints/000-checkpoint.png",
        "readme.png",
    ],
)
def test_what_is_no_image_of_the_layout_is_ignored(tmp_path, listed, path):
    make_bottle(tmp_path)
    make(tmp_path / "mvtec_ad" / "bottle", path)
    assert counts(listed(MVTEC_AD, "bottle")) == (1, 1, 2)


def test_a_dataset_of_the_users_own_is_listed_with_and_without_categories(tmp_path, listed):
    make_bottle(tmp_path)
    shutil.copytree(tmp_path / "mvtec_ad", tmp_path / "parts")
    shutil.copytree(tmp_path / "mvtec_ad" / "bottle", tmp_path / "nuts")
    parts = listed(find_dataset("parts", tmp_path), "bottle")
    nuts = listed(find_dataset("nuts", tmp_path), "nuts")
    assert counts(parts) == counts(nuts) == (1, 1, 2)
    assert parts.files[0].path == "bottle/test/broken_large/000.png"
    assert nuts.files[0].path == "test/broken_large/000.png"


def test_a_category_that_is_named_like_its_dataset_is_listed(tmp_path, listed):
    make_bottle(tmp_path)
    shutil.copytree(tmp_path / "mvtec_ad" / "bottle", tmp_path / "nuts" / "nuts")
    dataset = find_dataset("nuts", tmp_path)
    assert list(dataset.categories) == ["nuts"]
    assert counts(listed(dataset, "nuts")) == (1, 1, 2)


@pytest.mark.parametrize(
    ("gone", "what"),
    [
        ("train/good/000.png", "no normal training images"),
        ("test/good", "no normal test images"),
        ("test/broken_large test/contamination", "no anomalous test images"),
    ],
)
def test_a_category_without_images_of_a_kind_is_an_error(tmp_path, listed, gone, what):
    make_bottle(tmp_path)
    for path in gone.split():
        place = tmp_path / "mvtec_ad" / "bottle" / path
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(DataError, match=f"mvtec_ad/bottle .*{what}"):
        listed(MVTEC_AD, "bottle")


# Head-CT


def test_labels_may_begin_with_a_byte_order_mark(tmp_path, listed):
    make_head_ct(tmp_path)
    before = listed(HEAD_CT, "head_ct")
    labels = tmp_path / "head_ct" / "labels.csv"
    labels.write_bytes(b"\xef\xbb\xbf" + labels.read_bytes())
    assert listed(HEAD_CT, "head_ct") == before


@pytest.mark.parametrize("labels", [True, False])
def test_head_ct_is_split_by_its_numbers(tmp_path, listed, labels):
    make_head_ct(tmp_path, labels)
    listing = listed(HEAD_CT, "head_ct")
    assert counts(listing) == (75, 25, 100)
    by_number = {int(f.path[-7:-4]): f for f in listing.files}
    assert {n for n, f in by_number.items() if f.anomalous} == set(range(100))
    normals = {n for n, f in by_number.items() if f.fold == "test" and not f.anomalous}
    assert normals == HEAD_CT_TEST_NORMALS
    assert {f.defect for f in listing.files} == {"good", "hemorrhage"}


@pytest.mark.parametrize(("line", "name"), [("7,0", "007.png"), ("150,1", "150.png")])
def test_labels_that_disagree_are_an_error_naming_the_file(tmp_path, listed, line, name):
    make_head_ct(tmp_path)
    labels = tmp_path / "head_ct" / "labels.csv"
    number = line.partition(",")[0]
    lines = [line if x.startswith(f"{number},") else x for x in labels.read_text().splitlines()]
    labels.write_text("\n".join(lines))
    with pytest.raises(DataError, match=f"labels.csv disagrees.*{name}"):
        listed(HEAD_CT, "head_ct")


@pytest.mark.parametrize("line", ["x,1", "1", "1,yes", "1,"])
def test_labels_of_another_form_are_an_error_naming_the_file(tmp_path, listed, line):
    make_head_ct(tmp_path)
    (tmp_path / "head_ct" / "labels.csv").write_text(f"id, hemorrhage\n{line}\n")
    with pytest.raises(DataError, match=r"labels.csv does not hold"):
        listed(HEAD_CT, "head_ct")


def test_a_file_without_a_number_in_head_ct_is_an_error_naming_it(tmp_path, listed):
    make_head_ct(tmp_path)
    make(tmp_path / "head_ct", "head_ct/copy.png")
    with pytest.raises(DataError, match=r"copy.png is not one of Head-CT's"):
        listed(HEAD_CT, "head_ct")


# Brain-MRI


def test_brain_mri_is_split_by_its_manifest(tmp_path, listed):
    chosen = sorted(brain_mri_test_normals())
    assert len(chosen) == 26
    make(tmp_path / "brain_mri", *(f"no/{n}" for n in chosen[:2]), "no/other.JPG", "yes/Y1.jpg")
    make(tmp_path / "brain_mri", "brain_tumor_dataset/no/x.jpg", "brain_tumor_dataset/yes/y.jpg")
    listing = listed(BRAIN_MRI, "brain_mri")
    assert {(f.path, f.fold, f.defect) for f in listing.files} == {
        (f"no/{chosen[0]}", "test", "good"),
        (f"no/{chosen[1]}", "test", "good"),
        ("no/other.JPG", "train", "good"),
        ("yes/Y1.jpg", "test", "tumor"),
    }


# What is missing


@pytest.mark.parametrize(
    ("dataset", "category"),
    [(MVTEC_AD, "bottle"), (HEAD_CT, "head_ct"), (BRAIN_MRI, "brain_mri")],
)
def test_missing_data_come_with_the_way_to_obtain_them(tmp_path, listed, dataset, category):
    with pytest.raises(MissingData) as caught:
        listed(dataset, category)
    message = str(caught.value)
    assert dataset.source in message
    assert dataset.remedy(tmp_path) in message
    assert str(tmp_path / dataset.name) in message


@pytest.mark.parametrize("half", ["mvtec_ad/bottle/train/good/0.png", "brain_mri/yes/Y1.jpg"])
def test_half_a_dataset_is_missing(tmp_path, listed, half):
    make(tmp_path, half)
    with pytest.raises(MissingData):
        listed(MVTEC_AD, "bottle")
    with pytest.raises(MissingData):
        listed(BRAIN_MRI, "brain_mri")


# Real data


@pytest.mark.parametrize(
    ("dataset", "category", "expected"),
    [
        (HEAD_CT, "head_ct", (75, 25, 100)),
        (BRAIN_MRI, "brain_mri", (72, 26, 155)),
        (MVTEC_AD, "bottle", (209, 20, 63)),
        (MVTEC_AD, "pill", (267, 26, 141)),
        (MVTEC_AD, "capsule", (219, 15, 109)),
    ],
)
def test_real_categories_have_their_counts(shared, cache, dataset, category, expected):
    assert counts(list_category(dataset, category, shared / "data", cache)) == expected


@pytest.mark.parametrize("dataset", [HEAD_CT, BRAIN_MRI])
def test_real_medical_sets_have_their_official_fingerprint(shared, warm_cache, dataset):
    listing = list_category(dataset, dataset.name, shared / "data", warm_cache)
    assert fingerprint(listing, FingerprintCache(warm_cache)) == dataset.fingerprint


# Names and things that are no files


@pytest.mark.parametrize(
    "name", ["a\nb.png", "a\x1b[31m.png", "a\u2028b.png", b"\xff.png", "a\x85.png", "\x7f.png"]
)
def test_a_name_that_does_not_fit_a_line_is_refused_by_its_repr(tmp_path, listed, name):
    make_bottle(tmp_path)
    folder = tmp_path / "mvtec_ad" / "bottle" / "train" / "good"
    (folder / os.fsdecode(name)).write_bytes(b"")
    with pytest.raises(DataError, match="rename it") as caught:
        listed(MVTEC_AD, "bottle")
    assert repr(f"bottle/train/good/{os.fsdecode(name)}") in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_defect_type_that_does_not_fit_a_line_is_refused(tmp_path, listed):
    make_bottle(tmp_path)
    make(tmp_path / "mvtec_ad" / "bottle", "test/bro\nken/000.png")
    with pytest.raises(DataError, match=r"bro\\nken"):
        listed(MVTEC_AD, "bottle")


@pytest.mark.parametrize(
    "name", [" a.png", "a .png", "ü ñ.png", "照片.png", "a\u202fb.png", "'.png"]
)
def test_unusual_names_are_names(tmp_path, listed, name):
    make_bottle(tmp_path)
    make(tmp_path / "mvtec_ad" / "bottle", f"train/good/{name}")
    assert counts(listed(MVTEC_AD, "bottle")) == (2, 1, 2)


def test_pipes_loops_and_folders_that_are_called_like_images_are_none(tmp_path, listed):
    make_bottle(tmp_path)
    folder = tmp_path / "mvtec_ad" / "bottle" / "train" / "good"
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "nowhere.png").symlink_to("nothing.png")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder.parents[1] / "test" / "pipe")
    (folder.parents[1] / "test" / "loop").symlink_to("loop")
    assert counts(listed(MVTEC_AD, "bottle")) == (1, 1, 2)


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path, listed, monkeypatch):
    make_bottle(tmp_path)

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(DataError, match=r"cannot read .*bottle/train/good: Permission denied"):
        listed(MVTEC_AD, "bottle")


def test_a_file_that_vanishes_or_turns_into_a_pipe_is_one_line(tmp_path, listed, cache):
    make_bottle(tmp_path)
    listing = listed(MVTEC_AD, "bottle")
    path = tmp_path / "mvtec_ad" / "bottle" / "train" / "good" / "000.png"
    path.unlink()
    with pytest.raises(DataError, match=r"000.png: No such file"):
        fingerprint(listing, FingerprintCache(cache))
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"000.png: not a regular file"):
        fingerprint(listing, FingerprintCache(cache))


@pytest.mark.parametrize(
    "content", [b"\xff", b"a\0b", b"id\n1," + b"x" * 200000, b"id\n" + b"9" * 5000 + b",1"]
)
def test_labels_that_are_no_table_are_one_line(tmp_path, listed, content):
    make_head_ct(tmp_path)
    (tmp_path / "head_ct" / "labels.csv").write_bytes(content)
    if content == b"a\0b":
        listed(HEAD_CT, "head_ct")  # a header, and no labels
    else:
        with pytest.raises(DataError, match=r"labels.csv does not hold"):
            listed(HEAD_CT, "head_ct")


@pytest.mark.parametrize("fold", ["train", "test"])
@pytest.mark.parametrize(
    "name",
    [
        *("good_2", "good-old", "good 2", "Good2", "good.bak", "ok_1", "OK2", "okay-2"),
        *("pass", "Passed", "not_defective", "non-defective"),
    ],
)
def test_near_misses_of_good_are_refused(tmp_path, cache, fold, name):
    for folder in ("train/good", "test/good", "test/cut", f"{fold}/{name}"):
        (tmp_path / "nuts" / folder).mkdir(parents=True)
        (tmp_path / "nuts" / folder / "0.png").write_bytes(b"")
    with pytest.raises(DataError) as error:
        list_category(find_dataset("nuts", tmp_path), "nuts", tmp_path, cache)
    path = str(tmp_path / "nuts" / fold / name)
    assert str(error.value) == (
        f"{path!r} would not be read as normal images: rename it to good, or move its images into"
        f" {fold}/good"
    )


@pytest.mark.parametrize("name", ["goodyear", "okra", "passage", "cut_good", "goo", "pass_through"])
def test_defect_types_whose_names_only_begin_like_good_are_read(tmp_path, cache, name):
    for folder in ("train/good", "test/good", f"test/{name}"):
        (tmp_path / "nuts" / folder).mkdir(parents=True)
        (tmp_path / "nuts" / folder / "0.png").write_bytes(b"")
    listing = list_category(find_dataset("nuts", tmp_path), "nuts", tmp_path, cache)
    assert {f.defect for f in listing.files} == {"good", name}


def test_a_dataset_without_categories_is_named_once(tmp_path, cache):
    for folder in ("train/good", "test/good"):
        (tmp_path / "nuts" / folder).mkdir(parents=True)
    with pytest.raises(DataError) as error:
        list_category(find_dataset("nuts", tmp_path), "nuts", tmp_path, cache)
    assert str(error.value) == f"nuts at {tmp_path}/nuts has no normal training images"
