import inspect
import json
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.catalog import BRAIN_MRI, HEAD_CT
from bench.data.layouts import brain_mri_test_normals, list_category
from bench.data.pixel_digests import PixelDigests
from bench.data.splits import DRAWN, draw_manifest, seen_defects, split_category
from bench.errors import DataError, RequestError
from bench.system.digests import FingerprintCache
from tests.campaigns.brain_mri_manifest import make, quarter
from tests.fixtures.datasets import pictures_in

PICTURES = st.integers(0, 40).map("picture {}".format)
ENOUGH = [("a", f"picture {n}") for n in range(DRAWN + 1)] + [("b", "one more")]
ANOMALIES = st.lists(st.tuples(st.sampled_from("abc"), PICTURES), max_size=40).map(ENOUGH.__add__)
SETTINGS = [{}, {"setting": "hard", "seen_defect": "a"}]
NORMALS = st.lists(PICTURES, min_size=1, max_size=20)


CATEGORIES = st.builds(pictures_in, NORMALS, NORMALS, ANOMALIES)
SEEDS = st.integers(0, 1000)


def distinct(n):
    return pictures_in("uvw", "xyz", [("ab"[i % 2], f"p{i}") for i in range(n)])


def split(files, pixels, seed=0, **more):
    return split_category(files, pixels, seed=seed, dataset="parts", category="nut", **more)


# The draw


def test_a_draw_is_golden():
    # Edited only together with every card's data_version: other draws are other runs.
    files, pixels = distinct(30)
    assert [files[i].path for i in split(files, pixels).drawn[:4]] == [
        "test/a/006.png",
        "test/b/011.png",
        "test/a/004.png",
        "test/a/010.png",
    ]


@pytest.mark.parametrize("setting", SETTINGS)
@given(category=CATEGORIES, seed=SEEDS)
def test_ten_anomalies_of_ten_pictures_are_drawn(setting, category, seed):
    files, pixels = category
    drawn = split(files, pixels, seed, **setting).drawn
    assert len(drawn) == DRAWN == len({pixels[i] for i in drawn})
    assert all(files[i].anomalous and files[i].fold == "test" for i in drawn)


@given(CATEGORIES, SEEDS)
def test_a_split_depends_on_nothing_but_files_pictures_and_seed(category, seed):
    assert split(*category, seed) == split(*category, seed)


def test_neither_method_nor_shots_can_touch_a_split():
    assert list(inspect.signature(split_category).parameters) == [
        "files",
        "pixels",
        "seed",
        "dataset",
        "category",
        "setting",
        "seen_defect",
        "draw",
    ]


def test_seeds_datasets_and_categories_have_draws_of_their_own():
    files, pixels = distinct(30)
    draws = {split(files, pixels, seed).drawn for seed in range(20)}
    draws.add(split_category(files, pixels, seed=0, dataset="parts", category="bolt").drawn)
    draws.add(split_category(files, pixels, seed=0, dataset="pieces", category="nut").drawn)
    assert len(draws) == 22


def test_every_anomaly_is_drawn_about_as_often_and_at_every_place():
    files, pixels = distinct(20)
    draws = np.array([split(files, pixels, seed).drawn for seed in range(400)])
    _, often = np.unique(draws, return_counts=True)
    assert len(often) == 20
    assert 150 <= often.min() <= often.max() <= 250
    assert all(len(np.unique(draws[:, place])) == 20 for place in range(DRAWN))


def test_the_manifest_lists_the_draw_in_its_order():
    files, pixels = distinct(30)
    drawn = split(files, pixels)
    manifest = draw_manifest(drawn, files, pixels)
    assert [m["file"] for m in manifest] == [files[i].path for i in drawn.drawn]
    assert [m["pixels_sha256"] for m in manifest] == [pixels[i] for i in drawn.drawn]
    assert all(m["file"].startswith(f"test/{m['defect']}/") for m in manifest)


# Training and test


@pytest.mark.parametrize("setting", SETTINGS)
@given(category=CATEGORIES, seed=SEEDS)
def test_no_picture_is_both_trained_on_and_tested(setting, category, seed):
    _, pixels = category
    found = split(*category, seed, **setting)
    tested = {pixels[i] for i, r in zip(found.tested, found.role, strict=True) if r == "test"}
    assert tested.isdisjoint(pixels[i] for i in found.train_normal)
    assert tested.isdisjoint(pixels[i] for i in found.drawn)
    assert {pixels[i] for i in found.drawn}.isdisjoint(pixels[i] for i in found.train_normal)


@given(CATEGORIES, SEEDS)
def test_every_file_is_trained_on_left_out_or_scored(category, seed):
    files, _ = category
    found = split(*category, seed)
    parts = [*found.train_normal, *found.left_out, *found.tested]
    assert sorted(parts) == list(range(len(files)))
    assert [i for i, f in enumerate(files) if f.fold == "test"] == list(found.tested)


@given(CATEGORIES, SEEDS)
def test_a_training_normal_is_left_out_only_if_the_test_fold_shows_it(category, seed):
    _, pixels = category
    found = split(*category, seed)
    shown = {pixels[i] for i in found.tested}
    assert all(pixels[i] in shown for i in found.left_out)
    assert all(pixels[i] not in shown for i in found.train_normal)


@pytest.mark.parametrize("setting", SETTINGS)
@given(category=CATEGORIES, seed=SEEDS)
def test_a_role_says_why_a_file_does_not_count(setting, category, seed):
    files, pixels = category
    found = split(*category, seed, **setting)
    drawn = {pixels[i] for i in found.drawn}
    for i, role in zip(found.tested, found.role, strict=True):
        assert (role == "drawn") == (i in found.drawn)
        assert (role == "duplicate") == (pixels[i] in drawn and i not in found.drawn)
        if role == "seen":
            assert files[i].defect == setting["seen_defect"]
        if role == "test":
            assert files[i].defect != setting.get("seen_defect")
    assert found.counted().tolist() == [r == "test" for r in found.role]


