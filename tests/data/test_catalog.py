import pytest

from bench.data.catalog import (
    BRAIN_MRI,
    DATASETS,
    HEAD_CT,
    MVTEC_AD,
    SYNTHETIC,
    find_dataset,
    find_datasets,
    unlisted_datasets,
)
from bench.errors import MissingData, RequestError


def make(folder):
    (folder / "train" / "good").mkdir(parents=True)


def test_mvtec_ad_has_the_counts_of_its_paper():
    facts = MVTEC_AD.categories.values()
    assert len(facts) == 15
    assert sum(f.train for f in facts) == 3629
    assert sum(f.test_normal for f in facts) == 467
    assert sum(f.test_anomalous for f in facts) == 1258
    assert sum(f.defect_types for f in facts) == 73
    assert sum(f.images for f in facts) == 5354


def test_defect_types_of_mvtec_ad_add_up_to_the_totals_of_its_paper():
    """Anomalous test images and defect types: Bergmann et al., CVPR 2019, Table 1."""
    facts = MVTEC_AD.categories
    assert {c: (sum(f.defects.values()), len(f.defects)) for c, f in facts.items()} == {
        "carpet": (89, 5),
        "grid": (57, 5),
        "leather": (92, 5),
        "tile": (84, 5),
        "wood": (60, 5),
        "bottle": (63, 3),
        "cable": (92, 8),
        "capsule": (109, 5),
        "hazelnut": (70, 4),
        "metal_nut": (93, 4),
        "pill": (141, 7),
        "screw": (119, 5),
        "toothbrush": (30, 1),
        "transistor": (40, 4),
        "zipper": (119, 7),
    }


def test_the_medical_sets_have_the_counts_of_the_protocol():
    head, brain = HEAD_CT.categories["head_ct"], BRAIN_MRI.categories["brain_mri"]
    assert (head.train, head.test_normal, head.test_anomalous) == (75, 25, 100)
    assert (brain.train, brain.test_normal, brain.test_anomalous) == (72, 26, 155)


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_a_card_says_where_the_data_come_from_and_under_which_licence(dataset):
    assert DATASETS[dataset.name] is dataset
    assert dataset.licence
    assert dataset.source
    assert dataset.licence_url or dataset is SYNTHETIC
    assert dataset.place or dataset is SYNTHETIC


@pytest.mark.parametrize("name", DATASETS)
def test_a_known_dataset_needs_no_folder(tmp_path, name):
    assert find_dataset(name, tmp_path / "nowhere").name == name


def test_a_folder_of_categories_in_mvtec_layout_is_a_dataset(tmp_path):
    for category in ("nut", "bolt_2"):
        make(tmp_path / "parts" / category)
    (tmp_path / "parts" / "notes").mkdir()
    (tmp_path / "parts" / "readme.txt").write_text("")
    found = find_dataset("parts", tmp_path)
    assert list(found.categories) == ["bolt_2", "nut"]
    assert (found.layout, found.folder) == ("mvtec", tmp_path / "parts")


def test_every_card_has_a_data_version_of_its_own(tmp_path):
    make(tmp_path / "nuts")
    assert {name: dataset.data_version for name, dataset in DATASETS.items()} == {
        "mvtec_ad": 1,
        "brain_mri": 3,
        "head_ct": 3,
        "synthetic": 1,
    }
    assert find_dataset("nuts", tmp_path).data_version == 2


def test_a_folder_without_categories_is_its_own_category(tmp_path):
    make(tmp_path / "nuts")
    assert list(find_dataset("nuts", tmp_path).categories) == ["nuts"]


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "Parts", "a b", "-a", "a\n", "ä", "."])
def test_a_bad_dataset_name_is_refused(tmp_path, name):
    with pytest.raises(RequestError, match="may hold only"):
        find_dataset(name, tmp_path)


def test_a_bad_category_name_is_refused_by_folder(tmp_path):
    make(tmp_path / "parts" / "Metal Nut")
    with pytest.raises(RequestError, match="parts/Metal Nut may hold only"):
        find_dataset("parts", tmp_path)


def test_an_unknown_dataset_is_missing_with_the_names_there_are(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, said in (("nowhere", "there is no folder"), ("empty", "holds no train/good")):
        with pytest.raises(
            MissingData, match=f"'{name}'.*mvtec_ad.*head_ct.*{tmp_path / name}"
        ) as e:
            find_dataset(name, tmp_path)
        assert said in str(e.value)


def test_all_datasets_are_the_known_ones_and_what_lies_beside_them(tmp_path):
    make(tmp_path / "nuts")
    make(tmp_path / "mvtec_ad" / "bottle")
    make(tmp_path / "parts" / "Metal Nut")
    make(tmp_path / "Bad Name")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert [d.name for d in find_datasets(tmp_path)] == [*DATASETS, "nuts"]
    assert [d.name for d in find_datasets(tmp_path / "nowhere")] == list(DATASETS)
    bad_dataset, empty, bad_category = unlisted_datasets(tmp_path)
    assert empty.startswith(f"not listed: {tmp_path}/empty: it holds no train/good")
    assert bad_dataset.startswith(f"not listed: {tmp_path}/Bad Name: dataset name 'Bad Name' may")
    assert bad_category.startswith(f"not listed: {tmp_path}/parts: category folder")
    assert unlisted_datasets(tmp_path / "nowhere") == []


def test_a_folder_that_cannot_be_listed_hides_no_known_dataset(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.listdir", forbidden)
    assert [d.name for d in find_datasets(tmp_path)] == list(DATASETS)
