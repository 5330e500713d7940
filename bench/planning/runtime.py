"""How long runs will take."""

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bench.planning.plan import Run
from bench.spec import RunSpec
from bench.store.receipt import Receipt
from bench.system.host import describe_host

if TYPE_CHECKING:
    from bench.planning.slots import Slot

RATE_PARAMETERS = frozenset(
    {"lr", "backbone_multiplier", "weight_decay", "clip", "lr_step", "lr_gamma"}
)
"""Parameters of the project's own methods that change neither the time nor the memory of a step."""
LENGTH_PARAMETERS = ("epochs", "steps_per_epoch")


@dataclass(frozen=True)
class RuntimeEstimate:
    """How long a run will take, by stored ones."""

    seconds: float
    other_parameters: bool
    """Whether no stored run makes the same step."""
    other_machine: bool
    """Whether any of the stored ones was made on another processor."""


class RuntimeModel:
    """Estimates run times from stored runs of a kind.

    The time of training follows the number of steps, or where an epoch goes once over the normal
    images, their number; the time of scoring follows the images scored; that of measuring neither.
    """

    def __init__(self, receipts: Iterable[Receipt], slot: "Slot | None" = None) -> None:
        """With `slot`, use only receipts of alike devices and threads."""
        self._receipts: dict[tuple[Any, ...], list[Receipt]] = collections.defaultdict(list)
        for receipt in receipts:
            if slot is None or runs_like(receipt, slot):
                self._receipts[_network_key(receipt.spec)].append(receipt)
                self._receipts[step_key(receipt.spec)].append(receipt)

    def estimate(self, run: Run) -> RuntimeEstimate | None:
        """Estimate a run's time, None without stored runs alike."""
        same = self._receipts.get(step_key(run.spec))
        known = same or self._receipts.get(_network_key(run.spec))
        if known is None:
            return None
        cpu = describe_host()["cpu"]
        elsewhere = any(r.provenance.cpu not in (None, cpu) for r in known)
        return RuntimeEstimate(fmean(_scaled(r, run) for r in known), same is None, elsewhere)


def runs_like(receipt: Receipt, slot: "Slot") -> bool:
    """Whether a stored run's device and CPU threads match a slot."""
    about, kind = receipt.provenance, slot.device.partition(":")[0]
    alike = (about.device or "").partition(":")[0] == kind
    return alike and (kind != "cpu" or about.threads == slot.threads)


def time_left(runs: Iterable[Run], receipts: Iterable[Receipt], slots: int) -> float | None:
    """Return the estimated seconds of `runs` from stored ones.

    None where there is nothing to go by for one of them.
    """
    model = RuntimeModel(receipts)
    estimates = [model.estimate(run) for run in runs]
    seconds = [e.seconds for e in estimates if e]
    return sum(seconds) / slots if len(seconds) == len(estimates) else None


def _scaled(receipt: Receipt, run: Run) -> float:
    """Return a stored run's seconds, scaled to another run."""
    timings, split = receipt.timings, receipt.split
    length = _length(run.spec.parameters) / _length(receipt.spec.parameters)
    normals = sum(f.fold == "train" for f in run.listing.files)
    if not _has_fixed_steps(run.spec.parameters):
        length *= normals / (split.train_normal or normals or 1)
    tested = len(run.listing.files) - normals
    scored = tested / (split.scored or tested or 1)
    measure = timings.measure_s or 0
    return timings.setup_s + timings.fit_s * length + timings.score_s * scored + measure


def _network_key(spec: RunSpec) -> tuple[Any, ...]:
    """Return what runs must share for comparable times."""
    fixed_steps = _has_fixed_steps(spec.parameters)
    network = (spec.image_size, spec.precision, spec.batch_size, spec.backbone, spec.stage)
    return (spec.kind, spec.method, *network, fixed_steps)


def step_key(spec: RunSpec) -> tuple[Any, ...]:
    """Return what runs must share for equal training steps."""
    # A method from outside may mean anything by the names in RATE_PARAMETERS.
    ignored = {*LENGTH_PARAMETERS} | (frozenset() if spec.method_source else RATE_PARAMETERS)
    parameters = {k: v for k, v in spec.parameters.items() if k not in ignored}
    source = str(spec.external).partition(":")[0]
    return (*_network_key(spec), source, spec.method_source, tuple(sorted(parameters.items())))


def _has_fixed_steps(parameters: Mapping[str, Any]) -> bool:
    """Whether an epoch's steps are independent of the category."""
    return bool(parameters.get("steps_per_epoch", 1))


def _length(parameters: Mapping[str, Any]) -> float:
    """Return a training's length: epochs times steps, if fixed.

    A method from outside may mean anything by these names.
    """
    length = 1.0
    for name in LENGTH_PARAMETERS:
        value = parameters.get(name)
        if isinstance(value, int | float) and value > 0:
            length *= value
    return length
