"""Fixtures of tests of `bench doctor`."""

from pathlib import Path

import pytest

from bench.planning.plan import Folders


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(*(tmp_path / name for name in ("data", "weights", "results", "cache")))
