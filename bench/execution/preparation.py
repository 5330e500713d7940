"""The images that runs need, brought into the cache before they begin."""

import time
from collections.abc import Callable
from pathlib import Path

from bench.data.catalog import find_dataset
from bench.data.images import load, prepare
from bench.data.listing import Listing
from bench.data.official import why_unofficial
from bench.errors import DataError
from bench.planning.plan import Folders, Run


class Preparation:
    """Images that are in the cache, each decoded once a command at most."""

    def __init__(self, folders: Folders, note: Callable[[str], None]) -> None:
        self._folders, self._note = folders, note
        self._folders_known: dict[tuple[str, int, str], Path | DataError] = {}
        self._unofficial: dict[Path, str] = {}

    def category(self, run: Run, meanwhile: Callable[[], None]) -> tuple[Path, str]:
        """Return the folder of the images and why the copy is unofficial (or nothing).

        While images are decoded, `meanwhile` is called now and then. Raises DataError.
        """
        spec = run.spec
        folder = self._prepared(spec.place, run.listing, spec.fingerprint, spec.image_size,
                                spec.resize, meanwhile)  # fmt: skip
        if folder not in self._unofficial:
            dataset = find_dataset(spec.dataset, self._folders.data)
            reason = why_unofficial(dataset, spec.category, spec.fingerprint, load(folder))
            if reason:
                self._note(f"{spec.place} is an unofficial copy: {reason}")
            self._unofficial[folder] = reason
        return folder, self._unofficial[folder]

    def external(self, run: Run, meanwhile: Callable[[], None]) -> Path | None:
        """Return the folder of the external images, where the run uses any; raises DataError."""
        if run.external is None:
            return None
        found = run.external
        size = found.prepared_size(run.spec.image_size)
        return self._prepared(f"external images ({found.source})", found.listing,
                              found.fingerprint, size, run.spec.resize, meanwhile)  # fmt: skip

    def _prepared(
        self,
        title: str,
        listing: Listing,
        fingerprint: str,
        size: int,
        resize: str,
        meanwhile: Callable[[], None],
    ) -> Path:
        """Decode a listing into the cache unless it is there; remember what became of it."""
        attended = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal attended
            if time.monotonic() - attended > 0.5:
                meanwhile()
                attended = time.monotonic()
            if done == 1:
                self._note(f"decoding {title}: {total} images to {size} px")

        key = (fingerprint, size, resize)
        if key not in self._folders_known:
            try:
                self._folders_known[key] = prepare(
                    listing, fingerprint, self._folders.cache, size, resize, progress
                )
            except DataError as error:
                self._folders_known[key] = error
        found = self._folders_known[key]
        if isinstance(found, DataError):
            raise found
        return found
