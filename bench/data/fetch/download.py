"""Download an archive from the first server that has it, checksum verified."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from rich.filesize import decimal

from bench.data.catalog import Dataset, SourceArchive
from bench.data.fetch.transfer import PartialFile, Progress, Refused, RetryPolicy, transfer
from bench.errors import DataError, MissingData, RequestError, StoreError
from bench.system.digests import file_digest
from bench.system.files import locked, writing

Say = Callable[[str], None]


def check_mirror(url: str) -> None:
    """Raise RequestError for a mirror address of another scheme."""
    try:
        parts = urlsplit(url)
        valid = (parts.scheme in ("http", "https") and bool(parts.hostname)) or (
            parts.scheme == "file" and parts.netloc in ("", "localhost")
        )
    except ValueError:
        valid = False
    if not valid:
        raise RequestError(f"--mirror takes an address by http, https or file, not {url!r}")


def download(
    dataset: Dataset,
    archive: SourceArchive,
    folder: Path,
    mirrors: Sequence[str],
    say: Say,
    progress: Progress,
    policy: RetryPolicy,
    spare: int = 0,
) -> Path:
    """Return a dataset's archive, downloaded or found.

    What an earlier attempt left in `folder` is continued. `spare` bytes must stay free there.
    Raises MissingData with each server's answer.
    """
    target = folder / f"{archive.sha256[:16]}-{archive.name}"
    lock = target.with_name(f"{target.name}.lock")
    answers = []
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with writing(lock), locked(lock, waiting_for(lock, say)):
        if _is_intact(target, archive, say):
            return target
        path = target.with_name(f"{target.name}.part")
        with closing(PartialFile(path, archive.bytes, progress)) as part:
            for url in (*mirrors, *archive.urls):
                parts = urlsplit(url)
                say(f"asking {parts.hostname or url}")
                try:
                    if parts.scheme == "file":
                        file = Path(url2pathname(parts.path))
                        check_archive(file, archive)
                        return file
                    require_space(folder, archive.bytes - part.size + spare, "--cache")
                    _complete(url, part, archive.sha256, say, policy)
                    with writing(target):
                        os.replace(path, target)
                    return target
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


def _is_intact(file: Path, archive: SourceArchive, say: Say) -> bool:
    """Whether an earlier download is intact; delete a damaged one."""
    with writing(file):
        if not file.is_file():
            return False
        say(f"checking {file}")
        intact = file_digest(file) == archive.sha256
        if not intact:
            say(f"{file} is damaged and deleted")
            file.unlink()
    return intact


def _complete(url: str, part: PartialFile, sha256: str, say: Say, policy: RetryPolicy) -> None:
    """Download what is missing, or everything if the earlier part was wrong."""
    while True:
        part.mark = part.size
        if part.size < part.total:
            transfer(url, part, policy)
        say("checking the checksum")
        with writing(part.path):
            if file_digest(part.path) == sha256:
                return
        resumed_at, part.mark = part.mark, 0
        part.cut(0)
        if resumed_at == 0:
            raise Refused("gave a file with another checksum, which is deleted")
        say("the checksum is wrong: deleted, and once more from the start")


def check_archive(file: Path, archive: SourceArchive) -> None:
    """Raise DataError unless size and sha256 match."""
    try:
        size = file.stat().st_size
        matches = size == archive.bytes and file_digest(file) == archive.sha256
    except (OSError, ValueError) as error:  # ValueError: an address may name the byte zero
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{str(file)!r} cannot be read: {reason}") from error
    if not matches:
        reason = f"it has {size} bytes" if size != archive.bytes else "its sha256 differs"
        wanted = f"the archive {archive.name} of {archive.bytes} bytes"
        raise DataError(f"{file} is not {wanted}: {reason}; get it anew")


def require_space(folder: Path, needed: int, option: str) -> None:
    """Raise StoreError without free space; `option` names another folder."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f"{folder} has {decimal(free)} free and needs {decimal(needed)}: make room, or name"
            f" another folder with {option}"
        )


def waiting_for(lock: Path, say: Say) -> Callable[[], None]:
    """Return a callback that reports a held lock."""
    return lambda: say(f"another fetch holds {lock}: waiting for it")
