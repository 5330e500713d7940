"""Preparation: decodes the images of runs into the cache."""

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
    """Prepares each category once a command at most."""

    def __init__(self, folders: Folders, note: Callable[[str], None]) -> None:
        self._folders, self._note = folders, note
        self._outcomes: dict[tuple[str, int, int, str], Path | DataError] = {}
        self._unofficial: dict[Path, str] = {}

    def category(self, run: Run, meanwhile: Callable[[], None]) -> tuple[Path, str]:
        """Return the images' folder and why they are unofficial.

        While images are decoded, `meanwhile` is called now and then. Raises DataError.
        """
        spec = run.spec
        folder = self._prepared(
            spec.place, run.listing, spec.fingerprint, spec.image_size, spec.resize, meanwhile
        )
        if folder not in self._unofficial:
            dataset = find_dataset(spec.dataset, self._folders.data)
            sizes = {(f.width, f.height) for f in load(folder).facts}
            reason = why_unofficial(
                dataset, spec.category, run.listing.files, spec.fingerprint, sizes
            )
            if reason:
                self._note(f"{spec.place} is an unofficial copy: {reason}")
            self._unofficial[folder] = reason
        return folder, self._unofficial[folder]

    def external(self, run: Run, meanwhile: Callable[[], None]) -> Path | None:
        """Return the external images' folder or None; raises DataError."""
        if run.external is None:
            return None
        images, spec = run.external, run.spec
        title, size = f"external images ({images.source})", images.prepared_size(spec.image_size)
        listing, fingerprint = images.listing, images.fingerprint
        return self._prepared(title, listing, fingerprint, size, spec.resize, meanwhile)

    def _prepared(
        self,
        title: str,
        listing: Listing,
        fingerprint: str,
        size: int,
        resize: str,
        meanwhile: Callable[[], None],
    ) -> Path:
        """Decode a listing into the cache; remember the outcome."""
        last_call = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal last_call
            if time.monotonic() - last_call > 0.5:
                meanwhile()
                last_call = time.monotonic()
            if done == 1:
                self._note(f"decoding {title}: {total} images to {size} px")

        key = (fingerprint, listing.data_version, size, resize)
        if key not in self._outcomes:
            try:
                self._outcomes[key] = prepare(
                    listing, fingerprint, self._folders.cache, size, resize, progress
                )
            except DataError as error:
                self._outcomes[key] = error
        outcome = self._outcomes[key]
        if isinstance(outcome, DataError):
            raise outcome
        return outcome
