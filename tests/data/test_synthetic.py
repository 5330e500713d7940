import os
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import synthetic
from bench.data.catalog import SYNTHETIC
from bench.data.layouts import list_category
from bench.data.listing import fingerprint
from bench.data.synthetic import (
    CATEGORIES,
    DIGESTS,
    SIZE,
    SYNTHETIC_VERSION,
    content_digest,
    generated,
    render_picture,
)
from bench.errors import DataError, StoreError
from bench.system.digests import SETTLED, FingerprintCache

DEFECTS = [(category, defect) for category in CATEGORIES for defect in CATEGORIES[category][1]]


@pytest.fixture(scope="module")
def folder(warm_cache):
    return generated(warm_cache)


def opened(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_there_are_four_categories_with_three_defect_types_each():
    assert CATEGORIES.keys() == SYNTHETIC.categories.keys()
    assert len(CATEGORIES) == 4
    for category, (_, defects) in CATEGORIES.items():
        assert len(defects) == SYNTHETIC.categories[category].defect_types == 3
        assert list(defects) == list(SYNTHETIC.categories[category].defects)


@pytest.mark.parametrize(("category", "defect"), [*DEFECTS, *((c, "good") for c in CATEGORIES)])
def test_a_picture_is_the_same_bytes_every_time_and_others_are_not(category, defect):
    pixels, mask = render_picture(category, defect, 3)
    np.random.seed(0)  # the global generator has no say
    again, mask_again = render_picture(category, defect, 3)
    assert pixels.tobytes() == again.tobytes()
    assert mask.tobytes() == mask_again.tobytes()
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == mask.dtype == np.uint8
    assert pixels.tobytes() != render_picture(category, defect, 4)[0].tobytes()


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_good_picture_has_an_empty_mask(category):
    assert not render_picture(category, "good", 0)[1].any()


@pytest.mark.parametrize(("category", "defect"), DEFECTS)
def test_a_defect_changes_the_picture_inside_its_mask_and_nowhere_else(category, defect):
    normal, defects = CATEGORIES[category]
    for index in range(3):
        random = np.random.RandomState([SYNTHETIC_VERSION, 7, index])
        picture = normal(random)
        rgb, cover = defects[defect](random, picture)
        changed = np.abs(rgb - picture.rgb).max(axis=2)
        assert changed[cover > 0.5].mean() > 0.01
        assert (changed[cover == 0] == 0).all()
        assert (picture.inside[cover > 0.5] > 0).all()


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_category_has_the_files_that_the_catalogue_says(folder, warm_cache, category):
    facts = SYNTHETIC.categories[category]
    files = list_category(SYNTHETIC, category, folder / "elsewhere", warm_cache).files
    assert sum(f.fold == "train" for f in files) == facts.train
    assert sum(f.fold == "test" and not f.anomalous for f in files) == facts.test_normal
    assert sum(f.anomalous for f in files) == facts.test_anomalous
    assert len({f.defect for f in files if f.anomalous}) == facts.defect_types
    assert opened(folder / files[0].path).shape == (facts.native_size, facts.native_size, 3)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_defect_has_a_mask_that_is_neither_empty_nor_most_of_the_picture(folder, category):
    pictures = [p for p in (folder / category / "test").rglob("*.bmp") if p.parent.name != "good"]
    assert len(pictures) == SYNTHETIC.categories[category].test_anomalous
    for path in pictures:
        mask = folder / category / "ground_truth" / path.parent.name / f"{path.stem}_mask.bmp"
        values = opened(mask)
        assert set(np.unique(values)) == {0, 255}
        assert 20 <= (values > 0).sum() <= SIZE * SIZE / 6
    assert not (folder / category / "ground_truth" / "good").exists()


def test_no_two_pictures_are_the_same(folder):
    digests = FingerprintCache(folder / "none")
    pictures = [p for p in folder.rglob("*.bmp") if "ground_truth" not in p.parts]
    assert len(pictures) == 4 * (64 + 32 + 96)
    often = Counter(digests.sha256(p) for p in pictures)
    assert set(often.values()) == {1}


def test_the_files_are_what_render_gives(folder):
    saved = opened(folder / "washer" / "test" / "good" / "002.bmp")
    np.testing.assert_array_equal(saved, render_picture("washer", "good", 64 + 2)[0])
    saved = opened(folder / "weave" / "test" / "cut" / "005.bmp")
    np.testing.assert_array_equal(saved, render_picture("weave", "cut", 5)[0])


def test_categories_have_fingerprints_of_their_own(folder, warm_cache):
    digests = FingerprintCache(warm_cache)
    listings = [list_category(SYNTHETIC, c, folder, warm_cache) for c in CATEGORIES]
    assert len({fingerprint(x, digests) for x in listings}) == 4


# Making the files


def few(folder, category):
    synthetic._save(folder / "000.bmp", np.zeros((4, 4, 3), np.uint8))


@pytest.fixture
def small(cache, monkeypatch, tmp_path):
    """Let each category be one small picture, and that be right."""
    monkeypatch.setattr(synthetic, "_write_category", few)
    few(tmp_path / "one", "")
    digest = content_digest(tmp_path / "one", FingerprintCache(cache / "none"))
    monkeypatch.setattr(synthetic, "DIGESTS", dict.fromkeys(CATEGORIES, digest))


def test_every_machine_generates_the_same_content(folder, warm_cache):
    """Never edit DIGESTS: where pictures change, SYNTHETIC_VERSION rises."""
    digests = FingerprintCache(warm_cache)
    assert {c: content_digest(folder / c, digests) for c in CATEGORIES} == DIGESTS
    assert DIGESTS["weave"][:16] == "395745003f358cd0"


def test_the_files_are_made_once(cache, monkeypatch, small):
    folder = generated(cache)
    assert {p.name for p in folder.iterdir()} == CATEGORIES.keys()
    monkeypatch.setattr(synthetic, "_write_category", None)
    assert generated(cache) == folder
    assert generated(cache, "weave") == folder


def flip(folder):
    file = folder / "test" / "good" / "003.bmp"
    stat, content = file.stat(), bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def truncate(folder):
    os.truncate(folder / "train" / "good" / "000.bmp", 1000)


def delete(folder):
    (folder / "test" / "good" / "000.bmp").unlink()


def swap(folder):
    one, other = folder / "train" / "good" / "000.bmp", folder / "test" / "good" / "000.bmp"
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)


