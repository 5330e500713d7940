"""No archive writes outside its folder, fills the disk, or ends in a traceback."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.data.fetch.unpack import Limits, unpack
from bench.errors import DataError, StoreError

MIB = 1 << 20
GOOD = {"bottle/train/good/000.png": b"normal" * 1000, "bottle/test/x/000.png": b"", "readme": b"r"}


def tar(members: Iterable[tuple[str | tarfile.TarInfo, bytes]], **options: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if content:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], method: int = 8) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    """A tar header that says what it is told, the size in base 256."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (b"\x80" if size >= 0 else b"\xff") + (size % (1 << 88)).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


PACK: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda b: b,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
FORMATS = {
    **{name: (lambda m, p=pack: p(tar(m))) for name, pack in PACK.items()},
    "zip": zipped,
    "stored": lambda m: zipped(m, 0),
}


class Yard:
    """A folder with an archive, a target in it, and nothing else allowed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.target, self.archive = folder, folder / "target", folder / "the.archive"

    def unpack(self, content: bytes, limits: Limits | None = None) -> list[str]:
        self.archive.write_bytes(content)
        try:
            return unpack(self.archive, self.target, limits)
        finally:
            assert sorted(p.name for p in self.folder.iterdir()) in (
                ["target", "the.archive"],
                ["the.archive"],
            )
            for path in self.target.rglob("*"):
                assert stat.S_ISDIR(path.lstat().st_mode) or stat.S_ISREG(path.lstat().st_mode)

    def refuses(self, content: bytes, said: str, limits: Limits | None = None) -> None:
        with pytest.raises(DataError, match=said) as caught:
            self.unpack(content, limits)
        text = str(caught.value)
        assert str(self.archive) in text
        assert text.isprintable()
        assert len(text) < 500
        shutil.rmtree(self.target, ignore_errors=True)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


@pytest.mark.parametrize("pack", FORMATS.values(), ids=FORMATS)
def test_files_come_out_as_they_went_in(yard: Yard, pack: Callable[..., bytes]) -> None:
    assert yard.unpack(pack(GOOD.items())) == list(GOOD)
    for name, content in GOOD.items():
        file = yard.target / name
        assert file.read_bytes() == content
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    old = os.umask(0o22)
    os.umask(old)
    return old


def test_real_tools_archives_are_read(yard: Yard) -> None:
    folder = tarfile.TarInfo("./")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o0
    inner = tarfile.TarInfo("./a/")
    inner.type, inner.size = tarfile.DIRTYPE, 0
    long = "./a/" + "n" * 200 + "/" + "ü" * 100
    members = [
        (folder, b""),
        (inner, b""),
        (long, b"x"),
        ("./__MACOSX/a/._f", b"m"),
        ("./a/._f", b"m"),
        ("./a/.DS_Store", b"m"),
    ]
    for style in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        assert yard.unpack(tar(members, format=style)) == [long[2:]]
        shutil.rmtree(yard.target)


def test_xz_streams_follow_each_other(yard: Yard) -> None:
    whole = tar(GOOD.items())
    parts = lzma.compress(whole[:700]) + lzma.compress(whole[700:])
    assert yard.unpack(parts) == list(GOOD)


BAD_NAMES = {
    "/etc/x": "absolute",
    "//x": "absolute",
    "C:/x": "absolute",
    "c:x": "absolute",
    "../x": "leads out",
    "a/../../x": "leads out",
    "a/..": "leads out",
    "..": "leads out",
    "a\\..\\x": "backslash",
    "\\x": "backslash",
    "a//b": "empty part",
    "a/./b": "empty part",
    "a\nb": "control character",
    "a\x1b[2Jb": "control character",
    "a\x85b": "control character",
    "n" * 256: "too long a name",
    "é" * 129: "too long a name",
    "/".join(["n" * 100] * 11): "too long a path",
    "/".join("a" * 33): "too long a path",
}


@pytest.mark.parametrize("pack", [tar, zipped], ids=["tar", "zip"])
@pytest.mark.parametrize(("name", "said"), BAD_NAMES.items(), ids=lambda v: ascii(v[:20]))
def test_a_bad_name_is_refused(
    yard: Yard, pack: Callable[..., bytes], name: str, said: str
) -> None:
    yard.refuses(pack([("ok", b"1"), (name, b"2")]), said)


def test_names_that_are_not_utf8_are_refused(yard: Yard) -> None:
    yard.refuses(tar([("bad\udcff", b"1")], errors="surrogateescape", format=1), "not UTF-8")
    raw = zipped([("bad", b"1")]).replace(b"bad", b"b\xfcd")
    yard.refuses(raw, "not UTF-8")
    flagged = zipped([("bäd", b"1")]).replace("bäd".encode(), b"b\xff\xffd")
    yard.refuses(flagged, "damaged")


def test_a_nul_in_a_name_is_refused(yard: Yard) -> None:
    yard.refuses(zipped([("good.png", b"1")]).replace(b"good.png", b"good\0png"), "control")
    pax = tarfile.TarInfo("a")
    pax.pax_headers = {"path": "a\0b"}
    yard.refuses(tar([(pax, b"1")], format=tarfile.PAX_FORMAT), "control")


KINDS = {
    "symlink": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "contiguous": tarfile.CONTTYPE,
    "unknown": b"Z",
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_only_files_and_folders_come_out_of_a_tar(yard: Yard, kind: bytes) -> None:
    yard.refuses(tar([special("x", kind, "/etc/passwd")]), "neither a file nor a folder")


def test_sparse_members_are_refused(yard: Yard) -> None:
    old = bytearray(header("x", 512, b"S"))
    old[386:410] = b"%011o\0%011o\0" % (0, 512)
    old[483:495] = b"%011o\0" % (1 << 33)
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    yard.refuses(bytes(old) + bytes(1536), "neither a file nor a folder")
    for headers in (
        {"GNU.sparse.map": "0,512", "GNU.sparse.size": "1099511627776"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999999"},
    ):
        info = tarfile.TarInfo("x")
        info.pax_headers = headers
        yard.refuses(tar([(info, b"1\n0\n5\n" + bytes(600))], format=2), "neither|damaged")


def test_a_symlink_in_a_zip_is_refused(yard: Yard) -> None:
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR):
        info = zipfile.ZipInfo("x")
        info.external_attr = (kind | 0o777) << 16
        yard.refuses(zipped([(info, b"/etc/passwd")]), "neither a file nor a folder")


@pytest.mark.parametrize("pack", [tar, zipped], ids=["tar", "zip"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a", "A"),
        ("a/x", "A/y"),
        ("straße", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b/c", "a/b"),
        ("a", "./a"),
    ],
)
def test_members_that_some_disk_holds_for_one_are_refused(
    yard: Yard, pack: Callable[..., bytes], first: str, second: str
) -> None:
    yard.refuses(pack([(first, b"1"), (second, b"2")]), "collides")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("pack", [tar, zipped], ids=["tar", "zip"])
def test_duplicates_are_refused(yard: Yard, pack: Callable[..., bytes]) -> None:
    yard.refuses(pack([("a/b", b"1"), ("a/b", b"2")]), "collides")


# --- bombs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", FORMATS.values(), ids=FORMATS)
def test_each_limit_holds(yard: Yard, pack: Callable[..., bytes]) -> None:
    noise = os.urandom(3000)
    archive = pack([(f"{n}/{n}.png", noise) for n in range(3)])
    for limits, said in (
        (Limits(total=8000), "honest"),
        (Limits(file=2999), "too large"),
        (Limits(members=2), "more than 2"),
        (Limits(members=4), "more than 4"),
    ):
        yard.refuses(archive, said, limits)
    assert len(yard.unpack(archive, Limits(total=21000, file=3000, members=6))) == 3


@pytest.mark.parametrize("size", [-1, -512, -(1 << 70), 1 << 70])
def test_sizes_that_lie(yard: Yard, size: int) -> None:
    yard.refuses(header("x", size) + bytes(2048), "negative|too large|invalid offset")
    info = tarfile.TarInfo("x")
    info.pax_headers = {"size": str(size)}
    yard.refuses(tar([(info, b"12")], format=2), "negative|too large|cut off|backwards")


def entries(content: bytes) -> list[tuple[int, int]]:
    """Where the central directory's records of a zip begin and what offset each names."""
    found, at = [], content.find(b"PK\1\2")
    while at >= 0:
        found.append((at, struct.unpack_from("<I", content, at + 42)[0]))
        at = content.find(b"PK\1\2", at + 1)
    return found


