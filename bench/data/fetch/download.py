"""One archive from the first server that has it: bounded, restartable, its checksum verified."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from rich.filesize import decimal

from bench.data.catalog import Archive, Dataset
from bench.data.fetch.transfer import Part, Patience, Progress, Refused, transfer
from bench.errors import DataError, MissingData, RequestError, StoreError
from bench.system.digests import file_digest
from bench.system.files import writing

Say = Callable[[str], None]


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
        with closing(Part(path, archive.bytes, progress)) as part:
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
                except (Refused, DataError) as error:
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


def _complete(url: str, part: Part, sha256: str, say: Say, patience: Patience) -> None:
    """Fetch what is missing, or everything where what was here turns out to be wrong."""
    while True:
        part.mark = part.size
        if part.size < part.whole:
            transfer(url, part, patience)
        say("checking the checksum")
        with writing(part.path):
            right = file_digest(part.path) == sha256
        if right:
            return
        began, part.mark = part.mark, 0
        part.cut(0)
        if began == 0:
            raise Refused("gave a file with another checksum, which is deleted")
        say("the checksum is wrong: deleted, and once more from the start")


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
