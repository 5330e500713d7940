"""The code of a method: its module and those it imports, as read at one time."""

import ast
import functools
import hashlib
import importlib.machinery
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import RequestError
from bench.system.path import is_installed

METHOD_PACKAGES = ("baselines", "atacnet")
OWN_PACKAGES = ("bench", *METHOD_PACKAGES)
_EMPTY = "Module()"
"""The tree of a module that does nothing."""


class FileDigests(NamedTuple):
    """A module's file by its bytes and by its syntax tree."""

    file: str
    content: str
    tree: str
    """Of what counts: comments, docstrings and layout do not."""


@dataclass(frozen=True)
class ModuleSource:
    """A module's file as read once."""

    file: Path
    content: str
    """Hex sha256 of its bytes."""
    text: str
    """What counts of it: its syntax tree, or the digest of what is no Python."""
    imports: tuple[str, ...]
    """Names that may be modules."""

    @property
    def empty(self) -> bool:
        """Whether the module does nothing."""
        return self.text == _EMPTY

    @property
    def digests(self) -> FileDigests:
        """Digests of the file."""
        tree = hashlib.sha256(self.text.encode()).hexdigest()
        return FileDigests(str(self.file), self.content, tree)


Sources = Mapping[str, ModuleSource]


def file_digests(sources: Sources) -> dict[str, FileDigests]:
    """Return the digests of modules' files."""
    return {name: source.digests for name, source in sources.items()}


def read_code(module: str, read: Callable[[Path], bytes] = Path.read_bytes) -> Sources:
    """Return the sources of a method's module and of all that it imports.

    Followed are `baselines`, `atacnet` and what is not installed; of an installed method also its
    own package. A package's `__init__` counts where it does something. Raises RequestError for a
    file that is not valid Python.
    """
    followed = {_top(module), *METHOD_PACKAGES}

    @functools.cache
    def may_follow(top: str) -> bool:
        return top in followed or (top != "bench" and not _is_installed_package(top))

    def counts(name: str, file: Path) -> bool:
        installed = is_installed(str(file))
        return not installed or (_top(name) in followed and file.suffix == ".py")

    return _closure(module, may_follow, counts, read)


def read_imports(module: str, packages: Iterable[str]) -> Sources:
    """Return the sources of a module and of what it imports from packages.

    Raises RequestError for a file that is not valid Python.
    """
    followed = frozenset(packages)
    return _closure(module, followed.__contains__, lambda _, file: file.suffix == ".py")


def hash_sources(sources: Sources) -> str:
    """Return the hex sha256 of what counts of modules."""
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name}\n{sources[name].text}\n".encode())
    return digest.hexdigest()


def parse_source(name: str, file: Path, data: bytes) -> ModuleSource:
    """Return a module's source; raises RequestError for invalid Python."""
    content = hashlib.sha256(data).hexdigest()
    if file.suffix != ".py":
        return ModuleSource(file, content, f"sha256 {content}", ())
    return _parsed(name, file, data, content)


@functools.cache
def _parsed(name: str, file: Path, data: bytes, content: str) -> ModuleSource:
    try:
        tree = ast.parse(data, str(file))
    except (SyntaxError, ValueError) as error:
        raise RequestError(f"{file} is not valid Python: {error}") from None
    imports = tuple(dict.fromkeys(_imports(tree, name, file.name == "__init__.py")))
    return ModuleSource(file, content, _canonical(tree), imports)


def _closure(
    module: str,
    may_follow: Callable[[str], bool],
    counts: Callable[[str, Path], bool],
    read: Callable[[Path], bytes] = Path.read_bytes,
) -> Sources:
    """Follow imports, of top names and files that count.

    Importing `a.b` runs `a/__init__.py` too, which counts unless it is empty.
    """
    sources: dict[str, ModuleSource] = {}
    imported, seen, waiting = {module}, set(), [module]
    while waiting:
        name = waiting.pop()
        file = None if name in seen else module_file(name)
        seen.add(name)
        if file is None or (name != module and not counts(name, file)):
            continue
        sources[name] = parse_source(name, file, read(file))
        following = [n for n in sources[name].imports if may_follow(_top(n))]
        imported.update(following)
        waiting += [*following, *_packages_of(name)]
    return {n: s for n, s in sources.items() if n in imported or not s.empty}


def _packages_of(name: str) -> list[str]:
    """Return the packages that a module lies in."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _top(name: str) -> str:
    return name.partition(".")[0]


def _is_installed_package(top: str) -> bool:
    """Whether a top name is installed, built in or nowhere."""
    spec = _find_spec(top)
    if spec is None:
        return True
    if spec.origin and spec.has_location:
        return is_installed(spec.origin)
    return all(is_installed(folder) for folder in spec.submodule_search_locations or ())


def _find_spec(top: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


def module_file(name: str) -> Path | None:
    """Return a module's file, without importing its package."""
    top, *parts = name.split(".")
    spec = _find_spec(top)
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None  # `from module import function`
        # By its last name: a namespace below another would ask for the upper one, not imported yet.
        folders = list(spec.submodule_search_locations)
        spec = importlib.machinery.PathFinder.find_spec(part, folders)
    if spec is None or not spec.origin or not spec.has_location:
        return None
    file = Path(spec.origin).absolute()
    return file if file.is_file() else None


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
