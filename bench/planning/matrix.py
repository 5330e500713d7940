"""From a suite to its cells: narrowed and bent by the command line, every combination once."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.data.catalog import find_dataset
from bench.data.external import SOURCES
from bench.errors import BenchError, RequestError
from bench.planning.suite import Block, Suite, check_seeds, check_set, check_shots, merged
from bench.registry import METHODS, Method, Registry, typed_like
from bench.spec import KINDS, Value
from bench.system.untrusted import fits_a_line, parse_toml

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
"""More runs than a suite is ever meant to have: a slip of the pen must not fill the memory."""
PRECISIONS = ("float32", "bfloat16")
_NEEDS = {
    "precision": "precision",
    "batch_size": "batch_size",
    "backbone": "backbone",
    "stage": "backbone",
    "weights": "backbone",
    "external": "external",
}
"""What a method must declare in `settings` for a run setting to touch it."""


@dataclass(frozen=True)
class Cell:
    """One wanted run before its data and weights are looked up."""

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


@dataclass(frozen=True)
class Narrowing:
    """What the command line makes of a suite; None leaves it as the file says."""

    methods: tuple[str, ...] | None = None
    datasets: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None
    shots: tuple[int, ...] | None = None
    seeds: int | None = None
    overrides: tuple[str, ...] = ()
    """`[method.]key=value`, the value in TOML or a bare word."""
    outside_method: str | None = None
    """`package.module:Class`, run in place of the suite's methods."""


