"""Unpack an archive: only plain files and folders, only below the target, within limits.

`tarfile` and `zipfile` read the archive; every name is checked and every byte written here, since
the standard extraction also makes links.
"""

import os
import re
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench.errors import BenchError, DataError
from bench.system.files import writing

NAME_BYTES, PATH_BYTES, DEPTH = 255, 1024, 32
"""The longest component, the longest path, and how many folders deep a member may lie."""
_CHUNK = 256 << 10
_TAR_MODES = ((b"\x1f\x8b", "gz"), (b"BZh", "bz2"), (b"\xfd7zXZ\0", "xz"))
"""First bytes of a compressed tar, and what tarfile calls it."""


@dataclass(frozen=True)
class Limits:
    """How much an archive may unpack to."""

    total: int = 4 << 30
    """Bytes of all members together."""
    file: int = 256 << 20
    """Bytes of one member."""
    members: int = 20_000
    """Files and folders, including folders that only appear as a parent."""


class _BadArchive(Exception):
    """What is wrong with an archive, without its name."""


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    content: IO[bytes] | None
    """Readable until the next member is asked for; None for a folder."""


def unpack(archive: Path, target: Path, limits: Limits | None = None) -> list[str]:
    """Unpack an archive into a new folder; return paths.

    A tar may be plain or packed by gzip, bzip2 or xz. Metadata that macOS adds is left out. Raises
    DataError for an archive that is unsafe, damaged or no archive, StoreError where `target` cannot
    be written. Either may leave a part in `target`, for the caller to remove.
    """
    try:
        with archive.open("rb") as file:
            magic = file.read(6)
            file.seek(0)
            is_zip = magic.startswith((b"PK\3\4", b"PK\5\6"))
            tree = _Tree(target, limits or Limits())
            for member in _zip_members(file) if is_zip else _tar_members(file, magic):
                tree.add(member)
        if not tree.files:
            raise _BadArchive("it holds no files")
        return tree.files
    except BenchError:
        raise
    except _BadArchive as error:
        raise DataError(f"{archive} cannot be unpacked: {error}") from error
    except Exception as error:  # the readers raise almost anything on damaged bytes
        raise DataError(f"{archive} cannot be unpacked: {_damage(error)}") from error


def _damage(error: Exception) -> str:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    kinds = "neither a zip nor a tar that is plain or packed by gzip, bzip2 or xz"
    return f"it is damaged, or {kinds} ({text})"


def _quoted(name: str) -> str:
    """Return a name as ASCII in quotes, shortened to fit a line."""
    text = ascii(name)
    return text if len(text) <= 120 else text[:116] + "...'"


