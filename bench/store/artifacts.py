"""What a run can keep beside its scores: the model, embeddings, explanations.

None of it enters a run's identity. Where a stored run lacks what is wanted and its method has the
ability, the run is repeated, and its scores must match.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.store.layout import EMBEDDINGS, EXPLANATIONS, MODEL

FILES = {"state": MODEL, "embed": EMBEDDINGS, "explain": EXPLANATIONS}
"""The file that a run keeps by an ability of its method, see `bench.registry.ABILITIES`."""
WORDS = {"state": "model", "embed": "embeddings", "explain": "maps"}
"""What people call it."""
MODELS, MAPS = frozenset({"state"}), frozenset({"embed", "explain"})
"""The abilities that --save-models and --save-maps make use of."""
UNABLE = "unable"
"""A receipt's list of the abilities whose functions raised NotImplementedError; absent if none."""


def kept_by(receipt: Mapping[str, Any]) -> frozenset[str]:
    """Return the abilities of which a stored run keeps the file."""
    return frozenset(a for a, name in FILES.items() if name in receipt.get("files", ()))


def kept_in(run: Path) -> frozenset[str]:
    """Return the abilities whose file lies in a run's folder, whatever its receipt says."""
    return frozenset(a for a, name in FILES.items() if (run / name).is_file())


def answered(receipt: Mapping[str, Any]) -> frozenset[str]:
    """Return the abilities of which a run keeps the file, or knows that its method lacks them."""
    return kept_by(receipt).union(receipt.get(UNABLE, ()))


def lacking(
    receipt: Mapping[str, Any], wanted: Collection[str], abilities: Collection[str]
) -> frozenset[str]:
    """Return of the wanted abilities those that a method has and its stored run has not used."""
    return (frozenset(wanted) & frozenset(abilities)) - answered(receipt)


def gained(receipt: Mapping[str, Any], stored: Mapping[str, Any]) -> frozenset[str]:
    """Return the abilities of which a run keeps or knows what a stored one does not."""
    return (kept_by(receipt) - kept_by(stored)) | (answered(receipt) - answered(stored))


def united(
    one: Mapping[str, Any], other: Mapping[str, Any], files: Collection[str]
) -> dict[str, list[str]]:
    """Return what two receipts of equal scores say of missing abilities, given both's files."""
    said = {*one.get(UNABLE, ()), *other.get(UNABLE, ())}
    left = sorted(ability for ability in said if FILES.get(ability) not in files)
    return {UNABLE: left} if left else {}


def told(abilities: Iterable[str], last: str = "and") -> str:
    """Write what abilities give: `model, embeddings and maps`."""
    given = {*abilities}
    words = [word for ability, word in WORDS.items() if ability in given]
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
