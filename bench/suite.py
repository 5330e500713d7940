"""Suite files: what is wanted, as a matrix of methods, data, shots and seeds.

A suite is a TOML file. `methods`, `data` (dataset, or dataset/category), `shots`, `seeds` and
`setting` span the matrix; `[set]` bends run settings and parameters for all methods, `[set.NAME]`
for one. With `[[block]]` tables each block is a matrix of its own that starts from the values above
it.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from bench.data.catalog import find_dataset
from bench.data.external import SOURCES
from bench.data.splits import DRAWN, SETTINGS
from bench.errors import BenchError, RequestError
from bench.outside import fits_a_line, parse_toml, read_toml, shown, why
from bench.registry import METHODS, Method, Registry, typed_like
from bench.spec import Value

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
_LISTS = {"methods": str, "data": str, "shots": int, "seen_defects": str}
_KEYS = {"description", "block", "set", "seeds", "setting", *_LISTS}


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


@dataclass(frozen=True)
class Block:
    """A matrix: every method on every category with every number of shots and every seed."""

    methods: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    shots: tuple[int, ...] = (1, 10)
    seeds: int = 1
    setting: str = "general"
    seen_defects: tuple[str, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """A suite file, read and checked for its own consistency."""

    name: str
    description: str
    blocks: tuple[Block, ...]


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


def suite_names() -> list[str]:
    """Return the names of the suites that come with the project."""
    files = resources.files("bench").joinpath("suites").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def read_suite(name: str) -> Suite:
    """Read a suite by its name, or from a path that ends in .toml.

    Raises RequestError naming the file and what is wrong in it.
    """
    title = name
    if name.endswith(".toml"):
        path = Path(name)
        title = path.stem
    elif name in suite_names():
        path = Path(str(resources.files("bench").joinpath(f"suites/{name}.toml")))
    else:
        raise RequestError(
            f"unknown suite {name!r}; one of {', '.join(suite_names())}, or a .toml file"
        )
    place = shown(name)
    try:
        values = read_toml(path)
    except FileNotFoundError:
        raise RequestError(f"there is no suite file {place}") from None
    except OSError as error:
        raise RequestError(f"cannot read suite {place}: {why(error)}") from None
    except ValueError as error:
        raise RequestError(f"suite {place} {error}") from None
    try:
        return _suite(shown(title), values)
    except RequestError as error:
        raise RequestError(f"suite {place}: {error}") from None


def _suite(name: str, values: dict[str, Any]) -> Suite:
    base = _block(Block(), {k: v for k, v in values.items() if k != "block"})
    parts = values.get("block", [])
    if not isinstance(parts, list) or not all(isinstance(p, dict) for p in parts):
        raise RequestError("block must be written as [[block]]")
    if any("block" in part for part in parts):
        raise RequestError("a [[block]] holds no other block")
    blocks = tuple(_block(base, part) for part in parts) or (base,)
    for block in blocks:
        if block.seen_defects and block.setting != "hard":
            raise RequestError('seen_defects need setting = "hard"')
        if not block.methods or not block.data:
            raise RequestError("methods and data must name at least one each")
    description = values.get("description", "")
    if not isinstance(description, str):
        raise RequestError(f"description must be a text, not {description!r:.80}")
    return Suite(name, description, blocks)


def _block(base: Block, values: Mapping[str, Any]) -> Block:
    unknown = sorted(values.keys() - _KEYS)
    if unknown:
        raise RequestError(f"unknown key {unknown[0]!r:.80}; one of {', '.join(sorted(_KEYS))}")
    changes: dict[str, Any] = {}
    for key, kind in _LISTS.items():
        if key in values:
            value = values[key]
            if not isinstance(value, list) or not all(type(v) is kind for v in value):
                raise RequestError(f"{key} must be a list of {kind.__name__}, not {value!r:.80}")
            for v in value:
                _check_text(key, v)
            changes[key] = tuple(dict.fromkeys(value))
    if "seeds" in values:
        changes["seeds"] = _check_seeds(values["seeds"])
    if "setting" in values:
        changes["setting"] = values["setting"]
        if values["setting"] not in SETTINGS:
            raise RequestError(f"setting is one of {', '.join(SETTINGS)}")
    _check_shots(changes.get("shots", ()))
    if "set" in values:
        if not isinstance(values["set"], dict):
            raise RequestError("set must be a table")
        _check_set("set.", values["set"])
        changes["set"] = _merged(base.set, values["set"])
    return replace(base, **changes)


def _check_set(prefix: str, table: Mapping[str, Any], depth: int = 0) -> None:
    """Refuse in [set] what is neither one value nor a method's table of such."""
    for key, value in table.items():
        _check_text(f"{prefix}{key!r:.80}", key)
        name = prefix + key
        if isinstance(value, dict) and not depth:
            _check_set(f"{name}.", value, depth + 1)
        elif not isinstance(value, Value):
            raise RequestError(f"{name} must be one value, not {value!r:.80}")
        else:
            _check_text(name, value)