def patched(content: bytes, at: int, form: str, value: int) -> bytes:
    out = bytearray(content)
    struct.pack_into(form, out, at, value)
    return bytes(out)


def test_zip_members_that_share_bytes_are_refused(yard: Yard) -> None:
    content = zipped([("a.png", os.urandom(100)), ("b.png", os.urandom(100))])
    (_, offset), (second, _) = entries(content)
    yard.refuses(patched(content, second + 42, "<I", offset), "damaged")


def test_zip_sizes_that_lie(yard: Yard) -> None:
    content = zipped([("a.png", b"abc" * 1000)])
    ((at, _),) = entries(content)
    for form, place, value in (
        ("<I", 24, 10),
        ("<I", 24, 5000),
        ("<I", 20, 2),
        ("<I", 16, 1),
        ("<I", 42, 7),
    ):
        yard.refuses(patched(content, at + place, form, value), "damaged|cut off")
    yard.refuses(patched(content, at + 24, "<I", 0xFFFFFFFE), "too large")


def test_zip64(yard: Yard) -> None:
    info = zipfile.ZipInfo("a.png")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open(info, "w", force_zip64=True) as file:
        file.write(b"abc")
    assert yard.unpack(buffer.getvalue()) == ["a.png"]
    end = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, 1 << 62, 0)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, 10, 1)
    last = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    shutil.rmtree(yard.target)
    yard.refuses(b"PK\3\4" + bytes(6) + end + locator + last, "damaged|honest")


