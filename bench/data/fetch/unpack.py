"""Unpack an archive that nobody vouches for: only plain files and folders, only where they belong.

`tarfile` and `zipfile` read the headers; every name is judged and every byte written here. The
readers see the archive through streams that give them no more than an honest header needs, so
that a hostile one can neither fill the memory nor the disk.
"""

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bench.errors import BenchError, DataError
from bench.system.files import writing

NAME_BYTES, PATH_BYTES, DEPTH = 255, 1024, 32
"""The longest component, the longest path, and how many folders deep a member may lie."""
HEADER_BYTES = 16 << 10
"""What tarfile may read for one member: a pax header takes one or two blocks of 512."""
GLOBAL_HEADERS = 100
"""How many keys tarfile may copy from the archive to each member."""
DIRECTORY_BYTES = 4 << 20
"""What zipfile may read at once; the central directory of 20,000 members fits."""
XZ_MEMORY = 512 << 20
"""`xz -9` needs 65 MiB."""
_CHUNK = 256 << 10
_ZERO_BLOCK = bytes(tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class Limits:
    """How much an archive may unpack to."""

    total: int = 4 << 30
    """Bytes of all members together, tar headers included."""
    file: int = 256 << 20
    """Bytes of one member."""
    members: int = 20_000
    """Files and folders, those that are only named as a parent included."""
    ratio: int = 100
    """Bytes unpacked for a byte of the archive; the first MiB is free."""


class _Bad(Exception):
    """What is wrong with an archive, without its name."""


@dataclass(frozen=True)
class _Member:
    name: str
    is_folder: bool
    size: int
    read: Callable[[int], bytes]
    """Give up to so many of the next bytes; valid until the next member is asked for."""


def unpack(archive: Path, target: Path, limits: Limits | None = None) -> list[str]:
    """Unpack a zip, or a tar that is plain or packed by gzip, bzip2 or xz, into a new folder.

    Returns the paths of the files written, relative to `target`; what macOS adds is left out.
    Raises DataError for an archive that is hostile, damaged or none, StoreError where `target`
    cannot be written. Either may leave a part in `target`, for the caller to remove.
    """
    limits = limits or Limits()
    try:
        with archive.open("rb") as file:
            budget = min(limits.total, limits.ratio * os.fstat(file.fileno()).st_size + (1 << 20))
            magic = file.read(6)
            file.seek(0)
            if magic.startswith((b"PK\3\4", b"PK\5\6")):
                members = _zip_members(archive, limits)
            else:
                members = _tar_members(_TarStream(_decompressed(file, magic), budget))
            tree = _Tree(target, limits, budget)
            for member in members:
                tree.add(member)
            if not tree.files:
                raise _Bad("it holds no files")
            return tree.files
    except BenchError:
        raise
    except _Bad as bad:
        raise DataError(f"{archive} cannot be unpacked: {bad}") from bad
    except Exception as error:  # the readers raise almost anything on bytes made to hurt them
        raise DataError(f"{archive} cannot be unpacked: {_described(error)}") from error


def _described(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return (
        "it is damaged, or neither a zip nor a tar that is plain or packed by gzip, bzip2 or xz"
        f" ({text or type(error).__name__})"
    )


def _quoted(name: str) -> str:
    """A name as ASCII in quotes, so that it can neither break the line nor fill the screen."""
    text = ascii(name)
    return text if len(text) <= 120 else text[:116] + "...'"


class _Tree:
    """The folder under way: judges every name, and writes."""

    def __init__(self, target: Path, limits: Limits, budget: int) -> None:
        self.files: list[str] = []
        self._target, self._limits, self._left = target, limits, budget
        self._members = 0
        self._taken: dict[str, tuple[str, bool]] = {}
        with writing(target):
            target.mkdir()

    def add(self, member: _Member) -> None:
        """Write a member, unless it is only macOS's metadata."""
        self._members += 1
        parts = _parts(member.name)
        if self._members > self._limits.members:
            raise _Bad(f"it holds more than {self._limits.members} members")
        if not parts:  # the archive's own root
            return
        if parts[0] == "__MACOSX" or parts[-1].startswith("._") or parts[-1] == ".DS_Store":
            return
        self._left -= max(member.size, 0)
        if not 0 <= member.size <= self._limits.file or self._left < 0:
            raise _Bad(f"its member {_quoted(member.name)} makes it too large: no honest dataset")
        for depth in range(1, len(parts)):
            self._folder("/".join(parts[:depth]))
        path = "/".join(parts)
        if member.is_folder:
            self._folder(path)
        else:
            self._take(path, False)
            self._write(path, member)
            self.files.append(path)

    def _folder(self, path: str) -> None:
        if self._take(path, True):
            with writing(self._target / path):
                (self._target / path).mkdir(mode=0o755)

    def _take(self, path: str, is_folder: bool) -> bool:
        """Whether the path is new; two paths that some file system holds for one are refused."""
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        there = self._taken.get(key)
        if there is None:
            self._taken[key] = (path, is_folder)
            if len(self._taken) > self._limits.members:
                raise _Bad(f"it holds more than {self._limits.members} files and folders")
            return True
        if is_folder and there == (path, True):
            return False
        raise _Bad(f"its member {_quoted(path)} collides with {_quoted(there[0])}")

    def _write(self, path: str, member: _Member) -> None:
        left = member.size
        with writing(self._target / path), open(self._target / path, "xb", opener=_opened) as file:
            while left:
                try:
                    data = member.read(min(left, _CHUNK))
                except _Bad:
                    raise
                except Exception as error:  # gzip and bz2 raise OSError, too, as the disk does
                    raise _Bad(_described(error)) from error
                if not data:
                    raise _Bad(f"its member {_quoted(path)} is cut off")
                file.write(data)
                left -= len(data)


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)


def _parts(name: str) -> tuple[str, ...]:
    """Split a member's name, or refuse it; the archive's own root gives no parts."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise _Bad(f"the name of its member {_quoted(name)} is not UTF-8") from None
    parts = name.removesuffix("/").split("/")
    while parts and parts[0] == ".":
        del parts[0]
    for wrong, why in (
        (name.startswith("/") or re.match("[A-Za-z]:", name), "has an absolute name"),
        ("\\" in name, "has a backslash in its name"),
        (".." in parts, "leads out of the folder"),
        ("" in parts or "." in parts, "has an empty part in its name"),
        (any(unicodedata.category(c) == "Cc" for c in name), "has a control character in its name"),
        (length > PATH_BYTES or len(parts) > DEPTH, "has too long a path"),
        (any(len(part.encode()) > NAME_BYTES for part in parts), "has too long a name"),
    ):
        if wrong:
            raise _Bad(f"its member {_quoted(name)} {why}")
    return tuple(parts)


# --- tar ------------------------------------------------------------------------------------------


def _decompressed(file: BinaryIO, magic: bytes) -> io.RawIOBase | io.BufferedIOBase | BinaryIO:
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file, mode="rb")
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(file)
    return _Xz(file) if magic == b"\xfd7zXZ\0" else file


class _Xz(io.RawIOBase):
    """Reads xz within a bound on memory, which lzma.LZMAFile has no way to set."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._new()

    def _new(self) -> None:
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def read(self, size: int = -1, /) -> bytes:
        """Return some bytes, at most `size`; none at the end."""
        while True:
            packed = b""
            if self._decoder.eof:  # another stream may follow, with zeros between them
                packed = self._decoder.unused_data.lstrip(b"\0")
                while not packed:
                    block = self._file.read(_CHUNK)
                    if not block:
                        return b""
                    packed = block.lstrip(b"\0")
                self._new()
            elif self._decoder.needs_input:
                packed = self._file.read(_CHUNK)
                if not packed:
                    raise EOFError("it is cut off")
            data = self._decoder.decompress(packed, size)
            if data:
                return data


class _TarStream(io.RawIOBase):
    """What tarfile sees: bytes that only go forward, few for each header, and not endless."""

    def __init__(self, file: io.RawIOBase | io.BufferedIOBase | BinaryIO, limit: int) -> None:
        self._file, self._limit, self._position = file, limit, 0
        self.header_left = HEADER_BYTES
        self.last = b""
        """What tarfile read last."""

    def read(self, size: int = -1, /) -> bytes:
        """Give tarfile a piece of a header."""
        self.header_left -= size
        if size < 0 or self.header_left < 0:
            raise _Bad("it has a header that no honest archive has")
        self.last = self.content(size)
        return self.last

    def content(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end."""
        data = bytearray()
        while len(data) < size:
            piece = self._file.read(size - len(data))
            if not piece:
                break
            data += piece
        self._position += len(data)
        if self._position > self._limit:
            raise _Bad("it unpacks to more than any honest dataset")
        return bytes(data)

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Skip forward."""
        if whence or offset < self._position:
            raise _Bad("it has a header that points backwards")
        while self._position < offset:
            if not self.content(min(offset - self._position, _CHUNK)):
                raise _Bad("it is cut off")
        return offset


def _tar_members(stream: _TarStream) -> Iterator[_Member]:
    with tarfile.open(
        fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape"
    ) as archive:
        while (member := archive.next()) is not None:
            stream.header_left = HEADER_BYTES
            archive.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
            if len(archive.pax_headers) > GLOBAL_HEADERS:
                raise _Bad("it has more global headers than any honest archive")
            is_file = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
            if member.sparse is not None or not (is_file or member.isdir()):
                raise _Bad(f"its member {_quoted(member.name)} is neither a file nor a folder")
            if member.size < 0:
                raise _Bad(f"its member {_quoted(member.name)} has a negative size")
            size = member.size if is_file else 0
            yield _Member(member.name, not is_file, size, stream.content)
    if stream.last != _ZERO_BLOCK:  # tarfile takes a bad or missing header for the end
        raise _Bad("it is cut off or damaged")
    while stream.content(_CHUNK):  # to the end, where the checksums are
        pass


# --- zip ------------------------------------------------------------------------------------------


class _ZipFile(io.FileIO):
    """What zipfile sees: a file that gives only so much at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes, or all that is left, unless it is too much."""
        size = -1 if size is None else size
        data = super().read(size if 0 <= size <= DIRECTORY_BYTES else DIRECTORY_BYTES + 1)
        if len(data) > DIRECTORY_BYTES:
            raise _Bad("it has a directory that no honest archive has")
        return data


def _zip_members(path: Path, limits: Limits) -> Iterator[_Member]:
    with _ZipFile(path) as file, zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        if len(infos) > limits.members:
            raise _Bad(f"it holds more than {limits.members} members")
        _check_no_overlap(infos, archive.start_dir)
        for info in infos:
            _check_header(info)
            if info.is_dir():
                yield _Member(info.orig_filename, True, 0, lambda _: b"")
            else:
                with archive.open(info) as content:
                    yield _Member(info.orig_filename, False, info.file_size, content.read)


def _check_header(info: zipfile.ZipInfo) -> None:
    name, flags = info.orig_filename, info.flag_bits
    kind = stat.S_IFMT(info.external_attr >> 16)
    right_kind = stat.S_IFDIR if info.is_dir() else stat.S_IFREG
    # zipfile bounds the memory for these two only.
    common = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    for wrong, why in (
        (info.filename != name and "\0" not in name, "has two names"),
        (not name.isascii() and not flags & 0x800, "has a name that is not UTF-8"),
        (flags & 0x41, "is encrypted"),
        (info.is_dir() and info.file_size, "is a folder with content"),
        (kind not in (0, right_kind), "is neither a file nor a folder"),
        (not common, "is packed by an uncommon method"),
    ):
        if wrong:
            raise _Bad(f"its member {_quoted(name)} {why}")


def _check_no_overlap(infos: list[zipfile.ZipInfo], end: int) -> None:
    """Refuse members that share bytes: a small file could unpack to petabytes."""
    for info in sorted(infos, key=lambda i: i.header_offset, reverse=True):
        header = zipfile.sizeFileHeader + len(info.orig_filename)  # type: ignore[attr-defined]
        if info.header_offset < 0 or info.header_offset + header + info.compress_size > end:
            raise _Bad(f"its member {_quoted(info.orig_filename)} overlaps another")
        end = info.header_offset
