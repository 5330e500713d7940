"""Licences of datasets: shown, accepted, and recorded beside the data."""

import itertools
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bench
from bench.data.catalog import Dataset
from bench.data.fetch.download import Say, waiting_for
from bench.errors import RequestError
from bench.system.files import locked, write_atomically, writing
from bench.system.untrusted import read_regular


def introduce(dataset: Dataset, say: Say) -> None:
    """Show a dataset's title, source and licence."""
    say(f"{dataset.title}, from {dataset.source}")
    say(f"Licence: {dataset.licence} {dataset.licence_url}".rstrip())


def settle_licence(dataset: Dataset, data: Path, accept: Callable[[], bool], say: Say) -> None:
    """Ask once for consent; raises RequestError if declined."""
    if is_accepted(dataset, data):
        return
    introduce(dataset, say)
    if not accept():
        raise RequestError(f"the licence of {dataset.title} was not accepted: nothing is done")
    record_acceptance(dataset, data, say)


def is_accepted(dataset: Dataset, data: Path) -> bool:
    """Whether the dataset's licence is accepted in `data`."""
    entry = (_acceptances(data) or {}).get(dataset.name, {})
    return (entry.get("licence"), entry.get("url")) == (dataset.licence, dataset.licence_url)


def _acceptances(data: Path) -> dict[str, dict[str, Any]] | None:
    """Read the record; None for one that is damaged."""
    try:
        record = json.loads(read_regular(data / "licences.json", 1 << 20))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        return None
    valid = isinstance(record, dict) and all(isinstance(entry, dict) for entry in record.values())
    return record if valid else None


def record_acceptance(dataset: Dataset, data: Path, say: Say) -> None:
    """Record an accepted licence in `licences.json`."""
    with writing(data):
        data.mkdir(parents=True, exist_ok=True)
    file = data / "licences.json"
    with writing(data), locked(data, waiting_for(data, say)):
        record = _acceptances(data)
        if record is None:
            names = (f"{file}.damaged{n or ''}" for n in itertools.count())
            aside = next(name for name in names if not os.path.lexists(name))
            with writing(file):
                os.rename(file, aside)
            say(f"{file} is damaged: it is now {aside}")
            record = {}
        record[dataset.name] = {
            "licence": dataset.licence,
            "url": dataset.licence_url,
            "accepted": datetime.now(UTC).isoformat(timespec="seconds"),
            "bench": bench.__version__,
        }
        write_atomically(file, json.dumps(record, indent=1).encode())
