"""Records of runs that failed: one numbered folder each, with failure.json and log.txt."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.spec import RunSpec
from bench.system.files import sync_folder, write_synced

LOG_KEPT = 1 << 20
"""Bytes of a failed run's log that are kept: the first and the last half of that."""
_NO_FAILURE = {
    "kind": "", "reason": "?", "traceback": "", "time": "?", "spec": {}, "provenance": {}
}  # fmt: skip
"""What a record of a failure holds, for those that lack some of it."""


def strip(staged: Path, spec: RunSpec, failure: Mapping[str, Any]) -> None:
    """Leave of a staged folder its log, not too long, and add the facts of the failure."""
    content = {"run_id": spec.run_id, "spec": spec.as_dict(), "time": _now(), **failure}
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
    """Move a stripped folder into the `folder` of its run, under the next number; return where."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(p.name) for p in folder.iterdir() if p.name.isdecimal()]
    target = folder / str(1 + max(numbers, default=0))
    os.rename(staged, target)
    sync_folder(folder)
    return target


def records(folder: Path) -> list[dict[str, Any]]:
    """Return what is recorded in the folder of a run, oldest first; `folder` says where."""
    found = []
    for path in folder.glob("*/failure.json"):
        try:
            read = json.loads(path.read_bytes())
            failure = {k: read[k] if type(read.get(k)) is type(v) else v
                       for k, v in _NO_FAILURE.items()}  # fmt: skip
            failure["run_id"], failure["folder"] = folder.name, str(path.parent)
            found.append((int(path.parent.name), failure))
        except (OSError, ValueError, AttributeError, RecursionError):
            continue  # a record that cannot be read keeps nobody from trying again
    return [failure for _, failure in sorted(found, key=lambda f: f[0])]


def _shorten(log: Path) -> None:
    """Keep the beginning and the end of a log that has grown out of hand."""
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


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
