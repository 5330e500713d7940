"""Fixtures of tests of the report."""

from dataclasses import replace

import pytest

from tests.fixtures.pages import SLOWER, TRAINED, TWICE
from tests.fixtures.runs import SPEC, store_at


@pytest.fixture
def store(tmp_path):
    runs = [replace(s, seed=i) for s in (TRAINED, TWICE) for i in range(3)]
    return store_at(tmp_path / "results", SPEC, *runs, SLOWER, facts={"optimiser_steps": 30})
