"""Variants of methods: their settings, names and common settings."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from bench.planning.matrix import RUN_SETTINGS, PlannedRun, affects
from bench.registry import Method
from bench.spec import Value

ALWAYS_SHOWN = ("image_size", "precision", "batch_size", "backbone", "stage")
"""Settings that are shown even where they are the defaults."""


@dataclass(frozen=True)
class Variant:
    """A method with its settings and parameters."""

    method: Method
    settings: Mapping[str, Value]
    """Run settings, `setting` and parameters by name."""

    @cached_property
    def key(self) -> Hashable:
        """What all runs of a variant share."""
        return self.method.path, tuple(self.settings.items())

    def non_default(self) -> dict[str, Value]:
        """Return the settings that differ from the defaults."""
        defaults = {**RUN_SETTINGS, "setting": "general", **self.method.defaults}
        return {k: v for k, v in self.settings.items() if v != defaults[k]}

    def parameters(self) -> dict[str, Value]:
        """Return the method's full parameters."""
        return {k: self.settings[k] for k in self.method.defaults}


def variant_of(run: PlannedRun) -> Variant:
    """Return the variant that a run belongs to."""
    settings = {k: v for k, v in run.settings.items() if affects(run.method, k)}
    return Variant(run.method, {**settings, "setting": run.setting, **run.parameters})


def shared(variants: Iterable[Variant]) -> dict[str, Value]:
    """Return settings that all variants share and some override."""
    values_of: dict[str, set[Value]] = {key: set() for key in ALWAYS_SHOWN}
    shown = set(ALWAYS_SHOWN)
    for variant in variants:
        shown |= variant.non_default().keys()
        for key, value in variant.settings.items():
            values_of.setdefault(key, set()).add(value)
    return {k: min(values) for k, values in values_of.items() if k in shown and len(values) == 1}


def variant_name(variant: Variant, common: Mapping[str, Value]) -> str:
    """Return the method's name with settings that set it apart."""
    own = [f"{k}={v}" for k, v in variant.non_default().items() if k not in common]
    return " ".join([variant.method.name, *own])
