"""Masks beside the images, and the AUROC over pixels."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench.data.catalog import find_dataset
from bench.data.decode import upright_size
from bench.data.layouts import list_category
from bench.data.listing import File
from bench.data.masks import (
    check_masks,
    find_masks,
    load_masks,
    mask_problems,
    masks_digest,
    read_mask,
    resized,
    surplus_masks,
)
from bench.data.synthetic import generated
from bench.errors import DataError
from bench.metrics import box_recall, pixel_auroc, pointing
from bench.store.results import receipts
from bench.store.verify import problems
from tests.fixtures.command import Bench


def test_masks_of_the_embedded_dataset_are_found(warm_cache: Path, tmp_path: Path) -> None:
    dataset = find_dataset("synthetic", tmp_path)
    category = next(iter(dataset.categories))
    listing = list_category(dataset, category, tmp_path, warm_cache)
    tested = [f for f in listing.files if f.fold == "test"]
    loaded = load_masks(listing.root, tested, 32, sizes_in(listing.root))
    assert not loaded.problems
    masks = loaded.pixels
    assert masks.shape == (len(tested), 32, 32)
    assert [bool(m.any()) for m in masks] == [f.anomalous for f in tested]
    assert masks.mean() < 0.2


def test_a_run_that_keeps_its_maps_measures_them_where_defects_are_marked(
    tmp_path: Path, warm_cache: Path
) -> None:
    command = Bench(tmp_path, warm_cache)
    code, said = command("run", "--suite", command.suite("atacnet"), "--save-maps")
    assert code == 0, said
    (receipt,) = receipts(command.store)
    run_id, size = receipt.run_id, receipt.spec.image_size
    seen, scores = command.store.explanations(run_id), command.store.scores(run_id)
    assert seen is not None
    assert seen.boxes is not None
    files = [File(f, "test", d or "good") for f, d in zip(scores.file, scores.defect, strict=True)]
    counted = [role == "test" for role in scores.role]
    root = generated(warm_cache, "washer")
    masks = load_masks(root, files, size, sizes_in(root)).pixels
    boxes = box_recall(seen.boxes[counted], masks[counted])
    measured = receipt.metrics
    assert (measured["box_recall"], measured["box_recall_by_chance"]) == boxes[:2]
    assert measured["box_recall_centred"] == boxes.centred
    pointed = pointing(seen.maps["score"][counted], masks[counted])
    assert (measured["pointing"], measured["pointing_by_chance"]) == pointed
    assert measured["pixel_auroc"] == pixel_auroc(seen.maps["score"][counted], masks[counted])
    assert measured.masks_sha256 == masks_digest(find_masks(root, files), root)
    assert not receipt.warnings
    assert list(problems(command.store)) == []


def test_masks_of_mvtec_lie_on_the_defects(shared: Path) -> None:
    root = shared / "data/mvtec_ad"
    [mask] = find_masks(root, [File("bottle/test/broken_large/000.png", "test", "broken_large")])
    assert mask.files == (root / "bottle/ground_truth/broken_large/000_mask.png",)


@pytest.mark.parametrize("side", [64, 224])
def test_masks_of_mvtec_are_what_they_were_in_older_runs(shared: Path, side: int) -> None:
    """Older runs resized the grey values first, and took those of 128 and more."""
    paths = sorted((shared / "data/mvtec_ad").glob("*/ground_truth/*/*.png"))
    assert len(paths) > 100
    for path in paths:
        grey = Image.open(path).convert("RGB").convert("L")
        older = np.asarray(grey.resize((side, side), Image.Resampling.NEAREST)) >= 128
        np.testing.assert_array_equal(resized(np.asarray(grey) > 0, side), older)


def test_medical_images_have_no_masks(tmp_path: Path) -> None:
    [mask] = find_masks(tmp_path, [File("head_ct/003.png", "test", "hemorrhage")])
    assert (mask.files, mask.expected) == ((), None)


# A folder of one's own


DENT = File("test/dent/0.png", "test", "dent")
GOOD = File("test/good/0.png", "test", "good")
BOX = np.zeros((16, 20), np.uint8)
BOX[4:9, 2:11] = 1
"""A mask of 20x16 pixels, and its image's shape."""

