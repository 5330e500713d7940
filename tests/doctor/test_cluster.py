"""What the doctor says of nodes, without any."""

from pathlib import Path
from typing import Any

import pytest

from bench.doctor import cluster
from bench.doctor.cluster import check_nodes
from bench.execution.engines.dask import Cluster
from bench.execution.engines.request import versions

NODE = {
    "node": "n7", "versions": versions(), "device": "cuda:0", "cores": 4, "folders": {},
    "results": "/elsewhere", "sees_marker": True, "ahead_s": 0.4,
}  # fmt: skip


def said_of(
    results: Path, monkeypatch: pytest.MonkeyPatch, shared: bool = True, **changes: Any
) -> dict[str, str]:
    """Return the state of each finding of a node with changes."""
    asked = []

    def ask_nodes(cluster: Cluster, patience: float, marker: str = "") -> list[dict[str, Any]]:
        asked.append(marker)
        assert not marker or (results / marker).exists()
        return [{**NODE, **changes}]

    monkeypatch.setattr(cluster, "ask_nodes", ask_nodes)
    findings = check_nodes(Cluster("tcp://127.0.0.1:1", shared=shared), 1.0, results)
    states = {finding.found: finding.state for finding in findings}
    assert bool(asked[0]) == shared
    assert not results.exists() or not [*results.iterdir()]
    return states


@pytest.mark.parametrize(
    ("ahead", "said", "state"),
    [
        (0.4, "clock 0 s ahead of this one", "ok"),
        (-29.0, "clock 29 s behind this one", "ok"),
        (31.0, "clock 31 s ahead of this one", "note"),
        (-3600.0, "clock 3600 s behind this one", "note"),
    ],
)
def test_clocks_that_run_apart_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float, said: str, state: str
) -> None:
    assert said_of(tmp_path / "results", monkeypatch, ahead_s=ahead)[said] == state


def test_a_node_that_does_not_see_the_shared_results_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    assert said_of(results, monkeypatch)["results /elsewhere"] == "ok"
    blind = said_of(results, monkeypatch, sees_marker=False)
    assert blind[f"results /elsewhere, which are not those of {results}"] == "bad"


def test_results_are_not_touched_where_they_are_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = said_of(tmp_path / "results", monkeypatch, shared=False, sees_marker=False)
    assert not any(text.startswith(("results", "clock")) for text in states)
    assert not (tmp_path / "results").exists()


def test_results_that_cannot_be_written_are_one_finding(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    (finding,) = check_nodes(Cluster("tcp://127.0.0.1:1", shared=True), 1.0, tmp_path / "results")
    assert (finding.state, finding.what) == ("bad", "results")
