"""The path that Python imports from, with the current folder off it.

`python -m` and `python -c` begin it with the current folder, where a `random.py`, a `numpy.py` or
another checkout may lie. Only what `PYTHONPATH` names stays where it is: that is asked for.
"""

import os
import sys

import bench

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(bench.__file__)))
_STDLIB = os.path.dirname(os.__file__)


def current_folder() -> str:
    """Return the current folder; empty where it is gone."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _named(current: str) -> list[str]:
    """Return the folders that PYTHONPATH names; an empty entry names none."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [_absolute(entry, current) for entry in entries if entry]


def _absolute(entry: str, current: str) -> str:
    """Return an entry's folder, or an entry of an import hook as it is."""
    folder = os.path.normpath(os.path.join(current, entry)) if entry else current
    return folder if os.path.isabs(entry) or os.path.isdir(folder) else entry


def safe_path() -> list[str]:
    """Return the path without the current folder, absolute.

    Where `python -m bench` takes `bench` itself from there, the folder stays, behind the standard
    library.
    """
    current = current_folder()
    path = [_absolute(entry, current) for entry in sys.path]
    if current not in _named(current):
        if path[:1] == [current] == [_ROOT]:
            rest = path[1:]
            installed = (i for i, entry in enumerate(rest) if _in_packages(entry))
            position = next(installed, len(rest))
            path = rest if _ROOT in rest else [*rest[:position], _ROOT, *rest[position:]]
        elif current != _ROOT:
            path = [entry for entry in path if entry != current]
    return list(dict.fromkeys(filter(None, path)))


def use_safe_path() -> None:
    """Take the current folder off the path of this process."""
    sys.path[:] = safe_path()


def is_installed(path: str) -> bool:
    """Whether a path is of the standard library or of installed packages."""
    return path == _STDLIB or path.startswith(_STDLIB + os.sep) or _in_packages(path)


def _in_packages(path: str) -> bool:
    parts = path.split(os.sep)
    return "site-packages" in parts or "dist-packages" in parts


def safe_environment() -> dict[str, str]:
    """Return the variables that give a new interpreter the safe path.

    An entry with the separator in its name cannot be handed over.
    """
    path = dict.fromkeys([*_named(current_folder()), *safe_path()])
    entries = (e for e in path if os.path.isabs(e) and os.pathsep not in e)
    return {"PYTHONPATH": os.pathsep.join(entries), "PYTHONSAFEPATH": "1"}
