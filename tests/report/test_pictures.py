"""Pictures of images: only what a run has seen, and only what the category consists of."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import synthetic
from bench.data.catalog import SYNTHETIC, find_dataset
from bench.data.layouts import list_category
from bench.data.listing import fingerprint
from bench.data.masks import find_masks, read_mask
from bench.report.pictures import EMBEDDED, Pictures
from bench.system.digests import FingerprintCache
from tests.fixtures.runs import tree


@pytest.fixture
def data(tmp_path):
    """A category of one's own in MVTec's layout."""
    for i, name in enumerate(("train/good/0", "test/good/0", "test/hole/0", "ground_truth/hole/0")):
        path = tmp_path / "data" / "own" / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 6), (40 * i, 0, 0)).save(path)
    (tmp_path / "data" / "secret.png").write_bytes((path).read_bytes())
    return tmp_path / "data"


def content_of(data, cache, name="own"):
    listing = list_category(find_dataset(name, data), name, data, cache)
    return fingerprint(listing, FingerprintCache(cache))


@pytest.mark.parametrize("category", sorted(SYNTHETIC.categories))
def test_the_embedded_dataset_is_drawn_as_it_was_tested(category, warm_cache):
    listing = list_category(SYNTHETIC, category, Path("nowhere"), warm_cache)
    content = fingerprint(listing, FingerprintCache(warm_cache))
    assert EMBEDDED[category] == content
    pictures = Pictures(None)
    for file in listing.files[::23]:
        found = pictures.picture("synthetic", category, file.path, content)
        with Image.open(listing.root / file.path) as there:
            assert np.array_equal(np.asarray(found), np.asarray(there.convert("RGB"))), file.path
        mask = pictures.mask("synthetic", category, file.path, content)
        assert (mask is not None) == file.anomalous, file.path
        for stored in find_masks(listing.root, [file]):
            assert np.array_equal(np.asarray(mask) > 0, read_mask(stored, mask.size))


@pytest.mark.parametrize(
    "file",
    ["weave/test/good/032.bmp", "weave/test/cut/032.bmp", "weave/train/cut/000.bmp",
     "weave/test/hole/000.bmp", "washer/test/good/000.bmp", "weave/test/good/0.bmp",
     "../weave/test/good/000.bmp", "weave/test/good/000.bmp\n"],
)  # fmt: skip
def test_the_embedded_dataset_has_no_other_images(file):
    assert Pictures(None).picture("synthetic", "weave", file, EMBEDDED["weave"]) is None


def test_runs_on_another_version_of_the_embedded_dataset_have_no_pictures():
    assert Pictures(None).picture("synthetic", "weave", "weave/test/good/000.bmp", "f" * 64) is None
    assert synthetic.SYNTHETIC_VERSION == 1, "the fingerprints in bench.report.pictures change too"


def test_an_image_comes_from_the_data_folder_where_its_content_is_the_run_s(data, cache):
    content = content_of(data, cache)
    found = Pictures(data, cache).picture("own", "own", "test/hole/0.png", content)
    assert (found.size, found.mode, found.getpixel((0, 0))) == ((8, 6), "RGB", (80, 0, 0))
    assert Pictures(data, cache).picture("own", "own", "test/hole/0.png", "f" * 64) is None
    mask = Pictures(data, cache).mask("own", "own", "test/hole/0.png", content)
    assert (mask.size, np.asarray(mask).all()) == ((8, 6), True)
    assert Pictures(data, cache).mask("own", "own", "test/good/0.png", content) is None
    assert Pictures(data, cache).mask("own", "own", "test/hole/0.png", "f" * 64) is None
    Image.new("RGB", (6, 8), "white").save(data / "own" / "ground_truth" / "hole" / "0.png")
    assert Pictures(data, cache).mask("own", "own", "test/hole/0.png", content) is None, "its shape"
    Image.new("RGB", (8, 6), "white").save(data / "own" / "train" / "good" / "0.png")
    assert Pictures(data, cache).picture("own", "own", "test/hole/0.png", content) is None


@pytest.mark.parametrize(
    ("dataset", "category", "file"),
    [("own", "own", "../secret.png"), ("own", "own", "ground_truth/hole/0.png"),
     ("own", "own", "/etc/passwd"), ("own", "../own", "test/hole/0.png"),
     ("..", "data", "own/test/hole/0.png"), ("mvtec_ad", "bottle", "bottle/test/good/0.png"),
     ("own", "own (hard, hole)", "test/hole/0.png")],
)  # fmt: skip
def test_names_in_a_receipt_lead_nowhere_else(data, cache, dataset, category, file):
    assert Pictures(data, cache).picture(dataset, category, file, content_of(data, cache)) is None


def test_without_data_or_with_a_damaged_file_there_is_no_picture(data, cache):
    assert Pictures(None).picture("own", "own", "test/hole/0.png", content_of(data, cache)) is None
    (data / "own" / "test" / "hole" / "0.png").write_bytes(b"\x89PNG")
    content = content_of(data, cache)
    assert Pictures(data, cache).picture("own", "own", "test/hole/0.png", content) is None


def test_looking_writes_nothing(data, cache):
    before, content = tree(data), content_of(data, cache)
    Pictures(data, cache).picture("own", "own", "test/hole/0.png", content)
    assert tree(data) == before
    assert not cache.exists()


def test_an_older_run_that_saw_an_image_on_its_side_has_no_picture_of_it(data, cache):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(data / "own" / "test" / "hole" / "0.png", exif=exif)
    content, pictures = content_of(data, cache), Pictures(data, cache)
    found = pictures.picture("own", "own", "test/hole/0.png", content, 2)
    assert found.size == (6, 8)
    assert pictures.picture("own", "own", "test/hole/0.png", content, 1) is None
    assert pictures.picture("own", "own", "test/good/0.png", content, 1) is not None
