"""From planned runs to runs: look up data and weights."""

import collections
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from bench.data.catalog import find_dataset
from bench.data.decode import upright_size
from bench.data.external import SOURCES, External, check_apart, find_external
from bench.data.images import RESIZE_RULES
from bench.data.listing import Listing
from bench.data.masks import find_masks, first_of, mask_problems, masks_digest
from bench.data.pixel_digests import PixelDigests
from bench.data.preconditions import check_preconditions
from bench.data.present import find_category
from bench.data.splits import hard_setting_gaps, seen_defects
from bench.data.unused import unused_files, unused_line
from bench.errors import BenchError, DataError, MissingData, RequestError, WeightsError
from bench.planning.matrix import PlannedRun, affects
from bench.spec import RunSpec, Value, place_name
from bench.system.digests import FingerprintCache
from bench.system.untrusted import one_line
from bench.weights import Weights, find_weights

T = TypeVar("T")


@dataclass(frozen=True)
class Folders:
    """Folders on this machine; only `textures` enters run ids."""

    data: Path
    weights: Path
    results: Path
    cache: Path
    textures: Path | None = None
    """Images used instead of scikit-image's textures."""


@dataclass(frozen=True)
class Run:
    """A wanted run whose inputs are here."""

    spec: RunSpec
    planned: PlannedRun
    listing: Listing
    pictures: tuple[str, ...]
    """A key for the picture that each file shows: equal for duplicates and near copies."""
    weights: Weights | None
    external: External | None

    @cached_property
    def run_id(self) -> str:
        """The id of the spec."""
        return self.spec.run_id


@dataclass(frozen=True)
class Missing:
    """A wanted run without its inputs, and a remedy."""

    planned: PlannedRun
    remedy: str


@dataclass(frozen=True)
class Plan:
    """Wanted runs, split by whether their inputs are here."""

    runs: tuple[Run, ...]
    missing: tuple[Missing, ...]
    notes: tuple[str, ...] = ()
    """What is passed over: files that are not used, hard settings that a category lacks."""

    @property
    def timing(self) -> bool:
        """Whether any run measures time, alone on the machine."""
        planned = [*(r.planned for r in self.runs), *(m.planned for m in self.missing)]
        return any(p.kind == "timing" for p in planned)


