"""The fingerprint of a category."""

import os
import shutil

from bench.data.catalog import MVTEC_AD
from bench.data.layouts import list_category
from bench.data.listing import fingerprint
from bench.system.digests import FingerprintCache
from tests.fixtures.datasets import make


def test_a_fingerprint_changes_with_the_content_of_a_file(bottle):
    folder, now = bottle
    before = now()
    path = folder / "train" / "good" / "000.png"
    path.write_bytes(path.read_bytes()[::-1])
    assert now() != before


def test_a_fingerprint_changes_with_a_name_and_with_a_place(bottle):
    folder, now = bottle
    before = now()
    one, other = (folder / "train" / "good" / n for n in ("000.png", "001.png"))
    one.rename(other)
    renamed = now()
    other.rename(one)
    assert now() == before
    (folder / "test" / "contamination").rename(folder / "test" / "stain")
    assert len({before, renamed, now()}) == 3


def test_a_fingerprint_changes_when_two_files_change_places(bottle):
    folder, now = bottle
    before = now()
    one, other = (folder / "test" / d / "000.png" for d in ("good", "contamination"))
    one_content, other_content = one.read_bytes(), other.read_bytes()
    one.write_bytes(other_content)
    other.write_bytes(one_content)
    assert now() != before


def test_a_fingerprint_does_not_change_with_times_masks_and_the_folder_above(bottle, tmp_path):
    folder, now = bottle
    before = now()
    os.utime(folder / "train" / "good" / "000.png", ns=(1, 1))
    make(folder, "ground_truth/contamination/000_mask.png")
    assert now() == before
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "mvtec_ad", tmp_path / "elsewhere")
    listing = list_category(MVTEC_AD, "bottle", tmp_path / "elsewhere", tmp_path)
    assert fingerprint(listing, FingerprintCache(tmp_path / "none")) == before