def _check_text(key: str, value: Any) -> None:
    if isinstance(value, str) and not fits_a_line(value):
        raise RequestError(f"{key} holds a control character: {value!r:.80}")


def _check_seeds(seeds: Any) -> int:
    if type(seeds) is not int or not 1 <= seeds <= 1000:
        raise RequestError(f"seeds is how many: a whole number from 1 to 1000, not {seeds!r:.80}")
    return seeds


def _check_shots(shots: tuple[int, ...]) -> None:
    for k in shots:
        if not 0 <= k <= DRAWN:
            raise RequestError(f"shots are 0 to {DRAWN}, not {k}")


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two [set] tables, method tables key by key."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if both else value
    return merged


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
        over = _merged(over, _override(text))
    _check_set("", over)
    if narrowing.seeds is not None:
        _check_seeds(narrowing.seeds)
    _check_shots(narrowing.shots or ())
    if narrowing.outside_method is not None and ":" not in narrowing.outside_method:
        raise RequestError(f"--method takes package.module:Class, not {narrowing.outside_method!r}")
    if narrowing.outside_method is not None and narrowing.methods is not None:
        raise RequestError("--method replaces the suite's methods: leave --methods out")
    blocks = []
    for block in suite.blocks:
        changes: dict[str, Any] = {"set": _merged(_without(block.set, over), over)}
        if narrowing.outside_method is not None:
            changes["methods"] = (narrowing.outside_method,)
        if narrowing.methods is not None:
            changes["methods"] = tuple(m for m in block.methods if m in narrowing.methods)
        if narrowing.shots is not None:
            changes["shots"] = narrowing.shots
        if narrowing.seeds is not None:
            changes["seeds"] = narrowing.seeds
        blocks.append(replace(block, **changes))
    return replace(suite, blocks=tuple(blocks))


def _override(text: str) -> dict[str, Any]:
    """Read `[method.]key=value`."""
    if not fits_a_line(text):
        raise RequestError(f"--set takes one line of UTF-8, not {text!r:.200}")
    key, equals, written = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or len(parts) > 2:
        raise RequestError(f"--set takes [method.]key=value, not {text!r:.200}")
    try:
        value = parse_toml(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        value = written.strip()  # a bare word
    except ValueError as error:
        raise RequestError(f"--set {text:.80}: the value {error}") from None
    return {parts[0]: value} if len(parts) == 1 else {parts[0]: {parts[1]: value}}


def expand(suite: Suite, narrowing: Narrowing, registry: Registry, data: Path) -> list[Cell]:
    """Expand a suite to its cells, each once, in the order of the file.

    Raises RequestError for a name, key or value that means nothing, and where nothing is left.
    """
    suite = narrow(suite, narrowing)
    _check_names(suite, narrowing, registry, data)
    cells: dict[Any, Cell] = {}
    taken: set[str] = set()
    wanted = 0
    for block in suite.blocks:
        for cell, used in _cells(block, narrowing, registry, data):
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
    return list(cells.values())


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
    block: Block, narrowing: Narrowing, registry: Registry, data: Path
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
            shots = (0,) if method.supervision == "unsupervised" else block.shots
            for k in shots:
                if not k and method.supervision != "unsupervised":
                    raise RequestError(f"{method.name} needs at least one shot")
                for seen in block.seen_defects or (None,):
                    for seed in range(block.seeds):
                        cell = Cell(method, parameters, settings, dataset, category,
                                    block.setting, seen, k, seed)  # fmt: skip
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
