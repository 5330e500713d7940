"""The worker's input; importing it does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.code import FileDigests
from bench.data.listing import File
from bench.spec import RunSpec
from bench.store.groups import Provenance

LOG_LIMIT = 64 << 20
"""Bytes that a run may print; one that prints more has gone wrong and is ended."""


@dataclass(frozen=True)
class Job:
    """A run's inputs on this machine, pickled to the worker."""

    spec: RunSpec
    method_path: str
    files: tuple[File, ...]
    pictures: tuple[str, ...]
    """A key for the picture that each file shows: equal for duplicates and near copies."""
    root: Path
    """The folder that the paths of `files` are relative to."""
    images: Path
    """The prepared category, see `bench.data.images`."""
    external: Path | None
    """The prepared external images, see `bench.data.external`."""
    weights_file: Path | None
    strides: str
    results: Path
    staged: Path
    device: str
    threads: int
    score_batch_size: int
    replaces: str
    """Digest of the stale receipt to supersede, or empty."""
    provenance: Provenance
    """What is known of it before the run begins."""
    code: Mapping[str, FileDigests]
    """Modules of the method, as they were when the run was planned."""
    keep: frozenset[str] = frozenset()
    """The abilities whose files the run keeps beside its scores, see `bench.store.artifacts`."""
