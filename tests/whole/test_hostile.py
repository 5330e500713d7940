"""Whatever lies in a file or stands in a text from outside: a result, or one line of error."""

import io
import json
import os
import random
import struct
import subprocess
import sys
import threading
import time
import tomllib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.data.catalog import MVTEC_AD
from bench.data.decode import decode_image, decoding_pool
from bench.data.images import load, prepare
from bench.data.layouts import list_category
from bench.data.listing import File, Listing, fingerprint
from bench.errors import BenchError, DataError, RequestError, WeightsError
from bench.planning.matrix import Selection, expand, select
from bench.planning.suite import read_suite
from bench.registry import Registry
from bench.system.digests import SETTLED, FingerprintCache
from bench.system.files import sealed
from bench.system.untrusted import MAX_TOML, is_one_line
from bench.weights import find_weights
from tests.fixtures.checkpoints import checkpoint

SECONDS = 20
"""What no single piece of hostile content may take, on a busy machine."""


@contextmanager
def one_line(kind: type[BenchError] = BenchError) -> Iterator[None]:
    """Let the block succeed, or fail with an error of one printable line, in bounded time."""
    started = time.monotonic()
    try:
        yield
    except kind as error:
        message = str(error)
        assert message
        assert is_one_line(message)
        assert len(message) < 4000
    assert time.monotonic() - started < SECONDS


@pytest.fixture(scope="module")
def registry(warm_cache: Path) -> Registry:
    return Registry(warm_cache)


# Images

NOISE = np.random.RandomState(0).randint(0, 256, (40, 30, 4), np.uint8)
RGB = Image.fromarray(NOISE[..., :3])


def encoded(kind: str, image: Image.Image = RGB, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(min((3 * width + 1) * height, 1000))))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + pixels + chunk(b"IEND", b"")


WHOLE = [
    encoded("png"),
    encoded("png", RGB.convert("P"), transparency=3),
    encoded("png", Image.fromarray(NOISE)),
    encoded("png", RGB, save_all=True, append_images=[RGB.rotate(90)]),
    encoded("jpeg"),
    encoded("jpeg", progressive=True, exif=Image.Exif().tobytes()),
    encoded("jpeg", RGB.convert("CMYK")),
    encoded("mpo", save_all=True, append_images=[RGB]),
    encoded("bmp"),
    encoded("bmp", RGB.convert("P")),
    encoded("tiff"),
    encoded("tiff", compression="tiff_lzw"),
    encoded("tiff", compression="tiff_deflate", tiffinfo={270: "text", 315: "text"}),
    encoded("tiff", compression="jpeg"),
    encoded("tiff", RGB.convert("1"), compression="group4"),
    encoded("tiff", save_all=True, append_images=[RGB]),
    encoded("gif"),
]


LONG = st.integers(0, 2**32 - 1)


def look(content: bytes) -> None:
    with one_line(DataError), decoding_pool() as pool:
        image, _ = pool.submit(decode_image, Path("a\nb.png"), content).result()
        assert image.mode == "RGB"
        assert image.width * image.height > 0


@given(st.binary(max_size=400), st.sampled_from([b"", *(w[:32] for w in WHOLE)]))
@settings(max_examples=150)
def test_random_bytes(content: bytes, start: bytes) -> None:
    look(start + content)


