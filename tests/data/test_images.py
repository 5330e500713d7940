import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import images
from bench.data.images import load, prepare
from bench.data.listing import File, Listing, fingerprint
from bench.errors import DataError, RequestError, StoreError
from bench.system.digests import SETTLED, FingerprintCache
from tests.fixtures.pictures import NOISE, saved


def listing(root, *names):
    return Listing(root, tuple(File(n, "train", "good") for n in names))


def prepared(files, cache, *size_and_rule, **options):
    """Prepare what lies there now: nothing is kept of it, and so nothing can be outdated."""
    content = fingerprint(files, FingerprintCache(cache / "none"))
    return prepare(files, content, cache, *(size_and_rule or (8,)), **options)


# Preparing


def test_images_are_resized_to_a_square_in_the_order_of_the_listing(tmp_path, cache):
    saved(tmp_path / "a.png", Image.new("RGB", (30, 20), (10, 20, 30)))
    saved(tmp_path / "b.png", Image.fromarray(NOISE[..., 0]))
    found = load(prepared(listing(tmp_path, "a.png", "b.png"), cache, 8))
    assert found.pixels.shape == (2, 3, 8, 8)
    assert found.pixels.dtype == np.uint8
    assert found.pixels[0, :, 0, 0].tolist() == [10, 20, 30]
    expected = Image.fromarray(NOISE[..., 0]).convert("RGB").resize((8, 8), Image.BILINEAR)
    np.testing.assert_array_equal(found.pixels[1], np.asarray(expected).transpose(2, 0, 1))
    sizes = [(f.path, f.width, f.height, f.mode, f.bytes) for f in found.facts]
    assert sizes == [
        ("a.png", 30, 20, "RGB", os.path.getsize(tmp_path / "a.png")),
        ("b.png", 17, 13, "L", os.path.getsize(tmp_path / "b.png")),
    ]


def test_an_image_of_the_wanted_size_is_not_resampled(tmp_path, cache):
    saved(tmp_path / "a.png", Image.fromarray(NOISE[:8, :8, :3]))
    for rule in images.RESIZE_RULES:
        found = load(prepared(listing(tmp_path, "a.png"), cache, 8, rule))
        np.testing.assert_array_equal(found.pixels[0], NOISE[:8, :8, :3].transpose(2, 0, 1))


def test_size_rule_and_content_have_folders_of_their_own(tmp_path, cache):
    saved(tmp_path / "a.png", Image.fromarray(NOISE[..., :3]))
    saved(tmp_path / "b.png", Image.fromarray(NOISE[..., 1:]))
    files = listing(tmp_path, "a.png")
    folders = {
        prepared(files, cache, 8),
        prepared(files, cache, 9),
        prepared(files, cache, 8, "bicubic"),
        prepared(listing(tmp_path, "b.png"), cache, 8),
    }
    assert len(folders) == 4
    assert len({load(f).pixels.tobytes() for f in folders}) == 4


def test_an_unknown_resize_rule_is_refused(tmp_path, cache):
    with pytest.raises(RequestError, match="bilinear, bicubic, not 'nearest'"):
        prepared(listing(tmp_path), cache, 8, "nearest")


def test_what_is_cached_is_not_decoded_again(tmp_path, cache, monkeypatch):
    saved(tmp_path / "a.png", Image.fromarray(NOISE[..., :3]))
    files = listing(tmp_path, "a.png")
    first = prepared(files, cache, 8)
    monkeypatch.setattr(images, "decode_image", None)
    assert prepared(files, cache, 8) == first
    with pytest.raises(TypeError):
        prepared(files, cache, 9)


