"""What a node makes of a request, without Dask."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.cli.options import plan_suite
from bench.execution.engines.node import answer
from bench.execution.engines.request import Request, other_versions, versions
from bench.planning.matrix import Selection
from bench.planning.plan import Folders, Plan, Run
from bench.planning.suite import read_suites
from bench.source import source_hash
from bench.store.receipt import read_run


@pytest.fixture
def planned(tmp_path: Path, warm_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that the command has planned, and a node with an empty data folder."""
    monkeypatch.setenv("BENCH_CACHE", str(warm_cache))
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    folders = Folders(tmp_path / "data", tmp_path, tmp_path / "results", warm_cache)
    selection = Selection(methods=("shortcut",), shots=(1,), categories=("weave",))
    plan: Plan = plan_suite(read_suites(["smoke"]), selection, folders, tell=lambda text: None)
    return plan.runs[0]


def request(run: Run, **changes: Any) -> Request:
    wanted = {k: v for k, v in vars(run.planned).items() if k != "method"}
    asked = Request(
        run_id=run.run_id, method=run.planned.method.name,
        source_sha256=source_hash(run.planned.method.module), wanted=wanted, versions=versions(),
        keep=(), redo=False, timeout=None, score_batch_size=32, threads=1, shared=False, topic="",
    )  # fmt: skip
    return replace(asked, **changes)


def test_a_run_comes_back_whole_and_leaves_its_folder(planned: Run, tmp_path: Path) -> None:
    told: list[Any] = []
    given = answer(request(planned), tmp_path / "scratch", tell=told.append)
    assert (given.refused, given.lacks, given.failure) == ("", "", None)
    back = tmp_path / "back"
    back.mkdir()
    for name, content in given.files.items():
        (back / name).write_bytes(content)
    receipt = read_run(back, planned.run_id)
    assert receipt.spec == planned.spec
    assert receipt.provenance.source_sha256 == source_hash(planned.planned.method.module)


def test_other_versions_and_other_code_are_refused(planned: Run, tmp_path: Path) -> None:
    older = {**versions(), "torch": "2.0.1"}
    refused = answer(request(planned, versions=older), tmp_path).refused
    assert refused == f"has torch {versions()['torch']}, the command 2.0.1"
    other = answer(request(planned, source_sha256="f" * 64), tmp_path)
    assert other.refused == "has other code of shortcut"
    unknown = answer(request(planned, method="nowhere.at_all:Method"), tmp_path)
    assert "nowhere" in unknown.refused
    assert not [*tmp_path.iterdir()], "nothing was begun"


def test_what_a_node_lacks_is_said_with_the_remedy(planned: Run, tmp_path: Path) -> None:
    absent = {**request(planned).wanted, "dataset": "head_ct", "category": "head_ct"}
    lacks = answer(request(planned, wanted=absent), tmp_path).lacks
    assert "head_ct" in lacks
    assert "bench data" in lacks
    different = answer(request(planned, run_id="0" * 16), tmp_path)
    assert "are not those of the command: copy them there" in different.lacks


def test_differences_of_versions_are_named_and_nothing_else() -> None:
    ours = {"bench": "1", "torch": "2.14.1"}
    assert other_versions(ours, dict(ours)) == ""
    assert other_versions(ours, {"bench": "1"}) == "has torch none, the command 2.14.1"
    assert other_versions(ours, {"bench": "2", "torch": "2.13"}) == (
        "has bench 2, the command 1 and torch 2.13, the command 2.14.1"
    )