@given(st.sampled_from(WHOLE), st.data())
@settings(max_examples=300)
def test_damaged_images(whole: bytes, data: st.DataObject) -> None:
    content = bytearray(whole)
    # Headers are where a changed byte does most.
    spots = st.one_of(st.integers(0, min(200, len(content) - 1)), st.integers(0, len(content) - 1))
    for place in data.draw(st.lists(spots, min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(content), len(content) // 2, 60]))
    look(bytes(content[:cut]))


@given(LONG, LONG, st.integers(0, 255), st.integers(0, 7))
@example(30_000, 30_000, 8, 2)
@example(8_000, 8_000, 8, 2)
@example(64_000_000, 1, 1, 0)
@settings(max_examples=60)
def test_png_headers(width: int, height: int, depth: int, colour: int) -> None:
    look(png(width, height, depth=depth, colour=colour))


TAG = st.tuples(st.integers(0, 65535), st.integers(0, 20), LONG, LONG)


@given(st.lists(TAG, max_size=12), LONG)
@settings(max_examples=100)
def test_tiff_directories(tags: list[tuple[int, int, int, int]], following: int) -> None:
    usual = [(256, 3, 1, 40), (257, 3, 1, 30), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
             (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 30), (279, 4, 1, 1200)]  # fmt: skip
    entries = sorted({t[0]: t for t in usual + tags}.values())
    body = b"".join(struct.pack("<HHII", *e) for e in entries)
    directory = struct.pack("<H", len(entries)) + body + struct.pack("<I", following)
    look(struct.pack("<2sHI", b"II", 42, 8) + directory + bytes(1200))


def scanned(times: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: seconds for every kilobyte."""
    whole = encoded("jpeg", Image.new("L", (4000, 4000)), progressive=True)
    scan = whole[whole.rfind(b"\xff\xda") : -2]
    return whole[:-2] + scan * times + b"\xff\xd9"


MEGABYTES = zlib.compress(bytes(50_000_000))
NAMED = {
    "empty": (b"", "does not decode .is empty"),
    "no image": (b"hello", "is not a PNG, JPEG, BMP or TIFF image"),
    "a gif": (encoded("gif"), "is not a PNG, JPEG, BMP or TIFF image"),
    "truncated png": (encoded("png")[:-900], "does not decode"),
    "truncated jpeg": (encoded("jpeg")[:-300], "does not decode .*truncated"),
    "truncated bmp": (encoded("bmp")[:-300], "does not decode .*truncated"),
    "truncated tiff": (encoded("tiff")[:-300], "does not decode"),
    "16-bit grey": (encoded("png", Image.fromarray(NOISE[..., 0].astype(np.uint16))), "mode I;16"),
    "16-bit colour": (png(4, 4, depth=16), "mode RGB of 16 bits"),
    "16-bit grey with alpha": (png(4, 4, depth=16, colour=4), "of 16 bits"),
    "32-bit": (encoded("tiff", Image.new("I", (4, 4))), "mode I;"),
    "float": (encoded("tiff", Image.new("F", (4, 4))), "mode F;"),
    "CMYK jpeg": (encoded("jpeg", RGB.convert("CMYK")), "mode CMYK"),
    "CMYK tiff": (encoded("tiff", RGB.convert("CMYK")), "mode CMYK"),
    "YCbCr": (encoded("tiff", RGB.convert("YCbCr")), "(mode YCbCr|file is truncated)"),
    "animated png": (encoded("png", RGB, save_all=True, append_images=[RGB.rotate(9)]), "frames"),
    "pages": (encoded("tiff", save_all=True, append_images=[RGB]), "several frames or pages"),
    "30,000 px": (png(30_000, 30_000), "too many"),
    "10,000 px": (png(10_000, 10_000), "10000x10000 pixels: too many"),
    "no pixels": (png(0, 5), "does not decode"),
    "bomb of text": (png(4, 4, chunk(b"zTXt", b"a\0\0" + MEGABYTES)), "does not decode"),
    "bomb of texts": (
        png(4, 4, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))] * 80),
        "does not decode",
    ),
    "bomb of scans": (scanned(30_000), "scans: too many"),
    "many scans": (scanned(20), ""),
    "bomb of a profile": (png(4, 4, chunk(b"iCCP", b"a\0\0" + MEGABYTES)), ""),
    "bomb of pixels": (png(4, 4, chunk(b"IDAT", MEGABYTES)), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_images_that_are_refused_by_name(tmp_path: Path, name: str) -> None:
    content, said = NAMED[name]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    files = Listing(tmp_path, (File("a.png", "train", "good"),))
    of = fingerprint(files, FingerprintCache(tmp_path / "cache"))
    with one_line(), decoding_pool():
        if not said:  # what it is blown up with is no part of the picture
            decode_image(path)
            return
        with pytest.raises(DataError, match=rf"{path} .*{said}") as caught:
            prepare(files, of, tmp_path / "cache", 8)
        raise caught.value


def test_nothing_is_printed_of_damaged_images(capfd: pytest.CaptureFixture[str]) -> None:
    """Pillow warns and logs. TIFF is left out: libtiff, in C, cannot be kept from talking."""
    draw = random.Random(0)
    for whole in (w for w in WHOLE if not w.startswith(b"II")):
        for _ in range(30):
            content = bytearray(whole)
            for _ in range(4):
                content[draw.randrange(min(len(content), 300))] = draw.randrange(256)
            look(bytes(content))
    assert capfd.readouterr() == ("", "")


# Names

NAME = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=30).map(
    lambda t: t.encode("utf-8", "surrogatepass")
) | st.binary(min_size=1, max_size=60).filter(lambda b: not set(b) & set(b"/\0"))


@given(NAME, NAME, NAME)
@example(b"a\nb", b"c\rd", b"\xff")
@example(b"\x1b[2J", b"a", b" ")
@settings(max_examples=100)
def test_names_of_files_folders_and_datasets(
    tmp_path_factory: pytest.TempPathFactory, file: bytes, defect: bytes, above: bytes
) -> None:
    top = os.fsencode(tmp_path_factory.mktemp("names"))
    home = os.path.join(top, above, b"mvtec_ad", b"bottle")
    pixels = encoded("bmp", Image.new("L", (2, 2)))
    for folder in (b"train/good", b"test/good", b"test/" + defect):
        place = os.path.join(home, folder)
        try:
            os.makedirs(place, exist_ok=True)
            with open(os.path.join(place, file + b".bmp"), "wb") as opened:
                opened.write(pixels)
        except (OSError, ValueError):
            return  # no name of this file system
    cache = Path(os.fsdecode(top)) / "cache"
    with one_line(DataError):
        files = list_category(MVTEC_AD, "bottle", Path(os.fsdecode(os.path.dirname(
            os.path.dirname(home)))), cache)  # fmt: skip
        of = fingerprint(files, FingerprintCache(cache))
        assert load(prepare(files, of, cache, 8)).pixels.shape[0] == len(files.files)


# Suites and --set

TEXT = st.text(max_size=20)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
KEY = st.sampled_from(
    ["methods", "data", "shots", "seeds", "setting", "seen_defects", "set", "block", "description"]
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(k))} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    return {None: "1979-05-27", True: "true", False: "false"}.get(value, repr(value))


SMALL = 'methods = ["shortcut"]\ndata = ["head_ct"]\nshots = [1]\n'
DEEP = "[" * 20_000
REFUSED = {
    "nested": (SMALL + f"a = {DEEP}", "nested too deeply"),
    "nested a little": (SMALL + "a = " + "[" * 50 + "]" * 50, "nested too deeply"),
    "tables": (SMALL + "a = " + "{b = " * 5000, "nested too deeply"),
    "dots": (SMALL + "a" + ".a" * 100_000 + " = 1", "more than 100 dots in line 4"),
    "huge int": (SMALL + "seeds = " + "9" * 5000, "number of too many digits"),
    "huge hex": (SMALL + "seeds = 0x" + "f" * 9000, "more than 64 bits"),
    "date": (SMALL + "seeds = 1979-05-27", "holds a date, 1979-05-27"),
    "time": (SMALL + "seeds = 07:32:00", "holds a time, 07:32:00"),
    "inf": (SMALL + "[set]\nimage_size = inf", "image_size must be"),
    "nan": (SMALL + "[set.shortcut]\nblack = nan", "black must be"),
    "set of a list": (SMALL + "[set]\nimage_size = [1]", "set.image_size must be one value"),
    "set of a table": (SMALL + "[set.shortcut.black]\na = 1", "set.shortcut.black must be one"),
    "control in a key": (SMALL + '"a\\nb" = 1', r"unknown key 'a\\nb'"),
    "control in set": (SMALL + '[set]\n"a\\u001b" = 1', "holds a control character"),
    "control in a value": (SMALL + '[set]\nresize = "a\\nb"', "set.resize holds a control"),
    "control in data": (SMALL.replace("head_ct", "a\\u0007"), "data holds a control character"),
    "description": (SMALL + "description = [1]", "description must be a text"),
    "long text": (SMALL + f'description = "{"x" * 3000}"', "a text of 3000 characters"),
    "long name": (SMALL.replace("head_ct", "x" * 300), "File name too long"),
    "not UTF-8": (SMALL + "# \udcff", "not UTF-8 at byte"),
    "huge": (SMALL + "#" * MAX_TOML, "more than 256 KiB"),
    "runs": (SMALL.replace('"head_ct"', '"mvtec_ad"') + "seeds = 1000\n" + "".join(
        f"[[block]]\nset.image_size = {n}\n" for n in range(16, 100)), "more than 100000 runs"),
}  # fmt: skip


def asked(path: Path, registry: Registry, *overrides: str) -> None:
    expand(read_suite(str(path)), Selection(overrides=overrides), registry, path.parent / "data")


@pytest.mark.parametrize("name", REFUSED)
def test_suites_that_are_refused_by_name(tmp_path: Path, registry: Registry, name: str) -> None:
    text, said = REFUSED[name]
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    (tmp_path / "data").mkdir()
    with one_line(RequestError), pytest.raises(RequestError, match=said) as caught:
        asked(path, registry)
    assert any(name in str(caught.value) for name in ("mine", "image_size", "black"))
    assert is_one_line(str(caught.value))


@pytest.mark.parametrize("what", ["folder", "pipe", "loop", "nothing", "null", "line", "long"])
def test_a_suite_that_is_no_file(tmp_path: Path, registry: Registry, what: str) -> None:
    path = tmp_path / "mine.toml"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "loop":
        path.symlink_to(path)
    else:
        names = {"null": "a\0.toml", "line": "a\nb.toml", "long": "a" * 300 + ".toml"}
        path = tmp_path / names.get(what, "nothing.toml")
    with one_line(RequestError), pytest.raises(RequestError, match="suite") as caught:
        asked(path, registry)
    assert is_one_line(str(caught.value))


TABLE = st.dictionaries(KEY | TEXT, VALUE, max_size=4).map(
    lambda table: "\n".join(f"{toml(k)} = {toml(v)}" for k, v in table.items())
)


@given(st.text(max_size=200) | TABLE, st.booleans())
@settings(max_examples=250)
def test_suites(
    tmp_path_factory: pytest.TempPathFactory, registry: Registry, text: str, small: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes((SMALL * small + text).encode(errors="surrogateescape"))
    with one_line():
        asked(path, registry)


@given(st.dictionaries(st.sampled_from(["image_size", "black", "shortcut", "stage"]) | TEXT, VALUE))
@settings(max_examples=150)
def test_tables_of_settings(
    tmp_path_factory: pytest.TempPathFactory, registry: Registry, table: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "settings.toml"
    path.write_text(f"{SMALL}set = {toml(table)}")
    with one_line():
        asked(path, registry)


OVERRIDE = st.text(max_size=60) | st.builds(
    lambda key, value: f"{key}={toml(value)}",
    st.sampled_from(["image_size", "shortcut.black", "a.b", "resize"]),
    VALUE,
)


@given(OVERRIDE)
@example("image_size=" + DEEP)
@example("image_size=" + "9" * 5000)
@example("image_size=0x" + "f" * 9000)
@example("image_size=224\nresize='bicubic'")
@example("image_size=1979-05-27")
@example("resize=\udcff")
@example("a" * 100_000 + "=1")
@example("image_size=" + "a." * 50_000 + "a = 1")
@example("shortcut={black={a=1}}")
@settings(max_examples=250)
def test_overrides(tmp_path_factory: pytest.TempPathFactory, registry: Registry, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "small.toml"
    path.write_text(SMALL)
    if len(text) < 1000:
        with one_line(RequestError):
            asked(path, registry, text)
    else:  # said back to who wrote it in full, later on
        with one_line(RequestError):
            select(read_suite(str(path)), Selection(overrides=(text,)))


def test_a_second_line_in_an_override_is_not_lost_in_silence(
    tmp_path: Path, registry: Registry
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALL)
    with pytest.raises(RequestError, match="one line of UTF-8"):
        asked(path, registry, "image_size=64\nresize='bicubic'")


# weights.toml


@given(
    st.text(max_size=200).map(lambda t: t.encode(errors="surrogateescape"))
    | st.binary(max_size=100)
    | st.dictionaries(st.sampled_from(["backbone", "stages", "strides"]) | TEXT, VALUE).map(
        lambda d: f'"m.pth" = {toml(d)}'.encode()
    )
)
@example(b'"m.pth" = ' + b"[" * 20_000)
@example(b'"m.pth" = {backbone = "resnet50", stages = 0x' + b"f" * 9000 + b', strides = "v1"}')
@settings(max_examples=200)
def test_declarations(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "weights"
    folder.mkdir(exist_ok=True)
    (folder / "m.pth").write_bytes(checkpoint("resnet50"))
    (folder / "weights.toml").write_bytes(content)
    cache = folder / "cache"
    with one_line(WeightsError):
        find_weights("resnet50", 2, "m.pth", folder, cache, FingerprintCache(cache))
        # It was taken, so it says just this.
        said = tomllib.loads(content.decode())["m.pth"]
        assert said.keys() == {"backbone", "stages", "strides"}
        assert said["backbone"] == "resnet50"
        assert said["stages"] in (2, 3, 4)
        assert said["strides"] in ("v1", "v1.5")


DECLARED = 'backbone = "resnet50"\nstages = 3\nstrides = "v1"\n'
UNDECLARED = {
    "nothing": ("", "not known by its digest: declare it in"),
    "another file": ('["n.pth"]\n' + DECLARED, "not known by its digest: declare it in"),
    "no table": ('"m.pth" = 1', "is 1, not a table"),
    "no TOML": ('["m.pth"', "is not valid TOML"),
    "not UTF-8": ('["m.pth"]\n' + DECLARED + "# \udcff", "not UTF-8 at byte"),
    "nested": ('"m.pth" = ' + DEEP, "nested too deeply"),
    "huge": ("#" * (MAX_TOML + 1), "more than 256 KiB"),
    "a key less": ('["m.pth"]\n' + DECLARED.replace("stages = 3\n", ""), "lacks stages"),
    "a key more": ('["m.pth"]\n' + DECLARED + '"a\\nb" = 1', r"has an unknown key 'a\\nb'"),
    "another backbone": (
        '["m.pth"]\n' + DECLARED.replace("resnet50", "wide_resnet50_2"), "holds wide_resnet50_2"),
    "no backbone": ('["m.pth"]\n' + DECLARED.replace("resnet50", "a\\nb"), "has backbone = "),
    "too few stages": ('["m.pth"]\n' + DECLARED.replace("3", "1"), "to stage 1; stage 2 was"),
    "no stages": ('["m.pth"]\n' + DECLARED.replace("3", "0"), "has stages = 0; stages is one of"),
    "true": ('["m.pth"]\n' + DECLARED.replace("3", "true"), "has stages = True"),
    "a fraction": ('["m.pth"]\n' + DECLARED.replace("3", "3.0"), "has stages = 3.0"),
    "strides": ('["m.pth"]\n' + DECLARED.replace("v1", "v2"), "has strides = 'v2'"),
    "strides as a number": ('["m.pth"]\n' + DECLARED.replace('"v1"', "1"), "has strides = 1"),
}  # fmt: skip


def declared(folder: Path, text: str) -> None:
    (folder / "m.pth").write_bytes(checkpoint("resnet50"))
    (folder / "weights.toml").write_bytes(text.encode(errors="surrogateescape"))
    digests = FingerprintCache(folder)
    find_weights("resnet50", 2, "m.pth", folder, folder, digests)


@pytest.mark.parametrize("name", UNDECLARED)
def test_declarations_that_are_refused_by_name(tmp_path: Path, name: str) -> None:
    text, said = UNDECLARED[name]
    with one_line(WeightsError), pytest.raises(WeightsError, match=said) as caught:
        declared(tmp_path, text)
    assert is_one_line(str(caught.value))
    declared(tmp_path, '["m.pth"]\n' + DECLARED)


@given(TEXT)
@example("../weights/m.pth")
@example("a\0b")
@example("a\nb")
@example("\udcff")
@example("x" * 300)
@example("")
@example(".")
def test_names_of_weights(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    assume(name != "none")  # random initialisation, the one name that needs no file
    folder = tmp_path_factory.getbasetemp() / "weights"
    with one_line(WeightsError), pytest.raises(WeightsError) as caught:
        find_weights("resnet50", 2, name, folder, folder, FingerprintCache(folder))
    assert is_one_line(str(caught.value))


# What is printed


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict"])
def test_what_is_said_neither_steers_the_terminal_nor_fails(encoding: str) -> None:
    code = """
from bench.cli.options import say
say("caf\\xe9 \\x1b[2J\\a \\udcff :bomb: [bold]\\nsecond\\r " + "x" * 200)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "80"},
    )  # fmt: skip
    assert done.stderr == b""
    cafe = "caf\\xe9" if encoding.startswith("ascii") else "caf\xe9"
    wanted = rf"{cafe} \x1b[2J\x07 \udcff :bomb: [bold]" + "\nsecond\\r " + "x" * 200 + "\n"
    assert done.stdout.decode() == wanted


# What the cache holds

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Listing, str, Path]:
    """Two images, their fingerprint, and a cache that has them."""
    root = tmp_path_factory.mktemp("cached")
    for name, image in (("a.png", RGB), ("b.png", RGB.rotate(90))):
        image.save(root / name)
    files = Listing(root, tuple(File(n, "train", "good") for n in ("a.png", "b.png")))
    cache = root / "cache"
    return files, fingerprint(files, FingerprintCache(cache)), cache


