"""Methods by name: their classes, parameters and abilities.

The table is explicit and lazy: nothing is imported until a method is asked for.
"""

import dataclasses
import importlib
import importlib.machinery
import importlib.util
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.code import METHOD_PACKAGES, OWN_PACKAGES
from bench.errors import RequestError
from bench.source import outside_hash, tree_hash
from bench.spec import NAME, RunSpec, Value
from bench.system.files import sealed, unsealed, write_cache
from bench.system.path import current_folder
from bench.text import meant


@dataclass(frozen=True)
class Needs:
    """The least that a method can do with."""

    stage: int = 1
    """Deepest stage of the backbone that it reads, whatever `stage` says."""
    normals: int = 1
    """Normal training images."""
    image_size: int = 1
    batch_size: int = 1


class Entry(NamedTuple):
    """A row of the table of methods."""

    path: str
    """`package.module:Class`."""
    title: str
    """As papers write the method's name."""
    summary: str


METHODS = {
    "devnet": Entry(
        "baselines.devnet:DevNet", "DevNet", "deviation loss on the top-K mean of a score map"
    ),
    "dra": Entry(
        "baselines.dra:DRA",
        "DRA",
        "four heads (seen, pseudo, residual, normality), each with a deviation loss",
    ),
    "saoe": Entry(
        "baselines.saoe:SAOE",
        "SAOE",
        "normal, labelled and pseudo anomalies as classes, and outlier exposure",
    ),
    "cutmix": Entry(
        "baselines.cutmix:CutMix", "CutMix", "weighted cross-entropy with CutMix pseudo anomalies"
    ),
    "atacnet": Entry(
        "atacnet.detector:ATACNet",
        "ATAC-Net",
        "deviation loss over an image and an attention-cropped zoom of it",
    ),
    "shortcut": Entry(
        "baselines.shortcut:Shortcut",
        "shortcut",
        "the one image statistic that separates the training set best",
    ),
    "spade": Entry(
        "baselines.spade:SPADE", "SPADE", "distance to the nearest normal images in pooled features"
    ),
    "padim": Entry(
        "baselines.padim:PaDiM", "PaDiM", "a Gaussian of normal features at every position"
    ),
    "patchcore": Entry(
        "baselines.patchcore:PatchCore",
        "PatchCore",
        "distance of the farthest patch to a coreset of normal patches",
    ),
    "memseg": Entry(
        "baselines.memseg:MemSeg",
        "MemSeg",
        "segments made-up anomalies beside the nearest of 30 stored normal images",
    ),
    "cavga": Entry(
        "baselines.cavga:CAVGA",
        "CAVGA",
        "autoencoder with attention that covers what is normal, without or with labelled anomalies",
    ),
    "prn": Entry(
        "baselines.prn:PRN",
        "PRN",
        "segments labelled and made-up anomalies by residuals to prototypes of normal features",
    ),
    "patchsvdd": Entry(
        "baselines.patchsvdd:PatchSVDD",
        "Patch-SVDD",
        "distances of patches in an embedding trained to tell how patches lie",
    ),
    "fastflow": Entry(
        "baselines.fastflow:FastFlow",
        "FastFlow",
        "a convolutional normalising flow of normal features",
    ),
    "cflow": Entry(
        "baselines.cflow:CFlow",
        "CFlow-AD",
        "a normalising flow of the features at a position, told where it is",
    ),
}
"""Every method of the project by name, in the order of tables. One row adds a method."""
NEEDS = {
    "spade": Needs(stage=3),
    "padim": Needs(stage=3, normals=2),
    "patchcore": Needs(stage=3),
    "memseg": Needs(stage=3, batch_size=2),
    "prn": Needs(stage=3, batch_size=4),
    "patchsvdd": Needs(image_size=67),
    "fastflow": Needs(stage=3),
    "cflow": Needs(stage=3),
}
"""What methods refuse to do without, so that the plan says it before anything runs."""
SUPERVISION = ("weak", "unsupervised")
SETTINGS = frozenset({"precision", "batch_size", "backbone", "external", "masks"})
ABILITIES = {
    "embed": ("embed",),
    "explain": ("explain",),
    "state": ("state", "load_state"),
    "rehearse": ("rehearse",),
    "memory": ("memory",),
    "epochs": ("after_epoch",),
}
"""Optional abilities of a method, with the functions each needs."""
ONLY_A_RUN_TELLS = frozenset({"epochs"})
"""Abilities that a method from outside may have without a function of that name."""
_KIND = "method cards with abilities and epochs"


