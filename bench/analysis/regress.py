"""Whether runs have got worse than those of a reference.

A run of the same code in the same environment gives the same bits, so there any difference is a
change of the code. In another environment rounding grows in training until AUROC moves by hundreds;
there only the mean over many runs of a method tells a regression from chaos, and the losses of the
first two steps, which rounding cannot yet have reached.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, stdev

from bench.errors import CorruptRun
from bench.spec import RunSpec
from bench.store.agreement import differing
from bench.store.receipt import Receipt
from bench.store.results import Results, receipts

CODE = ("source_sha256", "also_loaded")
"""What of the provenance is the code of the method, and no environment."""
FAULTS = frozenset({"changed", "first steps", "missing", "failed", "damaged"})
"""States of a run that are a regression by themselves."""
STATES = ("identical", "changed", "first steps", "missing", "failed", "damaged", "moved", "meant",
          "new")  # fmt: skip
PROBES = ("loss_1", "loss_2")
"""Facts of a run that trains for two epochs of one step."""
ROUNDING: Mapping[str, float] = {"float32": 5e-4, "bfloat16": 3e-2}
"""Largest relative difference of a probe's losses that rounding explains, by precision."""
WORSE = 0.005
"""A mean difference in AUROC below which a method has not got worse."""
EQUAL = 0.010
"""Methods are equal where the 90 % interval of their mean difference lies within this."""
FALSE_ALARM = 0.01
"""Chance of calling any method worse where none has changed."""
LEAST_PAIRS = 15
MOST_PAIRS = 2000
"""No more are reckoned with."""


@dataclass(frozen=True)
class RunOutcome:
    """A wanted run beside the reference's."""

    run_id: str
    spec: RunSpec
    state: str
    """One of `STATES`."""
    detail: str = ""
    old: float | None = None
    """AUROC of the reference's run; None of a probe, which is cut short, and of a timed run."""
    new: float | None = None

    @property
    def gap(self) -> float | None:
        """New minus old AUROC."""
        return None if self.old is None or self.new is None else self.new - self.old

    def __str__(self) -> str:
        shown = f"{self.spec.method} on {self.spec.place}, seed {self.spec.seed}: {self.state}"
        return f"{shown} ({self.detail})" if self.detail else shown


@dataclass(frozen=True)
class MethodOutcome:
    """What the runs of a method that moved say together."""

    method: str
    verdict: str
    """`worse`, `equal`, `inconclusive`, or `too few` pairs to judge."""
    mean: float
    """Mean of new minus old AUROC."""
    interval: tuple[float, float] | None
    """90 %, by Student's t."""
    p: float | None
    """One-sided, that the mean is below zero by chance; None for fewer than two pairs."""
    pairs: int
    pairs_needed: int | None
    """How many would settle it, were mean and spread as seen; None where no number would."""

    def __str__(self) -> str:
        span = "" if self.interval is None else " [{:+.4f}, {:+.4f}]".format(*self.interval)
        text = (
            f"{self.method}: {self.verdict}, AUROC {self.mean:+.4f}{span} over {self.pairs} pairs"
        )
        if self.verdict in ("inconclusive", "too few"):
            text += f"; {self.pairs_needed or f'more than {MOST_PAIRS}'} would settle it"
        return text


@dataclass(frozen=True)
class Regression:
    """All runs and methods beside a reference."""

    runs: tuple[RunOutcome, ...]
    methods: tuple[MethodOutcome, ...]

    @cached_property
    def counts(self) -> Counter[str]:
        """How many runs are in each state."""
        return Counter(run.state for run in self.runs)

    @property
    def faults(self) -> list[RunOutcome]:
        """Runs that are a regression by themselves."""
        return [run for run in self.runs if run.state in FAULTS]

    @property
    def worse(self) -> list[MethodOutcome]:
        """Methods that have got worse."""
        return [m for m in self.methods if m.verdict == "worse"]

    @property
    def too_few(self) -> list[MethodOutcome]:
        """Methods that moved and cannot be judged."""
        return [m for m in self.methods if m.verdict == "too few"]

    @property
    def judged(self) -> bool:
        """Whether a wanted run has a counterpart."""
        return any(run.state != "new" for run in self.runs)


def regression(
    reference: Results,
    results: Results,
    wanted: Iterable[RunSpec] | None = None,
    meant: Collection[str] = (),
) -> Regression:
    """Compare results with a reference.

    `wanted` are the runs that there should be, by default those of the reference; `meant` names
    methods whose numbers were changed on purpose. A run of the reference is found by its id, or as
    the same but for the version of its method.
    """
    known = list(receipts(reference))
    by_id = {receipt.run_id: receipt for receipt in known}
    by_cell = {_cell(receipt.spec): receipt for receipt in known}
    if wanted is None:
        wanted = [receipt.spec for receipt in known]
    specs = {spec.run_id: spec for spec in wanted}
    runs = tuple(
        _outcome(spec, by_id.get(run_id) or by_cell.get(_cell(spec)), results, meant)
        for run_id, spec in specs.items()
    )
    return Regression(runs, tuple(_by_method(runs)))


def _cell(spec: RunSpec) -> RunSpec:
    """Return what two versions of a method share."""
    return replace(spec, method_version=0)


