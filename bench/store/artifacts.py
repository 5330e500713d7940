"""Artifacts beside a run's scores: model, embeddings, explanations, scores by epoch.

Artifacts do not enter a run's id. Where a stored run lacks a wanted one that its method supports,
the run is repeated, and its scores must match.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from bench.store.groups import PIXEL_METRICS, Metrics, Plain
from bench.store.receipt import Receipt

MODEL = "model.safetensors"
EMBEDDINGS = "embeddings.parquet"
EXPLANATIONS = "explanations.parquet"
EPOCHS = "epochs.parquet"
FILES = {"state": MODEL, "embed": EMBEDDINGS, "explain": EXPLANATIONS, "epochs": EPOCHS}
"""File names of artifacts by a method's ability, see `bench.registry.ABILITIES`."""
WORDS = {"state": "model", "embed": "embeddings", "explain": "maps", "epochs": "scores by epoch"}
"""Names of artifacts for people."""
NO_PIXELS = "no pixel metrics: "
"""What the warning begins with of a run whose masks cannot be used."""
DOUBTFUL = "doubtful masks: "
"""What the warning begins with of a run whose masks may be wrong; its pixel metrics stand."""
MODELS, MAPS = frozenset({"state"}), frozenset({"embed", "explain"})
BY_EPOCH = frozenset({"epochs"})
"""The abilities that --save-models, --save-maps and --keep-epochs make use of."""


def stored_artifacts(receipt: Receipt) -> frozenset[str]:
    """Return abilities whose artifact a receipt lists."""
    return frozenset(a for a, name in FILES.items() if name in receipt.files)


def artifacts_in(run: Path) -> frozenset[str]:
    """Return abilities whose artifact lies in a run's folder."""
    return frozenset(a for a, name in FILES.items() if (run / name).is_file())


def settled_artifacts(receipt: Receipt) -> frozenset[str]:
    """Return abilities that a run stored or found unsupported."""
    return stored_artifacts(receipt).union(receipt.unsupported)


def missing_artifacts(
    receipt: Receipt, wanted: Collection[str], abilities: Collection[str]
) -> frozenset[str]:
    """Return wanted artifacts that the method supports and the run lacks."""
    return (frozenset(wanted) & frozenset(abilities)) - settled_artifacts(receipt)


def new_artifacts(receipt: Receipt, stored: Receipt) -> frozenset[str]:
    """Return abilities settled in a run but not in the stored one."""
    return (stored_artifacts(receipt) - stored_artifacts(stored)) | (
        settled_artifacts(receipt) - settled_artifacts(stored)
    )


def merged_unsupported(one: Receipt, other: Receipt, files: Collection[str]) -> Receipt:
    """Return a receipt with the unsupported abilities of both.

    What lies in the `files` of both is supported after all.
    """
    either = {*one.unsupported, *other.unsupported}
    unsupported = sorted(ability for ability in either if FILES.get(ability) not in files)
    return replace(one, unsupported=tuple(unsupported))


def with_pixel_metrics(
    receipt: Receipt, values: Mapping[str, Plain], warnings: Iterable[str]
) -> Receipt:
    """Return a receipt with these pixel metrics, or warnings, alone."""
    others = {k: v for k, v in receipt.metrics.items() if k not in PIXEL_METRICS}
    other_warnings = [w for w in receipt.warnings if not w.startswith((NO_PIXELS, DOUBTFUL))]
    return replace(
        receipt,
        metrics=Metrics({**others, **values}),
        warnings=tuple(sorted([*other_warnings, *warnings])),
    )


def with_pixel_metrics_of(receipt: Receipt, other: Receipt) -> Receipt:
    """Return a receipt with another's pixel metrics and their warnings."""
    values = {k: v for k, v in other.metrics.items() if k in PIXEL_METRICS}
    return with_pixel_metrics(
        receipt, values, [w for w in other.warnings if w.startswith((NO_PIXELS, DOUBTFUL))]
    )


def artifact_words(abilities: Iterable[str], last: str = "and") -> str:
    """Write what abilities give: `model, embeddings and maps`."""
    given = {*abilities}
    words = [word for ability, word in WORDS.items() if ability in given]
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
