"""The real campaign and engine direct made-up nodes."""

from pathlib import Path

import pytest

from bench.errors import StoreError
from bench.planning.plan import Folders
from bench.store.folder import Store
from tests.campaigns.coordinator import NO_OP, SHOTS, MadeUpClient, answers_of, directed, planned
from tests.fixtures.command import Bench
from tests.fixtures.runs import NO_SPACE


def test_what_nodes_send_is_published_and_a_full_disk_is_one_line(
    tmp_path: Path, warm_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, warm_cache)
    suite = bench.suite(NO_OP, shots=SHOTS)
    assert bench("run", suite, "--seeds", "1", "--shots", "1")[0] == 0
    folders = Folders(tmp_path, tmp_path, tmp_path / "all", warm_cache)
    plan = planned(folders, suite, 1)
    client = MadeUpClient(4, answers_of(plan, bench.store, tmp_path / "sent"))
    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", NO_SPACE)
        with pytest.raises(StoreError, match=r"^cannot keep run \w{16}: No space left on device"):
            directed(plan, folders, client)
    store = Store(folders.results)
    assert not store.ids()
    assert not [*store.staging.iterdir()]
    outcome, *_ = directed(plan, folders, client)
    assert sorted(outcome.done) == store.ids() == sorted(run.run_id for run in plan.runs)
    assert bench("verify", "--results", str(folders.results))[0] == 0