def _without(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Take out of a file's method tables what the command line sets for all methods."""
    return {
        key: {k: v for k, v in value.items() if k not in over} if isinstance(value, dict) else value
        for key, value in base.items()
    }


def narrow(suite: Suite, narrowing: Narrowing) -> Suite:
    """Return the suite as the command line bends it; raises RequestError where nothing is left."""
    over: dict[str, Any] = {}
    for text in narrowing.overrides:
        over = merged(over, _override(text))
    check_set("", over)
    if narrowing.seeds is not None:
        check_seeds(narrowing.seeds)
    check_shots(narrowing.shots or ())
    if narrowing.outside_method is not None and ":" not in narrowing.outside_method:
        raise RequestError(f"--method takes package.module:Class, not {narrowing.outside_method!r}")
    if narrowing.outside_method is not None and narrowing.methods is not None:
        raise RequestError("--method replaces the suite's methods: leave --methods out")
    blocks = []
    for block in suite.blocks:
        changes: dict[str, Any] = {"set": merged(_without(block.set, over), over)}
        if narrowing.outside_method is not None:
            changes["methods"] = (narrowing.outside_method,)
        if narrowing.methods is not None:
            changes["methods"] = tuple(m for m in block.methods if m in narrowing.methods)
        if narrowing.categories is not None:
            changes["data"] = (*block.data, *block.optional)
        if narrowing.shots is not None:
            changes["shots"] = narrowing.shots
        if narrowing.seeds is not None:
            changes["seeds"] = narrowing.seeds
        blocks.append(replace(block, **changes))
    return replace(suite, blocks=tuple(blocks))


def _override(text: str) -> dict[str, Any]:
    """Read `[method.]key=value`."""
    key, value = assignment("--set", "[method.]key=value", text)
    parts = key.split(".")
    if not all(parts) or len(parts) > 2:
        raise RequestError(f"--set takes [method.]key=value, not {text!r:.200}")
    return {parts[0]: value} if len(parts) == 1 else {parts[0]: {parts[1]: value}}


def assignment(option: str, form: str, text: str) -> tuple[str, Any]:
    """Read `key=value` of an option, the value in TOML or a bare word."""
    if not fits_a_line(text):
        raise RequestError(f"{option} takes one line of UTF-8, not {text!r:.200}")
    key, equals, written = text.partition("=")
    if not equals or not key.strip():
        raise RequestError(f"{option} takes {form}, not {text!r:.200}")
    try:
        return key.strip(), parse_toml(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), written.strip()  # a bare word
    except ValueError as error:
        raise RequestError(f"{option} {text:.80}: the value {error}") from None


def expand(suite: Suite, narrowing: Narrowing, registry: Registry, data: Path) -> list[Cell]:
    """Expand a suite to its cells, each once, in the order of the file.

    Those of timing come in rounds, all methods with one seed before the next seed: so a machine
    that slows down on the way does so for all of them. Raises RequestError for a name, key or value
    that means nothing, and where nothing is left.
    """
    suite = narrow(suite, narrowing)
    _check_names(suite, narrowing, registry, data)
    cells: dict[Any, Cell] = {}
    taken: set[str] = set()
    wanted = 0
    for block in suite.blocks:
        for cell, used in _cells(block, suite.kind, narrowing, registry, data):
            taken |= used
            wanted += 1
            if wanted > MAX_RUNS:
                raise RequestError(f"suite {suite.name} asks for more than {MAX_RUNS} runs")
            key = (cell.method.path, tuple(cell.parameters.items()), tuple(cell.settings.items()),
                   cell.dataset, cell.category, cell.setting, cell.seen_defect, cell.shots,
                   cell.seed)  # fmt: skip
            cells.setdefault(key, cell)
    for text in narrowing.overrides:
        name = text.partition("=")[0].strip()
        if name not in taken:
            raise RequestError(f"--set {text}: no selected method knows {name!r}")
    _check_shared_keys(suite, registry)
    if not cells:
        raise RequestError(f"nothing is left of suite {suite.name} after narrowing")
    found = list(cells.values())
    return sorted(found, key=lambda cell: cell.seed) if suite.kind == "timing" else found


def _check_names(suite: Suite, narrowing: Narrowing, registry: Registry, data: Path) -> None:
    """Refuse a name in --methods, --datasets or --categories that matches nothing."""
    methods = {m for block in suite.blocks for m in block.methods}
    for name in narrowing.methods or ():
        if name not in methods:
            registry.find(name)
            raise RequestError(f"suite {suite.name} does not run {name}")
    try:
        wanted = {c for b in suite.blocks for d in b.data for _, c in _categories(d, data)}
    except BenchError as error:
        raise RequestError(f"suite {suite.name}: {error}") from None
    named = [d.partition("/")[0] for block in suite.blocks for d in block.data]
    for name in narrowing.datasets or ():
        if name not in named:
            find_dataset(name, data)
            raise RequestError(f"suite {suite.name} does not use {name}")
    for name in narrowing.categories or ():
        if name not in wanted:
            raise RequestError(f"no category {name!r} in suite {suite.name}; it has: "
                               + ", ".join(sorted(wanted)))  # fmt: skip


def _check_shared_keys(suite: Suite, registry: Registry) -> None:
    """Refuse a key in [set] that is neither a run setting nor any method's parameter."""
    methods = {*METHODS, *(m for block in suite.blocks for m in block.methods)}
    known = set(RUN_SETTINGS).union(*(registry.find(m).defaults for m in methods))
    for block in suite.blocks:
        for key, value in block.set.items():
            if isinstance(value, dict) and key not in {registry.find(m).name for m in methods}:
                raise RequestError(
                    f"suite {suite.name}: there is no method {key!r} for [set.{key}]"
                )
            if not isinstance(value, dict) and key not in known:
                raise RequestError(f"suite {suite.name}: no method knows {key!r} in [set]")


def _categories(entry: str, data: Path) -> Iterator[tuple[str, str]]:
    """Yield (dataset, category) of one entry of `data`."""
    name, slash, category = entry.partition("/")
    dataset = find_dataset(name, data)
    if slash and category not in dataset.categories:
        known = ", ".join(dataset.categories)
        raise RequestError(f"{name} has no category {category!r}; it has: {known}")
    for c in [category] if slash else dataset.categories:
        yield name, c


def _cells(
    block: Block, kind: str, narrowing: Narrowing, registry: Registry, data: Path
) -> Iterator[tuple[Cell, set[str]]]:
    methods = [registry.find(m) for m in block.methods]
    places = [
        (dataset, category)
        for entry in block.data
        for dataset, category in _categories(entry, data)
        if (narrowing.datasets is None or dataset in narrowing.datasets)
        and (narrowing.categories is None or category in narrowing.categories)
    ]
    for dataset, category in places:
        for method in methods:
            settings, parameters, used = _settle(method, block.set)
            unsupervised = method.supervision == "unsupervised"
            shots = (0,) if unsupervised else block.shots
            rounds = kind == "timing"  # to measure again, even where no number changes
            random = not method.seedless or (
                "backbone" in method.settings and settings["weights"] == "none"
            )
            once = unsupervised and not random and not rounds
            seeds = 1 if once else block.seeds
            for k in shots:
                if not k and not unsupervised:
                    raise RequestError(f"{method.name} needs at least one shot")
                for seen in block.seen_defects or (None,):
                    for seed in range(seeds):
                        cell = Cell(method, parameters, settings, dataset, category,
                                    block.setting, seen, k, seed, kind)  # fmt: skip
                        yield cell, used


def _settle(
    method: Method, table: Mapping[str, Any]
) -> tuple[dict[str, Value], dict[str, Value], set[str]]:
    """Return a method's run settings and parameters under a [set] table, and the keys it took."""
    settings = dict(RUN_SETTINGS)
    given: dict[str, Value] = {}
    known = method.defaults.keys()
    used = set()
    own = table.get(method.name, {})
    if not isinstance(own, dict):
        raise RequestError(f"set.{method.name} must be a table")
    shared = {k: v for k, v in table.items() if not isinstance(v, dict)}
    for prefix, values in (("", shared), (f"{method.name}.", own)):
        for key, value in values.items():
            if key in RUN_SETTINGS:
                settings[key] = typed_like(prefix + key, value, RUN_SETTINGS[key])
                if not touches(method, key):
                    continue
            elif key in known or prefix:
                given[key] = value
            else:
                continue  # a parameter of some other method
            used.add(prefix + key)
    _check_settings(settings)
    return settings, method.parameters(given), used


def knows(method: Method, key: str) -> bool:
    """Whether a key of [set] or --set means something to a method."""
    return key in method.defaults or (key in RUN_SETTINGS and touches(method, key))


def touches(method: Method, setting: str) -> bool:
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
