"""One archive from the first server that has it: bounded, restartable, its checksum verified."""

import fcntl
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from rich.filesize import decimal

from bench.data.catalog import Archive, Dataset
from bench.digests import file_digest
from bench.errors import BenchError, DataError, MissingData, RequestError, StoreError
from bench.files import writing

Say = Callable[[str], None]
Progress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes that there are."""


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


LEAST = 64 << 10
"""Bytes that a server has to send within `Patience.read`."""


class _Refused(Exception):
    """Why a server is not asked again."""


class _TryAgain(Exception):
    """Why an attempt failed that the next one may do better."""


class _TooSlow(Exception):
    """A request that was given up."""


class _NoRange(Exception):
    """The server misunderstands requests for a part."""


class _Part:
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
            raise _Refused("sends too much")
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


def check_mirror(url: str) -> None:
    """Raise RequestError for an address that cannot be asked."""
    try:
        parts = urlsplit(url)
        good = (parts.scheme in ("http", "https") and bool(parts.hostname)) or (
            parts.scheme == "file" and parts.netloc in ("", "localhost")
        )
    except ValueError:
        good = False
    if not good:
        raise RequestError(f"--mirror takes an address by http, https or file, not {url!r}")


def download(
    dataset: Dataset,
    archive: Archive,
    folder: Path,
    mirrors: Sequence[str],
    say: Say,
    progress: Progress,
    patience: Patience,
    spare: int = 0,
) -> Path:
    """Return the dataset's archive, its checksum verified, from the first server that has it.

    What an earlier attempt left in `folder` is used. `spare` bytes must be left free there. Raises
    MissingData with each server's answer.
    """
    whole = folder / f"{archive.sha256[:16]}-{archive.name}"
    answers = []
    with alone(whole.with_name(f"{whole.name}.lock"), say):
        if _is_whole(whole, archive, say):
            return whole
        path = whole.with_name(f"{whole.name}.part")
        with closing(_Part(path, archive.bytes, progress)) as part:
            for url in (*mirrors, *archive.urls):
                parts = urlsplit(url)
                say(f"asking {parts.hostname or url}")
                try:
                    if parts.scheme == "file":
                        file = Path(url2pathname(parts.path))
                        check_archive(file, archive)
                        return file
                    demand_space(folder, archive.bytes - part.size + spare, "--cache")
                    _complete(url, part, archive.sha256, say, patience)
                    with writing(whole):
                        os.replace(path, whole)
                    return whole
                except (_Refused, DataError) as error:
                    # Not the whole address: it may hold a password.
                    answers.append(f"{parts.hostname or 'file'} {error}")
                    say(answers[-1])
            if part.size:
                say(f"{decimal(part.size)} are kept: the same command continues from there")
    raise MissingData(
        f"{dataset.title} could not be downloaded ({'; '.join(answers)}): get {archive.name} from"
        f" {dataset.source} and give it with --archive FILE"
    )


def _is_whole(file: Path, archive: Archive, say: Say) -> bool:
    """Whether an earlier download is here; one that is damaged is deleted."""
    with writing(file):
        if not file.is_file():
            return False
        say(f"checking {file}")
        if file_digest(file) == archive.sha256:
            return True
        say(f"{file} is damaged and deleted")
        file.unlink()
    return False


def _complete(url: str, part: _Part, sha256: str, say: Say, patience: Patience) -> None:
    """Fetch what is missing, or everything where what was here turns out to be wrong."""
    while True:
        part.mark = part.size
        if part.size < part.whole:
            _transfer(url, part, patience)
        say("checking the checksum")
        with writing(part.path):
            right = file_digest(part.path) == sha256
        if right:
            return
        began, part.mark = part.mark, 0
        part.cut(0)
        if began == 0:
            raise _Refused("gave a file with another checksum, which is deleted")
        say("the checksum is wrong: deleted, and once more from the start")


def _transfer(url: str, part: _Part, patience: Patience) -> None:
    """Ask a server again and again while that brings something."""
    ranged, fruitless, problem = True, 0, ""
    for _ in range(patience.attempts):
        before = part.size
        try:
            _request(url, part, ranged, patience)
            problem = "ends too early"
        except (BenchError, _Refused):
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
    raise _Refused(problem)


class _Access:
    """A request's access to the part, as pooch writes to it, until the request is given up."""

    def __init__(self, part: _Part) -> None:
        self._part: _Part | None = part
        self._lock = threading.Lock()
        self.received = 0
        """Bytes, those that were skipped included."""

    @contextmanager
    def part(self) -> Iterator[_Part]:
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


def _request(url: str, part: _Part, ranged: bool, patience: Patience) -> None:
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


def _judge(response: Any, part: _Part, ranged: bool) -> None:
    """Look at the head of an answer, so that nothing of another file is ever written."""
    status, headers = response.status_code, response.headers
    if response.is_redirect:
        response.close()  # else requests reads its body, however long
        return
    if status >= 500 or status in (408, 429):
        raise _TryAgain(f"answers {status}")
    if status != 200 and not (status == 206 and ranged):
        raise _Refused(f"answers {status}")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _Refused("does not send the file as it is")
    size = headers.get("Content-Length", "")
    if status == 206:
        said = re.fullmatch(
            r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", headers.get("Content-Range", "")
        )
        if said is None or int(said[1]) != part.size:
            raise _NoRange
        size = said[2]
    if re.fullmatch(r"\d{1,18}", size) and int(size) != part.whole:
        raise _Refused(f"has a file of {int(size)} bytes, not of {part.whole}")
    # A server without ranges sends everything again. What is here already is passed over, not
    # thrown away, so that a page of apology under status 200 costs nothing.
    part.skip = part.size if status == 200 else 0


def check_archive(file: Path, archive: Archive) -> None:
    """Raise DataError unless a file is the archive, by its size and sha256."""
    try:
        size = file.stat().st_size
        right = size == archive.bytes and file_digest(file) == archive.sha256
    except (OSError, ValueError) as error:  # ValueError: an address may name the byte zero
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{str(file)!r} cannot be read: {why}") from error
    if not right:
        why = f"it has {size} bytes" if size != archive.bytes else "its sha256 differs"
        raise DataError(
            f"{file} is not the archive {archive.name} of {archive.bytes} bytes: {why}; get it anew"
        )


def demand_space(folder: Path, needed: int, option: str) -> None:
    """Raise StoreError unless a folder has so many bytes free; `option` names another one."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f"{folder} has {decimal(free)} free and needs {decimal(needed)}: make room, or name"
            f" another folder with {option}"
        )


@contextmanager
def alone(lock: Path, say: Say) -> Iterator[None]:
    """Wait until no other process holds the lock; the kernel frees those of the dead.

    A folder is locked as it is, and nothing put into it; any other lock is a file that is made.
    """
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        made = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        flags = os.O_RDONLY if lock.is_dir() else made
        descriptor = os.open(lock, flags | os.O_CLOEXEC, 0o644)
    try:
        with writing(lock):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another fetch holds {lock}: waiting for it")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
