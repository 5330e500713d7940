"""The images that runs need, brought into the cache before they begin."""

import time
from collections.abc import Callable
from pathlib import Path

from bench.data.catalog import find_dataset
from bench.data.images import load, prepare, why_unofficial
from bench.errors import DataError
from bench.plan import Folders, Run


class Preparation:
    """Categories whose images are in the cache, each decoded once a command at most."""

    def __init__(self, folders: Folders, note: Callable[[str], None]) -> None:
        self._folders, self._note = folders, note
        self._known: dict[tuple[str, int, str], tuple[Path, str] | DataError] = {}

    def category(self, run: Run, meanwhile: Callable[[], None]) -> tuple[Path, str]:
        """Return the folder of the images and why the copy is unofficial (or nothing).

        While images are decoded, `meanwhile` is called now and then.
        """
        key = (run.spec.fingerprint, run.spec.image_size, run.spec.resize)
        if key not in self._known:
            try:
                self._known[key] = self._prepare(run, meanwhile)
            except DataError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, DataError):
            raise found
        return found

    def _prepare(self, run: Run, meanwhile: Callable[[], None]) -> tuple[Path, str]:
        spec = run.spec
        attended = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal attended
            if time.monotonic() - attended > 0.5:
                meanwhile()
                attended = time.monotonic()
            if done == 1:
                self._note(f"decoding {spec.place}: {total} images to {spec.image_size} px")

        folder = prepare(run.listing, spec.fingerprint, self._folders.cache, spec.image_size,
                         spec.resize, progress)  # fmt: skip
        dataset = find_dataset(spec.dataset, self._folders.data)
        reason = why_unofficial(dataset, spec.category, spec.fingerprint, load(folder))
        if reason:
            self._note(f"{spec.place} is an unofficial copy: {reason}")
        return folder, reason