@given(st.sampled_from(["index.json", "images.npy"]), st.data())
@settings(max_examples=150)
def test_prepared_images(
    prepared: tuple[Listing, str, Path], name: str, data: st.DataObject
) -> None:
    files, of, cache = prepared
    folder = prepare(files, of, cache, 8)
    pixels = np.array(load(folder).pixels)
    content = bytearray((folder / name).read_bytes())
    match data.draw(st.integers(0, 3)):
        case 0:
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(
                st.integers(0, 7))  # fmt: skip
        case 1:
            del content[data.draw(st.integers(0, len(content) - 1)) :]
        case 2:
            content = bytearray(data.draw(st.binary(max_size=200)))
        case 3:
            values = data.draw(st.dictionaries(st.sampled_from(["of", "files"]) | TEXT, JSON))
            content = bytearray(sealed("prepared images", values))
    (folder / name).unlink()  # others may have mapped it
    (folder / name).write_bytes(content)
    with one_line(DataError):
        load(folder)
    assert np.array_equal(load(prepare(files, of, cache, 8)).pixels, pixels)


@given(st.data())
@settings(max_examples=150)
def test_kept_digests(prepared: tuple[Listing, str, Path], data: st.DataObject) -> None:
    files, of, cache = prepared
    kept = cache / "sha256.json"
    path = files.root / "a.png"
    stat = path.stat()
    entry = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    match data.draw(st.integers(0, 2)):
        case 0:
            content = data.draw(st.binary(max_size=200))
        case 1:
            content = json.dumps(data.draw(JSON)).encode()
        case 2:  # sealed, but of another shape
            shapes = st.lists(JSON, max_size=4) | JSON | JSON.filter(
                lambda v: not isinstance(v, str)).map(lambda v: [*entry, v])  # fmt: skip
            content = sealed("sha256 of files", {str(path): data.draw(shapes)})
    kept.unlink(missing_ok=True)
    kept.write_bytes(content)
    assert fingerprint(files, FingerprintCache(cache)) == of
    kept.unlink()