def test_progress_is_told_after_each_image(tmp_path, cache):
    names = [f"{n}.png" for n in range(3)]
    for name in names:
        saved(tmp_path / name, Image.fromarray(NOISE))
    told = []
    prepared(listing(tmp_path, *names), cache, 8, progress=lambda *a: told.append(a))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_bad_file_leaves_nothing_in_the_cache(tmp_path, cache):
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    (tmp_path / "b.png").write_text("")
    with pytest.raises(DataError, match=r"b.png"):
        prepared(listing(tmp_path, "a.png", "b.png"), cache, 8)
    assert list((cache / "images").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_an_error_of_the_store(tmp_path, monkeypatch):
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write to the cache"):
        prepared(listing(tmp_path, "a.png"), tmp_path / "file", 8)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(StoreError, match=r"cannot write to the cache .*No space left"):
        prepared(listing(tmp_path, "a.png"), tmp_path / "cache", 8)
    assert list((tmp_path / "cache" / "images").iterdir()) == []


def test_a_faster_process_is_no_error(tmp_path, cache, monkeypatch):
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    files = listing(tmp_path, "a.png")
    folder = prepared(files, cache, 8)
    build = images._build

    def late(*arguments):
        build(*arguments)
        folder.with_name("aside").rename(folder)

    folder.rename(folder.with_name("aside"))
    monkeypatch.setattr(images, "_build", late)
    assert prepared(files, cache, 8) == folder
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


# What is decoded is what was fingerprinted


def test_a_file_that_changed_after_its_fingerprint_is_refused(tmp_path, cache):
    files = listing(tmp_path, "a.png")
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    before = fingerprint(files, FingerprintCache(cache))
    saved(tmp_path / "a.png", Image.fromarray(NOISE[::-1]))
    with pytest.raises(DataError, match="does not hold what its fingerprint was taken from"):
        prepare(files, before, cache, 8)
    assert list((cache / "images").iterdir()) == []


def test_bytes_that_rot_under_the_same_times_are_found_and_known_from_then_on(
    tmp_path, cache, monkeypatch
):
    files = listing(tmp_path, "a.png", "b.png")
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    path = saved(tmp_path / "b.png", Image.fromarray(NOISE))
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * SETTLED)
    digests = FingerprintCache(cache)
    before = fingerprint(files, digests)
    digests.save()
    stat = path.stat()
    saved(path, Image.fromarray(NOISE[::-1]))
    # As if the disk had done it: the times stay, also the one that nobody can set.
    real = Path.stat
    monkeypatch.setattr(Path, "stat", lambda p, **k: stat if p == path else real(p, **k))
    assert fingerprint(files, FingerprintCache(cache)) == before
    with pytest.raises(DataError, match=r"b.png does not hold what its fingerprint was taken from"):
        prepare(files, before, cache, 8)
    after = fingerprint(files, FingerprintCache(cache))  # what the same command does next
    assert after != before
    assert load(prepare(files, after, cache, 8)).pixels.shape[0] == 2


def test_two_cache_folders_that_changed_places_are_found_and_made_again(tmp_path, cache):
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    saved(tmp_path / "b.png", Image.fromarray(NOISE[::-1]))
    one, other = (listing(tmp_path, n) for n in ("a.png", "b.png"))
    first, second = prepared(one, cache), prepared(other, cache)
    whole = np.array(load(first).pixels)
    first.rename(cache / "aside")
    second.rename(first)
    (cache / "aside").rename(second)
    for folder in (first, second):
        with pytest.raises(DataError, match="are damaged"):
            load(folder)
    assert np.array_equal(load(prepared(one, cache)).pixels, whole)


def test_images_of_another_pillow_have_a_folder_of_their_own(tmp_path, cache, monkeypatch):
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    first = prepared(listing(tmp_path, "a.png"), cache)
    monkeypatch.setattr(images.PIL, "__version__", "99.0")
    assert prepared(listing(tmp_path, "a.png"), cache) != first


@pytest.mark.parametrize("what", ["file", "link", "loop"])
def test_what_is_no_folder_in_the_place_of_one_is_replaced(tmp_path, cache, what):
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    folder = prepared(listing(tmp_path, "a.png"), cache)
    folder.rename(cache / "aside")
    if what == "file":
        folder.write_text("")
    else:
        folder.symlink_to(tmp_path if what == "link" else folder)
    assert prepared(listing(tmp_path, "a.png"), cache) == folder
    assert load(folder).pixels.shape == (1, 3, 8, 8)
    assert (tmp_path / "a.png").is_file()


def test_a_disk_that_fills_up_while_images_are_written_is_an_error_of_the_store(
    tmp_path, cache, monkeypatch
):
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    real, sizes = os.pwrite, []

    def nearly_full(descriptor, content, offset):
        if len(sizes) == 3:
            raise OSError(28, "No space left on device")
        sizes.append(real(descriptor, content[:100], offset))
        return sizes[-1]

    monkeypatch.setattr(os, "pwrite", nearly_full)
    with pytest.raises(StoreError, match="No space left"):
        prepared(listing(tmp_path, "a.png"), cache)
    assert list((cache / "images").iterdir()) == []


