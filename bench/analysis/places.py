"""Places of stored runs, told apart by the images that they hold.

A dataset's files may change between two commands: a label is corrected, an image replaced, or the
data pipeline raised to a new version. Runs before and after saw different images. They are never
averaged or paired: one content keeps the place's name, each other one is a place of its own.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from bench.spec import Place, RunSpec, place_of
from bench.store.configuration_names import shortened
from bench.store.receipt import Receipt

Images = tuple[int, str]
"""Version of the data pipeline, and content fingerprint."""


def images_of(spec: RunSpec) -> Images:
    """Return what decides which pixels a run saw."""
    return spec.data_version, spec.fingerprint


def finished(receipt: Receipt) -> datetime:
    """Return when a run finished; long ago for a receipt that does not say."""
    return receipt.finished_at or datetime.min.replace(tzinfo=UTC)


def nowhere(dataset: str, category: str) -> str:
    """Return that no data folder is at hand."""
    return ""


class Places:
    """Places of runs, one for each content.

    The content that keeps a place's plain name has the newest version of the data pipeline; of
    these, it is the one that `present` names, the fingerprint in the data folder; else that of the
    run that finished last; else that of the most runs.
    """

    def __init__(
        self, receipts: Iterable[Receipt], present: Callable[[str, str], str] = nowhere
    ) -> None:
        self._known: dict[Place, dict[Images, tuple[datetime, int]]] = {}
        for receipt in receipts:
            spec, moment = receipt.spec, finished(receipt)
            contents = self._known.setdefault(_data(spec), {})
            newest, runs = contents.get(images_of(spec), (moment, 0))
            contents[images_of(spec)] = max(newest, moment), runs + 1
        self._preferred = {
            data: self._prefer(data, contents, present) for data, contents in self._known.items()
        }

    @staticmethod
    def _prefer(
        data: Place,
        contents: dict[Images, tuple[datetime, int]],
        present: Callable[[str, str], str],
    ) -> Images:
        if len(contents) == 1:  # to read a data folder takes time
            return next(iter(contents))
        fingerprint = present(*data)
        return max(contents, key=lambda i: (i[0], i[1] == fingerprint, *contents[i], i[1]))

    def __call__(self, spec: RunSpec) -> Place:
        """Return a run's dataset and category; the latter names another content."""
        dataset, category = place_of(spec)
        if self.is_preferred(spec):
            return dataset, category
        return dataset, f"{category} ({self.content(spec)})"

    def is_preferred(self, spec: RunSpec) -> bool:
        """Whether a run saw the content that keeps the place's name."""
        return self._preferred[_data(spec)] == images_of(spec)

    def content(self, spec: RunSpec) -> str:
        """Return what tells a run's images from others of its place; empty for one content."""
        return _named(images_of(spec), self._known[_data(spec)])

    def others(self, spec: RunSpec) -> list[str]:
        """Return the names of the other contents of a run's place."""
        contents = self._known[_data(spec)]
        return sorted(_named(images, contents) for images in contents.keys() - {images_of(spec)})


def _named(images: Images, among: Iterable[Images]) -> str:
    """Return the parts of a content in which several differ."""
    version, digest = images
    versions, digests = {v for v, _ in among}, {d for _, d in among}
    parts = [f"content {shortened(digest, digests)}"] * (len(digests) > 1)
    parts += [f"data version {version}"] * (len(versions) > 1)
    return ", ".join(parts)


def _data(spec: RunSpec) -> Place:
    return spec.dataset, spec.category
