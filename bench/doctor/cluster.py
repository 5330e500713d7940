"""Whether nodes of a cluster could make runs."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.doctor.diagnosis import Diagnosis, diagnose
from bench.errors import BenchError
from bench.execution.engines.dask import Cluster, ask_nodes
from bench.execution.engines.request import other_versions, versions
from bench.system.untrusted import os_reason

GROUP = "nodes"
APART = 30.0
"""Seconds between two clocks from which on a run of another host may seem abandoned."""


def check_nodes(cluster: Cluster, patience: float, results: Path) -> Iterator[Diagnosis]:
    """Ask each node for its versions, device, folders and clock; wait for a first one.

    Where results are shared, nodes look for a file that is laid there for as long.
    """
    try:
        nodes = _asked(cluster, patience, results)
    except OSError as error:
        yield Diagnosis(GROUP, "bad", "results", f"cannot write {results}", os_reason(error))
        return
    except BenchError as error:
        yield Diagnosis(GROUP, "bad", "scheduler", "no answer", str(error))
        return
    yield diagnose(GROUP, "scheduler", f"{cluster.address}: {len(nodes)} nodes", "")
    if not nodes:
        todo = "start `bench worker` on one, or see the logs of the jobs in .bench-slurm"
        yield Diagnosis(GROUP, "bad", "nodes", f"none came in {patience:.0f} s", todo)
    for node in sorted(nodes, key=lambda n: str(n["node"])):
        yield from _check_node(node)
        if cluster.shared:
            yield from _check_shared(node, results)


def _asked(cluster: Cluster, patience: float, results: Path) -> list[Mapping[str, Any]]:
    if not cluster.shared:
        return ask_nodes(cluster, patience)
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=results, prefix=".doctor-") as marker:
        return ask_nodes(cluster, patience, Path(marker.name).name)


def _check_shared(node: Mapping[str, Any], results: Path) -> Iterator[Diagnosis]:
    """Say whether a node sees the command's results, by a clock like its own."""
    name, sees = str(node["node"]), node["sees_marker"]
    todo = "" if sees else "--shared-results needs one folder that all see: set BENCH_RESULTS there"
    theirs = f"results {node['results']}{'' if sees else f', which are not those of {results}'}"
    yield diagnose(GROUP, name, theirs, todo, bad=True)
    seconds = node["ahead_s"]
    todo = "" if abs(seconds) < APART else "set the clocks: runs under way may be made twice"
    way = "ahead of" if seconds > 0 else "behind"
    yield diagnose(GROUP, name, f"clock {abs(seconds):.0f} s {way} this one", todo)


def _check_node(node: Mapping[str, Any]) -> Iterator[Diagnosis]:
    name, other = str(node["node"]), other_versions(versions(), node["versions"])
    installed = other or "versions as here"
    todo = "install what the command has: such a node is sent away" if other else ""
    yield diagnose(GROUP, name, installed, todo, bad=True)
    yield diagnose(GROUP, name, f"device {node['device']}, {node['cores']} cores", "")
    for variable, (path, there) in node["folders"].items():
        todo = "" if there else f"set {variable} there, or `bench worker --{variable[6:].lower()}`"
        yield diagnose(GROUP, name, f"{variable} {path}{'' if there else ' is no folder'}", todo)
