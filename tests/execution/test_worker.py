"""What a run refuses before its method sees anything."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from bench.data.catalog import find_dataset
from bench.data.images import prepare
from bench.data.layouts import list_category
from bench.data.listing import fingerprint
from bench.errors import DataError
from bench.execution import worker
from bench.system.digests import FingerprintCache
from tests.fixtures.runs import SPEC


def test_no_method_is_given_a_training_set_without_normal_images(
    tmp_path: Path, cache: Path
) -> None:
    """A stream of batches of no image has no end, and a plan may be older than the data."""
    home = tmp_path / "nuts"
    for place, count in (("train/good", 3), ("test/hole", 12)):
        (home / place).mkdir(parents=True)
        for i in range(count):
            colour = (20 * i, len(place), 0)
            Image.new("RGB", (9, 9), colour).save(home / place / f"{i}.png")
    shutil.copytree(home / "train/good", home / "test/good")
    listing = list_category(find_dataset("nuts", tmp_path), "nuts", tmp_path, cache)
    content = fingerprint(listing, FingerprintCache(cache))
    images = prepare(listing, content, cache, 16)
    job: Any = SimpleNamespace(spec=SPEC, files=listing.files, images=images)
    with pytest.raises(DataError, match=r"3 normal training images, of which 3 are also in test"):
        worker._data(job)
