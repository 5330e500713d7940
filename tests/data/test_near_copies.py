"""Near copies: which files count as one picture, and what is said of a dataset of one's own."""

import hashlib
import io
import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from bench.data import pixel_digests
from bench.data.catalog import BRAIN_MRI, DATASETS, HEAD_CT, MVTEC_AD, Dataset, find_dataset
from bench.data.inspect import inspect, inspection_lines
from bench.data.layouts import brain_mri_test_normals, list_category
from bench.data.listing import File, Listing, fingerprint
from bench.data.near_copies import LikelyCopy, likely_copies, pictures, standardised, thumbnail
from bench.data.pixel_digests import PixelDigests
from bench.data.splits import near_copies_left_out, split_category
from bench.system.digests import FingerprintCache
from tests.fixtures.audit import FOUND
from tests.fixtures.datasets import pictures_in

NAMES = ("a", "b", "c", "d")
OFFICIAL = [BRAIN_MRI, HEAD_CT]


def drawn(seed: int, side: int = 120) -> Image.Image:
    """Return a made-up picture, soft-edged like a photograph."""
    noise = np.random.RandomState(seed).randint(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, **how: object) -> Image.Image:
    """Return an image as a JPEG gives it back."""
    file = io.BytesIO()
    image.save(file, "JPEG", **how)
    return Image.open(file).convert("RGB")


def dimmed(image: Image.Image) -> Image.Image:
    return image.point(lambda value: value * 0.6 + 30)


def groups_of(*images: Image.Image, by_hand: tuple[tuple[str, ...], ...] = ()) -> list[str]:
    """Return the pictures of images, named by the first that shows each."""
    names = NAMES[: len(images)]
    listing = Listing(Path(), tuple(File(n, "train", "good") for n in names), 1, True, by_hand)
    return [*pictures(listing, names, [thumbnail(image) for image in images])]


# Which files show one picture


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((51, 67), Image.Resampling.BILINEAR),
        lambda image: image.resize((400, 300), Image.Resampling.LANCZOS),
        lambda image: encoded(image, quality=30),
        dimmed,
        lambda image: encoded(dimmed(image).resize((90, 90)), quality=50),
    ],
    ids=["smaller", "larger", "encoded anew", "dimmed", "all of it"],
)
def test_a_changed_copy_is_the_same_picture(change):
    assert groups_of(drawn(0), drawn(1), change(drawn(0)), change(drawn(1))) == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    "change",
    [
        ImageOps.mirror,
        ImageOps.invert,
        lambda image: image.rotate(90),
        lambda image: image.crop((15, 15, 120, 120)),
    ],
    ids=["mirrored", "inverted", "turned", "cropped"],
)
def test_another_view_is_another_picture(change):
    assert groups_of(drawn(0), change(drawn(0))) == ["a", "b"]


def test_pictures_of_one_grey_are_like_none():
    grey = [Image.new("RGB", (9, 9), (v, v, v)) for v in (10, 10, 200)]
    assert groups_of(*grey) == ["a", "b", "c"]
    assert not standardised([thumbnail(grey[0]), ""]).any()


def test_copies_of_copies_are_one_picture_by_likeness_pixels_and_hand():
    listing = Listing(Path(), tuple(File(n, "", "") for n in NAMES), 1, True, (("b", "c"),))
    thumbnails = [thumbnail(image) for image in (drawn(0), dimmed(drawn(0)), drawn(1), drawn(2))]
    assert pictures(listing, NAMES, thumbnails) == ("a", "a", "a", "d")
    assert pictures(listing, ("a", "b", "c", "c"), thumbnails) == ("a",) * 4


def test_likeness_is_of_pictures_on_black_in_grey():
    red = Image.new("RGB", (48, 48))
    red.paste((200, 0, 0), (0, 0, 24, 48))
    assert groups_of(red, red.convert("L").convert("RGB")) == ["a", "a"]


def test_what_training_and_test_lose_is_counted_apart_from_equal_pixels():
    anomalies = [("a", f"p{n}") for n in range(9)] + [("a", name) for name in "xyz"]
    files, pixels = pictures_in("uvw", "uk", [*anomalies, ("b", "more")])
    shown = ["x" if p in "yz" else "k" if p == "v" else p for p in pixels]
    lost = set()
    for seed in range(5):
        split = split_category(files, shown, seed=seed, dataset="nut", category="nut")
        assert len(split.left_out) == 2
        assert near_copies_left_out(split, pixels) == (1, split.role.count("duplicate"))
        lost.add(split.role.count("duplicate"))
    assert max(lost) == 2


