"""From a suite to planned runs: select, override, expand."""

import tomllib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from bench.data.catalog import find_dataset
from bench.data.external import SOURCES
from bench.data.splits import DRAWN
from bench.errors import BenchError, RequestError
from bench.planning.selectors import Shard, check_seeds, with_names
from bench.planning.suite import Suite, SuiteBlock, check_set, check_shots, merged
from bench.registry import METHODS, Method, Registry, typed_like
from bench.spec import KINDS, Value
from bench.store.tuning import Tuned
from bench.system.untrusted import is_one_line, parse_toml
from bench.text import meant

RUN_SETTINGS: dict[str, Value] = {
    "image_size": 224,
    "resize": "bilinear",
    "precision": "float32",
    "batch_size": 16,
    "backbone": "resnet50",
    "stage": 4,
    "weights": "imagenet",
    "external": "textures",
}
"""Settings of a run beside its method's parameters, and their defaults: what the ATAC-Net paper
states for every method."""

MAX_RUNS = 100_000
"""Far more runs than any suite should have: a typing error must not fill the memory."""
PRECISIONS = ("float32", "bfloat16")
_NEEDS = {
    "precision": "precision",
    "batch_size": "batch_size",
    "backbone": "backbone",
    "stage": "backbone",
    "weights": "backbone",
    "external": "external",
}
"""What a method must declare in `settings` for a run setting to affect it."""


@dataclass(frozen=True)
class PlannedRun:
    """A wanted run before its inputs are looked up."""

    method: Method
    parameters: Mapping[str, Value]
    settings: Mapping[str, Value]
    dataset: str
    category: str
    setting: str
    seen_defect: str | None
    shots: int
    seed: int
    kind: str = KINDS[0]
    tuned: Mapping[str, Tuned] = field(default_factory=dict)
    """Settings that the results of some seeds have chosen; no part of the run's identity."""
    draw_seed: int | None = None
    """Of the draw of anomalies, where it is not the seed."""
    draw: int = DRAWN
    """How many anomalies are drawn."""

    @property
    def key(self) -> Hashable:
        """What makes it one run of its suite."""
        values = {**vars(self), "method": self.method.path, "tuned": None}
        tables = {k: tuple(values[k].items()) for k in ("parameters", "settings")}
        return tuple({**values, **tables}.values())


@dataclass(frozen=True)
class Selection:
    """Selection and overrides of a suite; None selects all."""

    methods: tuple[str, ...] | None = None
    """Names, or patterns such as `patch*`; datasets and categories alike."""
    datasets: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None
    shots: tuple[int, ...] | None = None
    seeds: int | tuple[int, ...] | None = None
    """How many, or which ones."""
    overrides: tuple[str, ...] = ()
    """`[method.]key=value`, the value in TOML or a bare word."""
    outside_method: str | None = None
    """`package.module:Class`, run in place of the suite's methods."""
    shard: Shard | None = None
    """The part of the planned runs; `expand` leaves it alone, ids come later."""


