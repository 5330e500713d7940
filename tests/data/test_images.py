import io
import os
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data import images
from bench.data.catalog import HEAD_CT, MVTEC_AD, SYNTHETIC, find_dataset
from bench.data.decode import ImageFacts, decode, decoding_pool
from bench.data.images import CategoryImages, load, prepare
from bench.data.listing import File, Listing, fingerprint
from bench.data.official import why_unofficial
from bench.errors import DataError, RequestError, StoreError
from bench.system.digests import SETTLED, FingerprintCache

NOISE = np.random.RandomState(0).randint(0, 256, (13, 17, 4), np.uint8)


def rgb_of(path):
    image, mode = decode(path)
    assert image.mode == "RGB"
    return np.asarray(image), mode


def rgb_or_named(path):
    """Return the decoded pixels, or None where the file is refused by its name."""
    try:
        return rgb_of(path)[0]
    except DataError as error:
        message = str(error)
    assert str(path) in message
    return None


def saved(path, image, **options):
    image.save(path, **options)
    return path


def listing(root, *names):
    return Listing(root, tuple(File(n, "train", "good") for n in names))


def prepared(files, cache, *size_and_rule, **options):
    """Prepare what lies there now: nothing is kept of it, and so nothing can be outdated."""
    content = fingerprint(files, FingerprintCache(cache / "none"))
    return prepare(files, content, cache, *(size_and_rule or (8,)), **options)


# Modes


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_opaque_modes_become_the_rgb_that_they_show(tmp_path, mode, name):
    image = Image.fromarray(NOISE[..., :3]).convert(mode)
    pixels, said = rgb_of(saved(tmp_path / name, image))
    assert said == mode
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_grey_becomes_three_equal_channels(tmp_path):
    pixels, _ = rgb_of(saved(tmp_path / "a.png", Image.fromarray(NOISE[..., 0])))
    np.testing.assert_array_equal(pixels, NOISE[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_alpha_is_composed_on_black(tmp_path, name):
    row = [(200, 100, 50, 255), (200, 100, 50, 0), (200, 100, 50, 51), (255, 255, 255, 128)]
    image = Image.fromarray(np.array([row], np.uint8))
    pixels, mode = rgb_of(saved(tmp_path / name, image))
    assert mode == "RGBA"
    assert pixels.tolist() == [[[200, 100, 50], [0, 0, 0], [40, 20, 10], [128, 128, 128]]]


def test_grey_with_alpha_is_composed_on_black(tmp_path):
    image = Image.fromarray(np.array([[[200, 255], [200, 0], [200, 51]]], np.uint8), "LA")
    pixels, mode = rgb_of(saved(tmp_path / "a.png", image))
    assert mode == "LA"
    assert pixels[0, :, 0].tolist() == pixels[0, :, 2].tolist() == [200, 0, 40]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\x33"])
def test_a_transparent_colour_of_a_palette_is_composed_on_black(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 100, 200, 50])
    path = saved(tmp_path / "a.png", image, transparency=transparency)
    pixels, mode = rgb_of(path)
    last = [100, 200, 50] if transparency == 1 else [20, 40, 10]
    assert mode == "P"
    assert pixels.tolist() == [[[255, 0, 0], [0, 0, 0], last]]


@pytest.mark.parametrize(("mode", "colour"), [("L", 7), ("RGB", (7, 8, 9))])
def test_a_transparent_colour_without_an_alpha_channel_is_composed_on_black(tmp_path, mode, colour):
    image = Image.new(mode, (2, 1), colour)
    image.putpixel((1, 0), 90 if mode == "L" else (90, 90, 90))
    pixels, _ = rgb_of(saved(tmp_path / "a.png", image, transparency=colour))
    assert pixels.tolist() == [[[0, 0, 0], [90, 90, 90]]]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.png", Image.fromarray(np.zeros((4, 4), np.uint16))),
        ("a.tif", Image.fromarray(np.zeros((4, 4), np.uint16))),
        ("a.tif", Image.new("I", (4, 4))),
        ("a.tif", Image.new("F", (4, 4))),
        ("a.tif", Image.new("CMYK", (4, 4))),
        ("a.jpg", Image.new("CMYK", (4, 4))),
    ],
)
def test_deep_and_printers_images_are_refused_by_file_and_mode(tmp_path, name, image):
    path = saved(tmp_path / name, image)
    with pytest.raises(DataError, match=rf"{path} has mode .*8-bit grey, RGB or RGBA"):
        decode(path)


# Files that do not decode


def encoded(kind, **options):
    content = io.BytesIO()
    Image.fromarray(NOISE[..., :3]).resize((90, 70)).save(content, kind, **options)
    return content.getvalue()


