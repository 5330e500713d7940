"""What a run refuses before its method sees anything."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from bench.data.catalog import find_dataset
from bench.data.images import load, prepare
from bench.data.layouts import list_category
from bench.data.listing import fingerprint
from bench.errors import DataError
from bench.execution import worker
from bench.execution.messages import OutOfMemory, decode_message
from bench.system.digests import FingerprintCache
from tests.fixtures.runs import SPEC


def test_no_method_is_given_a_training_set_without_normal_images(
    tmp_path: Path, cache: Path
) -> None:
    """A stream of batches of no image has no end, and a plan may be older than the data."""
    home = tmp_path / "nuts"
    for place, count in (("train/good", 3), ("test/hole", 12)):
        (home / place).mkdir(parents=True)
        for i in range(count):
            colour = (20 * i, len(place), 0)
            Image.new("RGB", (9, 9), colour).save(home / place / f"{i}.png")
    shutil.copytree(home / "train/good", home / "test/good")
    listing = list_category(find_dataset("nuts", tmp_path), "nuts", tmp_path, cache)
    content = fingerprint(listing, FingerprintCache(cache))
    images = prepare(listing, content, cache, 16)
    pictures = tuple(f.pixels for f in load(images).facts)
    job: Any = SimpleNamespace(spec=SPEC, files=listing.files, pictures=pictures, images=images)
    with pytest.raises(DataError, match=r"3 normal training images, of which 3 are also in test"):
        worker._data(job)


class Full:
    """A stream for which there is no memory either."""

    def write(self, text: str) -> int:
        raise MemoryError

    def flush(self) -> None:
        pass


def test_a_log_that_finds_no_memory_does_not_hide_that_the_run_found_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    def run(*_: Any) -> None:
        raise MemoryError("in fit")

    for name in ("die_with_parent", "redirect_output", "limit_memory"):
        monkeypatch.setattr(worker, name, lambda *_: None)
    monkeypatch.setattr(worker.os, "setsid", lambda: None)
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    monkeypatch.setattr(worker, "exit_process", leave)
    monkeypatch.setattr(worker, "_run", run)
    monkeypatch.setattr(sys, "stderr", Full())
    sent: list[bytes] = []
    job: Any = SimpleNamespace(spec=SPEC, device="cpu", staged=tmp_path, keep=frozenset())
    progress: Any = SimpleNamespace(send_bytes=sent.append)
    with pytest.raises(SystemExit) as end:
        worker.run_job(job, progress, progress, 0.0)
    assert end.value.code == 1
    (message,) = map(decode_message, sent)
    assert isinstance(message, OutOfMemory)
    assert "MemoryError: in fit" in message.traceback
