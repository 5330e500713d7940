"""Fixtures of tests of the store."""

import subprocess

import pytest

from tests.fixtures.runs import ID, publish


@pytest.fixture(scope="module")
def dead():
    """The number of a process that is over."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def run(store):
    """The folder of a published run."""
    publish(store)
    return store.runs / ID