Marked = Callable[..., Path]


def sizes_in(root: Path) -> Callable[[File], tuple[int, int]]:
    return lambda file: upright_size(root / file.path)


@pytest.fixture
def marked(tmp_path: Path) -> Marked:
    """A dented image; called with a name and values, it gets a mask."""
    (tmp_path / "test" / "dent").mkdir(parents=True)
    Image.new("RGB", (20, 16), (9, 9, 9)).save(tmp_path / DENT.path)

    def mark(name: str, values: NDArray[np.uint8] = BOX * 255, **options: object) -> Path:
        path = tmp_path / "ground_truth" / "dent" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path, **options)
        return path

    return mark


def loaded(root: Path) -> NDArray[np.bool_]:
    [mask] = find_masks(root, [GOOD, DENT])
    return read_mask(mask, sizes_in(root)(DENT))


def problem(root: Path) -> str:
    """Return the one problem of the masks, which is one line."""
    [line] = mask_problems(root, [GOOD, DENT], sizes_in(root))
    with pytest.raises(DataError) as refused:
        loaded(root)
    assert str(refused.value) == line
    assert load_masks(root, [GOOD, DENT], 8, sizes_in(root)).problems == (line,)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    "name", ["0_mask.png", "0.png", "0.PNG", "0_MASK.Png", "0_Mask.bmp", "0.tif", "0/part.png"]
)
def test_a_mask_is_found_by_every_usual_name(tmp_path: Path, marked: Marked, name: str) -> None:
    path = marked(name)
    [mask] = find_masks(tmp_path, [GOOD, DENT])
    assert mask.files == (path,)
    assert np.array_equal(loaded(tmp_path), BOX > 0)


@pytest.mark.parametrize("defect", ["Dent", "DENT"])
def test_a_folder_of_masks_is_found_in_any_letter_case(
    tmp_path: Path, marked: Marked, defect: str
) -> None:
    path = marked("0_mask.png")
    path.parent.rename(path.parent.with_name(defect))
    assert np.array_equal(loaded(tmp_path), BOX > 0)
    other = File(f"test/{defect}/0.png", "test", defect)  # whose masks they are then
    own, others = find_masks(tmp_path, [DENT, other])
    assert not own.files
    assert others.files == (tmp_path / "ground_truth" / defect / "0_mask.png",)


def test_two_folders_that_differ_in_letter_case_are_one_line(
    tmp_path: Path, marked: Marked
) -> None:
    top = marked("0_mask.png").parent.parent
    (top / "dent").rename(top / "Dent")
    (top / "DENT").mkdir()
    assert problem(tmp_path) == (
        f"{top}/DENT and {top}/Dent differ in letter case alone; rename one to dent"
    )
    (top / "dent").mkdir()  # the usual name is clear
    Image.fromarray(BOX).save(top / "dent" / "0.png")
    assert np.array_equal(loaded(tmp_path), BOX > 0)


