"""The suite that asks for a stored run again."""

import json
from collections.abc import Iterator
from typing import Any

from bench.spec import RunSpec
from bench.store.configuration_names import source_of
from bench.weights import KNOWN


def suite_of(spec: RunSpec) -> str:
    """Return the text of a suite file whose run of this seed is the one of `spec`.

    It needs the same images, and the method's version: ids hold both.
    """
    return "".join(f"{line}\n" for line in _lines(spec))


def _lines(spec: RunSpec) -> Iterator[str]:
    method = spec.method_source.partition("@")[0] if spec.method_source else spec.method
    if spec.kind != "accuracy":
        yield _entry("kind", spec.kind)
    yield _entry("methods", [method])
    yield _entry("data", [f"{spec.dataset}/{spec.category}"])
    yield _entry("shots", [spec.shots or 1])
    if spec.setting != "general":
        yield _entry("setting", spec.setting)
        yield _entry("seen_defects", [spec.seen_defect])
    if spec.draw is not None:
        yield _entry("draw", spec.draw)
    if spec.draw_seed is not None:
        yield _entry("draw_seeds", [spec.draw_seed])
    settings = {
        "image_size": spec.image_size,
        "resize": spec.resize,
        "precision": spec.precision,
        "batch_size": spec.batch_size,
        "backbone": spec.backbone,
        "stage": spec.stage,
        "weights": _weights(spec),
        "external": source_of(spec.external),
    }
    yield f"\n[set.{spec.method}]"
    for key, value in {**settings, **spec.parameters}.items():
        if value is not None:
            yield _entry(key, value)
    if spec.weights and _weights(spec) is None:
        yield f'# weights = "FILE": the file whose sha256 begins with {spec.weights[:8]}'


def _weights(spec: RunSpec) -> str | None:
    """Return how a suite names a run's weights; None for a file of the user's."""
    if spec.weights in (None, "none"):
        return spec.weights
    known = any(str(spec.weights).startswith(k.sha256) for k in KNOWN)
    return "imagenet" if known else None


def _entry(key: str, value: Any) -> str:
    return f"{key} = {json.dumps(value)}"
