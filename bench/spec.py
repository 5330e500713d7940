"""What identifies a run: the RunSpec, its canonical form and its id."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from bench.errors import RequestError
from bench.seeding import Seeds

RUN_ID = re.compile(r"[0-9a-f]{16}\Z")
SPEC_VERSION = 1
"""Raised when the canonical form changes. Every id changes with it: old results stay readable,
but are not found again by `bench run`."""

LATER = frozenset({"masks", "draw_seed", "draw"})
"""Fields that were added while SPEC_VERSION stayed: left out of the canonical form where they are
None, so that the ids of older runs stay."""

USUAL_DRAW = 10
"""Anomalies drawn for a seed; k shots are the first k, and all leave the test set."""
KINDS = ("accuracy", "timing")
Value = bool | int | float | str


@dataclass(frozen=True, kw_only=True, eq=False)
class RunSpec:
    """A run's identity: equal specs give equal scores.

    The settings `precision`, `batch_size`, `backbone`, `stage` and `weights` are None where the
    method does not use them, so that changing one does not repeat runs that it cannot touch.
    """

    kind: str
    """`accuracy` or `timing`."""
    method: str
    method_version: int
    method_source: str | None
    """`package.module:Class@sha256` for a method from outside the project, else None."""
    parameters: Mapping[str, Value]
    """The method's full parameters, after defaults."""
    dataset: str
    category: str
    setting: str
    """`general`, or `hard` (all labelled anomalies from one seen defect type)."""
    shots: int
    """Labelled anomalies in training; 0 for unsupervised methods."""
    seen_defect: str | None
    seed: int
    image_size: int
    """Side of the square input in pixels."""
    resize: str
    data_version: int
    """Version of the dataset's pixels, splits and draws, see `bench.data.catalog.Dataset`."""
    fingerprint: str
    """Content fingerprint of the category, see `bench.data.listing.fingerprint`."""
    external: str | None
    """Fingerprint of images from outside the category, for methods that use any."""
    precision: str | None
    batch_size: int | None
    backbone: str | None
    stage: int | None
    """Deepest backbone stage used; stage s has stride 2**(s + 1)."""
    weights: str | None
    """sha256 of the weights file, or `none` for random initialisation."""
    masks: str | None = None
    """Digest of the category's masks, for methods that train on those of the labelled anomalies;
    see `bench.data.masks.masks_digest`."""
    draw_seed: int | None = None
    """Seed of the draw of anomalies, where it is not `seed`: then the seed gives all the rest. One
    that is equal becomes None, so that the run is the plain one, by its id too."""
    draw: int | None = None
    """How many anomalies are drawn, where it is not ten: see `bench.data.splits.DRAWN`. Ten becomes
    None."""

    def __post_init__(self) -> None:
        for name, types in _TYPES.items():
            value = getattr(self, name)
            if type(value) not in types:
                raise TypeError(f"RunSpec.{name} must be {types[0].__name__}, not {value!r}")
        for key, value in self.parameters.items():
            if type(value) not in (bool, int, float, str):
                raise TypeError(f"parameter {key} of {self.method} has unusable value {value!r}")
            if type(value) is float and not math.isfinite(value):
                raise ValueError(f"parameter {key} of {self.method} must be finite, not {value!r}")
        object.__setattr__(self, "parameters", dict(sorted(self.parameters.items())))
        if self.draw_seed == self.seed:
            object.__setattr__(self, "draw_seed", None)
        if self.draw == USUAL_DRAW:
            object.__setattr__(self, "draw", None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunSpec) and self.canonical() == other.canonical()

    def __hash__(self) -> int:
        return hash(self.canonical())

    def as_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON types; of a later field only what is set."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        set_fields = {k: v for k, v in fields.items() if k not in LATER or v is not None}
        return {**set_fields, "parameters": dict(self.parameters)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        """Read a spec; raises RequestError for bad fields."""
        known = {f.name for f in dataclasses.fields(cls)}
        if values.keys() | LATER != known:
            wrong = sorted((values.keys() | LATER) ^ known)
            raise RequestError(f"run spec has unknown or missing fields: {', '.join(wrong)}")
        try:
            return cls(**values)
        except (TypeError, ValueError, AttributeError) as error:
            raise RequestError(f"run spec: {error}") from None

    def canonical(self) -> str:
        """Return canonical JSON: versioned, sorted, typed, without NaN."""
        return json.dumps(
            {"spec_version": SPEC_VERSION, **self.as_dict()},
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=True,
            allow_nan=False,
        )

    @property
    def run_id(self) -> str:
        """The canonical form's sha256, first 16 hex digits."""
        return hashlib.sha256(self.canonical().encode("ascii")).hexdigest()[:16]

    @property
    def row(self) -> "RunSpec":
        """The spec with seed 0, shared by all seeds.

        Plain runs, whose seeds draw, are a row; those of each other `draw_seed` are another. Seed 0
        of draw 0 is a plain run: the row of that draw has seed 1.
        """
        return dataclasses.replace(self, seed=1 if self.draw_seed == 0 else 0)

    @property
    def drawn(self) -> int:
        """How many anomalies are drawn, and leave the test set."""
        return USUAL_DRAW if self.draw is None else self.draw

    @property
    def seeds(self) -> Seeds:
        """The sub-seeds of the run."""
        return Seeds(self.seed, self.dataset, self.category, self.draw_seed)

    @property
    def place(self) -> str:
        """`dataset` or `dataset/category`, for people."""
        return place_name(self.dataset, self.category)

    def __str__(self) -> str:
        draw = "" if self.draw_seed is None else f" draw {self.draw_seed}"
        of = "" if self.draw is None else f" of {self.draw} drawn"
        return f"{self.method} {self.place} {shots_of(self.shots)}{of} seed {self.seed}{draw}"


_TYPES: dict[str, tuple[Any, ...]] = {
    f.name: get_args(f.type) or (f.type,)
    for f in dataclasses.fields(RunSpec)
    if f.name != "parameters"
}
"""Types of each field's values: an optional one also takes None."""


def shots_of(shots: int) -> str:
    """Write a number of labelled anomalies."""
    return f"{shots} shot" + "s" * (shots != 1)


NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")
"""What a dataset or category may be called: names become parts of paths and of tables."""


Place = tuple[str, str]
"""Dataset and category; a dataset without categories has one of its name."""


def place_name(dataset: str, category: str) -> str:
    """Return `dataset/category`, or the dataset without categories.

    A category may have a remark in brackets behind its name, see `place_of`.
    """
    alone = category.partition(" (")[0] == dataset
    return category if alone else f"{dataset}/{category}"


def place_of(spec: RunSpec) -> Place:
    """Return a run's place; a hard category names the seen defect."""
    hard = "" if spec.setting == "general" else f" (hard, {spec.seen_defect})"
    return spec.dataset, spec.category + hard