@pytest.mark.parametrize(
    ("share", "said"),
    [
        ((0.25, 1), "{second} marks the whole image"),
        ((1, 1), "{first} marks the whole image; {second} marks the whole image"),
        (
            (0.75, 1),
            "masks of dent mark more than half of every image: are they inverted?;"
            " {second} marks the whole image",
        ),
        ((0.75, 0.75), "masks of dent mark more than half of every image: are they inverted?"),
        ((0.75, 0.5), ""),
    ],
)
def test_masks_that_mark_too_much_are_doubted(
    tmp_path: Path, marked: Marked, share: tuple[float, float], said: str
) -> None:
    files = [GOOD, DENT, File("test/dent/1.png", "test", "dent")]
    Image.new("RGB", (20, 16)).save(tmp_path / files[2].path)
    paths = []
    for name, part in zip(("0.png", "1.png"), share, strict=True):
        values = np.zeros((16, 20), np.uint8)
        values[: int(16 * part)] = 255
        paths.append(marked(name, values))
    problems, doubts = check_masks(tmp_path, files, sizes_in(tmp_path))
    assert not problems
    assert "; ".join(doubts) == said.format(first=paths[0], second=paths[1])
    loaded = load_masks(tmp_path, files, 8, sizes_in(tmp_path))
    assert (loaded.problems, list(loaded.doubts)) == ((), doubts)
    assert loaded.pixels[1:].any((1, 2)).all()


def test_no_masks_of_mvtec_are_doubted(shared: Path, cache: Path) -> None:
    for category in ("bottle", "capsule", "pill"):
        listing = list_category(find_dataset("mvtec_ad", cache), category, shared / "data", cache)
        files = [f for f in listing.files if f.anomalous]
        assert check_masks(listing.root, files, sizes_in(listing.root)) == ([], [])


def test_masks_of_no_anomalous_image_are_surplus(tmp_path: Path, marked: Marked) -> None:
    used = marked("0_mask.png")
    surplus = [marked("099_mask.png"), marked("9/0.png"), marked("../good/0_mask.png")]
    assert surplus_masks(tmp_path, [GOOD, DENT]) == sorted(
        Path(os.path.normpath(p)) for p in surplus
    )
    assert used not in surplus


@pytest.mark.parametrize("name", ["00.png", "0_mask_mask.png", "0_masks.png", ".0.png", "0.txt"])
def test_other_names_are_of_no_mask(tmp_path: Path, marked: Marked, name: str) -> None:
    marked("1_mask.png" if name in (".0.png", "0.txt") else name)
    marked(name, format="PNG")
    assert problem(tmp_path) == (
        f"{tmp_path}/test/dent/0.png has no mask; it belongs at"
        f" {tmp_path}/ground_truth/dent/0_mask.png"
    )


def test_masks_in_a_folder_of_the_image_are_one(tmp_path: Path, marked: Marked) -> None:
    right = np.roll(BOX, 8, axis=1)
    marked("0/000.png", BOX * 64)
    marked("0/001.png", right * 200)
    assert np.array_equal(loaded(tmp_path), (BOX | right) > 0)


@pytest.mark.parametrize("brightest", [1, 2, 100, 127, 128, 255])
def test_whatever_is_not_black_is_defect(tmp_path: Path, marked: Marked, brightest: int) -> None:
    marked("0.png", BOX * brightest)
    assert np.array_equal(loaded(tmp_path), BOX > 0)
    assert load_masks(tmp_path, [DENT], 8, sizes_in(tmp_path)).pixels.any()


def test_a_mask_may_be_coloured_or_have_levels(tmp_path: Path, marked: Marked) -> None:
    levels = BOX.copy()
    levels[4:6] *= 255
    marked("0.png", levels)
    assert np.array_equal(loaded(tmp_path), BOX > 0)
    marked("0.png", np.stack([0 * BOX, 0 * BOX, BOX], -1))
    assert np.array_equal(loaded(tmp_path), BOX > 0)


def test_specks_around_the_edges_of_a_jpeg_are_no_defect(tmp_path: Path, marked: Marked) -> None:
    path = marked("0.jpg", BOX * 255, quality=70)
    assert ((np.asarray(Image.open(path)) > 0) != (BOX > 0)).any()
    assert np.array_equal(loaded(tmp_path), BOX > 0)


