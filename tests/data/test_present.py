"""Copies of a dataset whose images EXIF turns, which earlier versions left lying."""

import pytest
from PIL import Image

from bench.data.catalog import COPIES_VERSION, DATASETS, OWN_VERSION
from bench.data.pixel_digests import PixelDigests
from bench.data.present import find_category
from bench.system.digests import FingerprintCache

COPIES = {
    "brain_mri": ("brain_mri", ("no/1 no.jpeg", "no/10 no.jpg", "no/of mine.jpg", "yes/Y1.jpg")),
    "head_ct": ("head_ct", ("head_ct/000.jpg", "head_ct/100.jpg", "head_ct/101.jpg")),
    "mvtec_ad": (
        "bottle",
        ("bottle/train/good/0.jpg", "bottle/test/good/0.jpg", "bottle/test/hole/0.jpg"),
    ),
}


@pytest.mark.parametrize("dataset", COPIES)
def test_a_copy_with_turned_images_is_another_one_than_it_was(tmp_path, cache, dataset):
    category, paths = COPIES[dataset]
    exif = Image.Exif()
    exif[0x0112] = 6
    versions = []
    for given in ({}, {"exif": exif}):
        for i, path in enumerate(paths):
            file = tmp_path / dataset / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (9, 7), 20 * i).save(file, **(given if i == 2 else {}))
        known = PixelDigests(cache, FingerprintCache(cache))
        listing, _ = find_category(dataset, category, tmp_path, known)
        assert len(listing.files) == len(paths)
        versions.append(listing.data_version)
    # The medical sets were raised once more since: that version is of upright images, too.
    card = DATASETS[dataset].data_version
    assert card in (1, COPIES_VERSION)
    assert versions == [card, max(card, OWN_VERSION)]
