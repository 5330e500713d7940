"""Verdicts on published numbers, and departures from their protocols."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.statistics import DIGITS, mean_interval
from bench.spec import RunSpec
from bench.store.receipt import Receipt

LEAST_SEEDS = 3
"""Below this many seeds every verdict is inconclusive."""
LEVEL = 0.90
"""Two one-sided tests at 5 % each are a 90 % interval."""


@dataclass(frozen=True)
class Verdict:
    """A verdict on a published number by two one-sided tests."""

    word: str
    """`reproduced`, `differs` or `inconclusive`."""
    difference: float
    """Our mean minus the published number."""
    interval: tuple[float, float] | None
    """The 90 % t-interval of the difference."""
    why: str


def verdict(
    values: Sequence[float], published: float, margin: float, *, seedless: bool = False
) -> Verdict:
    """Compare one value per seed with a published number.

    `reproduced`: the 90 % t-interval of the difference lies within the margin on either side, so
    both one-sided tests reject a larger difference at 5 %. `differs`: it lies wholly beyond the
    margin. Else `inconclusive`: more seeds may tell; so is an end on the margin itself.
    `seedless` says that no seed touches the value: there is nothing to test over, and the
    difference itself lies within the margin or beyond, unless the values belie it.
    Raises ValueError without values.
    """
    estimate = mean_interval([v - published for v in values], LEVEL)
    n, mean, interval = estimate.n, estimate.mean, estimate.interval
    if seedless and len({round(v, DIGITS) for v in values}) == 1:
        gap = round(mean, DIGITS)
        why = f"no randomness, one run says all: a difference of {gap:+.3f}, margin {margin:.3f}"
        return Verdict(_word(gap, gap, margin), mean, None, why)
    if interval is None or n < LEAST_SEEDS:
        why = f"{n} seed{'s' * (n > 1)}; it takes {LEAST_SEEDS}"
        return Verdict("inconclusive", mean, interval, why)
    low, high = (round(end, DIGITS) for end in interval)
    why = f"90 % interval of the difference {low:+.3f} to {high:+.3f}, margin {margin:.3f}"
    if len(set(values)) == 1:
        why = f"all {n} seeds alike: a difference of {low:+.3f}, margin {margin:.3f}"
    return Verdict(_word(low, high, margin), mean, interval, why)


def _word(low: float, high: float, margin: float) -> str:
    if -margin < low and high < margin:
        return "reproduced"
    return "differs" if low > margin or high < -margin else "inconclusive"


def differences(spec: RunSpec, stated: Mapping[str, Any]) -> list[str]:
    """Return settings that differ from stated ones; absent ones do not."""
    own = _settings(spec)
    if spec.external:
        own["external"] = spec.external.partition(":")[0]  # its source, not its content
    return [
        f"{key} {own[key]}, not {value}"
        for key, value in stated.items()
        if own.get(key) is not None and own[key] != value
    ]


def _settings(spec: RunSpec) -> dict[str, Any]:
    """Return settings and parameters by name."""
    return {**spec.parameters, **spec.as_dict()}


def departures(receipt: Receipt, protocol: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a run's departures from a published protocol.

    `protocol` has settings and parameters by name. What the source leaves open is no departure.
    The number of steps counts, not how it is given: as many as the stated epochs over the normal
    images make are as stated.
    """
    own = _settings(receipt.spec)
    departs = differences(
        receipt.spec, {k: v for k, v in protocol.items() if k != "steps_per_epoch"}
    )
    counted = all(isinstance(own.get(k), int) for k in ("steps_per_epoch", "epochs", "batch_size"))
    if "steps_per_epoch" in protocol and counted:
        once = -(-(receipt.split.train_normal or 0) // max(1, own["batch_size"] // 2))
        usual = (protocol["steps_per_epoch"] or once) * protocol["epochs"]
        steps = receipt.facts.get("optimiser_steps")
        if steps != usual and own["epochs"] == protocol["epochs"]:
            departs.append(f"{steps} steps, not {usual}")
    if receipt.spec.backbone and receipt.spec.weights is None:
        departs.append("no ImageNet weights")
    if receipt.provenance.unofficial_copy:
        departs.append(f"unofficial copy: {receipt.provenance.unofficial_copy}")
    return tuple(departs)
