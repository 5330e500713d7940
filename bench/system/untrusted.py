"""Untrusted text and files: read within limits, printed on one line."""

import errno
import io
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

MAX_TOML = 256 << 10
_MAX_DOTS = 100
"""Dots on a line: the time of `tomllib` grows with the square of a key's parts."""
_MAX_DEPTH = 8
_MAX_TEXT = 2000

_BREAKS_A_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line separators, and the stand-ins for bytes that are not UTF-8."""


def is_one_line(text: str) -> bool:
    """Whether text is safe to print and store."""
    return not _BREAKS_A_LINE.search(text)


def one_line(text: object) -> str:
    """Return text on one line, control characters escaped."""
    return _BREAKS_A_LINE.sub(lambda match: repr(match[0])[1:-1], str(text))


def os_reason(error: OSError) -> str:
    """Return a system error's reason on one line."""
    return one_line(error.strerror or error)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file; raises OSError for a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a null byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """Return at most `limit` bytes; raises OSError for more."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"more than {limit >> 10} KiB", str(path))
    return content


def read_toml(path: Path) -> dict[str, Any]:
    """Read plain TOML; raises OSError and ValueError.

    A byte order mark, as editors on Windows write it, is passed over.
    Plain values are bool, int of 64 bits, float, text, and lists and tables of those.
    """
    content = read_regular(path, MAX_TOML)
    try:
        return parse_toml(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"is not valid TOML: not UTF-8 at byte {error.start}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML as `read_toml` does; raises ValueError."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MAX_DOTS:
            raise ValueError(f"has more than {_MAX_DOTS} dots in line {number}")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise tomllib.TOMLDecodeError(f"is not valid TOML: {one_line(error)}") from None
    except ValueError:
        raise ValueError("holds a number of too many digits, or a date that is none") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    _check_plain(values, 0)
    return values


def _check_plain(value: Any, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"is nested too deeply: more than {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_plain(key, depth)
            _check_plain(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, depth + 1)
    elif isinstance(value, str):
        if len(value) > _MAX_TEXT:
            raise ValueError(f"holds a text of {len(value)} characters, more than {_MAX_TEXT}")
    elif isinstance(value, int):
        if value.bit_length() > 63:
            raise ValueError("holds a whole number of more than 64 bits")
    elif not isinstance(value, float):
        raise ValueError(f"holds a {type(value).__name__}, {value}: write it as a text")