# The cache


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A folder of one's own: training and test images of which two are copies."""
    home = tmp_path / "data" / "nuts"
    for n, place in enumerate(("train/good", "test/good", "test/hole")):
        (home / place).mkdir(parents=True)
        for m in range((8, 4, 12)[n]):
            drawn(20 * n + m).save(home / place / f"{m}.png")
    drawn(3).resize((77, 77)).save(home / "test/good/copy.jpg")
    dimmed(drawn(41)).save(home / "test/hole/copy.png")
    drawn(5).save(home / "test/hole/same.bmp")
    return home


def looked_up(home: Path, cache: Path, near: bool) -> tuple[PixelDigests, tuple[str, ...]]:
    listing = list_category(find_dataset("nuts", home.parent), "nuts", home.parent, cache)
    known = PixelDigests(cache, FingerprintCache(cache))
    content = fingerprint(listing, known.digests)
    return known, known.pictures_of("nuts", replace(listing, near_copies=near), content)


def test_files_are_decoded_once_and_near_copies_count_where_asked(copies, cache, monkeypatch):
    decoded: list[Path] = []
    decode = pixel_digests._decode
    monkeypatch.setattr(
        pixel_digests, "_decode", lambda path, **how: decoded.append(path) or decode(path, **how)
    )
    known, shown = looked_up(copies, cache, near=True)
    assert (len(shown), len(set(shown)), len(decoded)) == (27, 24, 27)
    known.save()
    _, again = looked_up(copies, cache, near=True)
    _, exact = looked_up(copies, cache, near=False)
    assert (again, len(decoded)) == (shown, 27)
    assert len(set(exact)) == 26


def test_thumbnails_are_upright_and_on_black(copies, cache):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    lying = drawn(1).transpose(Image.Transpose.ROTATE_90)
    lying.save(copies / "test/good/lying.jpg", exif=exif, quality=95)
    disc = Image.new("L", (120, 120))
    disc.paste(255, (10, 10, 90, 110))
    veiled = drawn(2).copy()
    veiled.putalpha(disc)
    veiled.save(copies / "test/good/veiled.png")
    on_black = Image.composite(drawn(2), Image.new("RGB", (120, 120)), disc)
    encoded(on_black).resize((64, 64)).save(copies / "test/good/on_black.png")
    assert len(set(looked_up(copies, cache, near=True)[1])) == 24 + 1


def test_a_file_that_does_not_decode_is_like_no_other(copies, cache):
    for name in ("8.png", "9.png"):
        (copies / "train/good" / name).write_bytes(name.encode())
    assert len(set(looked_up(copies, cache, near=True)[1])) == 26


# A dataset of one's own


def verified(home: Path, cache: Path) -> str:
    dataset = find_dataset(home.name, home.parent)
    digests = FingerprintCache(cache)
    found = inspect(dataset, home.name, home.parent, cache, digests)
    assert found.good
    return " ".join(" ".join(inspection_lines(found)).split())


def test_likely_copies_of_ones_own_are_a_warning(copies, cache):
    text = verified(copies, cache)
    assert "warning 1 test image may show a training image in other pixels" in text
    assert "test/good/copy.jpg is like train/good/3.png (r " in text
    assert "normal and anomalous alike: 1 file more than pictures" in text
    assert "near copies" not in text


def test_a_pair_stands_clear_of_training_images_that_are_alike():
    part = np.asarray(drawn(0), np.int16)

    def photographed(n: int) -> str:
        grain = np.random.RandomState(n).normal(0, 12, part.shape)
        return thumbnail(Image.fromarray((part + grain).clip(0, 255).astype(np.uint8)))

    train, test = [photographed(n) for n in range(20)], [photographed(n) for n in range(20, 40)]
    likeness = standardised(train) @ standardised(test).T
    assert likeness.min() > 0.99
    assert likely_copies(train, test) == []
    [copy] = likely_copies(train, [*test, train[7]])
    assert (copy.test, copy.train) == (20, 7)
    others = [thumbnail(drawn(n)) for n in range(3)]
    assert likely_copies(others, [others[2]]) == [LikelyCopy(0, 2, pytest.approx(1))]
    assert likely_copies(others[:2], others) == []  # too few to know what is usual
    assert likely_copies([], others) == likely_copies(others, []) == []