def test_encrypted_and_uncommon_zip_members_are_refused(yard: Yard) -> None:
    content = zipped([("a.png", b"abc")])
    ((at, _),) = entries(content)
    for flag in (1, 64):
        yard.refuses(patched(content, at + 8, "<H", flag), "encrypted")
    yard.refuses(patched(content, at + 10, "<H", 99), "damaged")


# --- damaged --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", FORMATS.values(), ids=FORMATS)
def test_a_truncated_archive_is_refused_wherever_it_ends(
    tmp_path: Path, pack: Callable[..., bytes]
) -> None:
    content = pack([("a/1.png", os.urandom(600)), ("a/2.png", os.urandom(600))])
    ends = {*range(0, len(content) - 1, 97), 512, 1536, len(content) // 2}
    # What follows the first block of zeros of a tar is padding.
    whole = 3584 if content[257:262] == b"ustar" else len(content)
    for end in (e for e in ends if e < whole):
        (tmp_path / str(end)).mkdir()
        Yard(tmp_path / str(end)).refuses(content[:end], "damaged|cut off|no files")


def test_a_tar_that_stops_between_members_is_not_taken_for_whole(yard: Yard) -> None:
    content = tar([("a", b"1"), ("b", b"2")])
    yard.refuses(content[:1024] + b"garbage!" * 64 + content[1536:], "cut off or damaged")


@pytest.mark.parametrize("content", [b"", b"PK\5\6" + bytes(18), tar([]), b"no archive" * 99])
def test_what_holds_no_files_is_refused(yard: Yard, content: bytes) -> None:
    yard.refuses(content, "no files|neither a zip nor a tar .* gzip, bzip2 or xz")


def test_the_disk_is_told_from_the_archive(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.target.mkdir()
    with pytest.raises(StoreError, match="cannot write"):
        yard.unpack(tar(GOOD.items()))
    with pytest.raises(DataError, match="No such file"):
        unpack(tmp_path / "nowhere", tmp_path / "other")


# --- fuzz -----------------------------------------------------------------------------------------

SOUND = [pack(GOOD.items()) for pack in FORMATS.values()]
SMALL = Limits(total=MIB, file=MIB, members=50)


def attack(content: bytes) -> list[str] | None:
    """Unpack in a yard of its own; all but DataError is a failure."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Yard(Path(folder)).unpack(content, SMALL)
        except DataError:
            return None


@given(st.sampled_from([b"", b"PK\3\4", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0"]), st.binary())
def test_random_bytes(magic: bytes, content: bytes) -> None:
    attack(magic + content)


@settings(max_examples=200)
@given(
    st.sampled_from(SOUND),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_flipped_bytes(sound: bytes, flips: list[tuple[float, int]]) -> None:
    content = bytearray(sound)
    for place, value in flips:
        content[int(place * (len(content) - 1))] = value
    attack(bytes(content))


@settings(max_examples=100)
@given(st.sampled_from(SOUND), st.integers(0), st.integers(0), st.integers(0))
def test_moved_pieces(sound: bytes, start: int, length: int, to: int) -> None:
    start %= len(sound)
    piece = sound[start : start + length % 1500]
    to %= len(sound)
    attack(sound[:to] + piece + sound[to:])
    attack(sound[:to] + piece + sound[to + len(piece) :])


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(range(512)), st.integers(0, 255), max_size=6))
def test_tar_headers_with_a_right_checksum(changes: dict[int, int]) -> None:
    block = bytearray(header("a/b", 100))
    for place, value in changes.items():
        block[place] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    attack(bytes(block) + bytes(512) + bytes(1024))


SEGMENT = st.sampled_from(["..", ".", "", "a", "A", "b\\c", "\0", "é", "e\u0301", "C:", "~", "x\n"])
NAME = st.one_of(
    st.lists(SEGMENT, min_size=1, max_size=5).map("/".join),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
)


@settings(max_examples=100)
@pytest.mark.filterwarnings("ignore:Duplicate name")
@example(["a", "a/.."], True)
@given(st.lists(NAME, min_size=1, max_size=4), st.booleans())
def test_random_names(names: list[str], as_zip: bool) -> None:
    members = [(name, b"content") for name in names]
    if as_zip and not any(n[:1] in ("", "\0") for n in names):
        attack(zipped(members))
    else:
        attack(tar(members, format=tarfile.PAX_FORMAT))
