"""Masks beside the images, and the AUROC over pixels."""

from pathlib import Path

import pytest
from PIL import Image

from bench.data.catalog import find_dataset
from bench.data.layouts import list_category
from bench.data.listing import File
from bench.data.masks import find_mask, load_masks
from bench.data.synthetic import generated
from bench.errors import DataError
from bench.metrics import box_recall, pixel_auroc
from bench.store.results import receipts
from bench.store.verify import problems
from tests.fixtures.command import Bench


def test_masks_of_the_embedded_dataset_are_found(warm_cache: Path, tmp_path: Path) -> None:
    dataset = find_dataset("synthetic", tmp_path)
    category = next(iter(dataset.categories))
    listing = list_category(dataset, category, tmp_path, warm_cache)
    tested = [f for f in listing.files if f.fold == "test"]
    masks = load_masks(listing.root, tested, 32)
    assert masks is not None
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
    masks = load_masks(generated(warm_cache, "washer"), files, size)
    assert masks is not None
    held, by_chance = box_recall(seen.boxes[counted], masks[counted])
    measured = receipt.metrics
    assert (measured["box_recall"], measured["box_recall_by_chance"]) == (held, by_chance)
    assert measured["pixel_auroc"] == pixel_auroc(seen.maps["score"][counted], masks[counted])
    assert list(problems(command.store)) == []


def test_masks_of_mvtec_lie_on_the_defects(shared: Path) -> None:
    root = shared / "data/mvtec_ad"
    place = find_mask(root, File("bottle/test/broken_large/000.png", "test", "broken_large"))
    assert place == root / "bottle/ground_truth/broken_large/000_mask.png"


def test_an_image_without_a_mask_leaves_none(tmp_path: Path) -> None:
    files = [File("test/good/0.png", "test", "good"), File("test/dent/0.png", "test", "dent")]
    assert load_masks(tmp_path, files[:1], 8) is not None
    assert load_masks(tmp_path, files, 8) is None
    folder = tmp_path / "ground_truth/dent"
    folder.mkdir(parents=True)
    Image.new("L", (16, 16)).save(folder / "0_mask.png")
    with pytest.raises(DataError, match=r"0_mask\.png marks no defect"):
        load_masks(tmp_path, files, 8)
    dot = Image.new("L", (16, 16))
    dot.putpixel((6, 12), 255)
    dot.save(folder / "0_mask.png")
    small = load_masks(tmp_path, files, 8)
    assert small is not None
    assert small[1, 6, 3]
    assert small.sum() == 1
    half = Image.new("L", (16, 16))
    half.paste(255, (8, 0, 16, 16))
    half.save(folder / "0_mask.png")
    masks = load_masks(tmp_path, files, 8)
    assert masks is not None
    assert masks[1, :, 4:].all()
    assert not masks[1, :, :4].any()
    assert not masks[0].any()


def test_medical_images_have_no_masks(tmp_path: Path) -> None:
    assert find_mask(tmp_path, File("head_ct/003.png", "test", "hemorrhage")) is None
