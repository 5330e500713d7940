"""Fixtures of tests of planning."""

from pathlib import Path

import pytest

from bench.planning.matrix import Selection, expand
from bench.planning.plan import Plan
from bench.planning.suite import read_suite
from bench.registry import Registry
from tests.fixtures.plans import smoke_plan


@pytest.fixture
def plan(tmp_path: Path, warm_cache: Path) -> Plan:
    return smoke_plan(tmp_path, warm_cache)


@pytest.fixture
def three(plan: Plan) -> Plan:
    return Plan(plan.runs[:3], ())


@pytest.fixture(scope="module")
def registry(warm_cache):
    return Registry(warm_cache)


@pytest.fixture
def cells(tmp_path, registry):
    def expanded(text, **narrowing):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return expand(read_suite(str(path)), Selection(**narrowing), registry, tmp_path / "data")

    return expanded
