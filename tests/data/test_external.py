import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import external
from bench.data.external import PER_CATEGORY, TILES, check_apart, find_external, load_external
from bench.data.images import prepare
from bench.data.listing import File, Listing
from bench.errors import DataError, MissingData
from bench.system.digests import FingerprintCache
from tests.fixtures.command import Bench


def find(source, dataset, category, folder, textures=None):
    digests = FingerprintCache(folder / "cache")
    return find_external(source, dataset, category, folder, folder / "cache", digests, textures)


@pytest.fixture
def mvtec(tmp_path):
    """Three categories in MVTec AD's layout, each image of a grey of its own."""
    grey = 0
    for category, normals in (("bottle", 40), ("cable", 3), ("zipper", 33)):
        for place, count in (("train/good", normals), ("test/good", 2), ("test/broken", 2)):
            folder = tmp_path / "mvtec_ad" / category / place
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("L", (8, 8), grey % 256).save(folder / f"{i:03d}.png")
                grey += 1
    return tmp_path


def test_none_is_none(tmp_path):
    assert find("none", "head_ct", "head_ct", tmp_path) is None


def test_other_categories_give_normal_training_images_and_nothing_else(mvtec):
    found = find("mvtec_ad", "mvtec_ad", "bottle", mvtec)
    paths = [f.path for f in found.listing.files]
    assert {p.rpartition("/")[0] for p in paths} == {"cable/train/good", "zipper/train/good"}
    assert len(paths) == len(set(paths)) == 3 + PER_CATEGORY
    assert paths == sorted(paths)
    assert all((found.listing.root / p).is_file() for p in paths)


def test_they_are_spread_evenly_over_a_category(mvtec):
    taken = [
        int(Path(f.path).stem)
        for f in find("mvtec_ad", "head_ct", "head_ct", mvtec).listing.files
        if f.path.startswith("bottle")
    ]
    assert (taken[0], taken[-1], len(taken)) == (0, 39, PER_CATEGORY)
    assert set(np.diff(taken)) == {1, 2}


def test_a_changed_image_changes_the_identity(mvtec):
    before = find("mvtec_ad", "mvtec_ad", "bottle", mvtec).identity
    assert before.startswith("mvtec_ad:")
    assert find("mvtec_ad", "mvtec_ad", "bottle", mvtec).identity == before
    Image.new("L", (9, 9)).save(mvtec / "mvtec_ad/cable/train/good/001.png")
    assert find("mvtec_ad", "mvtec_ad", "bottle", mvtec).identity != before


def test_without_another_category_the_remedy_is_said(tmp_path):
    with pytest.raises(MissingData, match=r"no other category of mvtec_ad.*external=textures"):
        find("mvtec_ad", "mvtec_ad", "bottle", tmp_path)


def test_without_scikit_image_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(external.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingData, match="pip install scikit-image"):
        find("textures", "head_ct", "head_ct", tmp_path)


def test_the_tiles_of_a_texture_put_together_are_the_texture(tmp_path):
    found = find("textures", "head_ct", "head_ct", tmp_path)
    side = found.prepared_size(20)
    folder = prepare(found.listing, found.fingerprint, tmp_path / "cache", side)
    tiles = load_external(folder, 20)
    assert tiles.shape == (3 * TILES**2, 3, 20, 20)
    rows = tiles[: TILES**2].reshape(TILES, TILES, 3, 20, 20)
    whole = rows.transpose(2, 0, 3, 1, 4).reshape(3, side, side)
    with Image.open(found.listing.root / found.listing.files[0].path) as image:
        resized = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    assert np.array_equal(whole, np.asarray(resized).transpose(2, 0, 1))
    assert min(tile.std() for tile in tiles) > 1  # none of them is blank


def test_a_size_that_tiles_do_not_fill_is_refused(tmp_path):
    found = find("textures", "head_ct", "head_ct", tmp_path)
    folder = prepare(found.listing, found.fingerprint, tmp_path / "cache", 30)
    with pytest.raises(DataError, match="holds images of 30 px, for 20 px"):
        load_external(folder, 20)


