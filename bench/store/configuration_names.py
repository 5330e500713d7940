"""Names of configurations: what tells runs of a method apart."""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import fields
from typing import Any

from bench.spec import LATER, RunSpec, place_of

LEAST_DIGITS = 8
OF_A_PLACE = ("external", "masks")
"""Digests that each place may have of its own: named where they vary within one."""
_NAMED_ELSEWHERE = {"kind", "method", "parameters", "dataset", "category", "setting", "shots",
                    "seed", "seen_defect", "data_version", "fingerprint", *OF_A_PLACE}  # fmt: skip
"""What stands in a table's row or title, or before the settings; every other field of a spec, one
that is added later too, is a setting that a name states where it varies."""


class ConfigurationNames:
    """Names of configurations: the method, and settings that vary.

    Two specs of one place that differ in more than the seed have different names. A later field is
    named where it is set, so that plain runs keep their name.
    """

    def __init__(self, specs: Iterable[RunSpec]) -> None:
        self._values: dict[str, dict[str, set[Any]]] = defaultdict(lambda: defaultdict(set))
        self._of_places: dict[Hashable, set[str | None]] = defaultdict(set)
        for spec in specs:
            for key in OF_A_PLACE:
                self._of_places[_apart_from(key, spec)].add(getattr(spec, key))
            for key, value in _settings(spec).items():
                self._values[spec.method][key].add(value)

    def __call__(self, spec: RunSpec) -> str:
        """Return the name of a row."""
        values = self._values[spec.method]
        varied = [
            f"{key}={_written(value, values[key])}"
            for key, value in _settings(spec).items()
            if (value is not None if key in LATER else len(values[key]) > 1)
        ]
        for key in OF_A_PLACE:
            known = self._of_places[_apart_from(key, spec)]
            if len({_parted(value or "")[1] for value in known}) > 1:
                varied.append(f"{key} {_written(getattr(spec, key), known)}")
        return f"{spec.method} {' '.join(varied)}".strip()


def _settings(spec: RunSpec) -> dict[str, Any]:
    """Return everything that a name may have to state, in the order of the fields."""
    names = [f.name for f in fields(spec) if f.name not in _NAMED_ELSEWHERE]
    own = {name: getattr(spec, name) for name in names}
    return {**spec.parameters, **own, "external": source_of(spec.external)}


def _apart_from(key: str, spec: RunSpec) -> Hashable:
    """Return a key and all that specs of one name have in common, whatever it is in each."""
    return key, spec.method, place_of(spec), tuple(_settings(spec).items())


def source_of(external: str | None) -> str | None:
    """Return the source of external images, without the digest of their content."""
    return external and external.partition(":")[0]


def _written(value: Any, among: Iterable[Any]) -> Any:
    """Shorten a digest, alone or behind `name:` or `name@`, as far as names stay apart."""
    if not isinstance(value, str):
        return value
    head, digest = _parted(value)
    if not digest:
        return value
    parts = [_parted(other) for other in among if isinstance(other, str)]
    if head and len([d for h, d in parts if h == head]) == 1:
        return head
    beginning = shortened(digest, (d for h, d in parts if h == head))
    return f"{head} {beginning}" if head else beginning


def _parted(value: str) -> tuple[str, str]:
    """Return what stands before a digest, and the digest; empty where there is none."""
    match = re.fullmatch(r"(?:(.*?)[:@])?([0-9a-f]{64}(?::turned)?)", value, re.DOTALL)
    return (match[1] or "", match[2]) if match else (value, "")


def shortened(digest: str, among: Iterable[str]) -> str:
    """Return the beginning of a digest that tells it from others."""
    others = {*among} - {digest}
    digits = range(LEAST_DIGITS, len(digest))
    return next(
        (digest[:n] for n in digits if not any(o.startswith(digest[:n]) for o in others)), digest
    )
