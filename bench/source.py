"""The source of a method: its hash, and whether stored runs come from today's.

The hash covers the syntax trees of the method and of what it imports from `baselines` and
`atacnet`. Of `bench` only `CONTRACT_VERSION` counts, so that the harness can be tidied. Where a
rearrangement is proved to change no number (`nox -s same_numbers`), `equivalences.json` holds the
old and the new hash with the proof, and runs of the old one are not stale.

The id of a method from outside has the hash of all that it imports, installed packages apart, also
where the statement is never reached. What it loads by a computed name (`importlib`) is known only
once it runs: the provenance names it as `also_loaded`. The run is stale once such a file changes.
Data files do not count.
"""

import functools
import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bench.code import (
    METHOD_PACKAGES,
    OWN_PACKAGES,
    Sources,
    hash_sources,
    parse_source,
    read_code,
    read_imports,
)
from bench.errors import BenchError

CONTRACT_VERSION = 1
"""Raised when `bench.detector` or `bench.seeding` change what a method computes."""
ANY_DEVICE = "any"
"""The device of a proof that needs no run: one tree, hashed by two rules."""


@dataclass(frozen=True)
class Proof:
    """Hashes of sources that give the same numbers."""

    hashes: frozenset[str]
    device: str
    """Kind of device that it was shown on, `cpu` or `cuda`; `any` where it needs none."""


@dataclass(frozen=True)
class Standing:
    """Whether a stored run's code is today's."""

    stale: bool
    proved_on: str = ""
    """Kind of device of the proof, where the run was made on another kind; else empty."""


@functools.cache
def standing(path: str, source_sha256: str | None, device: str) -> Standing:
    """Compare a method's stored hash with today's.

    `path` is `package.module:Class`, `device` the run's (`cpu`, `cuda:0`). Raises RequestError for
    source that is no Python.
    """
    today, kind = source_hash(path.partition(":")[0]), device.partition(":")[0]
    if source_sha256 is None:
        return Standing(stale=True)
    known = frozenset({ANY_DEVICE, kind})
    elsewhere = sorted({proof.device for proof in equivalences()} - known)
    for proved_on in ((), *((other,) for other in elsewhere), elsewhere):
        if today in _equivalent(source_sha256, known.union(proved_on)):
            return Standing(stale=False, proved_on=" and ".join(proved_on))
    # Until 88926ad the harness counted by its syntax trees: a method that imports none of it (one
    # from outside has no proof) has the same hash by that rule still.
    return Standing(stale=source_sha256 != tree_hash(path.partition(":")[0], OWN_PACKAGES))


def proved_equal(one: str | None, other: str | None, device: str) -> bool:
    """Whether two source hashes are the same, or proved to give the same numbers on a device."""
    known = frozenset({ANY_DEVICE, device.partition(":")[0]})
    return one == other or (one is not None and other in _equivalent(one, known))


def _equivalent(source_sha256: str, devices: frozenset[str]) -> set[str]:
    """Return all hashes that proofs on these devices lead to."""
    reached = {source_sha256}
    proofs = [p.hashes for p in equivalences() if p.device in devices]
    while more := {h for hashes in proofs if hashes & reached for h in hashes} - reached:
        reached |= more
    return reached


@functools.cache
def equivalences() -> tuple[Proof, ...]:
    """Read the committed proofs."""
    text = resources.files("bench").joinpath("equivalences.json").read_text(encoding="utf-8")
    return tuple(
        Proof(frozenset(hashes), proof["device"])
        for proof in json.loads(text)
        for hashes in proof["hashes"].values()
    )


@functools.cache
def method_code(module: str) -> Sources:
    """Return a method's code, read once a command.

    So what is planned, named in ids and compared with what ran is of one moment.
    """
    return read_code(module)


def method_folder(module: str, file: Path) -> Path:
    """Return the folder that a module is imported from, by its file."""
    return file.parents[module.count(".") + (file.name == "__init__.py")]


def loaded_files_changed(module: str, also_loaded: str) -> bool:
    """Whether files that a run has also loaded have changed."""
    try:
        digests = json.loads(also_loaded)
        folder = method_folder(module, method_code(module)[module].file)
        return any(_tree_of(folder / path) != digest for path, digest in digests.items())
    except (BenchError, OSError, LookupError, ValueError, AttributeError, TypeError):
        return True


def _tree_of(file: Path) -> str:
    """Return the digest of a Python file; empty for anything else."""
    if file.suffix != ".py" or not file.is_file():
        return ""
    return parse_source(file.stem, file, file.read_bytes()).digests.tree


def outside_hash(module: str) -> str:
    """Return the source hash in an outside method's id: all but the project's part."""
    project = {*OWN_PACKAGES} - {_top(module)}
    return hash_sources({n: s for n, s in method_code(module).items() if _top(n) not in project})


@functools.cache
def source_hash(module: str) -> str:
    """Return a method's source hash, 64 hex digits."""
    return hash_of_method(module, method_code(module))


def hash_of_method(module: str, sources: Sources) -> str:
    """Return the source hash of a method's code: its own module and the project's part."""
    own = {n: s for n, s in sources.items() if n == module or _top(n) in METHOD_PACKAGES}
    text = f"contract {CONTRACT_VERSION}\n{hash_sources(own)}"
    return hashlib.sha256(text.encode()).hexdigest()


def tree_hash(module: str, packages: tuple[str, ...]) -> str:
    """Return the sha256 of a module's syntax trees.

    Its imports from `packages` are included. Comments, docstrings and layout do not count; neither
    does the Python version. Raises RequestError for a file that is not valid Python.
    """
    return hash_sources(read_imports(module, packages))


def _top(name: str) -> str:
    return name.partition(".")[0]