@pytest.mark.parametrize("category", ["bottle", "pill", "capsule"])
def test_of_aligned_parts_nothing_is_grouped_or_reported(shared, warm_cache, tmp_path, category):
    data = shared / "data"
    listing = list_category(MVTEC_AD, category, data, warm_cache)
    known = PixelDigests(warm_cache, FingerprintCache(warm_cache))
    content = fingerprint(listing, known.digests)
    shown = known.pictures_of(category, listing, content)
    assert list(shown) == known.of_category(category, listing, content)
    known.save()
    assert len(set(shown)) == len(listing.files)
    (tmp_path / category).symlink_to(data / "mvtec_ad" / category)
    text = verified(tmp_path / category, warm_cache)
    assert "warning" not in text
    assert "same pixels no two files" in text


def test_a_folder_of_ones_own_like_brain_mri_is_warned_of(shared, warm_cache, tmp_path):
    """A random split of its files, as anybody would make it."""
    home, root = tmp_path / "brains", shared / "data" / "brain_mri"
    normals, tumours = (sorted((root / name).iterdir()) for name in ("no", "yes"))
    order = np.random.RandomState(0).permutation(len(normals))
    for fold, files in (
        ("train/good", [normals[i] for i in order[25:]]),
        ("test/good", [normals[i] for i in order[:25]]),
        ("test/tumor", tumours[:12]),
    ):
        (home / fold).mkdir(parents=True)
        for file in files:
            (home / fold / file.name).symlink_to(file)
    assert "test images may show a training image in other pixels" in verified(home, warm_cache)


# The medical sets: counted again, by Pillow and NumPy alone


def test_only_the_medical_cards_count_near_copies():
    assert {d.name for d in DATASETS.values() if d.near_copies} == {"brain_mri", "head_ct"}
    assert {d.name for d in DATASETS.values() if d.copies_by_hand} == {"brain_mri", "head_ct"}


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if "A" not in image.mode and "transparency" not in image.info:
            return image.convert("RGB")
        rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "#000f"), rgba).convert("RGB")


@dataclass
class Medical:
    """A medical set: what we say, and what is counted again."""

    files: tuple[File, ...]
    pixels: list[str]
    pictures: tuple[str, ...]
    likeness: np.ndarray
    equal: np.ndarray
    again: list[int]
    """The group of each file, named by its first one."""

    def anomalous(self) -> np.ndarray:
        return np.array([file.anomalous for file in self.files])


def grouped(alike: np.ndarray) -> list[int]:
    groups = np.arange(len(alike))
    while True:
        nearest = np.array([groups[row].min() for row in alike])
        if (nearest == groups).all():
            return groups.tolist()
        groups = nearest


def listed_by_hand(dataset: Dataset, files: tuple[File, ...]) -> np.ndarray:
    stems = [file.path.rpartition(".")[0] for file in files]
    linked = np.zeros((len(stems), len(stems)), bool)
    for group in dataset.copies_by_hand:
        for one, other in itertools.product(group, group):
            linked[stems.index(one), stems.index(other)] = True
    return linked


@pytest.fixture(scope="module")
def medical(shared, warm_cache):
    def counted(dataset: Dataset) -> Medical:
        listing = list_category(dataset, dataset.name, shared / "data", warm_cache)
        known = PixelDigests(warm_cache, FingerprintCache(warm_cache))
        shown = known.pictures_of(dataset.name, listing, dataset.fingerprint)
        paths = [listing.root / file.path for file in listing.files]
        pixels = known.of_files(dataset.name, paths)
        known.save()
        images = [opened(path) for path in paths]
        small = [i.convert("L").resize((48, 48), Image.Resampling.HAMMING) for i in images]
        likeness = np.corrcoef(np.array([np.asarray(i, float).ravel() for i in small]))
        digests = [hashlib.sha256(repr(i.size).encode() + i.tobytes()).digest() for i in images]
        equal = np.array([[one == other for one in digests] for other in digests])
        linked = equal | listed_by_hand(dataset, listing.files)
        again = grouped((likeness >= 0.99) | linked)
        return Medical(listing.files, pixels, shown, likeness, equal, again)

    return {dataset.name: counted(dataset) for dataset in OFFICIAL}


