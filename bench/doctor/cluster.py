"""Whether nodes of a cluster could make runs."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.doctor.diagnosis import Diagnosis, diagnose
from bench.errors import BenchError
from bench.execution.engines.dask import Cluster, ask_nodes
from bench.execution.engines.request import other_versions, versions

GROUP = "nodes"


def check_nodes(cluster: Cluster, patience: float) -> Iterator[Diagnosis]:
    """Ask each node for its versions, device and folders; wait for a first one."""
    try:
        nodes = ask_nodes(cluster, patience)
    except BenchError as error:
        yield Diagnosis(GROUP, "bad", "scheduler", "no answer", str(error))
        return
    yield diagnose(GROUP, "scheduler", f"{cluster.address}: {len(nodes)} nodes", "")
    if not nodes:
        todo = "start `bench worker` on one, or see the logs of the jobs in .bench-slurm"
        yield Diagnosis(GROUP, "bad", "nodes", f"none came in {patience:.0f} s", todo)
    for node in sorted(nodes, key=lambda n: str(n["node"])):
        yield from _check_node(node)


def _check_node(node: Mapping[str, Any]) -> Iterator[Diagnosis]:
    name, other = str(node["node"]), other_versions(versions(), node["versions"])
    found = other or "versions as here"
    todo = "install what the command has: such a node is sent away" if other else ""
    yield diagnose(GROUP, name, found, todo, bad=True)
    yield diagnose(GROUP, name, f"device {node['device']}, {node['cores']} cores", "")
    for variable, (path, there) in node["folders"].items():
        todo = "" if there else f"set {variable} there, or `bench worker --{variable[6:].lower()}`"
        yield diagnose(GROUP, name, f"{variable} {path}{'' if there else ' is no folder'}", todo)
