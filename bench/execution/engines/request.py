"""What is asked of a node and what it answers, as plain values that any version can read."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import bench

PACKAGES = ("torch", "torchvision", "numpy")
"""Packages whose versions change numbers: a node has those of the command."""


@dataclass(frozen=True)
class Request:
    """A run to make on a node: what it is and how, but no path of the command's machine."""

    run_id: str
    method: str
    """A registered name, or `package.module:Class`."""
    source_sha256: str
    """Of the method's code."""
    wanted: Mapping[str, Any]
    """The fields of a `PlannedRun` but its method."""
    versions: Mapping[str, str]
    keep: tuple[str, ...]
    redo: bool
    """Whether a stored run is made again."""
    timeout: float | None
    score_batch_size: int
    threads: int | None
    """None for a share of the node's cores."""
    shared: bool
    """Whether the node publishes the run itself, in results that it sees."""
    topic: str
    """Where the node says how far it is."""


@dataclass(frozen=True)
class Answer:
    """What became of a run on a node."""

    node: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Those of the finished run, by name; of a failed one its log. Nothing where it is shared."""
    failure: Mapping[str, Any] | None = None
    """Kind, reason, traceback and provenance of a failure."""
    refused: str = ""
    """Why the node can make no run of this command."""
    lacks: str = ""
    """What the node lacks for this run, with the remedy."""


def as_values(message: Request | Answer) -> dict[str, Any]:
    """Return a message as plain values."""
    return asdict(message)


def versions() -> dict[str, str]:
    """Return the versions that a command and its nodes have to share."""
    installed = {"bench": bench.__version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "none"
    return installed


def other_versions(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """Say how a node's versions differ from the command's; empty where they do not."""
    differences = [
        f"{name} {theirs.get(name, 'none')}, the command {value}"
        for name, value in ours.items()
        if theirs.get(name, "none") != value
    ]
    return f"has {' and '.join(differences)}" if differences else ""
