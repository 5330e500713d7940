"""Obtain a dataset: its licence accepted, its archive downloaded or taken, checked, unpacked.

Nothing appears under the dataset's name before all of it has been checked; one rename brings it
there. A download that ends half way, however it ends, is continued by the next attempt.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bench
from bench.data.catalog import Archive, Dataset
from bench.data.download import (
    Patience,
    Progress,
    Say,
    alone,
    check_archive,
    check_mirror,
    demand_space,
    download,
)
from bench.data.files import fingerprint, list_category
from bench.data.unpack import Limits, unpack
from bench.digests import FingerprintCache
from bench.errors import DataError, MissingData, RequestError
from bench.files import sync_folder, write_atomically, writing


def fetch(
    dataset: Dataset,
    data: Path,
    cache: Path,
    *,
    accept: Callable[[], bool],
    archive: Path | None = None,
    mirrors: Sequence[str] = (),
    say: Say = print,
    progress: Progress = lambda here, whole: None,
    patience: Patience | None = None,
) -> None:
    """Bring a dataset into `data`, from `archive` where one is given.

    `accept` is asked once for each licence. One that takes an account to download is only checked
    where it lies already. Raises RequestError where something is in the way, MissingData where
    the archive cannot be had, DataError where it is not the right one, StoreError for the disk.
    """
    known = dataset.archive
    if known is None:
        raise RequestError(f"{dataset.name} needs no archive: there is nothing to fetch")
    if mirrors and (archive is not None or not known.sha256):
        raise RequestError("--mirror is for datasets that are downloaded, without --archive")
    for mirror in mirrors:
        check_mirror(mirror)
    if archive is None and not known.urls:
        _check_by_hand(dataset, data, cache, say)
        return
    _check_absent(dataset, data)
    if archive is not None and not os.path.isfile(archive):
        raise RequestError(f"there is no archive {archive}")
    if not is_accepted(dataset, data):
        if not accept():
            raise RequestError(f"the licence of {dataset.title} was not accepted: nothing is done")
        _record_acceptance(dataset, data)
    if archive is None:
        archive = download(
            dataset, known, cache / "downloads", mirrors, say, progress, patience or Patience()
        )
        say(f"{archive} may be deleted once {dataset.name} is in place")
    elif known.sha256:
        say(f"checking {archive}")
        check_archive(archive, known)
    _install(dataset, known, archive, data, cache, say)
    say(f"{dataset.name} is in {data / dataset.name}")


def _check_absent(dataset: Dataset, data: Path) -> None:
    home = data / dataset.name
    if os.path.lexists(home):
        raise RequestError(
            f"{home} exists: check it with `bench data verify {dataset.name}`, or move it away"
        )


# --- licences -------------------------------------------------------------------------------------


def is_accepted(dataset: Dataset, data: Path) -> bool:
    """Whether this licence of the dataset has been accepted in `data` before."""
    there = _acceptances(data).get(dataset.name, {})
    return (there.get("licence"), there.get("url")) == (dataset.licence, dataset.licence_url)


def _acceptances(data: Path) -> dict[str, dict[str, Any]]:
    """Read the record; one that is damaged records nothing, so that the question is asked again."""
    file = data / "licences.json"
    try:
        if not file.is_file() or file.stat().st_size > 1 << 20:
            return {}
        record = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    entries = record.items() if isinstance(record, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict)}


def _record_acceptance(dataset: Dataset, data: Path) -> None:
    record = _acceptances(data)
    record[dataset.name] = {
        "licence": dataset.licence,
        "url": dataset.licence_url,
        "accepted": datetime.now(UTC).isoformat(timespec="seconds"),
        "bench": bench.__version__,
    }
    write_atomically(data / "licences.json", json.dumps(record, indent=1).encode())


def _install(
    dataset: Dataset, known: Archive, archive: Path, data: Path, cache: Path, say: Say
) -> None:
    """Unpack in a hidden folder, check, and publish by one rename."""
    with alone(data / ".staging.lock", say):
        _check_absent(dataset, data)
        with writing(data):
            for leftover in data.glob(".staging-*"):  # under the lock, so its owner is dead
                shutil.rmtree(leftover, ignore_errors=True)
            demand_space(data, known.unpacked, "--data")
            say(f"unpacking {archive}")
            staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=data))
        try:
            unpack(archive, staging / "archive", Limits(total=2 * known.unpacked))
            with writing(data):
                _lay_out(staging / "archive", known, staging / dataset.name)
            _check_content(dataset, known, archive, staging, data, cache)
            with writing(data / dataset.name):
                os.sync()  # a name must not outlive the bytes in a power cut
                os.rename(staging / dataset.name, data / dataset.name)
                sync_folder(data)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _lay_out(unpacked: Path, known: Archive, home: Path) -> None:
    """Move what is wanted into `home`, from the top or else from one folder deep."""
    home.mkdir()
    places = [unpacked, *sorted(p for p in unpacked.iterdir() if p.is_dir())]
    for entry in known.entries:
        found = [place / entry for place in places if (place / entry).exists()]
        if found:
            # Head-CT's pictures lie in head_ct/head_ct of some archives.
            nested = found[0] / entry
            os.rename(nested if nested.is_dir() else found[0], home / entry)


def _check_content(
    dataset: Dataset, known: Archive, archive: Path, staging: Path, data: Path, cache: Path
) -> None:
    try:
        why = _unofficial(dataset, staging, cache)
    except DataError as error:
        entries = ", ".join(known.entries)
        raise DataError(f"{archive} is not {dataset.title}: it needs {entries}") from error
    if why:
        raise DataError(
            f"{archive} is not the official copy of {dataset.title} ({why}); to use it as an"
            f" unofficial one, {dataset.placed(data)}"
        )


def _unofficial(dataset: Dataset, data: Path, cache: Path) -> str:
    """Say what sets this copy apart from the official one; empty where nothing is known to.

    Raises DataError where it does not even hold what the layout asks for.
    """
    digests = FingerprintCache(cache)
    for category, facts in dataset.categories.items():
        listing = list_category(dataset, category, data, cache)
        if dataset.fingerprint in ("", fingerprint(listing, digests)):
            continue
        anomalous = sum(f.anomalous for f in listing.files)
        counts = (len(listing.files) - anomalous, anomalous)
        official = (facts.train + facts.test_normal, facts.test_anomalous)
        if counts == official:
            return "as many images, but other content"
        return "{} normal and {} anomalous images, not {} and {}".format(*counts, *official)
    return ""


def _check_by_hand(dataset: Dataset, data: Path, cache: Path, say: Say) -> None:
    if not os.path.lexists(data / dataset.name):
        raise MissingData(
            f"{dataset.title} takes an account: download it from {dataset.source} and give the zip"
            f" with `bench data fetch {dataset.name} --archive FILE`"
        )
    why = _unofficial(dataset, data, cache)
    say(
        f"{data / dataset.name} is "
        + (f"an unofficial copy: {why}" if why else f"the official copy of {dataset.title}")
    )
