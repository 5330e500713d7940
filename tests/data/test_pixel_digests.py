"""Pixel digests: what two files show is compared, each file decoded once."""

from pathlib import Path

import pytest
from PIL import Image

from bench.data import pixel_digests
from bench.data.catalog import find_dataset
from bench.data.images import load, prepare, prepared_facts
from bench.data.layouts import list_category
from bench.data.listing import Listing, fingerprint
from bench.data.pixel_digests import PixelDigests
from bench.system.digests import FingerprintCache


@pytest.fixture
def nuts(tmp_path: Path) -> Path:
    """A category of seven files that show six pictures."""
    home = tmp_path / "data" / "nuts"
    for n, place in enumerate(("train/good", "test/good", "test/hole")):
        (home / place).mkdir(parents=True)
        for m in range(2):
            Image.new("RGB", (9, 9), (80 * n, 90 * m, 0)).save(home / place / f"{m}.png")
    with Image.open(home / "train/good/1.png") as image:
        image.save(home / "test/good/1.bmp")
    return home


def listed(home: Path, cache: Path) -> tuple[Listing, str]:
    data = home.parent
    listing = list_category(find_dataset("nuts", data), "nuts", data, cache)
    return listing, fingerprint(listing, FingerprintCache(cache))


def test_files_of_one_picture_have_one_digest_and_no_file_is_decoded_twice(
    nuts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, content = listed(nuts, cache)
    decoded: list[str] = []
    decode = pixel_digests._decode
    monkeypatch.setattr(pixel_digests, "_decode", lambda p: decoded.append(p.name) or decode(p))
    first = PixelDigests(cache, FingerprintCache(cache))
    found = dict(zip(listing.files, first.of_category("nuts", listing, content), strict=True))
    by_path = {file.path: digest for file, digest in found.items()}
    assert by_path["test/good/1.bmp"] == by_path["train/good/1.png"]
    assert len(set(by_path.values())) == len(by_path) - 1 == 6
    assert len(decoded) == 7
    first.save()
    again = PixelDigests(cache, FingerprintCache(cache))
    assert again.of_category("nuts", listing, content) == list(found.values())
    Image.new("RGB", (9, 9), (1, 2, 3)).save(nuts / "test/hole/9.png")
    listing, content = listed(nuts, cache)
    again.of_category("nuts", listing, content)
    assert decoded[7:] == ["9.png"]


def test_what_is_prepared_is_not_decoded(
    nuts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, content = listed(nuts, cache)
    assert prepared_facts(listing, content, cache) == ()
    facts = load(prepare(listing, content, cache, 16)).facts
    assert prepared_facts(listing, content, cache) == facts
    monkeypatch.setattr(pixel_digests, "_decode", lambda _: pytest.fail("decoded"))
    known = PixelDigests(cache, FingerprintCache(cache))
    assert known.of_category("nuts", listing, content) == [f.pixels for f in facts]


def test_a_file_that_does_not_decode_is_like_no_other(nuts: Path, cache: Path) -> None:
    (nuts / "test/hole/0.png").write_bytes(b"no image")
    listing, content = listed(nuts, cache)
    known = PixelDigests(cache, FingerprintCache(cache))
    found = known.of_category("nuts", listing, content)
    assert len(set(found)) == 6


def test_long_reading_is_announced(
    nuts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, content = listed(nuts, cache)
    said: list[str] = []
    PixelDigests(cache, FingerprintCache(cache), said.append).of_category("nuts", listing, content)
    assert said == []
    monkeypatch.setattr(pixel_digests, "SILENT", -1.0)
    other = PixelDigests(cache, FingerprintCache(cache), said.append)
    other.of_category("nuts", listing, content)
    assert said == ["looking for duplicates: decoding 7 images of nuts, once"]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\0"])
def test_a_damaged_cache_is_made_again(nuts: Path, cache: Path, content: bytes) -> None:
    listing, fingerprint_now = listed(nuts, cache)
    cache.mkdir(exist_ok=True)
    (cache / "pixels.json").write_bytes(content)
    known = PixelDigests(cache, FingerprintCache(cache))
    assert len(set(known.of_category("nuts", listing, fingerprint_now))) == 6
    known.save()
    assert (cache / "pixels.json").read_bytes() != content
