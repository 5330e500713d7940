"""Compare the source that a process loaded with the plan.

A server that has imported a method an hour ago runs that code, whatever lies on the disk by now. So
Python's loader of source files is made to keep the bytes that it compiles, of all that is no
installed package: what is compared is what was compiled, byte by byte. The compiled files beside
the source (`__pycache__`) are passed over, for they are matched by size and second only. Another
loader's modules count as their file is when they are looked at.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import bench
from bench.code import METHOD_PACKAGES, OWN_PACKAGES, FileDigests, parse_source, read_code
from bench.errors import CodeError
from bench.source import hash_of_method, method_folder
from bench.system.path import is_installed

_LOADED: dict[str, bytes] = {}
"""Source by file, as this process has compiled it."""
_HARNESS = os.path.dirname(os.path.abspath(bench.__file__))
_PROJECT = tuple(os.path.join(os.path.dirname(_HARNESS), name) + os.sep for name in OWN_PACKAGES)


def record_sources() -> None:
    """Keep the source of methods that are loaded later."""
    standard = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        file = os.path.abspath(loader.path)
        of_method = name.partition(".")[0] in METHOD_PACKAGES
        if file.startswith(_HARNESS + os.sep) or (is_installed(file) and not of_method):
            return standard(loader, name)
        source = _LOADED[file] = loader.get_data(loader.path)
        return loader.source_to_code(source, loader.path)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]


def loaded_source(file: Path) -> bytes:
    """Return a file's source as loaded here, else as it is now."""
    source = _LOADED.get(str(file))
    return file.read_bytes() if source is None else source


def check_loaded(module: str, planned: Mapping[str, FileDigests]) -> None:
    """Raise CodeError unless a method's loaded modules are those planned.

    A module that is not loaded takes no part.
    """
    for name, plan in planned.items():
        file = _file_of(name)
        if file is None:
            continue
        source = loaded_source(file)
        if hashlib.sha256(source).hexdigest() == plan.content:
            continue
        loaded = parse_source(name, file, source).digests
        if loaded.tree != plan.tree:
            raise CodeError(_difference(name, plan, loaded), _loaded_hash(module))


def _file_of(name: str) -> Path | None:
    """Return the file of a loaded module."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return Path(os.path.abspath(spec.origin)) if spec and spec.origin else None


def _difference(name: str, planned: FileDigests, loaded: FileDigests) -> str:
    remedy = "it changed meanwhile, give the same command again"
    if planned.file != loaded.file:
        remedy = "PYTHONPATH names another copy: remove it from there"
    return (
        f"{name} ran from {loaded.file} (sha256 {loaded.content[:12]}), and was planned from"
        f" {planned.file} (sha256 {planned.content[:12]}): {remedy}"
    )


def _loaded_hash(module: str) -> str:
    """Return the source hash of what is loaded."""
    return hash_of_method(module, read_code(module, loaded_source))


def also_loaded(module: str, planned: Mapping[str, FileDigests]) -> str | None:
    """Return digests of unplanned loaded files, as JSON by path.

    Paths below the folder of the method are relative to it. What does nothing, as an empty
    `__init__.py`, is left out. None where there is no such file.
    """
    known = {plan.file for plan in planned.values()}
    folder = method_folder(module, Path(planned[module].file)) if module in planned else None
    digests = {}
    for name, source in sorted(_LOADED.items()):
        file = Path(name)
        if name in known or name.startswith(_PROJECT):
            continue
        parsed = parse_source(file.stem, file, source)
        if parsed.empty:
            continue
        below = folder is not None and file.is_relative_to(folder)
        path = file.relative_to(folder) if folder and below else file
        digests[str(path)] = parsed.digests.tree
    return json.dumps(digests) if digests else None
