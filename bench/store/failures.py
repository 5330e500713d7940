"""Failure records: numbered folders with failure.json and log.txt."""

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import RequestError
from bench.spec import RunSpec
from bench.store.groups import Provenance
from bench.system.files import sync_folder, write_synced

DISPUTED = "was finished twice"
"""Kind of the failure of a run with two different results."""
LOG_KEPT = 1 << 20
"""Bytes of a failed run's log that are kept: the first and the last half of that."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Record of a failed run; absent values are empty or `?`."""

    run_id: str
    spec: RunSpec | None
    """None where the record has a spec of another form."""
    kind: str
    """Whose doing it was: `method`, `time limit`, `killed`, `memory`, `data`, `code` or a
    dispute."""
    reason: str
    traceback: str
    time: str
    """When it failed, in UTC."""
    provenance: Provenance
    folder: Path
    """Where the record and its log lie."""


def strip(
    staged: Path, spec: RunSpec, kind: str, reason: str, traceback: str, provenance: Provenance
) -> None:
    """Reduce a staged folder to failure.json and its log."""
    content = {
        "run_id": spec.run_id,
        "spec": spec.as_dict(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kind": kind,
        "reason": reason,
        "traceback": traceback,
        "provenance": dict(provenance),
    }
    staged.mkdir(parents=True, exist_ok=True)
    for path in staged.iterdir():
        if path.name == "log.txt":
            _shorten(path)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    write_synced(staged / "failure.json", json.dumps(content, indent=1).encode())


def add_record(folder: Path, staged: Path) -> Path:
    """Move a record into its run's `folder`; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(p.name) for p in folder.iterdir() if p.name.isdecimal()]
    target = folder / str(1 + max(numbers, default=0))
    os.rename(staged, target)
    sync_folder(folder)
    return target


def records(folder: Path) -> list[Failure]:
    """Return the failures recorded in a folder, oldest first."""
    numbered = []
    for path in folder.glob("*/failure.json"):
        try:
            failure = _failure(json.loads(path.read_bytes()), path.parent)
            numbered.append((int(path.parent.name), failure))
        except (OSError, ValueError, AttributeError, RecursionError):
            continue  # a record that cannot be read keeps nobody from trying again
    return [failure for _, failure in sorted(numbered, key=lambda n: n[0])]


def _failure(content: Any, folder: Path) -> Failure:
    """Return a record; values of another form count as absent."""

    def text(name: str, absent: str = "") -> str:
        value = content.get(name)
        return value if type(value) is str else absent

    try:
        spec = RunSpec.from_dict(content.get("spec"))
    except (RequestError, AttributeError):
        spec = None
    provenance = content.get("provenance")
    return Failure(
        run_id=folder.parent.name,
        spec=spec,
        kind=text("kind"),
        reason=text("reason", "?"),
        traceback=text("traceback"),
        time=text("time", "?"),
        provenance=Provenance.readable(provenance),
        folder=folder,
    )


def _shorten(log: Path) -> None:
    """Keep the beginning and end of a long log."""
    size = log.stat().st_size
    if size <= LOG_KEPT:
        return
    with log.open("r+b") as file:
        head = file.read(LOG_KEPT // 2)
        file.seek(size - LOG_KEPT // 2)
        tail = file.read()
        file.seek(0)
        gap = size - len(head) - len(tail)
        file.write(head + f"\n... {gap} bytes left out ...\n".encode() + tail)
        file.truncate()
