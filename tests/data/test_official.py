"""Official copies told from others."""

import numpy as np

from bench.data.catalog import HEAD_CT, MVTEC_AD, SYNTHETIC, find_dataset
from bench.data.decode import ImageFacts
from bench.data.images import CategoryImages
from bench.data.official import why_unofficial


def facts(n, size):
    one = ImageFacts("a.png", size, size, "RGB", 1, "")
    return CategoryImages(np.zeros((n, 3, 1, 1), np.uint8), (one,) * n)


def test_an_official_copy_has_the_counts_and_the_size_of_the_catalogue():
    assert why_unofficial(MVTEC_AD, "bottle", "f" * 64, facts(292, 900)) == ""
    assert "256x256 px, not 900x900" in why_unofficial(MVTEC_AD, "bottle", "", facts(292, 256))
    assert "291 of 292 images" in why_unofficial(MVTEC_AD, "bottle", "", facts(291, 900))


def test_where_the_official_fingerprint_is_known_it_decides():
    assert why_unofficial(HEAD_CT, "head_ct", HEAD_CT.fingerprint, facts(1, 8)) == ""
    assert why_unofficial(HEAD_CT, "head_ct", "f" * 64, facts(200, 8)) == "content differs"


def test_the_embedded_dataset_is_official_and_a_folder_of_the_users_is_not(tmp_path):
    (tmp_path / "nuts" / "train" / "good").mkdir(parents=True)
    assert why_unofficial(SYNTHETIC, "weave", "", facts(1, 8)) == ""
    dataset = find_dataset("nuts", tmp_path)
    assert why_unofficial(dataset, "nuts", "", facts(1, 8)) == "not in the catalogue"