WHOLE = {
    "a.png": encoded("png"),
    "a.jpg": encoded("jpeg"),
    "b.jpg": encoded("jpeg", progressive=True),
    "a.bmp": encoded("bmp"),
    "a.tif": encoded("tiff"),
    "b.tif": encoded("tiff", compression="tiff_lzw"),
}

WARNS = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow says so beside its error


@WARNS
@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 1))
def test_a_truncated_file_is_named_or_whole_as_far_as_it_shows(tmp_path_factory, name, share):
    path = tmp_path_factory.getbasetemp() / f"truncated-{name}"
    path.write_bytes(WHOLE[name])
    whole, _ = rgb_of(path)
    path.write_bytes(WHOLE[name][: int(share * (len(WHOLE[name]) - 1))])
    found = rgb_or_named(path)
    assert found is None or np.array_equal(found, whole)


@WARNS
@pytest.mark.parametrize("name", sorted(WHOLE))
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_a_file_that_lacks_pixels_is_an_error_naming_it(tmp_path, name, share):
    path = tmp_path / name
    path.write_bytes(WHOLE[name][: int(share * len(WHOLE[name]))])
    with pytest.raises(DataError, match=f"{path} does not decode"):
        decode(path)


@WARNS
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_a_damaged_file_decodes_or_is_named(tmp_path_factory, name, data):
    content = bytearray(WHOLE[name])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    path.write_bytes(content)
    found = rgb_or_named(path)
    assert found is None or found.shape[2] == 3


def test_what_is_no_image_or_not_there_is_an_error_naming_it(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(DataError, match=r"a.png does not decode .is not a PNG, JPEG"):
        decode(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"b.png does not decode .*No such file"):
        decode(tmp_path / "b.png")


def test_an_image_with_too_many_pixels_is_an_error_naming_it(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.new("L", (50, 40)))
    monkeypatch.setattr("bench.data.decode.MAX_PIXELS", 1999)
    with pytest.raises(DataError, match=r"a.png has 50x40 pixels: too many"):
        decode(path)
    monkeypatch.setattr("bench.data.decode.MAX_PIXELS", 2000)
    assert decode(path)[0].size == (50, 40)


def test_a_decompression_bomb_is_an_error_naming_it(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.new("L", (50, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(DataError, match=r"a.png has too many pixels"):
        decode(path)


def test_what_pillow_only_warns_of_is_decoded_in_silence(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.new("L", (50, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    with decoding_pool() as pool:
        assert [i.size for i, _ in pool.map(decode, [path] * 8)] == [(50, 40)] * 8
    with pytest.raises(DataError, match="exceeds limit"):  # warnings are errors again
        decode(path)


# Files of several pictures, of other formats, of more bits


@pytest.mark.parametrize(("name", "kind"), [("a.png", "png"), ("a.tif", "tiff")])
def test_a_file_of_several_pictures_is_refused(tmp_path, name, kind):
    frames = [Image.fromarray(NOISE[..., :3]), Image.fromarray(NOISE[..., 1:])]
    frames[0].save(tmp_path / name, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=rf"{name} has several frames or pages"):
        decode(tmp_path / name)


def test_of_a_phones_pictures_in_one_jpeg_the_first_is_meant(tmp_path):
    first, preview = Image.fromarray(NOISE[..., :3]), Image.new("RGB", (8, 8))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview], quality=90)
    first.save(tmp_path / "b.jpg", "JPEG", quality=90)
    np.testing.assert_array_equal(rgb_of(tmp_path / "a.jpg")[0], rgb_of(tmp_path / "b.jpg")[0])


@pytest.mark.parametrize("kind", ["gif", "webp", "ppm", "dib", "tga", "ico"])
def test_another_format_is_refused_whatever_its_file_is_called(tmp_path, kind):
    Image.fromarray(NOISE[..., :3]).resize((32, 32)).save(tmp_path / "a.png", kind)
    with pytest.raises(DataError, match=r"a.png does not decode .is not a PNG, JPEG, BMP or TIFF"):
        decode(tmp_path / "a.png")


def test_colours_of_16_bits_are_refused_as_grey_of_16_bits_is(tmp_path):
    """Pillow would cut them to 8 bits without a word."""
    (tmp_path / "a.png").write_bytes(png(2, 2, b"\0" + b"\1\2" * 6, b"\0" + b"\1\2" * 6, depth=16))
    with pytest.raises(DataError, match=r"a.png has mode RGB of 16 bits"):
        decode(tmp_path / "a.png")


def png(width, height, *rows, depth=8):
    """Write an RGB PNG by hand."""

    def chunk(kind, content):
        crc = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + crc

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, 2, 0, 0, 0])
    body = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


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
    monkeypatch.setattr(images, "decode", None)
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


# Official or not


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