class _Tree:
    """The folder being written: checks every name and size."""

    def __init__(self, target: Path, limits: Limits) -> None:
        self.files: list[str] = []
        self._target, self._limits, self._bytes_left = target, limits, limits.total
        self._members = 0
        self._taken: dict[str, tuple[str, bool]] = {}
        """Path and whether it is a folder, by the path as a careless file system compares it."""
        with writing(target):
            target.mkdir()

    def add(self, member: _Member) -> None:
        """Write a member, unless it is only macOS's metadata."""
        self._members += 1
        parts = _parts(member.name)
        if self._members > self._limits.members:
            raise _BadArchive(f"it holds more than {self._limits.members} members")
        if not parts:  # the archive's own root
            return
        if parts[0] == "__MACOSX" or parts[-1].startswith("._") or parts[-1] == ".DS_Store":
            return
        self._bytes_left -= member.size
        if member.size > self._limits.file or self._bytes_left < 0:
            name = _quoted(member.name)
            raise _BadArchive(f"its member {name} makes it too large: no honest dataset")
        for depth in range(1, len(parts)):
            self._make_folder("/".join(parts[:depth]))
        path = "/".join(parts)
        if member.content is None:
            self._make_folder(path)
        else:
            self._claim(path, False)
            self._write(path, member.content, member.size)
            self.files.append(path)

    def _make_folder(self, path: str) -> None:
        if self._claim(path, True):
            with writing(self._target / path):
                (self._target / path).mkdir()

    def _claim(self, path: str, is_folder: bool) -> bool:
        """Return whether a path is new; refuse a path that collides."""
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        earlier = self._taken.get(key)
        if earlier is None:
            self._taken[key] = (path, is_folder)
            if len(self._taken) > self._limits.members:
                raise _BadArchive(f"it holds more than {self._limits.members} files and folders")
            return True
        if is_folder and earlier == (path, True):
            return False
        raise _BadArchive(f"its member {_quoted(path)} collides with {_quoted(earlier[0])}")

    def _write(self, path: str, content: IO[bytes], size: int) -> None:
        with writing(self._target / path), open(self._target / path, "xb", opener=_opener) as file:
            while size:
                try:
                    data = content.read(min(size, _CHUNK))
                except Exception as error:  # gzip and bz2 raise OSError too, as the disk does
                    raise _BadArchive(_damage(error)) from error
                if not data:
                    raise _BadArchive(f"its member {_quoted(path)} is cut off")
                file.write(data)
                size -= len(data)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _parts(name: str) -> tuple[str, ...]:
    """Split a member's name, or refuse it; the archive's own root gives no parts."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise _BadArchive(f"the name of its member {_quoted(name)} is not UTF-8") from None
    parts = name.removesuffix("/").split("/")
    while parts and parts[0] == ".":
        del parts[0]
    for wrong, reason in (
        (name.startswith("/") or re.match("[A-Za-z]:", name), "has an absolute name"),
        ("\\" in name, "has a backslash in its name"),
        (".." in parts, "leads out of the folder"),
        ("" in parts or "." in parts, "has an empty part in its name"),
        (any(unicodedata.category(c) == "Cc" for c in name), "has a control character in its name"),
        (length > PATH_BYTES or len(parts) > DEPTH, "has too long a path"),
        (any(len(part.encode()) > NAME_BYTES for part in parts), "has too long a name"),
    ):
        if wrong:
            raise _BadArchive(f"its member {_quoted(name)} {reason}")
    return tuple(parts)


class _TarInfo(tarfile.TarInfo):
    """Refuses a bad header, which tarfile takes for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_TarInfo":
        """Read a header; raises EOFError for a damaged one."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf == bytes(tarfile.BLOCKSIZE):
                raise
            raise EOFError("it is cut off or damaged") from error


def _tar_members(file: IO[bytes], magic: bytes) -> Iterator[_Member]:
    compression = next((name for start, name in _TAR_MODES if magic.startswith(start)), "")
    with tarfile.open(
        fileobj=file,
        mode=f"r:{compression}",  # type: ignore[call-overload]
        tarinfo=_TarInfo,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for member in archive:
            is_file = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
            if member.issparse() or not (is_file or member.isdir()):
                name = _quoted(member.name)
                raise _BadArchive(f"its member {name} is neither a file nor a folder")
            if member.size < 0:
                raise _BadArchive(f"its member {_quoted(member.name)} has a negative size")
            content = archive.extractfile(member) if is_file else None
            yield _Member(member.name, member.size if is_file else 0, content)
        while archive.fileobj.read(_CHUNK):  # to the end, where the checksums are
            pass


def _zip_members(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            _check_header(info)
            if info.is_dir():
                yield _Member(info.orig_filename, 0, None)
            else:
                with archive.open(info) as content:
                    yield _Member(info.orig_filename, info.file_size, content)


def _check_header(info: zipfile.ZipInfo) -> None:
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    right_kind = stat.S_IFDIR if info.is_dir() else stat.S_IFREG
    for wrong, reason in (
        (not name.isascii() and not info.flag_bits & 0x800, "has a name that is not UTF-8"),
        (info.flag_bits & 0x41, "is encrypted"),
        (info.is_dir() and info.file_size, "is a folder with content"),
        (kind not in (0, right_kind), "is neither a file nor a folder"),
    ):
        if wrong:
            raise _BadArchive(f"its member {_quoted(name)} {reason}")