@pytest.fixture
def dtd(tmp_path):
    """A folder of textures of several sizes, in folders of its own, beside what is none."""
    folder = tmp_path / "dtd"
    for i, kind in enumerate(("woven", "banded", "woven", "dotted")):
        (folder / "images" / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9 + i, 7), (i, 2 * i, 3 * i)).save(folder / "images" / kind / f"{i}.png")
    (folder / "labels.txt").write_text("not an image")
    (folder / "images" / "._0.png").write_bytes(b"nor this")
    (folder / ".thumbnails").mkdir()
    Image.new("L", (3, 3)).save(folder / ".thumbnails" / "0.png")
    return folder


def test_a_folder_of_textures_takes_the_place_of_those_of_scikit_image(dtd, tmp_path):
    found = find("textures", "head_ct", "head_ct", tmp_path, dtd)
    paths = [f.path for f in found.listing.files]
    assert paths == [
        "images/banded/1.png",
        "images/dotted/3.png",
        "images/woven/0.png",
        "images/woven/2.png",
    ]
    assert found.identity == f"dtd:{found.fingerprint}"
    folder = prepare(found.listing, found.fingerprint, tmp_path / "cache", found.prepared_size(20))
    images = load_external(folder, 20)
    assert images[:, :, 5, 5].tolist() == [[i, 2 * i, 3 * i] for i in (1, 3, 0, 2)]
    assert find("none", "head_ct", "head_ct", tmp_path, dtd) is None
    before = found.identity
    Image.new("L", (9, 9)).save(dtd / "images" / "woven" / "0.png")
    assert find("textures", "head_ct", "head_ct", tmp_path, dtd).identity != before


def test_textures_that_exif_turns_have_another_identity_than_in_older_runs(dtd, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 7)).save(dtd / "images" / "woven" / "0.png", exif=exif)
    found = find("textures", "head_ct", "head_ct", tmp_path, dtd)
    assert found.identity == f"dtd:{found.fingerprint}:turned"
    assert found.listing.data_version == 2


def test_of_many_textures_some_are_taken(dtd, tmp_path, monkeypatch):
    monkeypatch.setattr(external, "PER_FOLDER", 2)
    found = find("textures", "head_ct", "head_ct", tmp_path, dtd)
    assert [f.path for f in found.listing.files] == ["images/banded/1.png", "images/woven/2.png"]


def test_a_folder_that_cannot_serve_as_textures_is_refused_in_one_line(tmp_path):
    (tmp_path / "head_ct" / "test").mkdir(parents=True)
    for name, said in (
        ("head_ct", "test images are among them"),
        ("head_ct/test", "test images are among them"),
        ("absent", "there is no folder"),
        ("empty", "no images in"),
        ("textures", "rename it"),
        ("a:b", "hold a colon"),
        ("a\nb", "rename it"),
    ):
        if name != "absent":
            (tmp_path / name).mkdir(exist_ok=True)
        with pytest.raises(DataError, match=said) as error:
            find("textures", "head_ct", "head_ct", tmp_path, tmp_path / name)
        assert "\n" not in str(error.value)


def linked_folder(data, store, textures):
    """The dataset's folder itself, by a link."""
    textures.symlink_to(data / "cable" / "test")


def linked_image(data, store, textures):
    """A link to an image among others."""
    textures.mkdir()
    (textures / "mine.png").symlink_to(data / "cable/test/good/001.png")


def second_name(data, store, textures):
    """A second name of an image's file."""
    textures.mkdir()
    (textures / "mine.png").hardlink_to(data / "cable/test/good/001.png")


def stored_elsewhere(data, store, textures):
    """Where a link of the dataset leads."""
    (data / "zipper" / "test").rename(store / "test")
    (data / "zipper" / "test").symlink_to(store / "test")
    (store / "test" / "again").symlink_to(store / "test")  # without an end
    textures.symlink_to(store / "test")


