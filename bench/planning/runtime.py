"""How long runs will take."""

import collections
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
CORESET = {"patchcore": (8, 1 << 19, 1.85)}
"""Of methods that choose among all patches: the stride of the patches, the most that compete, and
the power of their number that the choice takes in time."""


Work = Callable[[int, float], float]
"""The relative time of a training, for so many normal images and such a choice of a coreset."""


@dataclass(frozen=True)
class RuntimeEstimate:
    """How long a run will take, by stored ones."""

    seconds: float
    other_parameters: bool
    """Whether no stored run makes the same step."""
    other_machine: bool
    """Whether any of the stored ones was made on another processor."""


@dataclass(frozen=True)
class _Kind:
    """What the time of a run follows."""

    step: tuple[Any, ...]
    network: tuple[Any, ...]
    length: float
    fixed_steps: bool
    normals: int
    choice: float
    """Relative time of choosing a coreset."""
    tested: int


class RuntimeModel:
    """Estimates run times from stored runs of a kind.

    The time of training follows the number of steps; where there are none, or an epoch goes once
    over the normal images, it follows their number, and the size of a coreset's choice. The time of
    scoring follows the images scored; that of measuring neither.
    """

    def __init__(self, receipts: Iterable[Receipt], slot: "Slot | None" = None) -> None:
        """With `slot`, use only receipts of alike devices and threads."""
        self._receipts: dict[tuple[Any, ...], list[Receipt]] = collections.defaultdict(list)
        self._kinds: dict[str, _Kind] = {}
        self._estimates: dict[_Kind, RuntimeEstimate | None] = {}
        for receipt in receipts:
            if slot is None or runs_like(receipt, slot):
                self.add(receipt)

    def add(self, receipt: Receipt) -> None:
        """Go by one more stored run."""
        step, network = step_key(receipt.spec), _network_key(receipt.spec)
        self._receipts[network].append(receipt)
        self._receipts[step].append(receipt)
        for kind in [k for k in self._estimates if k.network == network]:
            del self._estimates[kind]

    def estimate(self, run: Run) -> RuntimeEstimate | None:
        """Estimate a run's time, None without stored runs alike."""
        kind = self._kinds.get(run.run_id)
        if kind is None:
            kind = self._kinds[run.run_id] = _kind(run)
        if kind not in self._estimates:
            self._estimates[kind] = self._estimate(kind)
        return self._estimates[kind]

    def _estimate(self, kind: _Kind) -> RuntimeEstimate | None:
        same = self._receipts.get(kind.step)
        known = same or self._receipts.get(kind.network)
        if known is None:
            return None
        cpu = describe_host()["cpu"]
        elsewhere = any(r.provenance.cpu not in (None, cpu) for r in known)
        work = _work(known)
        seconds = fmean(_scaled(r, kind, work) for r in known)
        return RuntimeEstimate(seconds, same is None, elsewhere)

    def time_left(self, runs: Iterable[Run], slots: int) -> float | None:
        """Return the estimated seconds of `runs`.

        None where there is nothing to go by for one of them.
        """
        estimates = [self.estimate(run) for run in runs]
        seconds = [e.seconds for e in estimates if e]
        return sum(seconds) / slots if len(seconds) == len(estimates) else None


def runs_like(receipt: Receipt, slot: "Slot") -> bool:
    """Whether a stored run's device and CPU threads match a slot."""
    about, kind = receipt.provenance, slot.device.partition(":")[0]
    alike = (about.device or "").partition(":")[0] == kind
    return alike and (kind != "cpu" or about.threads == slot.threads)


def time_left(runs: Iterable[Run], receipts: Iterable[Receipt], slots: int) -> float | None:
    """Return the estimated seconds of `runs` from stored ones; see `RuntimeModel.time_left`."""
    return RuntimeModel(receipts).time_left(runs, slots)


def _kind(run: Run) -> _Kind:
    parameters, files = run.spec.parameters, run.listing.files
    normals = sum(f.fold == "train" for f in files)
    return _Kind(
        step=step_key(run.spec),
        network=_network_key(run.spec),
        length=_length(parameters),
        fixed_steps=_has_fixed_steps(parameters),
        normals=normals,
        choice=_choice(run.spec, normals),
        tested=len(files) - normals,
    )


def _scaled(receipt: Receipt, kind: _Kind, work: Work) -> float:
    """Return a stored run's seconds, scaled to another kind of run."""
    timings, split = receipt.timings, receipt.split
    length = kind.length / _length(receipt.spec.parameters)
    if not kind.fixed_steps:
        normals = split.train_normal or kind.normals
        length *= work(kind.normals, kind.choice) / work(normals, _choice(receipt.spec, normals))
    scored = kind.tested / (split.scored or kind.tested or 1)
    measure = timings.measure_s or 0
    return timings.setup_s + timings.fit_s * length + timings.score_s * scored + measure


def _work(known: Sequence[Receipt]) -> Work:
    """Return how the time of training follows the number of normal images.

    It is a sum of what is done for each image and of the choice of a coreset. Stored runs of
    several numbers of images say how much either takes; where they do not, it is half of each.
    """
    rows = [(float(n), _choice(r.spec, n)) for r in known if (n := r.split.train_normal)]
    seconds = np.array([r.timings.fit_s for r in known if r.split.train_normal])
    parts = np.array(rows or [(1.0, 0.0)])
    means = np.where(parts.mean(0) > 0, parts.mean(0), 1.0)
    shares = np.array([0.5, 0.5])
    if len({*parts[:, 0]}) > 1:
        shares = _not_negative(parts / means, seconds)
    return lambda normals, choice: max(
        float(shares @ ((normals, choice) / means)), np.finfo(float).tiny
    )


def _choice(spec: RunSpec, normals: int) -> float:
    """Return the relative time of choosing a coreset, 0 without one."""
    if spec.method not in CORESET:
        return 0.0
    stride, most, power = CORESET[spec.method]
    return float(min(normals * math.ceil(spec.image_size / stride) ** 2, most) ** power)


def _not_negative(parts: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the shares (2,) that fit best, none of them negative."""
    both = np.asarray(np.linalg.lstsq(parts, seconds, rcond=None)[0], np.float64)
    if (both >= 0).all() and both.any():
        return both
    alone = (parts * seconds[:, None]).sum(0) / np.maximum((parts**2).sum(0), 1e-9)
    errors = [np.square(parts[:, i] * alone[i] - seconds).sum() for i in range(2)]
    best = np.argmin(errors)
    return np.where(np.arange(2) == best, alone, 0.0)


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
    """Whether the steps of a training are independent of the category."""
    return bool(parameters.get("steps_per_epoch", "epochs" in parameters))


def training_length(spec: RunSpec, normals: int) -> float:
    """Return the relative length of a training: its steps, or images where they follow those."""
    batches = normals if not _has_fixed_steps(spec.parameters) else float(spec.batch_size or 1)
    return _length(spec.parameters) * max(1.0, batches)


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
