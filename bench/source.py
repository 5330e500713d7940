"""The source of a method: its hash, and whether stored runs come from today's.

The hash covers the syntax trees of the method and of what it imports from `baselines` and
`atacnet`. Of `bench` only `CONTRACT_VERSION` counts, so that the harness can be tidied. Where a
rearrangement is proved to change no number (`nox -s same_numbers`), `equivalences.json` holds the
old and the new hash with the proof, and runs of the old one are not stale.
"""

import ast
import functools
import hashlib
import importlib.machinery
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bench.errors import RequestError

CONTRACT_VERSION = 1
"""Raised when `bench.detector` or `bench.seeding` change what a method computes."""
METHOD_PACKAGES = ("baselines", "atacnet")
OWN_PACKAGES = ("bench", *METHOD_PACKAGES)
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


def outside_hash(module: str) -> str:
    """Return the source hash of an outside method.

    It covers its package and the modules beside it, without the project's part; of an installed
    package nothing beside it counts.
    """
    top = module.partition(".")[0]
    file = _source_file(top)
    if file is None or "site-packages" in file.parts:
        return tree_hash(module, (top,))
    folder = file.parent.parent if file.name == "__init__.py" else file.parent
    beside = {
        p.stem for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()
    }
    return tree_hash(module, tuple(sorted(beside - set(OWN_PACKAGES) | {top})))


@functools.cache
def source_hash(module: str) -> str:
    """Return a method's source hash, 64 hex digits."""
    text = f"contract {CONTRACT_VERSION}\n{tree_hash(module, METHOD_PACKAGES)}"
    return hashlib.sha256(text.encode()).hexdigest()


def tree_hash(module: str, packages: tuple[str, ...]) -> str:
    """Return the sha256 of a module's syntax trees.

    Its imports from `packages` are included. Comments, docstrings and layout do not count; neither
    does the Python version. Raises RequestError for a file that is not valid Python.
    """
    trees: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _source_file(name)
        if name in trees or file is None:
            continue
        trees[name], imported = _parsed(name, file, file.read_bytes())
        waiting += [n for n in imported if n.split(".")[0] in packages]
    digest = hashlib.sha256()
    for name in sorted(trees):
        digest.update(f"{name}\n{trees[name]}\n".encode())
    return digest.hexdigest()


@functools.cache
def _parsed(name: str, file: Path, content: bytes) -> tuple[str, tuple[str, ...]]:
    """Return a module's canonical tree, and the names it imports.

    Methods share most of their modules, so each is parsed once. Raises RequestError.
    """
    try:
        tree = ast.parse(content, str(file))
    except SyntaxError as error:
        raise RequestError(f"{file} is not valid Python: {error}") from None
    return _canonical(tree), tuple(dict.fromkeys(_imports(tree, name, file.name == "__init__.py")))


def _source_file(name: str) -> Path | None:
    """Find a module's Python file without importing its package."""
    top, *parts = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None  # `from module import function`
        folders = list(spec.submodule_search_locations)
        spec = importlib.machinery.PathFinder.find_spec(f"{spec.name}.{part}", folders)
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _imports(tree: ast.Module, module: str, package: bool) -> Iterable[str]:
    """Yield imported names that may be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                names = module.split(".")
                parent = names[: len(names) - node.level + package]
                base = ".".join([*parent, base] if base else parent)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _canonical(node: Any) -> str:
    """Write a syntax tree without positions, docstrings and empty fields."""
    if isinstance(node, list):
        return "[" + ",".join(_canonical(n) for n in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list):
            value = [n for n in value if not _is_text(n)]
        if value is not None and value != []:
            fields.append(f"{name}={_canonical(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a docstring, also an attribute's."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
