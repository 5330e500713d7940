"""Inputs of runs: data, weights and the suite."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

from bench.data.catalog import Dataset, find_datasets
from bench.data.layouts import list_category
from bench.data.official import reasons_on_disk
from bench.doctor.diagnosis import Diagnosis, diagnose
from bench.errors import (
    BenchError,
    DataError,
    MissingData,
    MissingWeights,
    StoreError,
    WeightsError,
)
from bench.planning.masks import mask_lines
from bench.planning.matrix import PlannedRun, Selection, expand
from bench.planning.plan import Folders, missing_lines, plan_runs
from bench.planning.state import State, compare_with_store
from bench.planning.suite import Suite
from bench.registry import Registry
from bench.store.open import results_at
from bench.system.digests import FingerprintCache
from bench.weights import BACKBONES, STAGES, find_weights

SHOWN = 3
"""Reasons of missing runs that are listed."""


def check_datasets(folders: Folders, cells: Iterable[PlannedRun] | None) -> Iterator[Diagnosis]:
    """Check all datasets, or those a suite needs."""
    needed = None if cells is None else {(c.dataset, c.category) for c in cells}
    for dataset in find_datasets(folders.data):
        names = dataset.categories
        if categories := [n for n in names if needed is None or (dataset.name, n) in needed]:
            yield _check_dataset(dataset, categories, folders, required=needed is not None)


def _check_dataset(
    dataset: Dataset, categories: list[str], folders: Folders, required: bool
) -> Diagnosis:
    """Check a dataset's files by their headers; none is decoded."""
    if dataset.layout == "synthetic":
        return Diagnosis("data", "ok", dataset.name, "comes with bench")
    absent: list[tuple[str, str]] = []
    odd, images, digests = [], 0, FingerprintCache(folders.cache)
    for category in categories:
        try:
            listing = list_category(dataset, category, folders.data, folders.cache)
            reasons = reasons_on_disk(dataset, category, listing, digests)
        except MissingData as error:
            remedy = dataset.remedy(folders.data)
            text = str(error).removesuffix(f": {remedy}")
            absent.append((text, remedy if text != str(error) else "fix that"))
            continue
        except DataError as error:
            absent.append((str(error), "fix that, or unpack its archive again"))
            continue
        images += len(listing.files)
        if reasons:
            odd.append(f"{category}: {'; '.join(reasons)}")
    if absent:
        text, todo = absent[0]
        if len(absent) > 1:
            text += f", nor {len(absent) - 1} more of {len(categories)} categories"
        return diagnose("data", dataset.name, text, todo, bad=required)
    many = len(categories) > 1
    text = f"{images} images" + f" in {len(categories)} categories" * many
    if odd:
        text += f", an unofficial copy ({', '.join(odd)})"
    return diagnose("data", dataset.name, text, "results will say so" if odd else "")


def check_weights(folders: Folders, cells: Iterable[PlannedRun] | None) -> Iterator[Diagnosis]:
    """Check all weights, or those a suite needs."""
    digests = FingerprintCache(folders.cache)
    if cells is None:
        for backbone in BACKBONES:
            stages = range(STAGES, 0, -1)
            tried = (_check_weights(backbone, s, "imagenet", folders, digests) for s in stages)
            highest = next(tried)
            yield next((f for f in chain([highest], tried) if f.state == "ok"), highest)
    else:
        needed = {
            (str(s["backbone"]), int(s["stage"]), str(s["weights"]))
            for s in (c.settings for c in cells if "backbone" in c.method.settings)
        }
        for backbone, stage, weights in sorted(needed):
            yield _check_weights(backbone, stage, weights, folders, digests, required=True)
    with suppress(StoreError):  # check_write_access reports a cache that cannot be written
        digests.save()


def _check_weights(
    backbone: str,
    stage: int,
    weights: str,
    folders: Folders,
    digests: FingerprintCache,
    required: bool = False,
) -> Diagnosis:
    try:
        ready = find_weights(backbone, stage, weights, folders.weights, folders.cache, digests)
    except MissingWeights as error:
        # No path stands in the remedy, so that no path can be taken for its start.
        text, _, todo = str(error).rpartition(": put ")
        return diagnose("weights", backbone, text, f"put {todo}", bad=required)
    except WeightsError as error:
        todo = "fix that, or name other weights"
        return diagnose("weights", backbone, str(error), todo, bad=required)
    file = ready.source.file
    where = f" in {file}" if file else ""
    return Diagnosis("weights", "ok", backbone, f"to stage {stage}: {ready.title}{where}")


def look_up_suite(suite: Suite, folders: Folders, answer: Mapping[str, Any]) -> State | Diagnosis:
    """Compare a suite with the store, or diagnose.

    The probe has cached every method's card, so that nothing imports torch here.
    """
    broken = [error for error in answer.get("methods", {}).values() if error]
    try:
        if "error" in answer:
            raise BenchError("torch does not work")
        if broken:
            raise BenchError(broken[0])
        cells = expand(suite, Selection(), Registry(folders.cache), folders.data)
        return compare_with_store(plan_runs(cells, folders), results_at(folders.results))
    except BenchError as error:
        text = f"cannot be planned, since {error}"
        return Diagnosis("suite", "bad", suite.name, text, "fix that, then ask again")


def check_masks(state: State) -> Iterator[Diagnosis]:
    """Report categories without pixel metrics, for runs that keep maps."""
    for line in mask_lines(state.plan.runs):
        yield Diagnosis("suite", "note", "masks", line)


def check_suite(suite: Suite, state: State) -> Diagnosis:
    """Report how many runs are stored and to do."""
    text = (
        f"{len(state.plan.runs) + len(state.plan.missing)} runs wanted, {len(state.done)} stored,"
        f" {len(state.todo)} to do"
    )
    todo = ""
    if state.damaged:
        text += f", {len(state.damaged)} of them since what is stored is damaged"
        todo = "bench run sets that aside"
    if state.plan.missing:
        reasons = missing_lines(state.plan.missing)
        more = f"; and for {len(reasons) - SHOWN} more reasons" * (len(reasons) > SHOWN)
        text += (
            f", {len(state.plan.missing)} cannot be done here: {'; '.join(reasons[:SHOWN])}{more}"
        )
        todo = "fix that, or leave them out with --available-only"
    return diagnose("suite", suite.name, text, todo, bad=bool(state.plan.missing))