def test_a_write_that_takes_a_part_goes_on(tmp_path, cache, monkeypatch):
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    whole = np.array(load(prepared(listing(tmp_path, "a.png"), cache)).pixels)
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda d, content, at: real(d, content[:7], at))
    found = load(prepared(listing(tmp_path, "a.png"), cache.with_name("other")))
    assert np.array_equal(found.pixels, whole)


# Damage, duplicates, samples


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def remove(path):
    path.unlink()


def make_empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("name", ["images.npy", "index.json"])
@pytest.mark.parametrize("damage", [flip, truncate, remove, make_empty])
def test_a_damaged_cache_is_an_error_naming_the_folder(tmp_path, cache, name, damage):
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    folder = prepared(listing(tmp_path, "a.png"), cache, 8)
    damage(folder / name)
    with pytest.raises(DataError, match=f"{folder} are damaged .*delete that folder"):
        load(folder)


@pytest.mark.parametrize("name", ["images.npy", "index.json"])
@pytest.mark.parametrize("damage", [flip, truncate, remove, make_empty])
def test_a_damaged_cache_is_made_again(tmp_path, cache, name, damage):
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    files = listing(tmp_path, "a.png")
    whole = load(prepared(files, cache, 8))
    pixels = np.array(whole.pixels)  # a copy: the memory map breaks with its file
    damage(prepared(files, cache, 8) / name)
    healed = load(prepared(files, cache, 8))
    assert np.array_equal(healed.pixels, pixels)
    assert healed.facts == whole.facts


def test_the_digest_is_that_of_the_picture_not_of_the_file(tmp_path, cache):
    grey = Image.fromarray(NOISE[..., 0])
    saved(tmp_path / "a.png", grey)
    saved(tmp_path / "b.bmp", grey)
    saved(tmp_path / "c.tif", grey.convert("RGB"))
    saved(tmp_path / "d.png", grey.convert("RGBA"))
    saved(tmp_path / "e.png", grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    saved(tmp_path / "f.png", Image.fromarray(NOISE[..., 0].reshape(17, 13)))
    names = sorted(p.name for p in tmp_path.iterdir())
    found = load(prepared(listing(tmp_path, *names), cache, 8))
    digests = [f.pixels for f in found.facts]
    assert len(set(digests[:4])) == 1
    assert len(set(digests)) == 3


def test_samples_are_the_chosen_images_in_the_chosen_order(tmp_path, cache):
    for n in range(3):
        saved(tmp_path / f"{n}.png", Image.new("L", (4 + n, 9), n))
    found = load(prepared(listing(tmp_path, "0.png", "1.png", "2.png"), cache, 8))
    samples = found.samples([2, 0])
    assert samples.names == ("2.png", "0.png")
    assert samples.images[:, 0, 0, 0].tolist() == [2, 0]
    assert (samples.width.tolist(), samples.height.tolist()) == ([6, 4], [9, 9])
    assert samples.mode == ("L", "L")
    assert not np.shares_memory(samples.images, found.pixels)
    assert len(found.samples([])) == 0
    assert found.samples([]).images.shape == (0, 3, 8, 8)


# Shared by several users


@pytest.mark.parametrize("name", ["images.npy", "index.json"])
def test_what_may_not_be_read_is_no_damage_and_stays(tmp_path, cache, monkeypatch, name):
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    folder = prepared(listing(tmp_path, "a.png"), cache, 8)
    content = {p.name: p.read_bytes() for p in folder.iterdir()}
    real = os.open

    def denied(path, *rest, **options):
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(DataError, match=rf"cannot read .*/{name}: Permission denied; its owner"):
        prepared(listing(tmp_path, "a.png"), cache, 8)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == content


def test_what_is_prepared_serves_from_a_cache_that_may_only_be_read(tmp_path, cache, monkeypatch):
    saved(tmp_path / "a.png", Image.fromarray(NOISE))
    files = listing(tmp_path, "a.png")
    folder = prepared(files, cache, 8)

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(images, "locked", refused)
    monkeypatch.setattr(images, "staged_folder", refused)
    assert prepared(files, cache, 8) == folder
    with pytest.raises(StoreError, match=r"cannot write to the cache .*: Read-only file system"):
        prepared(files, cache, 9)