def add(folder):
    shutil.copy(folder / "train/good/000.bmp", folder / "train/good/999.bmp")


def misname(folder):
    (folder / os.fsdecode(b"\xff.bmp")).write_bytes(b"")


def block(folder):
    delete(folder)
    os.mkfifo(folder / "test" / "good" / "000.bmp")


def clear(folder):
    shutil.rmtree(folder)


def replace(folder):
    clear(folder)
    folder.write_text("")


def lose_a_mask(folder):
    next((folder / "ground_truth").rglob("*.bmp")).unlink()


@pytest.mark.parametrize(
    "damage", [flip, truncate, delete, swap, add, misname, block, clear, replace, lose_a_mask]
)
def test_what_is_damaged_is_made_again_by_the_same_call(warm_cache, folder, damage, monkeypatch):
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * SETTLED)  # digests are kept
    generated(warm_cache)
    damage(folder / "pellet")
    files = list_category(SYNTHETIC, "pellet", folder, warm_cache)
    digests = FingerprintCache(warm_cache)
    assert fingerprint(files, digests)[:16] == "ba5adec3ad1fa7e8"
    assert content_digest(folder / "pellet", digests) == DIGESTS["pellet"]


def test_a_machine_that_draws_other_pictures_says_so(cache, monkeypatch, small):
    monkeypatch.setattr(synthetic, "DIGESTS", dict.fromkeys(CATEGORIES, "0" * 64))
    with pytest.raises(DataError, match=r"synthetic/weave comes out different .* numpy"):
        generated(cache)


@pytest.mark.parametrize("step", ["rename", "makedirs"])
def test_a_disk_that_is_full_leaves_no_half_made_dataset(cache, monkeypatch, step):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic, "_write_category", few if step == "rename" else full)
    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(StoreError, match=r"cannot write to the cache .*No space left"):
        generated(cache)
    assert [p for p in (cache / "datasets").rglob("*") if p.is_file()] == []


def test_a_faster_process_is_no_error(cache, monkeypatch, small):
    folder = cache / "datasets" / f"synthetic-v{SYNTHETIC_VERSION}"
    real = os.path.lexists

    def late(path):
        there = real(path)
        few(folder / Path(path).name, "")  # between the look and the rename
        return there

    monkeypatch.setattr(os.path, "lexists", late)
    assert generated(cache) == folder
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_cache_that_cannot_be_written_is_an_error_of_the_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write to the cache"):
        generated(tmp_path / "file")