def plan_runs(
    planned: Iterable[PlannedRun],
    folders: Folders,
    *,
    download: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Look up inputs of planned runs, and whether they can be run on.

    Images are decoded, once, where nothing in the cache says which of them show the same: `note`
    takes a line where that lasts. With `download`, published weights that are absent are fetched.
    Raises RequestError for what no file can mend.
    """
    lookup = _Lookup(folders, FingerprintCache(folders.cache), download, note)
    runs, missing = [], []
    notes: dict[str, None] = {}
    for wanted in planned:
        try:
            inputs = lookup.inputs(wanted)
            notes |= dict.fromkeys(lookup.notes(wanted, inputs.listing))
        except (DataError, WeightsError) as error:
            missing.append(Missing(wanted, str(error)))
            continue
        for spec in _specs(wanted, inputs):
            try:
                pictures = lookup.check(wanted, inputs, spec)
            except DataError as error:
                missing.append(Missing(replace(wanted, seen_defect=spec.seen_defect), str(error)))
                continue
            weights, external = inputs.weights, inputs.external
            runs.append(Run(spec, wanted, inputs.listing, pictures, weights, external))
    lookup.digests.save()
    return Plan(tuple({r.run_id: r for r in runs}.values()), tuple(missing), tuple(notes))


@dataclass(frozen=True)
class _Inputs:
    """Files that a run reads."""

    listing: Listing
    content: str
    """Fingerprint of the listing."""
    weights: Weights | None
    external: External | None
    masks: str | None
    """Digest of the category's masks, where the method trains on some."""


class _Lookup:
    """Looks up each input once, even a missing one."""

    def __init__(
        self,
        folders: Folders,
        digests: FingerprintCache,
        download: bool,
        note: Callable[[str], None],
    ) -> None:
        self.folders, self.digests, self.download = folders, digests, download
        self._pixels = PixelDigests(folders.cache, digests, note)
        self._outcomes: dict[Hashable, Any] = {}

    def inputs(self, wanted: PlannedRun) -> _Inputs:
        """Return a run's inputs; raises DataError or WeightsError."""
        category = (wanted.dataset, wanted.category)
        listing, content = self._once(("data", *category), lambda: self._find_data(*category))
        weights, external = None, None
        if "backbone" in wanted.method.settings:
            key = tuple(wanted.settings[k] for k in ("backbone", "stage", "weights"))
            weights = self._once(("weights", *key), lambda: self._find_weights(*key))
        if "external" in wanted.method.settings:
            source = str(wanted.settings["external"])
            key = ("external", source, *category)
            external = self._once(key, lambda: self._find_external(source, *category))
        masks = None
        if "masks" in wanted.method.settings and wanted.shots:
            without = _without_anomalies(wanted)
            masks = self._once(
                ("masks", *category, without), lambda: self._find_masks(listing, without)
            )
        return _Inputs(listing, content, weights, external, masks)

    def check(self, wanted: PlannedRun, inputs: _Inputs, spec: RunSpec) -> tuple[str, ...]:
        """Return the pictures that a run's files show.

        Raises DataError where the inputs are here, but cannot be run on.
        """
        needs, settings = wanted.method.needs, wanted.settings
        for setting in ("stage", "image_size", "batch_size"):
            least = getattr(needs, setting)
            if affects(wanted.method, setting) and int(settings[setting]) < least:
                raise DataError(
                    f"{spec.method} needs {setting} {least} or more, not {settings[setting]}:"
                    f" --set {spec.method}.{setting}={least}"
                )
        name = place_name(spec.dataset, spec.category)
        pictures = self._once(
            ("pictures", spec.dataset, spec.category),
            lambda: self._look_at(name, inputs),
        )
        if external := inputs.external:
            self._once(
                ("apart", name, external.fingerprint),
                lambda: self._check_apart(spec.dataset, external, name, inputs),
            )
        key = ("preconditions", name, spec.setting, spec.seen_defect, needs.normals, spec.drawn)
        self._once(
            key,
            lambda: check_preconditions(
                inputs.listing.files,
                pictures,
                name,
                setting=spec.setting,
                seen_defect=spec.seen_defect,
                normals=needs.normals,
                draw=spec.drawn,
            ),
        )
        return pictures

    def _look_at(self, name: str, inputs: _Inputs) -> tuple[str, ...]:
        try:
            return self._pixels.pictures_of(name, inputs.listing, inputs.content)
        finally:
            self._pixels.save()  # at once, as digests are

    def _check_apart(self, dataset: str, external: External, name: str, inputs: _Inputs) -> None:
        """Raise DataError where textures of the user's show images of a category."""
        if external.source not in SOURCES:
            paths = [external.listing.root / file.path for file in external.listing.files]
            shown = self._pixels.of_files(external.source, paths)
            pixels = self._pixels.of_category(name, inputs.listing, inputs.content)
            self._pixels.save()
            check_apart(external, shown, inputs.listing, pixels, dataset)

    def notes(self, wanted: PlannedRun, listing: Listing) -> Iterable[str]:
        """Yield a line for each thing of a category that its runs pass over."""
        name = place_name(wanted.dataset, wanted.category)
        unused = self._once(
            ("unused", name),
            lambda: unused_files(
                find_dataset(wanted.dataset, self.folders.data),
                wanted.category,
                self.folders.data,
                listing,
            ),
        )
        if unused:
            yield unused_line(name, unused)
        every = wanted.setting == "hard" and wanted.seen_defect is None
        draw = wanted.draw
        if every and (gaps := hard_setting_gaps(listing.files, draw)):
            some = " of some defect types" if seen_defects(listing.files, draw) else ""
            yield f"{name}: no hard setting{some}: {'; '.join(gaps)}"

    def _once(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return, or raise, the first outcome of a key's lookup."""
        if key not in self._outcomes:
            try:
                self._outcomes[key] = find()
            except (DataError, WeightsError) as error:
                self._outcomes[key] = error
        outcome = self._outcomes[key]
        if isinstance(outcome, BenchError):
            raise outcome.with_traceback(None)
        return cast(T, outcome)

    def _find_data(self, dataset: str, category: str) -> tuple[Listing, str]:
        try:
            return find_category(dataset, category, self.folders.data, self._pixels)
        finally:
            self.digests.save()  # at once: reading gigabytes is not done twice

    def _find_weights(self, backbone: Value, stage: Value, weights: Value) -> Weights:
        names, folders = (str(backbone), int(stage), str(weights)), self.folders
        return find_weights(
            *names, folders.weights, folders.cache, self.digests, download=self.download
        )

    def _find_external(self, source: str, dataset: str, category: str) -> External | None:
        folders = self.folders
        return find_external(
            source, dataset, category, folders.data, folders.cache, self.digests, folders.textures
        )

    def _find_masks(self, listing: Listing, without: str) -> str:
        """Return the digest of a category's masks, each of which can be used.

        `without` says how the method does without any, or nothing.
        """
        masks, root = find_masks(listing.root, listing.files), listing.root
        digest = masks_digest(masks, root, self.digests.sha256)
        if digest is None:
            raise MissingData(
                f"the method trains on masks: there are none in {one_line(root)}{without}"
            )
        problems = mask_problems(root, listing.files, lambda file: upright_size(root / file.path))
        if problems:
            raise DataError(f"the method trains on masks: {first_of(problems)}")
        return digest


def _without_anomalies(wanted: PlannedRun) -> str:
    """Return how a method does without labelled anomalies and masks; empty if it cannot."""
    method = wanted.method
    by_parameter = {} if isinstance(method.supervision, str) else method.supervision
    for parameter, by_value in by_parameter.items():
        for value, supervision in by_value.items():
            if supervision == "unsupervised":
                return f"; it needs none by --set {method.name}.{parameter}={value}"
    return ""


def _specs(wanted: PlannedRun, inputs: _Inputs) -> Iterable[RunSpec]:
    """Yield a run's spec; one per seen defect if hard."""
    settings, method, weights = wanted.settings, wanted.method, inputs.weights
    external = inputs.external.identity if inputs.external else "none"
    if settings["resize"] not in RESIZE_RULES:
        raise RequestError(f"resize is one of {', '.join(RESIZE_RULES)}")
    seen: Iterable[str | None] = (wanted.seen_defect,)
    if wanted.setting == "hard" and wanted.seen_defect is None:
        seen = seen_defects(inputs.listing.files, wanted.draw)
    for defect in seen:
        yield RunSpec(
            kind=wanted.kind,
            method=method.name,
            method_version=method.version,
            method_source=method.source,
            parameters=wanted.parameters,
            dataset=wanted.dataset,
            category=wanted.category,
            setting=wanted.setting,
            shots=wanted.shots,
            seen_defect=defect,
            seed=wanted.seed,
            image_size=int(settings["image_size"]),
            resize=str(settings["resize"]),
            data_version=inputs.listing.data_version,
            fingerprint=inputs.content,
            external=external if "external" in method.settings else None,
            precision=str(settings["precision"]) if "precision" in method.settings else None,
            batch_size=int(settings["batch_size"]) if "batch_size" in method.settings else None,
            backbone=weights.source.name if weights else None,
            stage=weights.source.stage if weights else None,
            weights=weights.digest if weights else None,
            masks=inputs.masks,
            draw_seed=wanted.draw_seed,
            draw=wanted.draw,
        )


def missing_lines(missing: Iterable[Missing]) -> list[str]:
    """Return a line for each remedy and its runs.

    Remedies that differ only by a dataset's category share the first one's line.
    """
    by_remedy: dict[str, list[Missing]] = collections.defaultdict(list)
    for m in missing:
        remedy = m.remedy.replace(f"{m.planned.dataset}/{m.planned.category}", m.planned.dataset)
        by_remedy[remedy].append(m)
    lines = []
    for group in by_remedy.values():
        count = f"{len(group)} run{'s' if len(group) > 1 else ''}"
        categories = len({(m.planned.dataset, m.planned.category) for m in group})
        if categories > 1:
            count += f" of {categories} categories"
        lines.append(f"{group[0].remedy}  [{count}]")
    return lines
