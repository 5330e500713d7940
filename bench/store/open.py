"""A results folder or an archive at a path."""

from pathlib import Path

from bench.errors import StoreError
from bench.store.folder import Store
from bench.store.results import MANIFEST, Results


def open_results(path: Path) -> Results:
    """Return the results at `path`; raises StoreError without any.

    An archive's own digests are checked at once.
    """
    if not (path / MANIFEST).is_file() and not (path / "runs").is_dir():
        raise StoreError(f"{path} is neither a results folder (runs/) nor an archive ({MANIFEST})")
    return results_at(path)


def results_at(path: Path) -> Results:
    """Return the archive at `path`, else a possibly new store."""
    if not (path / MANIFEST).is_file():
        return Store(path)
    from bench.store.archive import Archive

    return Archive(path)