@pytest.mark.parametrize("link", [linked_folder, linked_image, second_name, stored_elsewhere])
def test_links_to_the_dataset_itself_are_no_textures(mvtec, tmp_path, link):
    store, textures = tmp_path / "store", tmp_path / "mine"
    store.mkdir()
    link(mvtec / "mvtec_ad", store, textures)
    with pytest.raises(DataError, match=r"mine: test images are among them, of mvtec_ad") as error:
        find("textures", "mvtec_ad", "cable", mvtec, textures)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("copied", "problem"),
    [
        ("cable/test/good/001.png", "test images are among them, of mvtec_ad: sub/mine.PNG is"),
        ("zipper/train/good/003.png", "images of mvtec_ad are among them: sub/mine.PNG is"),
    ],
)
def test_a_copy_of_an_image_of_the_dataset_is_no_texture(mvtec, dtd, copied, problem):
    (dtd / "sub").mkdir()
    shutil.copy(mvtec / "mvtec_ad" / copied, dtd / "sub" / "mine.PNG")
    with pytest.raises(DataError) as error:
        find("textures", "mvtec_ad", "cable", mvtec, dtd)
    assert str(error.value) == f"textures of {dtd}: {problem} {copied}"


@pytest.mark.parametrize(
    ("fold", "problem"),
    [("test", "test images are among them, of nuts"), ("train", "images of nuts are among them")],
)
def test_the_pixels_of_the_dataset_are_no_texture(dtd, tmp_path, fold, problem):
    """Saved once more, an image has other bytes and shows the same."""
    own = Listing(tmp_path, (File(f"{fold}/good/0.png", fold, "good"),))
    textures = find("textures", "nuts", "nuts", tmp_path, dtd)
    check_apart(textures, ["a", "b", "c", "d"], own, ["e"], "nuts")
    with pytest.raises(DataError) as error:
        check_apart(textures, ["a", "b", "c", "d"], own, ["c"], "nuts")
    assert str(error.value) == (
        f"textures of {dtd}: {problem}: images/woven/0.png shows {fold}/good/0.png"
    )


def test_a_folder_of_training_images_is_not_called_test_images(mvtec):
    normal = mvtec / "mvtec_ad/cable/train/good"
    with pytest.raises(DataError, match=r"good: images of mvtec_ad are among them$"):
        find("textures", "mvtec_ad", "cable", mvtec, normal)


def test_a_plan_compares_the_pixels_of_textures(tmp_path, warm_cache):
    data, textures = tmp_path / "data/parts", tmp_path / "mine"
    textures.mkdir()
    for n, folder in enumerate(("train/good", "test/good", "test/bent")):
        (data / folder).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (16, 16), (i, 90 * n, 7)).save(data / folder / f"{i}.png")
    with Image.open(data / "test/bent/3.png") as image:
        image.save(textures / "again.bmp")
    bench = Bench(tmp_path, warm_cache)
    suite = Path(bench.suite("saoe"))
    suite.write_text(suite.read_text().replace("synthetic/washer", "parts"))
    options = ("--data", str(data.parent), "--textures", str(textures))
    code, output = bench("run", "--suite", str(suite), "--dry-run", *options)
    assert code == 0, output
    assert "again.bmp shows test/bent/3.png" in " ".join(output.split())


def test_a_copy_beside_the_dataset_and_a_link_elsewhere_are_textures(mvtec, dtd, tmp_path):
    (tmp_path / "linked").symlink_to(dtd)
    found = find("textures", "mvtec_ad", "cable", mvtec, tmp_path / "linked")
    assert found.source == "linked"


def test_saoe_runs_with_and_without_external_images(tmp_path, warm_cache, dtd):
    bench = Bench(tmp_path, warm_cache)
    suite = bench.suite("saoe")
    for source in ("textures", "none"):
        code, said = bench("run", "--suite", suite, "--set", f"external={source}")
        assert code == 0, said
    code, said = bench("run", "--suite", suite, "--textures", str(dtd))
    assert code == 0, said
    code, said = bench("run", "--suite", suite, "--textures", str(tmp_path / "absent"))
    assert code == 2
    assert "there is no folder" in said
    kinds = {bench.store.read(i).spec.external.partition(":")[0] for i in bench.store.ids()}
    assert kinds == {"textures", "none", "dtd"}
