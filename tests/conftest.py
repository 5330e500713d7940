"""Fixtures that several tests share."""

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from bench.data.catalog import MVTEC_AD
from bench.data.layouts import list_category
from bench.data.listing import fingerprint
from bench.source import method_code, source_hash, standing
from bench.system.digests import FingerprintCache
from bench.system.host import cpu_count
from tests.fixtures.datasets import make_bottle
from tests.fixtures.runs import store_at
from tests.fixtures.server import share_server

settings.register_profile(
    "bench", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("bench")
share_server()
gc.disable()  # until the tests are collected: of what is imported nothing is garbage

SLOWEST = (
    "execution/engines/test_dask", "methods/test_methods", "execution/engines/test_slurm",
    "whole/test_browser", "whole/test_run", "methods/test_unsupervised", "methods/test_memseg",
    "whole/test_kills", "methods/test_flows", "whole/test_misbehaving", "whole/test_readme",
    "planning/test_resources", "whole/test_same_numbers", "methods/test_patchsvdd",
    "report/test_gallery", "execution/test_crosscheck", "methods/test_prn", "cli/test_doctor",
    "whole/", "methods/", "execution/", "cli/", "campaigns/", "analysis/", "report/", "data/",
)  # fmt: skip
"""Beginnings of test modules, the slowest first: with them at the end one core would wait."""


def pytest_xdist_auto_num_workers() -> int:
    """Return one more than cores for `-n auto`: many tests wait for processes that they begin."""
    return cpu_count() + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let slow modules begin first; the order within a module stays."""
    folder = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        name = item.path.relative_to(folder).as_posix()
        return next((i for i, s in enumerate(SLOWEST) if name.startswith(s)), len(SLOWEST))

    items.sort(key=rank)


def pytest_collection_finish() -> None:
    """Let garbage be collected from here on, and never look through what is there by now."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _encodings_checked_in_this_process_only() -> None:
    """Where a text file lacks its encoding, Python warns here; a process begun here would print."""
    os.environ.pop("PYTHONWARNDEFAULTENCODING", None)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small arrays gain nothing by a second thread, which waits long where cores are busy.

    Imported here, for the process that only hands out the tests can do without torch.
    """
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and weights beside the checkout."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the real images and weights in ../shared")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache folder."""
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def warm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests that only need it warm."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("BENCH_"):
            monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write modules to a folder on sys.path; they and their hashes are forgotten afterwards."""
    names = set()
    before = set(sys.modules)

    def written(**modules):
        for name, text in modules.items():
            path = tmp_path / "src" / f"{name.replace('__', '/', 1)}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            names.add(name.partition("__")[0])
        monkeypatch.syspath_prepend(tmp_path / "src")
        source_hash.cache_clear()
        method_code.cache_clear()

    yield written
    source_hash.cache_clear()
    method_code.cache_clear()
    standing.cache_clear()
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in names:
            del sys.modules[name]


@pytest.fixture
def store(tmp_path):
    """An empty results folder, open for writing."""
    return store_at(tmp_path / "results")


@pytest.fixture
def bottle(tmp_path, cache):
    """A small bottle category, and a function that gives its fingerprint of now."""
    make_bottle(tmp_path)

    def now(digests=None):
        listing = list_category(MVTEC_AD, "bottle", tmp_path, cache)
        return fingerprint(listing, digests or FingerprintCache(cache))

    return tmp_path / "mvtec_ad" / "bottle", now
