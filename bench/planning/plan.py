"""From cells to runs: look up data and weights, so that every run has an id or a remedy."""

import collections
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.data import DATA_VERSION
from bench.data.catalog import find_dataset
from bench.data.external import External, find_external
from bench.data.images import RESIZE_RULES
from bench.data.layouts import list_category
from bench.data.listing import Listing, fingerprint
from bench.data.splits import seen_defects
from bench.errors import DataError, RequestError, WeightsError
from bench.planning.matrix import Cell
from bench.spec import RunSpec
from bench.system.digests import FingerprintCache
from bench.weights import Weights, find_weights


@dataclass(frozen=True)
class Folders:
    """Where things lie on this machine; only the name of `textures` enters an identity."""

    data: Path
    weights: Path
    results: Path
    cache: Path
    textures: Path | None = None
    """Images that take the place of scikit-image's textures."""


@dataclass(frozen=True)
class Run:
    """A wanted run that can be carried out here."""

    spec: RunSpec
    cell: Cell
    listing: Listing
    weights: Weights | None
    external: External | None

    @cached_property
    def run_id(self) -> str:
        """The id of the spec."""
        return self.spec.run_id


@dataclass(frozen=True)
class Missing:
    """A wanted run without data or weights: it has no id, but a remedy."""

    cell: Cell
    remedy: str


@dataclass(frozen=True)
class Plan:
    """What was asked for, looked up."""

    runs: tuple[Run, ...]
    missing: tuple[Missing, ...]

    @property
    def timing(self) -> bool:
        """Whether any of its runs measures time, and so must be alone on the machine."""
        cells = [*(r.cell for r in self.runs), *(m.cell for m in self.missing)]
        return any(cell.kind == "timing" for cell in cells)


def make_plan(
    cells: Iterable[Cell],
    folders: Folders,
    *,
    download: bool = False,
) -> Plan:
    """Look up the data and the weights of every cell; nothing is decoded yet.

    With `download`, published weights that are absent are fetched. Raises RequestError for what no
    file can mend.
    """
    digests = FingerprintCache(folders.cache)
    data: dict[tuple[str, str], tuple[Listing, str] | str] = {}
    weights: dict[tuple[object, ...], Weights | str] = {}
    external: dict[tuple[str, str, str], External | str | None] = {}
    runs, missing = [], []
    for cell in cells:
        place = (cell.dataset, cell.category)
        if place not in data:
            data[place] = _find_data(*place, folders, digests)
            digests.save()  # at once: reading gigabytes is not done twice
        found = data[place]
        if isinstance(found, str):
            missing.append(Missing(cell, found))
            continue
        listing, content = found
        chosen: Weights | None = None
        if "backbone" in cell.method.settings:
            key = tuple(cell.settings[k] for k in ("backbone", "stage", "weights"))
            if key not in weights:
                weights[key] = _find_weights(cell, folders, digests, download)
            there = weights[key]
            if isinstance(there, str):
                missing.append(Missing(cell, there))
                continue
            chosen = there
        outside: External | None = None
        if "external" in cell.method.settings:
            source = str(cell.settings["external"])
            if (source, *place) not in external:
                external[source, *place] = _find_external(source, *place, folders, digests)
            found_outside = external[source, *place]
            if isinstance(found_outside, str):
                missing.append(Missing(cell, found_outside))
                continue
            outside = found_outside
        runs += [
            Run(spec, cell, listing, chosen, outside)
            for spec in _specs(cell, listing, content, chosen, outside)
        ]
    digests.save()
    return Plan(tuple({r.run_id: r for r in runs}.values()), tuple(missing))


def _find_data(
    dataset: str, category: str, folders: Folders, digests: FingerprintCache
) -> tuple[Listing, str] | str:
    try:
        card = find_dataset(dataset, folders.data)
        listing = list_category(card, category, folders.data, folders.cache)
        return listing, fingerprint(listing, digests)
    except DataError as error:
        return str(error)


def _find_external(
    source: str, dataset: str, category: str, folders: Folders, digests: FingerprintCache
) -> External | str | None:
    try:
        return find_external(
            source, dataset, category, folders.data, folders.cache, digests, folders.textures
        )
    except DataError as error:
        return str(error)


def _find_weights(
    cell: Cell, folders: Folders, digests: FingerprintCache, download: bool
) -> Weights | str:
    backbone, stage, weights = (cell.settings[k] for k in ("backbone", "stage", "weights"))
    try:
        return find_weights(
            str(backbone), int(stage), str(weights), folders.weights, folders.cache, digests,
            download=download,
        )  # fmt: skip
    except WeightsError as error:
        return str(error)


def _specs(
    cell: Cell,
    listing: Listing,
    content: str,
    weights: Weights | None,
    external: External | None,
) -> Iterable[RunSpec]:
    """Yield the spec of a cell; in the hard setting one for each defect type that can be seen."""
    settings, method = cell.settings, cell.method
    if settings["resize"] not in RESIZE_RULES:
        raise RequestError(f"resize is one of {', '.join(RESIZE_RULES)}")
    seen: Iterable[str | None] = (cell.seen_defect,)
    if cell.setting == "hard" and cell.seen_defect is None:
        seen = seen_defects(listing.files)
    for defect in seen:
        yield RunSpec(
            kind=cell.kind,
            method=method.name,
            method_version=method.version,
            method_source=method.source,
            parameters=cell.parameters,
            dataset=cell.dataset,
            category=cell.category,
            setting=cell.setting,
            shots=cell.shots,
            seen_defect=defect,
            seed=cell.seed,
            image_size=int(settings["image_size"]),
            resize=str(settings["resize"]),
            data_version=DATA_VERSION,
            fingerprint=content,
            external=_external(cell, external),
            precision=str(settings["precision"]) if "precision" in method.settings else None,
            batch_size=int(settings["batch_size"]) if "batch_size" in method.settings else None,
            backbone=weights.source.name if weights else None,
            stage=weights.source.stage if weights else None,
            weights=weights.digest if weights else None,
        )


def _external(cell: Cell, external: External | None) -> str | None:
    """Return what a method that can use external images is given: none counts as well."""
    if "external" not in cell.method.settings:
        return None
    return external.identity if external else "none"


def missing_lines(missing: Iterable[Missing]) -> list[str]:
    """Return one line for each different remedy, with how many runs wait for it.

    What is said of several categories of a dataset in the same words is said of the first.
    """
    alike: dict[str, list[Missing]] = collections.defaultdict(list)
    for m in missing:
        alike[m.remedy.replace(f"{m.cell.dataset}/{m.cell.category}", m.cell.dataset)].append(m)
    lines = []
    for same in alike.values():
        categories = len({(m.cell.dataset, m.cell.category) for m in same})
        others = f" of {categories} categories" if categories > 1 else ""
        lines.append(f"{same[0].remedy}  [{len(same)} run{'s' if len(same) > 1 else ''}{others}]")
    return lines