@dataclass(frozen=True)
class Method:
    """A method's card, known without importing it."""

    path: str
    """`package.module:Class`."""
    outside: bool
    name: str
    version: int
    supervision: str | Mapping[str, Mapping[str, str]] = field(hash=False)
    """As `bench.detector.Detector.supervision`."""
    settings: frozenset[str]
    abilities: frozenset[str]
    """Out of `ABILITIES`."""
    defaults: Mapping[str, Value] = field(hash=False)
    limits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    """By parameter: `choices`, `least`, `above`, `most`; see `bench.detector.parameter`."""
    seedless: bool = False
    """Whether nothing in it is random, so that one seed says all where no anomaly is drawn."""

    @property
    def module(self) -> str:
        """The module that the class lies in."""
        return self.path.partition(":")[0]

    @property
    def needs(self) -> Needs:
        """What it cannot do without; unknown of an outside method."""
        return Needs() if self.outside else NEEDS.get(self.name, Needs())

    @property
    def source(self) -> str | None:
        """An outside method's source identity, else None."""
        return outside_source(self.path) if self.outside else None

    def supervised(self, parameters: Mapping[str, Value]) -> str:
        """Return `weak` or `unsupervised`, as it is with these parameters."""
        if isinstance(self.supervision, str):
            return self.supervision
        ((parameter, by_value),) = self.supervision.items()
        return by_value[str(parameters[parameter])]

    def parameters(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Return all parameters; raises RequestError for a bad one."""
        values = dict(self.defaults)
        for key, value in given.items():
            if key not in values:
                known = f"{meant(key, values)}; it has: {', '.join(sorted(values)) or 'none'}"
                raise RequestError(f"{self.name} has no parameter {key!r}{known}")
            values[key] = typed_like(f"{self.name}.{key}", value, self.defaults[key])
            check_limits(f"{self.name}.{key}", values[key], self.limits.get(key, {}))
        return values


def typed_like(key: str, value: Any, default: Value) -> Value:
    """Return `value` typed like `default`; int becomes float."""
    if type(default) is float and type(value) is int:
        return float(value)
    if type(value) is float and not math.isfinite(value):
        raise RequestError(f"{key} must be finite, not {value}")
    if type(value) is not type(default):
        kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        raise RequestError(f"{key} must be {kind[type(default)]}, not {value!r}")
    return value


def check_limits(key: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Raise RequestError for a value outside the limits."""
    wanted = []
    if "choices" in limits and value not in limits["choices"]:
        wanted.append("one of " + ", ".join(map(str, limits["choices"])))
    if "least" in limits and value < limits["least"]:
        wanted.append(f"at least {limits['least']}")
    if "above" in limits and value <= limits["above"]:
        wanted.append(f"above {limits['above']}")
    if "most" in limits and value > limits["most"]:
        wanted.append(f"at most {limits['most']}")
    if wanted:
        raise RequestError(f"{key} must be {' and '.join(wanted)}, not {value!r}")


def load_class(path: str) -> Any:
    """Import and check `package.module:Class`; raises RequestError."""
    module_name, _, class_name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module does when it is imported
        raise RequestError(
            f"cannot import {module_name!r} of {path}: {type(error).__name__}: {error}"
        ) from error
    cls = getattr(module, class_name, None)
    if cls is None:
        raise RequestError(f"{module.__file__} has no class {class_name!r}")
    problems = list(_problems(cls))
    if problems:
        raise RequestError(f"{path} does not fit bench.detector.Detector: {'; '.join(problems)}")
    return cls


class Registry:
    """Finds methods by name or path.

    A card is kept in the cache under the hash of the method's source, so that a command which has
    nothing to run need not import torch to know it.
    """

    def __init__(self, cache: Path) -> None:
        self._file = cache / "methods.json"
        self._cards: dict[str, Method] = {}

    def find(self, method: str) -> Method:
        """Return a method's card by name or `package.module:Class`.

        Raises RequestError for an unknown name, a module that cannot be imported, or a class that
        does not fit the contract.
        """
        if method not in self._cards:
            outside = ":" in method
            if outside:
                _check_path(method)
            elif method not in METHODS:
                hint = meant(method, METHODS)
                raise RequestError(f"unknown method {method!r}{hint}; one of {', '.join(METHODS)}")
            path = method if outside else METHODS[method].path
            self._cards[method] = self._card(path, outside)
        return self._cards[method]

    def _card(self, path: str, outside: bool) -> Method:
        module = path.partition(":")[0]
        packages = (*OWN_PACKAGES, module.partition(".")[0])
        key = f"{path}@{tree_hash(module, packages)}"
        if outside:  # a default may come from a module beside it
            key += outside_hash(module)
        try:
            known = unsealed(_KIND, self._file.read_bytes())
        except (OSError, ValueError):
            known = {}
        if key in known:
            return Method(path, outside, **_thawed(known[key]))
        cls = load_class(path)
        if outside and cls.name in METHODS:
            raise RequestError(f"{path} calls itself {cls.name!r}, a name of the project's own")
        card = {
            "name": cls.name,
            "version": cls.version,
            "supervision": cls.supervision,
            "settings": sorted(cls.settings),
            "abilities": sorted(
                ability
                for ability, functions in ABILITIES.items()
                if (outside and ability in ONLY_A_RUN_TELLS)
                or all(callable(getattr(cls, f, None)) for f in functions)
            ),
            "defaults": {f.name: f.default for f in dataclasses.fields(cls.Parameters)},
            "limits": {f.name: dict(f.metadata) for f in dataclasses.fields(cls.Parameters)},
            "seedless": getattr(cls, "seedless", False) is True,
        }
        stale = {k: v for k, v in known.items() if k.partition("@")[0] != path}
        write_cache(self._file, sealed(_KIND, {**stale, key: card}))
        return Method(path, outside, **_thawed(card))


def _thawed(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card with sets, which JSON lacks."""
    return {**card, **{k: frozenset(card[k]) for k in ("settings", "abilities")}}


def outside_source(path: str) -> str:
    """Return the source identity of `package.module:Class`, as it is today."""
    return f"{path}@{outside_hash(path.partition(':')[0])}"


def path_of(spec: RunSpec) -> str:
    """Return a stored run's `package.module:Class`; raises RequestError."""
    if spec.method_source is not None:
        path = spec.method_source.partition("@")[0]
        _check_path(path)
        return path
    if spec.method not in METHODS:
        raise RequestError(f"this bench has no method {spec.method!r}")
    return METHODS[spec.method].path


def _check_path(path: str) -> None:
    module, colon, name = path.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), name)):
        raise RequestError(f"--method takes package.module:Class, not {path!r}")
    use_current_folder()


