"""Hash of a method's source; stale or not."""

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.errors import RequestError

OWN_PACKAGES = ("bench", "baselines", "atacnet")


def by_other_code(path: str, stored: Any) -> bool:
    """Whether a receipt or a failure comes from other code of a method than today's."""
    then = stored.provenance.source_sha256
    return bool(then != source_hash(path.partition(":")[0]))


def outside_hash(module: str) -> str:
    """Return the source hash of a method from outside: its own package and the modules beside it.

    The project's part stays out. Of an installed package nothing beside it counts.
    """
    top = module.partition(".")[0]
    file = _source_file(top)
    if file is None or "site-packages" in file.parts:
        return source_hash(module, (top,))
    folder = file.parent.parent if file.name == "__init__.py" else file.parent
    beside = {
        p.stem for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()
    }
    return source_hash(module, tuple(sorted(beside - set(OWN_PACKAGES) | {top})))


@functools.cache
def source_hash(module: str, packages: tuple[str, ...] = OWN_PACKAGES) -> str:
    """Return the sha256 over the syntax trees of a module and of what it imports from `packages`.

    Comments, docstrings and layout do not count; neither does the Python version.
    """
    trees: dict[str, ast.Module] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _source_file(name)
        if name in trees or file is None:
            continue
        try:
            trees[name] = ast.parse(file.read_bytes(), str(file))
        except SyntaxError as error:
            raise RequestError(f"{file} is not valid Python: {error}") from None
        used = _imports(trees[name], name, file.name == "__init__.py")
        waiting += [n for n in used if n.split(".")[0] in packages]
    digest = hashlib.sha256()
    for name in sorted(trees):
        digest.update(f"{name}\n{_canonical(trees[name])}\n".encode())
    return digest.hexdigest()


def _source_file(name: str) -> Path | None:
    """Find a module's file without importing its package; None for what is no Python file."""
    top, *parts = name.split(".")
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for part in parts:
        if found is None or found.submodule_search_locations is None:
            return None  # `from module import function`
        places = list(found.submodule_search_locations)
        found = importlib.machinery.PathFinder.find_spec(f"{found.name}.{part}", places)
    return Path(found.origin) if found and found.origin and found.origin.endswith(".py") else None


def _imports(tree: ast.Module, module: str, package: bool) -> Iterable[str]:
    """Yield the names a module (or a package, by its __init__) imports that may be modules."""
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
    """Whether a statement is a bare string: a docstring, also one that follows an attribute."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
