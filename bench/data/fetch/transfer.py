"""One file from one server: only grows, never too far, asked again while that brings something."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.system.files import writing

Progress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes that there are."""


LEAST = 64 << 10
"""Bytes that a server has to send within `Patience.read`."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for."""

    connect: float = 20.0
    read: float = 60.0
    """Seconds without a byte, or with less than LEAST."""
    pause: float = 2.0
    """Seconds before the next attempt; twice as many after each that brings nothing."""
    longest: float = 60.0
    """What pauses grow to."""
    fruitless: int = 5
    """Attempts in a row that bring nothing; then the next server is asked."""
    attempts: int = 100


class Refused(Exception):
    """Why a server is not asked again."""


class _TryAgain(Exception):
    """Why an attempt failed that the next one may do better."""


class _TooSlow(Exception):
    """A request that was given up."""


class _NoRange(Exception):
    """The server misunderstands requests for a part."""


class Part:
    """The file under way: it only grows, and never too far."""

    def __init__(self, path: Path, whole: int, progress: Progress) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with writing(path):
            self._descriptor = os.open(path, flags, 0o644)
        self.path, self.whole, self._progress = path, whole, progress
        self.size = os.fstat(self._descriptor).st_size
        self.skip = 0
        """How many of the coming bytes are here already."""
        self.mark = self.size
        """What is kept when it turns out that the server has another file."""
        if self.size > whole:
            self.cut(0)

    def write(self, data: bytes) -> None:
        """Append, but for what is to be skipped."""
        new = memoryview(data)[self.skip :]
        self.skip = max(0, self.skip - len(data))
        if self.size + len(new) > self.whole:
            self.cut(self.mark)
            raise Refused("sends too much")
        with writing(self.path):
            while new:
                written = os.write(self._descriptor, new)
                self.size += written
                new = new[written:]
        self._progress(self.size, self.whole)

    def cut(self, size: int) -> None:
        """Keep only the first bytes."""
        with writing(self.path):
            os.ftruncate(self._descriptor, size)
        self.size = size

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._descriptor)


def transfer(url: str, part: Part, patience: Patience) -> None:
    """Ask a server again and again while that brings something."""
    ranged, fruitless, problem = True, 0, ""
    for _ in range(patience.attempts):
        before = part.size
        try:
            _request(url, part, ranged, patience)
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
        except Exception as error:  # requests, urllib3, ssl: pooch passes on whatever they raise
            problem = f"fails ({type(error).__name__})"
        if part.size == part.whole:
            return
        fruitless = 0 if part.size > before else fruitless + 1
        if fruitless == patience.fruitless:
            break
        time.sleep(min(patience.pause * 2 ** max(0, fruitless - 1), patience.longest))
    raise Refused(problem)


class _Access:
    """A request's access to the part, as pooch writes to it, until the request is given up."""

    def __init__(self, part: Part) -> None:
        self._part: Part | None = part
        self._lock = threading.Lock()
        self.received = 0
        """Bytes, those that were skipped included."""

    @contextmanager
    def part(self) -> Iterator[Part]:
        """Give the part to this thread alone; raises _TooSlow where it is taken away."""
        with self._lock:
            if self._part is None:
                raise _TooSlow
            yield self._part

    def write(self, data: bytes) -> None:
        """Pass on what has come."""
        with self.part() as part:
            part.write(data)
        self.received += len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def end(self) -> None:
        """Take the part away, once nobody is writing."""
        with self._lock:
            self._part = None


def _request(url: str, part: Part, ranged: bool, patience: Patience) -> None:
    """Ask once, and give up where less than LEAST comes in time.

    A timeout of requests bounds a single read: bytes that trickle, and `100 Continue` said over and
    over, hold it up for ever, and it has no way to be interrupted. So it works in a thread, which
    is left behind when it is given up, without access to the part.
    """
    headers = {"Accept-Encoding": "identity"}
    if part.size and ranged:
        headers["Range"] = f"bytes={part.size}-"
    access, ended = _Access(part), Future[None]()

    def work() -> None:
        try:
            _get(url, access, headers, patience)
        except BaseException as error:
            ended.set_exception(error)
        else:
            ended.set_result(None)

    threading.Thread(target=work, daemon=True).start()
    received, allowed = 0, patience.connect + patience.read
    try:
        while not wait([ended], allowed).done:
            if access.received < received + LEAST:
                raise _TooSlow
            received, allowed = access.received, patience.read
        ended.result()
    finally:
        access.end()


def _get(url: str, access: _Access, headers: dict[str, str], patience: Patience) -> None:
    import pooch

    responses = []

    def judge(response: Any, **_: object) -> None:
        responses.append(response)
        with access.part() as part:
            _judge(response, part, "Range" in headers)

    try:
        pooch.HTTPDownloader(
            chunk_size=1 << 14,
            headers=headers,
            timeout=(patience.connect, patience.read),
            hooks={"response": judge},
        )(url, access, None)
    finally:
        for response in responses:  # requests leaves those open that were not read to the end
            response.close()


def _judge(response: Any, part: Part, ranged: bool) -> None:
    """Look at the head of an answer, so that nothing of another file is ever written."""
    status, headers = response.status_code, response.headers
    if response.is_redirect:
        response.close()  # else requests reads its body, however long
        return
    if status >= 500 or status in (408, 429):
        raise _TryAgain(f"answers {status}")
    if status != 200 and not (status == 206 and ranged):
        raise Refused(f"answers {status}")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused("does not send the file as it is")
    size = headers.get("Content-Length", "")
    if status == 206:
        said = re.fullmatch(
            r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", headers.get("Content-Range", "")
        )
        if said is None or int(said[1]) != part.size:
            raise _NoRange
        size = said[2]
    if re.fullmatch(r"\d{1,18}", size) and int(size) != part.whole:
        raise Refused(f"has a file of {int(size)} bytes, not of {part.whole}")
    # A server without ranges sends everything again. What is here already is passed over, not
    # thrown away, so that a page of apology under status 200 costs nothing.
    part.skip = part.size if status == 200 else 0
