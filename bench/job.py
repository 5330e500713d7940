"""What a worker is handed; apart from `bench.worker`, so that the command need not import torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.files import File
from bench.spec import RunSpec


@dataclass(frozen=True)
class Job:
    """What a worker needs to carry out a run on this machine; plain data, pickled to the child."""

    spec: RunSpec
    method_path: str
    files: tuple[File, ...]
    images: Path
    """The prepared category, see `bench.data.images`."""
    weights_file: Path | None
    strides: str
    weights_title: str
    unofficial: str
    """Empty, or why this copy of the data is not the official one."""
    results: Path
    staged: Path
    device: str
    threads: int
    provenance: dict[str, Any]