def test_a_jpeg_may_mark_defects_at_several_levels(tmp_path: Path, marked: Marked) -> None:
    levels = BOX * 255
    levels[:8][BOX[:8] > 0] = 120
    assert {*np.unique(levels)} == {0, 120, 255}
    marked("0.jpg", levels, quality=90)
    assert np.array_equal(loaded(tmp_path), BOX > 0)


def test_a_small_defect_is_never_lost(tmp_path: Path, marked: Marked) -> None:
    for height, width, row, column in ((16, 16, 12, 6), (2000, 3000, 1999, 5)):
        dot = np.zeros((height, width), bool)
        dot[row, column] = True
        small = resized(dot, 8)
        assert small.sum() == 1
        assert small[row * 8 // height, column * 8 // width]


def test_masks_and_images_are_turned_alike(tmp_path: Path, marked: Marked) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 20)).save(tmp_path / DENT.path, exif=exif)
    marked("0.png")
    assert np.array_equal(loaded(tmp_path), BOX > 0)
    marked("0.png", np.rot90(BOX).copy(), exif=exif)
    assert np.array_equal(loaded(tmp_path), BOX > 0)
    marked("0.png", np.rot90(BOX).copy())
    assert "0.png has 16x20 pixels and its image 20x16; a mask has the shape" in problem(tmp_path)


def test_masks_that_cannot_be_used_are_named_in_one_line(tmp_path: Path, marked: Marked) -> None:
    path = marked("0_mask.png", BOX * 0)
    assert problem(tmp_path) == f"{path} marks no defect; replace or remove it"
    path.write_bytes(b"no picture")
    assert problem(tmp_path).startswith(f"{path} does not decode")
    path.unlink()
    path.mkdir()
    assert "has no mask" in problem_of_others(tmp_path, marked)
    path.rmdir()
    marked("0_mask.png", BOX[:8])
    assert f"{path} has 20x8 pixels and its image 20x16" in problem(tmp_path)


def problem_of_others(root: Path, marked: Marked) -> str:
    """Return the problem where another image has a mask: without any there is none to name."""
    other = marked("1.png")
    line = problem(root)
    other.unlink()
    return line


def test_two_masks_of_one_image_are_the_same(tmp_path: Path, marked: Marked) -> None:
    for one, other in itertools.combinations(("0.png", "0_mask.png", "0/a.png"), 2):
        paths = marked(one), marked(other, BOX * 7)
        assert np.array_equal(loaded(tmp_path), BOX > 0)
        marked(other, np.roll(BOX, 1))
        line = problem(tmp_path)
        assert line.endswith(" are masks of one image and differ; remove one")
        assert f"{tmp_path}/ground_truth/dent/{one}" in line
        for path in paths:
            path.unlink()


def test_images_without_any_mask_have_no_problem(tmp_path: Path, marked: Marked) -> None:
    assert mask_problems(tmp_path, [GOOD, DENT], sizes_in(tmp_path)) == []
    assert not load_masks(tmp_path, [GOOD], 8, sizes_in(tmp_path)).problems


def test_half_of_an_image_stays_half(tmp_path: Path, marked: Marked) -> None:
    half = np.zeros((16, 20), np.uint8)
    half[:, 10:] = 255
    marked("0_mask.png", half)
    masks = load_masks(tmp_path, [GOOD, DENT], 8, sizes_in(tmp_path)).pixels
    assert masks[1, :, 4:].all()
    assert not masks[1, :, :4].any()
    assert not masks[0].any()


def test_the_digest_is_of_what_masks_hold_not_of_their_names(
    tmp_path: Path, marked: Marked
) -> None:
    def digest() -> str | None:
        return masks_digest(find_masks(tmp_path, [GOOD, DENT]), tmp_path)

    assert digest() is None
    path = marked("0_mask.png")
    before = digest()
    assert before is not None
    path = path.rename(path.with_name("0.png"))
    assert digest() == before
    marked("0.png", BOX)
    assert digest() not in (None, before)
    path.unlink()
    marked("1.png")
    assert digest() not in (None, before)