def _outcome(
    spec: RunSpec, old: Receipt | None, results: Results, meant: Collection[str]
) -> RunOutcome:
    """Compare a wanted run with the reference's."""
    run_id = spec.run_id
    if not results.has(run_id):
        failures = results.failures(run_id)
        state, detail = ("failed", failures[-1].reason) if failures else ("missing", "")
        return RunOutcome(run_id, spec, state, detail)
    try:
        new = results.read(run_id)
    except CorruptRun:
        return RunOutcome(run_id, spec, "damaged")
    scored = spec.kind == "accuracy" and not is_probe(new)
    auroc = new.metrics.auroc if scored else None
    if old is None:
        return RunOutcome(run_id, spec, "new", new=auroc)
    before = old.metrics.auroc if scored else None
    state, detail = _state(old, new, meant)
    return RunOutcome(run_id, spec, state, detail, before, auroc)


def _state(old: Receipt, new: Receipt, meant: Collection[str]) -> tuple[str, str]:
    versions = old.spec.method_version, new.spec.method_version
    if old.metrics.scores_sha256 == new.metrics.scores_sha256:
        return "identical", ""
    if versions[0] != versions[1]:
        return "meant", f"version {versions[0]} -> {versions[1]}"
    if new.spec.method in meant:
        return "meant", "accepted"
    if new.spec.kind == "timing":  # trained for a few steps, with no seed's numbers
        return "moved", "timed"
    moved = environment(old, new)
    if not moved:
        return "changed", "same version and environment"
    drift = first_steps(old, new)
    most = ROUNDING[new.spec.precision or "float32"]
    if drift is not None and drift > most:
        return "first steps", f"losses differ by {drift:.1e}, rounding by up to {most:.0e}"
    return "moved", ", ".join(moved)


def environment(old: Receipt, new: Receipt) -> list[str]:
    """Return what differs of the environments, the method's code aside."""
    return [name for name in differing(old.provenance, new.provenance) if name not in CODE]


def is_probe(receipt: Receipt) -> bool:
    """Whether a run trains for two epochs of one step, for the sake of their losses."""
    spec = receipt.spec
    length = spec.parameters.get("epochs"), spec.parameters.get("steps_per_epoch")
    return spec.kind == "accuracy" and length == (len(PROBES), 1)


def first_steps(old: Receipt, new: Receipt) -> float | None:
    """Return the largest relative difference of two probes' losses; None for no probes."""
    if not (is_probe(old) and is_probe(new)):
        return None
    drift = 0.0
    for name in PROBES:
        one, other = old.facts.number(name), new.facts.number(name)
        if one is None or other is None:
            return math.inf  # a loss that is not finite is recorded as none
        drift = max(drift, abs(other - one) / max(abs(one), 1e-12))
    return drift


def _by_method(runs: Sequence[RunOutcome]) -> Iterable[MethodOutcome]:
    """Judge every method of which runs moved, over those."""
    gaps: dict[str, list[float]] = {}
    for run in runs:
        if run.state in ("moved", "first steps") and run.gap is not None:
            gaps.setdefault(run.spec.method, []).append(run.gap)
    for method, values in sorted(gaps.items()):
        yield judge(method, values, len(gaps))


def judge(method: str, gaps: Sequence[float], methods: int) -> MethodOutcome:
    """Judge a method by its differences in AUROC; `methods` are judged at once."""
    mean, pairs = fmean(gaps), len(gaps)
    spread = stdev(gaps) if pairs > 1 else 0.0
    interval, p = _tests(mean, spread, pairs) if pairs > 1 else (None, None)
    verdict = "too few"
    if pairs >= LEAST_PAIRS:
        verdict = _verdict(mean, interval, p, methods)
    needed = None
    if verdict in ("too few", "inconclusive"):
        needed = next((n for n in _numbers(pairs) if _settled(mean, spread, n, methods)), None)
    return MethodOutcome(method, verdict, mean, interval, p, pairs, needed)


def _tests(mean: float, spread: float, pairs: int) -> tuple[tuple[float, float], float]:
    """Return the 90 % interval of a mean, and the one-sided p that it is below zero."""
    from scipy.stats import t

    error = spread / math.sqrt(pairs)
    half = float(t.ppf(0.95, pairs - 1)) * error
    p = float(t.cdf(mean / error, pairs - 1)) if error else float(mean >= 0)
    return (mean - half, mean + half), p


def _verdict(
    mean: float, interval: tuple[float, float] | None, p: float | None, methods: int
) -> str:
    if p is not None and mean < -WORSE and p < FALSE_ALARM / methods:
        return "worse"
    if interval is not None and interval[0] >= -EQUAL and interval[1] <= EQUAL:
        return "equal"
    return "inconclusive"


def _settled(mean: float, spread: float, pairs: int, methods: int) -> bool:
    return _verdict(mean, *_tests(mean, spread, pairs), methods) != "inconclusive"


def _numbers(pairs: int) -> Iterable[int]:
    """Yield numbers of pairs to try, each a twentieth larger."""
    number = max(pairs + 1, LEAST_PAIRS)
    while number <= MOST_PAIRS:
        yield number
        number += max(1, number // 20)
