"""Download one file from one server, resumed and retried while bytes arrive."""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.system.files import writing

Progress = Callable[[int, int], None]
"""Called with the bytes received and the bytes of the entire file."""

CHUNK = 1 << 14
"""Bytes written at once; fewer are lost when a connection breaks."""
LEAST = 64 << 10
"""Bytes that a server has to send within `RetryPolicy.read`."""


@dataclass(frozen=True)
class RetryPolicy:
    """Timeouts and retries for one server."""

    connect: float = 20.0
    read: float = 60.0
    """Seconds without a byte, or with less than LEAST."""
    pause: float = 2.0
    """Seconds before the next attempt; doubled after each that brings nothing."""
    longest: float = 60.0
    """Upper limit of the pauses, in seconds."""
    fruitless: int = 5
    """Attempts in a row that bring nothing before the next server is asked."""
    attempts: int = 100


class Refused(Exception):
    """Why a server is not asked again."""


class _TryAgain(Exception):
    """Why an attempt failed; the next may succeed."""


class _TooSlow(Exception):
    """The server sends too few bytes."""


class _NoRange(Exception):
    """The server misunderstands requests for a range."""


class PartialFile:
    """A file being downloaded, never above its total size."""

    def __init__(self, path: Path, total: int, progress: Progress) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with writing(path):
            self._descriptor = os.open(path, flags, 0o666)
        self.path, self.total, self._progress = path, total, progress
        self.size = os.fstat(self._descriptor).st_size
        self.skip = 0
        """Bytes of the response that the file has already."""
        self.mark = self.size
        """Size to return to if the server turns out to have another file."""
        if self.size > total:
            self.cut(0)

    def write(self, data: bytes) -> None:
        """Append bytes, without those to skip."""
        new = memoryview(data)[self.skip :]
        self.skip = max(0, self.skip - len(data))
        if self.size + len(new) > self.total:
            self.cut(self.mark)
            raise Refused("sends too much")
        with writing(self.path):
            while new:
                written = os.write(self._descriptor, new)
                self.size += written
                new = new[written:]
        self._progress(self.size, self.total)

    def cut(self, size: int) -> None:
        """Truncate to the first `size` bytes."""
        with writing(self.path):
            os.ftruncate(self._descriptor, size)
        self.size = size

    def close(self) -> None:
        """Close the file without removing it."""
        os.close(self._descriptor)


def transfer(url: str, part: PartialFile, policy: RetryPolicy) -> None:
    """Download the rest, retrying while bytes arrive; raises Refused."""
    ranged, fruitless, problem = True, 0, ""
    for _ in range(policy.attempts):
        before = part.size
        try:
            _request(url, part, ranged, policy)
            problem = "ends too early"
        except (BenchError, Refused):
            raise
        except _NoRange:
            ranged = False
            continue
        except _TryAgain as error:
            problem = str(error)
        except _TooSlow:  # the little that it brought does not count
            problem, before = "is too slow", part.size
        except Exception as error:  # requests, urllib3, ssl: whatever they raise
            problem = f"fails ({type(error).__name__})"
        if part.size == part.total:
            return
        fruitless = 0 if part.size > before else fruitless + 1
        if fruitless == policy.fruitless:
            break
        time.sleep(min(policy.pause * 2 ** max(0, fruitless - 1), policy.longest))
    raise Refused(problem)


def _request(url: str, part: PartialFile, ranged: bool, policy: RetryPolicy) -> None:
    """Ask once; give up where fewer than LEAST bytes of the body come within `policy.read`."""
    import requests

    headers = {"Accept-Encoding": "identity"}
    if part.size and ranged:
        headers["Range"] = f"bytes={part.size}-"
    with requests.get(
        url,
        headers=headers,
        stream=True,
        timeout=(policy.connect, policy.read),  # bounds the wait for each byte
        hooks={"response": _close_redirect},
    ) as response:
        _check_response(response, part, "Range" in headers)
        _receive(response.raw, part, policy.read)


def _receive(stream: Any, part: PartialFile, seconds: float) -> None:
    """Write a response's body in chunks; raises _TooSlow for a server that trickles."""
    received, deadline, chunk = 0, time.monotonic() + seconds, b""
    while data := stream.read1(CHUNK - len(chunk)):  # what has come, without waiting for a chunk
        chunk += data
        if len(chunk) == CHUNK:
            part.write(chunk)
            chunk = b""
        received += len(data)
        if time.monotonic() > deadline:
            if received < LEAST:
                raise _TooSlow
            received, deadline = 0, time.monotonic() + seconds
    part.write(chunk)


def _close_redirect(response: Any, **_: object) -> None:
    if response.is_redirect:  # else requests reads its body, however long
        response.close()


def _check_response(response: Any, part: PartialFile, ranged: bool) -> None:
    """Check a response's head, so that no byte of another file is written."""
    status, headers = response.status_code, response.headers
    if status >= 500 or status in (408, 429):
        raise _TryAgain(f"answers {status}")
    if status != 200 and not (status == 206 and ranged):
        raise Refused(f"answers {status}")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused("does not send the file as it is")
    size = headers.get("Content-Length", "")
    if status == 206:
        match = re.fullmatch(
            r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", headers.get("Content-Range", "")
        )
        if match is None or int(match[1]) != part.size:
            raise _NoRange
        size = match[2]
    if re.fullmatch(r"\d{1,18}", size) and int(size) != part.total:
        raise Refused(f"has a file of {int(size)} bytes, not of {part.total}")
    # A server without ranges sends everything again. What is here already is passed over, not
    # thrown away, so that a page of apology under status 200 costs nothing.
    part.skip = part.size if status == 200 else 0
