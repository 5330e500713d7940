"""How long runs will take."""

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bench.planning.plan import Run
from bench.store.receipt import Receipt
from bench.system.host import describe_host

if TYPE_CHECKING:
    from bench.planning.slots import Slot


RATES = frozenset({"lr", "backbone_multiplier", "weight_decay", "clip", "lr_step", "lr_gamma"})
"""Parameters of the project's own methods that change neither the time nor the memory of a step."""


LENGTHS = ("epochs", "steps_per_epoch")


@dataclass(frozen=True)
class Guess:
    """How long a run will take, by stored ones."""

    seconds: float
    other_parameters: bool
    """Whether no stored run makes the same step."""
    other_machine: bool
    """Whether any of the stored ones was made on another processor."""


class Paces:
    """What stored runs of a kind say of how long others take.

    The time of training follows the number of steps, or where an epoch goes once over the normal
    images, their number; the time of scoring follows the images scored; that of measuring neither.
    """

    def __init__(self, receipts: Iterable[Receipt], slot: "Slot | None" = None) -> None:
        """With `slot`, only what was run on such a device and with as many threads counts."""
        self._alike: dict[tuple[Any, ...], list[Receipt]] = collections.defaultdict(list)
        for receipt in receipts:
            if slot is None or runs_like(receipt, slot):
                self._alike[_kind(receipt["spec"])].append(receipt)
                self._alike[step(receipt["spec"])].append(receipt)

    def guess(self, run: Run) -> Guess | None:
        """Estimate the time of a run; None where there is nothing to go by."""
        spec = vars(run.spec)
        same = self._alike.get(step(spec))
        known = same or self._alike.get(_kind(spec))
        if known is None:
            return None
        here = describe_host()["cpu"]
        elsewhere = any(r.get("provenance", {}).get("cpu", here) != here for r in known)
        return Guess(fmean(_scaled(r, run) for r in known), same is None, elsewhere)


def runs_like(receipt: Receipt, slot: "Slot") -> bool:
    """Whether a stored run had the kind of device of a slot, and on the CPU as many threads."""
    device, threads = (receipt["provenance"].get(k, "") for k in ("device", "threads"))
    kind = slot.device.partition(":")[0]
    return str(device).partition(":")[0] == kind and (kind != "cpu" or threads == slot.threads)


def time_left(runs: Iterable[Run], receipts: Iterable[Receipt], slots: int) -> float | None:
    """Estimate the seconds that `runs` will take from stored runs of the same method and size.

    None where there is nothing to go by for one of them.
    """
    paces = Paces(receipts)
    total = 0.0
    for run in runs:
        guess = paces.guess(run)
        if guess is None:
            return None
        total += guess.seconds
    return total / slots


def _scaled(receipt: Receipt, run: Run) -> float:
    """Return the seconds of a stored run, brought to the length and the images of another."""
    timings = receipt["timings"]
    setup, fit, score, measure = (
        timings.get(k) or 0 for k in ("setup_s", "fit_s", "score_s", "measure_s")
    )
    length = _length(run.spec.parameters) / _length(receipt["spec"]["parameters"])
    split = receipt.get("split", {})
    normals = sum(f.fold == "train" for f in run.listing.files)
    if not _has_fixed_steps(run.spec.parameters):
        length *= normals / (split.get("train_normal") or normals or 1)
    tested = len(run.listing.files) - normals
    scored = tested / (split.get("scored") or tested or 1)
    return float(setup + fit * length + score * scored + measure)


def _kind(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what two runs must share for the time of one to say something of the other's."""
    same = ("kind", "method", "image_size", "precision", "batch_size", "backbone", "stage")
    return (*(spec[k] for k in same), _has_fixed_steps(spec["parameters"]))


def step(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what two runs must share to make the same training step, up to its numbers."""
    left_out = frozenset(LENGTHS) if spec["method_source"] else RATES.union(LENGTHS)
    parameters = {k: v for k, v in spec["parameters"].items() if k not in left_out}
    source = str(spec["external"]).partition(":")[0]
    return (*_kind(spec), source, spec["method_source"], tuple(sorted(parameters.items())))


def _has_fixed_steps(parameters: Mapping[str, Any]) -> bool:
    """Whether an epoch has a number of steps; else its length depends on the category."""
    return bool(parameters.get("steps_per_epoch", 1))


def _length(parameters: Mapping[str, Any]) -> float:
    """Return how long a training is, in any unit: epochs times steps where they are fixed.

    A method from outside may mean anything by these names.
    """
    length = 1.0
    for name in LENGTHS:
        value = parameters.get(name)
        if isinstance(value, int | float) and value > 0:
            length *= value
    return length
