"""Fixtures of tests of the report."""

from dataclasses import replace

import pytest

from tests.fixtures.pages import AUGMENTED, SLOWER, TRAINED
from tests.fixtures.runs import MIDDLE, SPEC, store_at


@pytest.fixture
def store(tmp_path):
    """Of each view three seeds with AUROC 0.75, 0.75 and 0.5."""
    runs = [replace(s, seed=i) for s in (TRAINED, AUGMENTED) for i in range(2)]
    last = [replace(s, seed=2) for s in (TRAINED, AUGMENTED)]
    facts = {"optimiser_steps": 30}
    store_at(tmp_path / "results", *last, scores=MIDDLE, facts=facts)
    return store_at(tmp_path / "results", SPEC, *runs, SLOWER, facts=facts)
