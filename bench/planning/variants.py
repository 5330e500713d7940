"""The methods of a plan as they are bent: what each is told beside its defaults."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from bench.planning.matrix import RUN_SETTINGS, Cell, touches
from bench.registry import Method
from bench.spec import Value

ALWAYS_TOLD = ("image_size", "precision", "batch_size", "backbone", "stage")
"""Settings worth saying even where they are the defaults."""


@dataclass(frozen=True)
class Variant:
    """A method with its parameters and the run settings that touch it."""

    method: Method
    told: Mapping[str, Value]
    """Run settings, `setting` and parameters."""

    @cached_property
    def key(self) -> Hashable:
        """What two cells of one variant share."""
        return self.method.path, tuple(self.told.items())

    def bent(self) -> dict[str, Value]:
        """Return what differs from the defaults."""
        usual = {**RUN_SETTINGS, "setting": "general", **self.method.defaults}
        return {k: v for k, v in self.told.items() if v != usual[k]}

    def parameters(self) -> dict[str, Value]:
        """Return the method's full parameters."""
        return {k: self.told[k] for k in self.method.defaults}


def variant_of(cell: Cell) -> Variant:
    """Return the variant that a cell belongs to."""
    settings = {k: v for k, v in cell.settings.items() if touches(cell.method, k)}
    return Variant(cell.method, {**settings, "setting": cell.setting, **cell.parameters})


def shared(variants: Iterable[Variant]) -> dict[str, Value]:
    """Return what all variants that know it are told alike, and at least one beside its default."""
    said: dict[str, set[Value]] = {key: set() for key in ALWAYS_TOLD}
    worth = set(ALWAYS_TOLD)
    for variant in variants:
        worth |= variant.bent().keys()
        for key, value in variant.told.items():
            said.setdefault(key, set()).add(value)
    return {k: min(values) for k, values in said.items() if k in worth and len(values) == 1}


def name_of(variant: Variant, common: Mapping[str, Value]) -> str:
    """Return the method's name and what of its parameters is neither its default nor `common`."""
    own = [f"{k}={v}" for k, v in variant.bent().items() if k not in common]
    return " ".join([variant.method.name, *own])