def _without(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return [set] without methods' values that `over` replaces."""
    return {
        key: {k: v for k, v in value.items() if k not in over} if isinstance(value, dict) else value
        for key, value in base.items()
    }


def select(suite: Suite, selection: Selection) -> Suite:
    """Return the selected part of a suite, overrides merged."""
    over: dict[str, Any] = {}
    for text in selection.overrides:
        over = merged(over, _override(text))
    check_set("", over)
    if selection.seeds is not None:
        check_seeds(selection.seeds)
    check_shots(selection.shots or ())
    if selection.outside_method is not None and ":" not in selection.outside_method:
        own = selection.outside_method
        hint = f"; of the methods of bench say --methods {own}" if own in METHODS else ""
        raise RequestError(f"--method takes package.module:Class, not {own!r}{hint}")
    if selection.outside_method is not None and selection.methods is not None:
        raise RequestError("--method replaces the suite's methods: leave --methods out")
    blocks = []
    for block in suite.blocks:
        changes: dict[str, Any] = {
            "set": merged(_without(block.set, over), over),
            "tuned": _not_overridden(block.tuned, over),
        }
        if selection.outside_method is not None:
            changes["methods"] = (selection.outside_method,)
        if selection.methods is not None:
            changes["methods"] = tuple(m for m in block.methods if m in selection.methods)
        if selection.categories is not None:
            changes["data"] = (*block.data, *block.optional)
        if selection.shots is not None:
            changes["shots"] = selection.shots
        if selection.seeds is not None:
            named = selection.seeds
            changes["seeds"] = named if isinstance(named, int) else max(named) + 1
        blocks.append(replace(block, **changes))
    return replace(suite, blocks=tuple(blocks))


def _not_overridden(tuned: Mapping[str, Tuned], over: Mapping[str, Any]) -> dict[str, Tuned]:
    """Return tuned settings that `over` leaves as they are."""
    tables = [over, *(value for value in over.values() if isinstance(value, dict))]
    return {name: one for name, one in tuned.items() if not any(name in t for t in tables)}


def _override(text: str) -> dict[str, Any]:
    """Read `[method.]key=value`."""
    key, value = assignment("--set", "[method.]key=value", text)
    parts = key.split(".")
    if not all(parts) or len(parts) > 2:
        raise RequestError(f"--set takes [method.]key=value, not {text!r:.200}")
    return {parts[0]: value} if len(parts) == 1 else {parts[0]: {parts[1]: value}}


def assignment(option: str, form: str, text: str) -> tuple[str, Any]:
    """Read an option's `key=value`, in TOML or a bare word."""
    if not is_one_line(text):
        raise RequestError(f"{option} takes one line of UTF-8, not {text!r:.200}")
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RequestError(f"{option} takes {form}, not {text!r:.200}")
    try:
        return key.strip(), parse_toml(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()  # a bare word
    except ValueError as error:
        raise RequestError(f"{option} {text:.80}: the value {error}") from None


def expand(suite: Suite, selection: Selection, registry: Registry, data: Path) -> list[PlannedRun]:
    """Return a suite's unique runs, in order.

    Timing runs come last and in rounds, all methods with one seed before the next: a machine that
    slows down meanwhile does so for all of them. Raises RequestError for an unknown name, key or
    value, and where nothing is selected.
    """
    whole, selection = suite, _named(suite, selection, data)
    suite = select(suite, selection)
    _check_names(suite, selection, registry, data)
    unique: dict[Hashable, PlannedRun] = {}
    used_keys: set[str] = set()
    count = 0
    for block in suite.blocks:
        for planned, keys in _planned_runs(block, block.kind, selection, registry, data):
            used_keys |= keys
            count += 1
            if count > MAX_RUNS:
                raise RequestError(f"suite {suite.name} asks for more than {MAX_RUNS} runs")
            unique.setdefault(planned.key, planned)
    for text in selection.overrides:
        name = text.partition("=")[0].strip()
        if name not in used_keys:
            prefix, _, key = name.rpartition(".")
            known = {k for run in unique.values() if prefix in ("", run.method.name)
                     for k in (*run.settings, *run.parameters)}  # fmt: skip
            near = meant(key, known)
            raise RequestError(f"--set {text}: no selected method knows {name!r}{near}")
    _check_shared_keys(suite, whole, registry)
    runs = list(unique.values())
    if not runs:
        raise RequestError(f"nothing is left of suite {suite.name} after selection")
    return sorted(runs, key=lambda run: (run.kind == "timing", run.kind == "timing" and run.seed))


def _named(suite: Suite, selection: Selection, data: Path) -> Selection:
    """Return a selection with names of the suite in place of patterns."""
    methods = (m for block in suite.blocks for m in block.methods)
    entries = [d for block in suite.blocks for d in (*block.data, *block.optional)]
    datasets = [d.partition("/")[0] for d in entries]
    categories = (c for d in entries for _, c in _categories(d, data))
    return replace(
        selection,
        methods=with_names(selection.methods, methods, f"method of suite {suite.name}"),
        datasets=with_names(selection.datasets, datasets, f"dataset of suite {suite.name}"),
        categories=selection.categories
        and with_names(selection.categories, categories, f"category of suite {suite.name}"),
    )


def _check_names(suite: Suite, selection: Selection, registry: Registry, data: Path) -> None:
    """Refuse selected names that the suite does not have."""
    methods = {m for block in suite.blocks for m in block.methods}
    for name in selection.methods or ():
        if name not in methods:
            registry.find(name)
            raise RequestError(f"suite {suite.name} does not run {name}{meant(name, methods)}")
    try:
        categories = {c for b in suite.blocks for d in b.data for _, c in _categories(d, data)}
    except BenchError as error:
        raise RequestError(f"suite {suite.name}: {error}") from None
    datasets = [d.partition("/")[0] for block in suite.blocks for d in block.data]
    for name in selection.datasets or ():
        if name not in datasets:
            find_dataset(name, data)
            raise RequestError(f"suite {suite.name} does not use {name}")
    for name in selection.categories or ():
        if name not in categories:
            known = ", ".join(sorted(categories))
            hint = meant(name, categories)
            raise RequestError(f"no category {name!r}{hint} in suite {suite.name}; it has: {known}")


def _check_shared_keys(suite: Suite, whole: Suite, registry: Registry) -> None:
    """Refuse a key in [set] that no method accepts, and a table for a method not in the suite.

    `whole` is the suite before selection: a table of a method that is left out says nothing.
    """
    own = list(dict.fromkeys(m for s in (suite, whole) for b in s.blocks for m in b.methods))
    # The suite's own come first: another one is looked at, and its source read, only if need be.
    methods = [*own, *METHODS]
    for block in suite.blocks:
        for key, value in block.set.items():
            if isinstance(value, dict):
                names = [registry.find(m).name for m in own]
                if key not in names:
                    known = f"it runs {', '.join(names)}"
                    if key not in METHODS:
                        known = f"there is no method {key!r}{meant(key, names)}; {known}"
                    raise RequestError(
                        f"suite {suite.name}: [set.{key}] is for no method of it; {known}"
                    )
            elif key not in RUN_SETTINGS and not any(
                key in registry.find(m).defaults for m in methods
            ):
                settings = {*RUN_SETTINGS}.union(*(registry.find(m).defaults for m in own))
                hint = meant(key, sorted(settings))
                raise RequestError(f"suite {suite.name}: no method knows {key!r} in [set]{hint}")


def _categories(entry: str, data: Path) -> Iterator[tuple[str, str]]:
    """Yield (dataset, category) of one entry of `data`."""
    name, slash, category = entry.partition("/")
    dataset = find_dataset(name, data)
    if slash and category not in dataset.categories:
        known = ", ".join(dataset.categories)
        hint = meant(category, dataset.categories)
        raise RequestError(f"{name} has no category {category!r}{hint}; it has: {known}")
    for c in [category] if slash else dataset.categories:
        yield name, c


def _planned_runs(
    block: SuiteBlock, kind: str, selection: Selection, registry: Registry, data: Path
) -> Iterator[tuple[PlannedRun, set[str]]]:
    """Yield a block's runs with their used keys."""
    methods = [registry.find(m) for m in block.methods]
    categories = [
        (dataset, category)
        for entry in block.data
        for dataset, category in _categories(entry, data)
        if (selection.datasets is None or dataset in selection.datasets)
        and (selection.categories is None or category in selection.categories)
    ]
    for dataset, category in categories:
        for method in methods:
            settings, parameters, used_keys = resolve_settings(method, block.set)
            known = settings.keys() | parameters.keys()
            unsupervised = method.supervised(parameters) == "unsupervised"
            shots = (0,) if unsupervised else block.shots
            rounds = kind == "timing"  # to measure again, even where no number changes
            random = not method.seedless or (
                "backbone" in method.settings and settings["weights"] == "none"
            )
            deterministic = unsupervised and not random and not rounds
            seeds = 1 if deterministic else block.seeds
            _check_labels(method.name, shots, block.draw, unsupervised=unsupervised)
            defects, draws = block.seen_defects or (None,), block.draw_seeds or (None,)
            named = selection.seeds if isinstance(selection.seeds, tuple) else range(seeds)
            chosen = [seed for seed in named if seed < seeds]
            for k, seen, draw, seed in product(shots, defects, draws, chosen):
                run = PlannedRun(
                    method=method,
                    parameters=parameters,
                    settings=settings,
                    dataset=dataset,
                    category=category,
                    setting=block.setting,
                    seen_defect=seen,
                    shots=k,
                    seed=seed,
                    kind=kind,
                    tuned={k: v for k, v in block.tuned.items() if k in known},
                    draw_seed=None if draw == seed else draw,
                    draw=block.draw,
                )
                yield run, used_keys


def _check_labels(name: str, shots: Sequence[int], draw: int, *, unsupervised: bool) -> None:
    """Refuse shots that a method, or the draw, does not have."""
    if 0 in shots and not unsupervised:
        raise RequestError(f"{name} needs at least one shot")
    if not draw and not unsupervised:
        raise RequestError(f"draw = 0 is for methods without labels alone; {name} learns from some")
    if max(shots) > draw and not unsupervised:
        some = f"[1, {draw}]" if draw > 1 else "[1]"
        raise RequestError(f"{max(shots)} shots of draw = {draw}: say shots = {some} in the suite")


def resolve_settings(
    method: Method, table: Mapping[str, Any]
) -> tuple[dict[str, Value], dict[str, Value], set[str]]:
    """Return run settings, parameters and used keys under [set]."""
    settings = dict(RUN_SETTINGS)
    given: dict[str, Value] = {}
    used_keys = set()
    own = table.get(method.name, {})
    if not isinstance(own, dict):
        raise RequestError(f"set.{method.name} must be a table")
    shared = {k: v for k, v in table.items() if not isinstance(v, dict)}
    for prefix, values in (("", shared), (f"{method.name}.", own)):
        for key, value in values.items():
            if key in RUN_SETTINGS:
                settings[key] = typed_like(prefix + key, value, RUN_SETTINGS[key])
                if not affects(method, key):
                    continue
            elif key in method.defaults or prefix:
                given[key] = value
            else:
                continue  # a parameter of some other method
            used_keys.add(prefix + key)
    _check_settings(settings)
    return settings, method.parameters(given), used_keys


def accepts(method: Method, key: str) -> bool:
    """Whether a method takes a key of [set] or --set."""
    return key in method.defaults or (key in RUN_SETTINGS and affects(method, key))


def affects(method: Method, setting: str) -> bool:
    """Whether a run setting can change what a method computes."""
    need = _NEEDS.get(setting)
    return need is None or need in method.settings


def _check_settings(settings: Mapping[str, Value]) -> None:
    if settings["precision"] not in PRECISIONS:
        raise RequestError(f"precision is one of {', '.join(PRECISIONS)}")
    if settings["external"] not in SOURCES:
        raise RequestError(f"external is one of {', '.join(SOURCES)}")
    for key, low, high in (("image_size", 16, 4096), ("batch_size", 1, 4096)):
        if not low <= int(settings[key]) <= high:
            raise RequestError(f"{key} is {low} to {high}, not {settings[key]}")