def test_any_flipped_bit_of_a_long_cache_of_digests_is_seen(tmp_path: Path) -> None:
    digests = FingerprintCache(tmp_path)
    old = time.time_ns() - 100 * SETTLED
    for n in range(20):
        digests._store(tmp_path / f"{n}.png", (n, old, old), f"{n:064x}")
    digests.save()
    whole = (tmp_path / "sha256.json").read_bytes()
    known = FingerprintCache(tmp_path)._known
    assert len(known) == 20
    draw = random.Random(0)
    for _ in range(300):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        (tmp_path / "sha256.json").unlink()
        (tmp_path / "sha256.json").write_bytes(content)
        assert FingerprintCache(tmp_path)._known in ({}, known)  # {}: or white space, unchanged


def test_pipes_in_the_cache_hold_nothing_up(prepared: tuple[Listing, str, Path]) -> None:
    files, of, cache = prepared
    folder = prepare(files, of, cache, 8)

    def in_time(action: Callable[[], object]) -> None:
        thread = threading.Thread(target=action, daemon=True)
        thread.start()
        thread.join(SECONDS)
        assert not thread.is_alive()

    for file in (cache / "sha256.json", folder / "index.json", folder / "images.npy"):
        file.unlink(missing_ok=True)
        os.mkfifo(file)
        in_time(lambda: prepare(files, of, cache, 8))
        assert load(folder).pixels.shape[0] == 2
    (cache / "sha256.json").unlink()
