"""A worker that hangs as it closes."""

import subprocess
import sys

import pytest

pytest.importorskip("distributed")
HANGS = """
import time
from types import SimpleNamespace
from distributed.core import Status
from bench.execution.engines import preload
preload.GRACE = preload.LOOK = 0.1
worker = SimpleNamespace(status=Status.{before})
preload.dask_setup(worker)
time.sleep(0.5)
print("works", flush=True)
worker.status = Status.{after}
time.sleep({longest})
print("still here")
"""


@pytest.mark.parametrize(
    ("before", "after", "longest", "ends"),
    [("init", "closing", 60, True), ("running", "closed", 60, True),
     ("init", "failed", 60, True), ("init", "running", 1, False),
     ("running", "paused", 1, False)],
)  # fmt: skip
def test_a_process_ends_with_its_worker(before: str, after: str, longest: int, ends: bool) -> None:
    code = HANGS.format(before=before, after=after, longest=longest)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.split("\n")[:-1] == ["works"] + ["still here"] * (not ends)
