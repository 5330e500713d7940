"""What runs need: data, weights, and the suite that wants them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.data.catalog import Dataset, find_datasets
from bench.data.files import list_category
from bench.digests import FingerprintCache
from bench.doctor.finding import Finding, judge
from bench.errors import BenchError, DataError, WeightsError
from bench.plan import Folders, make_plan
from bench.registry import Registry
from bench.schedule import State, look_up
from bench.store import results_at
from bench.suite import Cell, Narrowing, Suite, expand
from bench.weights import BACKBONES, STAGES, find_weights


def check_datasets(folders: Folders, cells: Iterable[Cell] | None) -> Iterator[Finding]:
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
) -> Finding:
    """Judge a dataset by the number of its files; none is opened."""
    if dataset.layout == "synthetic":
        return Finding("data", "ok", dataset.name, "comes with bench")
    absent, odd, images = [], [], 0
    for category in categories:
        facts = dataset.categories[category]
        official = facts.train + facts.test_normal + facts.test_anomalous
        try:
            count = len(list_category(dataset, category, folders.data, folders.cache).files)
        except (DataError, OSError) as error:
            absent.append(str(error))
            continue
        images += count
        if official not in (0, count):
            odd.append(f"{category} has {count} of {official} images")
    if absent:
        found, _, todo = absent[0].partition(": ")
        if len(absent) > 1:
            found += f", nor {len(absent) - 1} more of {len(categories)} categories"
        todo = todo or "unpack its archive again"
        return judge("data", dataset.name, found, todo, bad=required)
    found = f"{images} images in {len(categories)} categories"
    if len(categories) == 1:
        found = f"{images} images"
    if odd:
        found += f", an unofficial copy ({', '.join(odd)})"
    return judge("data", dataset.name, found, "results will say so" if odd else "")


def check_weights(folders: Folders, cells: Iterable[Cell] | None) -> Iterator[Finding]:
    """Look for weights of every backbone, or for what the cells of a suite need."""
    if cells is None:
        for backbone in BACKBONES:
            stages = range(STAGES, 0, -1)
            tried = [_check_weights(backbone, stage, "imagenet", folders) for stage in stages]
            yield next((f for f in tried if f.state == "ok"), tried[-1])
        return
    needed = {
        (str(s["backbone"]), int(s["stage"]), str(s["weights"]))
        for s in (c.settings for c in cells if "backbone" in c.method.settings)
    }
    for backbone, stage, weights in sorted(needed):
        yield _check_weights(backbone, stage, weights, folders, required=True)


def _check_weights(
    backbone: str, stage: int, weights: str, folders: Folders, required: bool = False
) -> Finding:
    digests = FingerprintCache(folders.cache)
    try:
        there = find_weights(backbone, stage, weights, folders.weights, folders.cache, digests)
    except WeightsError as error:
        found, _, todo = str(error).partition(": ")
        return judge("weights", backbone, found, todo or "name other weights", bad=required)
    place = f" in {there.source.file}" if there.source.file else ""
    return Finding("weights", "ok", backbone, f"to stage {stage}: {there.title}{place}")


def look_up_suite(suite: Suite, folders: Folders, answer: Mapping[str, Any]) -> State | Finding:
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
        return Finding("suite", "bad", suite.name, found, "mend that, then ask again")


def check_suite(suite: Suite, state: State) -> Finding:
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
    return judge("suite", suite.name, found, todo, bad=bool(state.plan.missing))
