"""Suite files: matrices of methods, data, shots and seeds.

A suite is a TOML file. `methods`, `data` (dataset, or dataset/category), `shots`, `seeds` and
`setting` span the matrix; `[set]` overrides run settings and parameters for all methods,
`[set.NAME]` for one; `[vary]` is a `[set]` with a list for each value: every combination is run.
`draw_seeds` (how many, or a list) crosses the seeds with draws of anomalies: each seed then gives
the initialisation, batches and augmentation, and is run on every draw.
Each `[[block]]` table is a matrix of its own that starts from the values above it.
`[tuned]` says which settings the results of some seeds have chosen, by which criterion: `lr =
{ seeds = [0], by = "training loss" }`; it is kept with the runs and is no part of their ids.
`optional` lists data that is run only where --categories names it.
`save_maps = true`, at the top, keeps artifacts for figures beside the scores, as --save-maps does.
`draw = 5`, at the top, draws that many anomalies for every method, not ten: for datasets with fewer
than eleven. `draw = 0` is for suites of methods without labels alone.
`kind = "timing"` makes runs that measure a method's cost, after all others and one at a time.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from bench.data.splits import DRAWN, SETTINGS
from bench.errors import RequestError
from bench.planning.selectors import check_seeds
from bench.spec import KINDS, Value
from bench.store.tuning import Tuned
from bench.system.files import expanded
from bench.system.untrusted import is_one_line, one_line, os_reason, read_toml
from bench.text import joined, meant

_LISTS = {"methods": str, "data": str, "optional": str, "shots": int, "seen_defects": str}
_TOP = ("save_maps", "draw")
"""Keys for the top of the file, valid for all its runs."""
_KEYS = {
    "description", "block", "set", "vary", "seeds", "draw_seeds", "kind", "setting", "tuned",
    *_TOP, *_LISTS,
}  # fmt: skip
_MOST_SEEDS = 1000

MAX_VARIED = 1000


@dataclass(frozen=True)
class SuiteBlock:
    """A matrix of methods, categories, shots and seeds."""

    methods: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    """Data that --categories may add."""
    shots: tuple[int, ...] = (1, 10)
    seeds: int = 1
    draw_seeds: tuple[int, ...] = ()
    """Seeds of draws to cross the seeds with; empty: each seed draws its own."""
    draw: int = DRAWN
    """Anomalies drawn for a seed, for all methods alike."""
    kind: str = KINDS[0]
    """`accuracy` or `timing`."""
    setting: str = "general"
    seen_defects: tuple[str, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    tuned: Mapping[str, Tuned] = field(default_factory=dict)
    """Settings that results have chosen."""


@dataclass(frozen=True)
class Suite:
    """A checked suite file."""

    name: str
    description: str
    blocks: tuple[SuiteBlock, ...]
    save_maps: bool = False
    """Whether runs keep embeddings and explanations; not part of run ids."""


def suite_names() -> list[str]:
    """Return names of the included suites."""
    files = resources.files("bench").joinpath("suites").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def read_suite(name: str) -> Suite:
    """Return a suite by name, or from a .toml file.

    Raises RequestError naming the file and what is wrong in it.
    """
    title = name
    if name.endswith(".toml"):
        path = expanded(Path(name))
        title = path.stem
    elif name in suite_names():
        path = Path(str(resources.files("bench").joinpath(f"suites/{name}.toml")))
    else:
        own = f"{name}.toml"
        hint = f" (did you mean {own}?)" if Path(own).is_file() else _suite_meant(name)
        raise RequestError(
            f"unknown suite {name!r:.80}{hint}; one of {', '.join(suite_names())}, or a .toml file"
        )
    shown_name = one_line(name)
    try:
        values = read_toml(path)
    except FileNotFoundError:
        raise RequestError(f"there is no suite file {shown_name}{_suite_meant(name)}") from None
    except OSError as error:
        raise RequestError(f"cannot read suite {shown_name}: {os_reason(error)}") from None
    except ValueError as error:
        raise RequestError(f"suite {shown_name} {error}") from None
    try:
        return _suite(one_line(title), values)
    except RequestError as error:
        raise RequestError(f"suite {shown_name}: {error}") from None


def suite_files(folder: Path) -> list[str]:
    """Return names of the .toml files in a folder."""
    try:
        return sorted(path.name for path in folder.glob("*.toml"))
    except OSError:
        return []


def _suite_meant(name: str) -> str:
    """Return a question after a name that is nearly a suite's, or a file's beside it."""
    folder = expanded(Path(name)).parent
    files = [one_line(str(Path(name).parent / file)) for file in suite_files(folder)]
    return meant(name, (*suite_names(), *files))


def read_suites(names: Sequence[str]) -> Suite:
    """Return one suite that asks for the runs of all these; raises RequestError."""
    if not names:
        raise RequestError("which suite? Name one, such as smoke; `bench list suites` shows them")
    suites = [read_suite(name) for name in dict.fromkeys(names)]
    if len(suites) == 1:
        return suites[0]
    return Suite(
        joined(suite.name for suite in suites),
        "; ".join(suite.description for suite in suites),
        tuple(block for suite in suites for block in suite.blocks),
        any(suite.save_maps for suite in suites),
    )


def _suite(name: str, values: dict[str, Any]) -> Suite:
    save_maps = values.get("save_maps", False)
    if type(save_maps) is not bool:
        raise RequestError(f"save_maps must be true or false, not {save_maps!r:.80}")
    draw = values.get("draw", DRAWN)
    if type(draw) is not int or not 0 <= draw <= DRAWN:
        raise RequestError(f"draw is how many anomalies: 0 to {DRAWN}, not {draw!r:.80}")
    base = _block(
        SuiteBlock(draw=draw), {k: v for k, v in values.items() if k not in ("block", *_TOP)}
    )
    parts = values.get("block", [])
    if not isinstance(parts, list) or not all(isinstance(p, dict) for p in parts):
        raise RequestError("block must be written as [[block]]")
    if any("block" in part for part in parts):
        raise RequestError("a [[block]] holds no other block")
    if parts and "vary" in values:
        raise RequestError("vary belongs in the [[block]]s where there are any")
    blocks = tuple(
        varied
        for part in parts or [{"vary": values.get("vary", {})}]
        for varied in _varied(_block(base, part), part.get("vary", {}))
    )
    for block in blocks:
        if block.draw_seeds and block.kind != KINDS[0]:
            raise RequestError(f'draw_seeds tell draws apart: not with kind = "{block.kind}"')
        if block.seen_defects and block.setting != "hard":
            raise RequestError('seen_defects need setting = "hard"')
        if not block.methods or not block.data:
            raise RequestError("methods and data must name at least one each")
    description = values.get("description", "")
    if not isinstance(description, str):
        raise RequestError(f"description must be a text, not {description!r:.80}")
    return Suite(name, description, blocks, save_maps)


def _block(base: SuiteBlock, values: Mapping[str, Any]) -> SuiteBlock:
    for key in _TOP:
        if key in values:
            raise RequestError(f"{key} belongs to the top of the file, not into a [[block]]")
    unknown = sorted(values.keys() - _KEYS)
    if unknown:
        raise RequestError(
            f"unknown key {unknown[0]!r:.80}{meant(unknown[0], _KEYS)}; one of"
            f" {', '.join(sorted(_KEYS))}"
        )
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
        changes["seeds"] = check_seeds(values["seeds"])
    if "draw_seeds" in values:
        changes["draw_seeds"] = _draw_seeds(values["draw_seeds"])
    if "kind" in values:
        changes["kind"] = values["kind"]
        if values["kind"] not in KINDS:
            raise RequestError(f"kind is one of {', '.join(KINDS)}, not {values['kind']!r:.80}")
    if "setting" in values:
        changes["setting"] = values["setting"]
        if values["setting"] not in SETTINGS:
            raise RequestError(f"setting is one of {', '.join(SETTINGS)}")
    check_shots(changes.get("shots", ()))
    if "set" in values:
        if not isinstance(values["set"], dict):
            raise RequestError("set must be a table")
        check_set("set.", values["set"])
        changes["set"] = merged(base.set, values["set"])
    if "tuned" in values:
        changes["tuned"] = {**base.tuned, **_tuned(values["tuned"])}
    return replace(base, **changes)


def _tuned(table: Any) -> dict[str, Tuned]:
    """Check a [tuned] table."""
    if not isinstance(table, dict):
        raise RequestError("tuned must be a table")
    for key, value in table.items():
        form = isinstance(value, dict) and value.keys() == {"seeds", "by"}
        seeds = value["seeds"] if form else ()
        if not form or type(value["by"]) is not str or not isinstance(seeds, list) or not seeds:
            raise RequestError(
                f'tuned.{key!r:.80} must be {{ seeds = [0], by = "criterion" }}, not {value!r:.80}'
            )
        if not all(type(seed) is int and seed >= 0 for seed in seeds):
            raise RequestError(f"tuned.{key!r:.80}.seeds must be whole numbers from 0 on")
        _check_text(f"tuned.{key!r:.80}", key)
        _check_text(f"tuned.{key!r:.80}.by", value["by"])
    return {key: Tuned(tuple(value["seeds"]), value["by"]) for key, value in table.items()}


def _varied(block: SuiteBlock, table: Any) -> Iterator[SuiteBlock]:
    """Yield a block for each combination of [vary]."""
    if not isinstance(table, dict):
        raise RequestError("vary must be a table")
    axes: list[list[dict[str, Any]]] = []
    for key, value in table.items():
        inner = value if isinstance(value, dict) else {None: value}
        for name, values in inner.items():
            if not isinstance(values, list) or not values:
                raise RequestError(f"vary.{key} must hold lists of values, not {values!r:.80}")
            axes.append([{key: v} if name is None else {key: {name: v}} for v in values])
    if math.prod(map(len, axes)) > MAX_VARIED:
        raise RequestError(f"vary has more than {MAX_VARIED} combinations")
    for combination in itertools.product(*axes):
        overrides: Mapping[str, Any] = block.set
        for change in combination:
            check_set("vary.", change)
            overrides = merged(overrides, change)
        yield replace(block, set=overrides)


def check_set(prefix: str, table: Mapping[str, Any], depth: int = 0) -> None:
    """Refuse [set] values except scalars and method tables."""
    for key, value in table.items():
        _check_text(f"{prefix}{key!r:.80}", key)
        name = prefix + key
        if isinstance(value, dict) and not depth:
            check_set(f"{name}.", value, depth + 1)
        elif not isinstance(value, Value):
            raise RequestError(f"{name} must be one value, not {value!r:.80}")
        else:
            _check_text(name, value)


def _check_text(key: str, value: Any) -> None:
    if isinstance(value, str) and not is_one_line(value):
        raise RequestError(f"{key} holds a control character: {value!r:.80}")


def _draw_seeds(value: Any) -> tuple[int, ...]:
    """Read a number of draws, or a list of their seeds; raises RequestError."""
    seeds = [*range(value)] if type(value) is int and value <= _MOST_SEEDS else value
    valid = isinstance(seeds, list) and all(type(s) is int and s >= 0 for s in seeds)
    if not valid or not 1 <= len(seeds) <= _MOST_SEEDS:
        raise RequestError(
            f"draw_seeds is how many, from 1 to {_MOST_SEEDS}, or a list of seeds from 0 on, not"
            f" {value!r:.80}"
        )
    return tuple(dict.fromkeys(seeds))


def check_shots(shots: tuple[int, ...]) -> None:
    """Refuse numbers of shots outside the draw."""
    for k in shots:
        if not 0 <= k <= DRAWN:
            raise RequestError(f"shots are 0 to {DRAWN}, not {k}")


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two [set] tables, method tables key by key."""
    result = dict(base)
    for key, value in over.items():
        tables = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = {**result[key], **value} if tables else value
    return result
