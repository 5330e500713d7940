"""Fixtures of tests of the command."""

from pathlib import Path

import pytest

from tests.fixtures.command import Bench


@pytest.fixture
def bench(tmp_path: Path, warm_cache: Path) -> Bench:
    return Bench(tmp_path, warm_cache)
