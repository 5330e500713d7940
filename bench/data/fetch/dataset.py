"""Fetch a dataset: accept the licence, get the archive, check and unpack it.

Nothing appears under the dataset's name before all of it has been checked; one rename brings it
there. The next attempt continues a download that was interrupted.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.data.catalog import Dataset, SourceArchive
from bench.data.fetch.download import (
    Say,
    check_archive,
    check_mirror,
    download,
    require_space,
    waiting_for,
)
from bench.data.fetch.licences import introduce, settle_licence
from bench.data.fetch.transfer import Progress, RetryPolicy
from bench.data.fetch.unpack import Limits, unpack
from bench.data.official import copy_differences
from bench.errors import DataError, MissingData, RequestError
from bench.system.digests import FingerprintCache
from bench.system.files import locked, staged_folder, writing

_STAGING = ".bench-fetch-"


def fetch(
    dataset: Dataset,
    data: Path,
    cache: Path,
    *,
    accept: Callable[[], bool],
    archive: Path | None = None,
    mirrors: Sequence[str] = (),
    say: Say = print,
    progress: Progress = lambda received, total: None,
    policy: RetryPolicy | None = None,
) -> bool:
    """Bring a dataset into `data`, by download or `archive`.

    `accept` is asked once for each licence. One that takes an account to download is only checked
    where it lies already: False for a copy that is not the official one. Raises RequestError where
    something is in the way, MissingData where the archive cannot be had, DataError where it is not
    the right one, StoreError for the disk.
    """
    known = _checked(dataset, archive, mirrors)
    if archive is None and not known.urls:
        introduce(dataset, say)
        return _check_by_hand(dataset, data, cache, say)
    _check_absent(dataset, data)
    settle_licence(dataset, data, accept, say)
    require_space(data, known.unpacked, "--data")
    if archive is None:
        folder, policy = cache / "downloads", policy or RetryPolicy()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            spare = known.unpacked if folder.stat().st_dev == data.stat().st_dev else 0
        archive = download(dataset, known, folder, mirrors, say, progress, policy, spare)
        if archive.parent == folder:  # not the user's own, from a mirror by file://
            say(f"{archive} may be deleted once {dataset.name} is in place")
    elif known.sha256:
        say(f"checking {archive}")
        check_archive(archive, known)
    _install(dataset, known, archive, data, cache, say)
    say(f"{dataset.name} is in {data / dataset.name}")
    return True


def _checked(dataset: Dataset, archive: Path | None, mirrors: Sequence[str]) -> SourceArchive:
    """Return the card's archive; raises RequestError for a request without sense."""
    known = dataset.archive
    if known is None:
        raise RequestError(f"{dataset.name} needs no archive: there is nothing to fetch")
    if mirrors and (archive is not None or not known.sha256):
        raise RequestError("--mirror is for datasets that are downloaded, without --archive")
    for mirror in mirrors:
        check_mirror(mirror)
    if archive is not None and not os.path.isfile(archive):
        exists = os.path.exists(archive)
        raise RequestError(
            f"{archive} is not a regular file" if exists else f"there is no archive {archive}"
        )
    return known


def _check_absent(dataset: Dataset, data: Path) -> None:
    home = data / dataset.name
    if os.path.lexists(home):
        raise RequestError(
            f"{home} exists: check it with `bench data verify {dataset.name}`, or move it away"
        )


def _install(
    dataset: Dataset, known: SourceArchive, archive: Path, data: Path, cache: Path, say: Say
) -> None:
    """Unpack in a hidden folder, check, and publish by one rename."""
    target = data / dataset.name
    with writing(data), locked(data, waiting_for(data, say)):
        _check_absent(dataset, data)
        for leftover in data.glob(f"{_STAGING}*"):  # under the lock, so its owner is dead
            shutil.rmtree(leftover, ignore_errors=True)
        require_space(data, known.unpacked, "--data")
        say(f"unpacking {archive}")
        with staged_folder(target, _STAGING) as staged:
            unpacked = staged.parent / "unpacked archive"
            unpack(archive, unpacked, Limits(total=2 * known.unpacked))
            _lay_out(unpacked, known, staged)
            _check_content(dataset, known, archive, staged.parent, data, cache)
            os.sync()  # a name must not outlive the bytes in a power cut


def _lay_out(unpacked: Path, known: SourceArchive, home: Path) -> None:
    """Move the wanted entries into `home`, from wherever most lie."""
    folders = [unpacked, *sorted(p for p in unpacked.iterdir() if p.is_dir())]
    best = max(folders, key=lambda folder: sum((folder / e).exists() for e in known.entries))
    for entry in known.entries:
        if (best / entry).exists():
            # Head-CT's pictures lie in head_ct/head_ct of some archives.
            nested = best / entry / entry
            os.rename(nested if nested.is_dir() else best / entry, home / entry)


def _check_content(
    dataset: Dataset, known: SourceArchive, archive: Path, staging: Path, data: Path, cache: Path
) -> None:
    try:
        difference = copy_differences(dataset, staging, cache, FingerprintCache(cache))
    except DataError as error:
        reason = str(error).replace(f"{staging}{os.sep}", "")
        if isinstance(error, MissingData):  # its remedy is to fetch
            reason = f"it needs {', '.join(known.entries)}"
        raise DataError(f"{archive} is not {dataset.title}: {reason}") from error
    if difference:
        raise DataError(
            f"{archive} is not the official copy of {dataset.title} ({difference}); to use it as an"
            f" unofficial one, {dataset.placed(data)}"
        )


def _check_by_hand(dataset: Dataset, data: Path, cache: Path, say: Say) -> bool:
    """Return whether the copy in `data` is the official one, and say so."""
    if not os.path.lexists(data / dataset.name):
        raise MissingData(
            f"{dataset.title} takes an account: download it from {dataset.source} and give the zip"
            f" with `bench data fetch {dataset.name} --archive FILE`"
        )
    digests = FingerprintCache(cache)
    difference = copy_differences(dataset, data, cache, digests)
    digests.save()
    official = f"the official copy of {dataset.title}"
    kind = f"an unofficial copy: {difference}" if difference else official
    say(f"{data / dataset.name} is {kind}")
    return not difference
