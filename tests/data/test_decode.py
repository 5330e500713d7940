"""Images decoded to RGB, or refused by name."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data.decode import decode_image, decoding_pool, is_turned, upright_size
from bench.data.listing import IMAGE_SUFFIXES
from bench.errors import DataError
from tests.fixtures.pictures import NOISE, saved


def rgb_of(path):
    image, mode = decode_image(path)
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
        decode_image(path)


# Orientation


UPRIGHT = Image.fromarray(np.repeat(np.repeat(NOISE[:3, :2, :3], 8, 0), 8, 1))
"""Blocks of 8 px, so that a JPEG of it has the same colours; higher than wide."""
LAID = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera lays an upright picture down for each orientation."""
ENCODINGS = {
    "a.jpg": {"quality": 100, "subsampling": 0},
    "a.png": {},
    "a.tif": {},
    "b.tif": {"compression": "tiff_lzw"},
    "mpo.jpg": {"format": "MPO", "quality": 100, "save_all": True},
}


def laid(path, orientation, image=UPRIGHT, **options):
    """Save an upright picture as a camera does that is held another way."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = LAID.get(orientation)
    lying = image if turn is None else image.transpose(turn)
    if options.get("format") == "MPO":
        options["append_images"] = [Image.new("RGB", (8, 8))]
    return saved(path, lying, exif=exif, **options)


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("orientation", LAID)
def test_an_image_is_turned_as_its_exif_says(tmp_path, name, orientation):
    path = laid(tmp_path / name, orientation, **ENCODINGS[name])
    pixels, _ = rgb_of(path)
    assert pixels.shape == (24, 16, 3)
    # An MPO has coarser colours.
    assert np.abs(pixels.astype(int) - np.asarray(UPRIGHT)).mean() < 12
    assert is_turned(path) == (orientation != 1)
    assert upright_size(path) == (16, 24)


def test_alpha_and_palettes_are_turned_as_well(tmp_path):
    alpha = np.array([[[200, 0, 0, 255], [200, 0, 0, 0]]], np.uint8)
    pixels, mode = rgb_of(laid(tmp_path / "a.png", 6, Image.fromarray(alpha)))
    assert (pixels.tolist(), mode) == ([[[200, 0, 0], [0, 0, 0]]], "RGBA")
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 255, 0])
    pixels, mode = rgb_of(laid(tmp_path / "b.png", 3, palette))
    assert (pixels.tolist(), mode) == ([[[255, 0, 0], [0, 255, 0]]], "P")


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_is_none_is_passed_over(tmp_path, orientation):
    path = laid(tmp_path / "a.png", orientation)
    np.testing.assert_array_equal(rgb_of(path)[0], UPRIGHT)
    assert not is_turned(path)


@given(st.binary(max_size=64), st.sampled_from(["a.jpg", "a.png"]))
def test_damaged_exif_is_no_exif(tmp_path_factory, damage, name):
    folder = tmp_path_factory.mktemp("exif")
    bare = rgb_of(saved(folder / f"bare-{name}", UPRIGHT))[0]
    path = saved(folder / name, UPRIGHT, exif=b"Exif\0\0" + damage)
    with decoding_pool():
        np.testing.assert_array_equal(rgb_of(path)[0], bare)


def test_no_file_of_the_catalogue_is_turned(shared):
    images = [p for p in (shared / "data").rglob("*.*") if p.suffix.lower() in IMAGE_SUFFIXES]
    assert len(images) > 1000
    assert not [p for p in images if is_turned(p)]


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
        decode_image(path)


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
        decode_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"b.png does not decode .*No such file"):
        decode_image(tmp_path / "b.png")


def test_an_image_with_too_many_pixels_is_an_error_naming_it(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.new("L", (50, 40)))
    monkeypatch.setattr("bench.data.decode.MAX_PIXELS", 1999)
    with pytest.raises(DataError, match=r"a.png has 50x40 pixels: too many"):
        decode_image(path)
    monkeypatch.setattr("bench.data.decode.MAX_PIXELS", 2000)
    assert decode_image(path)[0].size == (50, 40)


def test_a_decompression_bomb_is_an_error_naming_it(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.new("L", (50, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(DataError, match=r"a.png has too many pixels"):
        decode_image(path)


def test_what_pillow_only_warns_of_is_decoded_in_silence(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.new("L", (50, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    with decoding_pool() as pool:
        assert [i.size for i, _ in pool.map(decode_image, [path] * 8)] == [(50, 40)] * 8
    with pytest.raises(DataError, match="exceeds limit"):  # warnings are errors again
        decode_image(path)


# Files of several pictures, of other formats, of more bits


@pytest.mark.parametrize(("name", "kind"), [("a.png", "png"), ("a.tif", "tiff")])
def test_a_file_of_several_pictures_is_refused(tmp_path, name, kind):
    frames = [Image.fromarray(NOISE[..., :3]), Image.fromarray(NOISE[..., 1:])]
    frames[0].save(tmp_path / name, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=rf"{name} has several frames or pages"):
        decode_image(tmp_path / name)


def test_of_a_phones_pictures_in_one_jpeg_the_first_is_meant(tmp_path):
    first, preview = Image.fromarray(NOISE[..., :3]), Image.new("RGB", (8, 8))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview], quality=90)
    first.save(tmp_path / "b.jpg", "JPEG", quality=90)
    np.testing.assert_array_equal(rgb_of(tmp_path / "a.jpg")[0], rgb_of(tmp_path / "b.jpg")[0])


@pytest.mark.parametrize("kind", ["gif", "webp", "ppm", "dib", "tga", "ico"])
def test_another_format_is_refused_whatever_its_file_is_called(tmp_path, kind):
    Image.fromarray(NOISE[..., :3]).resize((32, 32)).save(tmp_path / "a.png", kind)
    with pytest.raises(DataError, match=r"a.png does not decode .is not a PNG, JPEG, BMP or TIFF"):
        decode_image(tmp_path / "a.png")


def test_colours_of_16_bits_are_refused_as_grey_of_16_bits_is(tmp_path):
    """Pillow would cut them to 8 bits without a word."""
    (tmp_path / "a.png").write_bytes(png(2, 2, b"\0" + b"\1\2" * 6, b"\0" + b"\1\2" * 6, depth=16))
    with pytest.raises(DataError, match=r"a.png has mode RGB of 16 bits"):
        decode_image(tmp_path / "a.png")


def png(width, height, *rows, depth=8):
    """Write an RGB PNG by hand."""

    def chunk(kind, content):
        crc = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + crc

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, 2, 0, 0, 0])
    body = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")