def use_current_folder() -> None:
    """Let a method lie in the current folder, behind everything else."""
    for package in METHOD_PACKAGES:  # a copy of the project may lie there as well
        importlib.import_module(package)
    if (current := current_folder()) and current not in sys.path:
        sys.path.append(current)


def _is_supervision(value: Any) -> bool:
    """Whether it is one of `SUPERVISION`, or `{parameter: {value: one of these}}`."""
    if not isinstance(value, dict):
        return value in SUPERVISION
    tables = list(value.values())
    known = len(tables) == 1 and isinstance(tables[0], dict) and tables[0]
    return bool(known) and all(one in SUPERVISION for one in tables[0].values())


def _problems(cls: Any) -> Iterable[str]:
    """Yield what a class lacks to be a Detector."""
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not NAME.match(name):
        yield "name must be a text of a-z, 0-9, _ and -"
    if type(getattr(cls, "version", None)) is not int:
        yield "version must be a whole number"
    if not _is_supervision(getattr(cls, "supervision", None)):
        yield f"supervision must be one of {', '.join(SUPERVISION)}, or that by a parameter's value"
    settings = getattr(cls, "settings", None)
    if not isinstance(settings, frozenset) or not settings <= SETTINGS:
        yield f"settings must be a frozenset out of {', '.join(sorted(SETTINGS))}"
    for function in ("fit", "score"):
        if not callable(getattr(cls, function, None)):
            yield f"it has no {function}()"
    parameters = getattr(cls, "Parameters", None)
    if not (isinstance(parameters, type) and dataclasses.is_dataclass(parameters)):
        yield "Parameters must be a dataclass"
    else:
        for field in dataclasses.fields(parameters):
            if type(field.default) not in (bool, int, float, str):
                yield f"Parameters.{field.name} needs a default that is a bool, int, float or str"
