"""Rough times of runs, by the committed reference runs."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import bench
from bench.errors import BenchError, StoreError
from bench.planning.plan import Run
from bench.planning.runtime import RuntimeModel, runs_like, step_key, training_length
from bench.planning.slots import Slot
from bench.planning.state import State
from bench.spec import RunSpec
from bench.store.open import open_results
from bench.store.receipt import Receipt
from bench.store.results import MANIFEST, Results, receipts
from bench.text import duration, joined

COST = {"resnet18": 1.0, "resnet50": 2.3, "wide_resnet50_2": 6.3, "mobilenet_v2": 0.35, None: 1.0}
"""Arithmetic of a pass, relative to a ResNet-18: GFLOPs of 1.8, 4.1, 11.4 and 0.3."""


@dataclass(frozen=True)
class TimeLeft:
    """How long runs will take, and how far that can be trusted."""

    seconds: float
    rough: bool
    """Whether reference runs of other networks or machines had to do."""
    unknown: int
    """Runs that nothing says anything about; they are not counted in."""

    def __str__(self) -> str:
        about = "roughly" if self.rough else "about"
        return f"{'more than' if self.unknown else about} {duration(self.seconds)}"


def reference_archives() -> list[Path]:
    """Return the archives in `results/reference` of a checkout, but those of nightly checks.

    The runs of these are too short to be anyone's result, or to foretell a longer one's time.
    """
    folder = Path(bench.__file__).parents[1] / "results" / "reference"
    archives = sorted(manifest.parent for manifest in folder.glob(f"*/{MANIFEST}"))
    return [archive for archive in archives if not archive.name.startswith("nightly-")]


@functools.cache
def reference_runs() -> tuple[Receipt, ...]:
    """Return the runs of all reference archives; none where there is no checkout."""
    runs: list[Receipt] = []
    for archive in reference_archives():
        try:
            runs += receipts(open_results(archive))
        except BenchError:
            continue  # a rough time is not worth an error
    return tuple(runs)


class RoughTimes:
    """Times by stored runs of the kind, else roughly by reference runs of the method.

    Reference runs are of other machines, networks and sizes: their times are scaled by the work of
    a pass and the steps, and by how far runs that have finished here were off.
    """

    def __init__(
        self,
        stored: Iterable[Receipt],
        device: str,
        references: Callable[[], Sequence[Receipt]] = reference_runs,
    ) -> None:
        self._model = RuntimeModel(stored)
        self._references, self._gpu = references, device != "cpu"
        self._actual, self._foretold = 0.0, 0.0
        self._by_run: dict[str, float | None] = {}

    def add(self, run: Run, receipt: Receipt) -> None:
        """Go by one more finished run."""
        if self._model.estimate(run) is None and (rough := self._rough(run)):
            self._actual += receipt.timings.phases_s
            self._foretold += rough
        self._model.add(receipt)

    def time_left(self, runs: Iterable[Run], slots: int) -> TimeLeft | None:
        """Return the time of `runs`; None where nothing is known of any."""
        factor = self._actual / self._foretold if self._foretold else 1.0
        seconds, rough, unknown, count = 0.0, False, 0, 0
        for count, run in enumerate(runs, 1):  # noqa: B007
            estimate = self._model.estimate(run)
            if estimate:
                seconds += estimate.seconds
            elif (guess := self._rough(run)) is not None:
                seconds += guess * factor
                rough = True
            else:
                unknown += 1
        if count and unknown == count:
            return None
        return TimeLeft(seconds / max(1, slots), rough, unknown)

    def basis(self, runs: Iterable[Run]) -> str:
        """Return what the time of `runs` goes by."""
        machines = self.machines(runs)
        return f"by reference runs on {machines}" if machines else "by stored runs of the kind"

    def machines(self, runs: Iterable[Run]) -> str:
        """Return the machines of the reference runs that rough times go by."""
        unknown = (run.spec for run in runs if self._model.estimate(run) is None)
        kinds = {(spec.method, spec.kind) for spec in unknown if spec.method_source is None}
        names = {_machine(r) for kind in kinds for r in self._candidates(*kind)}
        return joined(sorted(names)) if names else ""

    def _candidates(self, method: str, kind: str) -> list[Receipt]:
        return [
            r
            for r in self._references()
            if (r.spec.method, r.spec.kind) == (method, kind)
            and ((r.provenance.device or "cpu") != "cpu") == self._gpu
        ]

    def _rough(self, run: Run) -> float | None:
        if run.run_id not in self._by_run:
            spec, normals = run.spec, sum(f.fold == "train" for f in run.listing.files)
            candidates = [] if spec.method_source else self._candidates(spec.method, spec.kind)
            alike = [r for r in candidates if r.spec.backbone == spec.backbone] or candidates
            times = [_scaled(r, spec, normals) for r in alike]
            self._by_run[run.run_id] = fmean(times) if times else None
        return self._by_run[run.run_id]


def times_for(known: Iterable[Receipt], slot: Slot) -> RoughTimes:
    """Return the times that all commands tell, of what `known_receipts` gave."""
    return RoughTimes([r for r in known if runs_like(r, slot)], slot.device)


def known_receipts(state: State, results: Results) -> list[Receipt]:
    """Return the plan's receipts, or all if those are too few."""
    known = list(state.done.values())
    steps = {step_key(r.spec) for r in known}
    if not all(step_key(run.spec) in steps for run in state.todo):
        with contextlib.suppress(StoreError):  # a newer bench wrote some of them
            known += [r for r in receipts(results) if r.run_id not in state.done]
    return known


def _machine(receipt: Receipt) -> str:
    device = receipt.provenance.device_name
    return (receipt.provenance.cpu or "a CPU") if device == "cpu" else f"an {device}"


def _work(spec: RunSpec, normals: int) -> tuple[float, float]:
    """Return the relative work of a training, and of scoring."""
    one = spec.image_size**2 * COST.get(spec.backbone, 1.0)
    return one * training_length(spec, normals), one


def _scaled(receipt: Receipt, spec: RunSpec, normals: int) -> float:
    """Return a reference run's seconds, scaled to the work of another."""
    trained = receipt.split.train_normal or normals
    fit, score = (
        wanted / done
        for wanted, done in zip(_work(spec, normals), _work(receipt.spec, trained), strict=True)
    )
    timings = receipt.timings
    measured = timings.measure_s or 0.0
    return timings.setup_s + timings.fit_s * fit + timings.score_s * score + measured
