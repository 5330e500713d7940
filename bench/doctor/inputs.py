"""What runs need: data, weights, and the suite that wants them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

from bench.data.catalog import Dataset, find_datasets
from bench.data.layouts import list_category
from bench.doctor.diagnosis import Diagnosis, diagnose
from bench.errors import (
    BenchError,
    DataError,
    MissingData,
    MissingWeights,
    StoreError,
    WeightsError,
)
from bench.planning.matrix import Cell, Narrowing, expand
from bench.planning.plan import Folders, make_plan
from bench.planning.state import State, look_up
from bench.planning.suite import Suite
from bench.registry import Registry
from bench.store.open import results_at
from bench.system.digests import FingerprintCache
from bench.weights import BACKBONES, STAGES, find_weights


def check_datasets(folders: Folders, cells: Iterable[Cell] | None) -> Iterator[Diagnosis]:
    """Look for every known dataset, or for what the cells of a suite need."""
    needed = None if cells is None else {(c.dataset, c.category) for c in cells}
    for dataset in find_datasets(folders.data):
        categories = [
            c for c in dataset.categories if needed is None or (dataset.name, c) in needed
        ]
        if categories:
            yield _check_dataset(dataset, categories, folders, required=needed is not None)


def _check_dataset(
    dataset: Dataset, categories: list[str], folders: Folders, required: bool
) -> Diagnosis:
    """Judge a dataset by the number of its files; none is opened."""
    if dataset.layout == "synthetic":
        return Diagnosis("data", "ok", dataset.name, "comes with bench")
    absent: list[tuple[str, str]] = []
    odd, images = [], 0
    for category in categories:
        official = dataset.categories[category].images
        try:
            count = len(list_category(dataset, category, folders.data, folders.cache).files)
        except MissingData:
            absent.append((f"{category} is not in {folders.data}", dataset.remedy(folders.data)))
            continue
        except DataError as error:
            absent.append((str(error), "mend that, or unpack its archive again"))
            continue
        images += count
        if official not in (0, count):
            odd.append(f"{category} has {count} of {official} images")
    if absent:
        found, todo = absent[0]
        if len(absent) > 1:
            found += f", nor {len(absent) - 1} more of {len(categories)} categories"
        return diagnose("data", dataset.name, found, todo, bad=required)
    found = f"{images} images in {len(categories)} categories"
    if len(categories) == 1:
        found = f"{images} images"
    if odd:
        found += f", an unofficial copy ({', '.join(odd)})"
    return diagnose("data", dataset.name, found, "results will say so" if odd else "")


def check_weights(folders: Folders, cells: Iterable[Cell] | None) -> Iterator[Diagnosis]:
    """Look for weights of every backbone, or for what the cells of a suite need."""
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
    with suppress(StoreError):  # of a cache that cannot be written another finding tells
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
        there = find_weights(backbone, stage, weights, folders.weights, folders.cache, digests)
    except MissingWeights as error:
        # No path stands in the remedy, so that no path can be taken for its start.
        found, _, todo = str(error).rpartition(": put ")
        return diagnose("weights", backbone, found, f"put {todo}", bad=required)
    except WeightsError as error:
        todo = "mend that, or name other weights"
        return diagnose("weights", backbone, str(error), todo, bad=required)
    place = f" in {there.source.file}" if there.source.file else ""
    return Diagnosis("weights", "ok", backbone, f"to stage {stage}: {there.title}{place}")


def look_up_suite(suite: Suite, folders: Folders, answer: Mapping[str, Any]) -> State | Diagnosis:
    """Plan a suite and look it up, or say why that is not possible.

    The probe has left every method's card in the cache, so that nothing imports torch here.
    """
    broken = [error for error in answer.get("methods", {}).values() if error]
    try:
        if "error" in answer:
            raise BenchError("torch does not work")
        if broken:
            raise BenchError(broken[0])
        cells = expand(suite, Narrowing(), Registry(folders.cache), folders.data)
        return look_up(make_plan(cells, folders), results_at(folders.results))
    except BenchError as error:
        found = f"cannot be planned, since {error}"
        return Diagnosis("suite", "bad", suite.name, found, "mend that, then ask again")


def check_suite(suite: Suite, state: State) -> Diagnosis:
    """Say how many runs there will be."""
    found = (
        f"{len(state.plan.runs) + len(state.plan.missing)} runs wanted, {len(state.done)} stored,"
        f" {len(state.todo)} to do"
    )
    todo = ""
    if state.damaged:
        found += f", {len(state.damaged)} of them since what is stored is damaged"
        todo = "bench run sets that aside"
    if state.plan.missing:
        found += f", {len(state.plan.missing)} cannot be done here"
        todo = "mend what is bad above, or leave them out with --available-only"
    return diagnose("suite", suite.name, found, todo, bad=bool(state.plan.missing))