@pytest.mark.parametrize("n", [1, 9, 10])
def test_a_category_with_too_few_anomalies_is_an_error(n):
    with pytest.raises(DataError, match=f"parts/nut has {n} anomalies"):
        split(*distinct(n))


def test_eleven_anomalies_of_ten_pictures_are_too_few():
    files, pixels = pictures_in("u", "v", [("a", f"p{i % 10}") for i in range(11)])
    with pytest.raises(DataError, match="parts/nut has 11 anomalies"):
        split(files, pixels)


def test_eleven_anomalies_are_enough():
    assert split(*distinct(11)).role.count("test") == 3 + 1


@pytest.mark.parametrize("draw", [0, 1, 5, 9])
def test_a_smaller_draw_holds_the_first_of_the_usual_one(draw):
    few, usual = split(*distinct(20), draw=draw), split(*distinct(20))
    assert few.drawn == usual.drawn[:draw]
    assert few.role.count("test") == usual.role.count("test") + 10 - draw
    assert split(*distinct(draw + 1), draw=draw).role.count("test") == 3 + 1


def test_an_unknown_setting_is_refused():
    with pytest.raises(RequestError, match="general, hard, not 'soft'"):
        split(*distinct(30), setting="soft")


# The hard setting


def test_the_hard_setting_draws_from_one_defect_type_and_tests_on_the_others():
    files, pixels = distinct(40)
    found = split(files, pixels, setting="hard", seen_defect="a")
    assert {files[i].defect for i in found.drawn} == {"a"}
    counted = {files[i].defect for i in np.array(found.tested)[found.counted()]}
    assert counted == {"good", "b"}
    assert found.role.count("seen") == 10


@pytest.mark.parametrize("defect", [None, "good", "c"])
def test_a_defect_type_that_cannot_be_the_seen_one_is_refused_with_those_that_can(defect):
    with pytest.raises(RequestError, match=f"{defect!r}; possible: a, b"):
        split(*distinct(40), setting="hard", seen_defect=defect)


def test_a_seen_defect_has_ten_images_and_is_not_the_only_type():
    types = [("a", 10), ("b", 9), ("c", 11)]
    files, _ = pictures_in("u", "v", [(d, f"{d}{i}") for d, n in types for i in range(n)])
    assert seen_defects(files) == ["a", "c"]
    files, _ = pictures_in("u", "v", [("a", f"p{i}") for i in range(30)])
    assert seen_defects(files) == []


def test_a_seen_defect_with_ten_images_of_fewer_pictures_is_an_error():
    anomalies = [("a", f"p{i % 9}") for i in range(10)] + [("b", f"q{i}") for i in range(10)]
    with pytest.raises((DataError, RequestError)):
        split(*pictures_in("u", "v", anomalies), setting="hard", seen_defect="a")


# Groups


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40))
def test_a_group_split_keeps_equal_pictures_together_and_takes_a_quarter_of_them(pixels):
    names = [f"{i:03d}" for i in range(len(pixels))]
    shown = [str(p) for p in pixels]
    chosen = quarter(names, shown)
    assert chosen == sorted(set(chosen))
    inside = {shown[names.index(c)] for c in chosen}
    assert len(inside) == round(len(set(shown)) / 4)
    assert all((p in inside) == (name in chosen) for name, p in zip(names, shown, strict=True))


@given(st.permutations([(f"{i:02d}", str(i % 7)) for i in range(20)]))
def test_a_group_split_does_not_depend_on_the_order_of_the_names(pairs):
    names, pixels = zip(*pairs, strict=True)
    ordered = sorted(pairs)
    assert quarter(names, pixels) == quarter(*zip(*ordered, strict=True))


# Real data


@pytest.fixture(scope="module")
def real(shared, warm_cache):
    def category(dataset):
        listing = list_category(dataset, dataset.name, shared / "data", warm_cache)
        known = PixelDigests(warm_cache, FingerprintCache(warm_cache))
        return listing, known.pictures_of(dataset.name, listing, dataset.fingerprint)

    return category


def test_head_ct_leaves_its_leaks_out_of_training(real):
    listing, shown = real(HEAD_CT)
    found = split_category(listing.files, shown, seed=0, dataset="head_ct", category="head_ct")
    left = [listing.files[i].path for i in found.left_out]
    assert left == ["head_ct/148.png", "head_ct/186.png", "head_ct/189.png"]
    assert len(found.train_normal) == 72
    assert found.role.count("test") == 25 + 90 - found.role.count("duplicate")


def test_brain_mri_has_199_pictures_and_leaves_copies_of_the_draw_out_of_the_test(real):
    listing, shown = real(BRAIN_MRI)
    assert len(set(shown)) == 199
    splits = [
        split_category(listing.files, shown, seed=s, dataset="brain_mri", category="brain_mri")
        for s in range(100)
    ]
    assert all(s.left_out == () for s in splits)
    assert 95 <= sum("duplicate" in s.role for s in splits) <= 100


def test_the_manifest_of_brain_mri_is_made_again_from_the_images(shared):
    text = resources.files("bench.data").joinpath("manifests/brain_mri.json").read_text("utf-8")
    manifest = make(shared / "data" / "brain_mri")
    assert json.loads(text) == manifest
    assert {f"no/{name}" for name in brain_mri_test_normals()} == {*manifest["test_normals"]}
