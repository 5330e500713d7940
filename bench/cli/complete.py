"""Names that the shell completes."""

from collections.abc import Iterable
from pathlib import Path


def suites(incomplete: str) -> list[str]:
    """Return suites, and suite files of the current folder."""
    from bench.planning.suite import suite_files, suite_names

    names = (*suite_names(), *suite_files(Path()))
    return [name for name in names if name.startswith(incomplete)]


def methods(incomplete: str) -> list[str]:
    """Return methods, behind those that stand there."""
    from bench.registry import METHODS

    return _next(incomplete, METHODS)


def datasets(incomplete: str) -> list[str]:
    """Return datasets, behind those that stand there."""
    from bench.data.catalog import find_datasets

    return _next(incomplete, (dataset.name for dataset in find_datasets(Path("data"))))


def categories(incomplete: str) -> list[str]:
    """Return categories, behind those that stand there."""
    from bench.data.catalog import find_datasets

    known = (c for dataset in find_datasets(Path("data")) for c in dataset.categories)
    return _next(incomplete, dict.fromkeys(known))


def _next(incomplete: str, known: Iterable[str]) -> list[str]:
    """Complete the last of several names."""
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in known if name.startswith(last)]