@pytest.mark.parametrize(
    ("name", "total", "normal"), [("brain_mri", 199, 76), ("head_ct", 185, 93)]
)
def test_the_pictures_are_those_counted_again(medical, name, total, normal):
    data = medical[name]
    shown, again = data.pictures, np.array(data.again)
    assert len(set(zip(shown, data.again, strict=True))) == len(set(shown)) == total
    normals, anomalous = ({*again[data.anomalous() == kind]} for kind in (False, True))
    assert len(normals) == normal
    assert len(anomalous) == total - normal  # no picture of both classes


def test_brain_mri_shows_210_pictures_before_what_is_cropped_counts(medical):
    data = medical["brain_mri"]
    groups = np.array(grouped((data.likeness >= 0.99) | data.equal))
    assert [len({*groups[data.anomalous() == kind]}) for kind in (False, True)] == [76, 134]
    pairs = data.likeness[np.triu_indices(len(groups), 1)]
    least, following = pairs[pairs >= 0.99].min(), pairs[pairs < 0.99].max()
    text = f"is {least:.4f}, the next pair has {following:.3f}".replace("0.", ".")
    assert text in FOUND["brain-mri-copies"].evidence[0]


def test_the_manifest_tests_a_quarter_of_the_pictures_of_normals(medical):
    data = medical["brain_mri"]
    groups: dict[int, list[str]] = {}
    for file, group in zip(data.files, data.again, strict=True):
        if not file.anomalous:
            groups.setdefault(group, []).append(file.path.removeprefix("no/"))
    ordered = sorted(groups.values())
    chosen = np.random.RandomState(42).permutation(len(ordered))[: len(ordered) // 4]
    tested = {name for i in chosen for name in ordered[i]}
    assert tested == brain_mri_test_normals()
    assert (len(chosen), len(ordered), len(tested)) == (19, 76, 26)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", ["brain_mri", "head_ct"])
def test_no_near_copy_straddles_training_draw_and_test(medical, name, seed):
    data = medical[name]
    split = split_category(data.files, data.pictures, seed=seed, dataset=name, category=name)
    train = {data.again[i] for i in split.train_normal}
    drawn = [data.again[i] for i in split.drawn]
    roles = list(zip(split.tested, split.role, strict=True))
    tested = {data.again[i] for i, role in roles if role == "test"}
    assert len(set(drawn)) == len(drawn) == 10
    assert not train & tested
    assert not train & set(drawn)
    assert not tested & set(drawn)
    assert all(data.again[i] in drawn for i, role in roles if role == "duplicate")
    kept = [*split.train_normal, *split.drawn], [i for i, role in roles if role == "test"]
    assert data.likeness[np.ix_(*kept)].max() < 0.99
    left = [data.files[i].path for i in split.left_out]
    assert left == ([] if name == "brain_mri" else [f"head_ct/{n}.png" for n in (148, 186, 189)])
    assert near_copies_left_out(split, data.pixels)[0] == (0 if name == "brain_mri" else 2)


# What the audit says of them


@pytest.mark.parametrize(
    ("name", "finding"), [("brain_mri", "brain-mri-copies"), ("head_ct", "head-ct-copies")]
)
def test_the_audits_counts_of_copies_are_counted_again(medical, name, finding):
    data = medical[name]
    normal = len({*np.array(data.again)[~data.anomalous()]})
    total = len(set(data.again))
    assert FOUND[finding].text.startswith(f"{DATASETS[name].title}'s ")
    assert (
        f"{len(data.files)} files show {len({*map(bytes, data.equal)})} pictures by their pixels"
        f" and {total} by eye, {normal} normal and {total - normal} with a"
    ) in FOUND[finding].text


def test_a_random_split_of_brain_mri_leaks_as_the_audit_says(medical):
    data = medical["brain_mri"]
    groups = np.array(data.again)[~data.anomalous()]
    generator = np.random.RandomState(0)
    leaked = []
    for _ in range(10_000):
        order = generator.permutation(len(groups))
        leaked.append(np.isin(groups[order[:25]], groups[order[25:]]).sum())
    low, high = np.quantile(leaked, (0.025, 0.975))
    assert leaked.count(0) < 10
    assert FOUND["brain-mri-copies"].evidence[2] == (
        f"10,000 random splits of the {len(groups)} normals into {len(groups) - 25} and 25:"
        f" {np.mean(leaked):.1f} test normals on average have a copy in training"
        f" ({low:.0f} to {high:.0f} in 95 % of the splits; fewer than one split in 1,000 has none)"
    )
