"""Verdicts on published numbers, and departures from their protocols."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from bench.analysis.copies import copy_reasons
from bench.analysis.statistics import DIGITS
from bench.published.tables import PublishedTable, PublishedValue, half_unit
from bench.spec import RunSpec
from bench.store.receipt import Receipt

LEAST_SEEDS = 3
"""Below this many seeds every verdict is inconclusive."""
LEVEL = 0.90
"""Two one-sided tests at 5 % each are a 90 % interval."""
POWER = 0.80
MOST_SEEDS = 1000
"""A number of seeds beyond this is no advice."""


@dataclass(frozen=True)
class Noise:
    """Spread of a published mean over the runs behind it."""

    std: float
    """Standard deviation of one run."""
    runs: int
    """At least two."""

    @property
    def variance(self) -> float:
        """Variance of the mean."""
        return self.std**2 / self.runs


@dataclass(frozen=True)
class Verdict:
    """A verdict on a published number by two one-sided tests."""

    word: str
    """`reproduced`, `differs` or `inconclusive`."""
    difference: float
    """Our mean minus the published number."""
    interval: tuple[float, float] | None
    """The 90 % interval of the difference, wider by the rounding of the published number."""
    why: str
    seeds_needed: int | None = None
    """Of an inconclusive one: seeds for `reproduced` in four of five cases, if nothing differs."""


def verdict(
    values: Sequence[float],
    published: PublishedValue,
    margin: float,
    *,
    noise: Noise | None = None,
    images: tuple[int, int] | None = None,
    seedless: bool = False,
) -> Verdict:
    """Compare one value per seed with a published number.

    The interval is Welch's where the published number has a known spread: our variance over n seeds
    and its variance over its own runs. Without one the number is taken as exact, which `why` says.
    Half a unit of its last digit is added at either end. `reproduced`: the interval lies within the
    margin on either side, so both one-sided tests reject a larger difference at 5 %. `differs`: it
    lies wholly beyond the margin. Else `inconclusive`; so is an end on the margin itself.

    Seeds that are all alike have no spread to test over. At an AUROC of 1 the counted `images`
    (normal, anomalous) bound what other images would give; else nothing does, and the verdict is
    inconclusive. `seedless` says that no seed touches the value: the difference itself lies within
    the margin or beyond, unless the values belie it.
    Raises ValueError without values, and for values that are not finite.
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError("a verdict takes at least one value, and finite ones only")
    n, mean, number = len(values), fmean(values), float(published.value)
    gap, rounding = mean - number, float(half_unit(published.value))
    alike = len({round(v, DIGITS) for v in values}) == 1
    if seedless and alike:
        ends = _ends(gap, _half_width(0.0, n, noise), rounding)
        why = f"no randomness, one run says all: a difference of {_reading(ends, margin, noise)}"
        return Verdict(_word(ends, margin), gap, ends, why)
    if n < LEAST_SEEDS:
        return Verdict(
            "inconclusive", gap, None, f"{n} seed{'s' * (n > 1)}; it takes {LEAST_SEEDS}"
        )
    if alike:
        return _of_images(mean, number, margin, rounding, images, n)
    ends = _ends(gap, _half_width(variance(values), n, noise), rounding)
    word, why = (
        _word(ends, margin),
        f"90 % interval of the difference {_reading(ends, margin, noise)}",
    )
    if word != "inconclusive":
        return Verdict(word, gap, ends, why)
    needed = seeds_needed(math.sqrt(variance(values)), margin - rounding, noise)
    return Verdict(word, gap, ends, f"{why}; {_advice(needed)}", needed)


def _welch(spread: float, n: Any, noise: Noise | None) -> tuple[Any, Any]:
    """Return standard error and degrees of freedom of a difference of means.

    `spread` is the variance of our n values, above zero if the other mean has no noise; `n` may be
    an array (Welch 1947).
    """
    own, other = spread / n, noise.variance if noise else 0.0
    squares = own**2 / (n - 1) if spread else 0.0
    squares += other**2 / (noise.runs - 1) if noise else 0.0
    return (own + other) ** 0.5, (own + other) ** 2 / squares


def _half_width(spread: float, n: int, noise: Noise | None) -> float:
    """Return half of the 90 % interval of a difference of means."""
    from scipy.special import stdtrit

    if not spread and not (noise and noise.variance):
        return 0.0
    error, freedom = _welch(spread, n, noise)
    return float(stdtrit(freedom, (1 + LEVEL) / 2) * error)


def _ends(gap: float, half: float, rounding: float) -> tuple[float, float]:
    return round(gap - half - rounding, DIGITS), round(gap + half + rounding, DIGITS)


def _word(ends: tuple[float, float], margin: float) -> str:
    low, high = ends
    if -margin < low and high < margin:
        return "reproduced"
    return "differs" if low > margin or high < -margin else "inconclusive"


def _reading(ends: tuple[float, float], margin: float, noise: Noise | None) -> str:
    """Write an interval, and what is known of the published number's own spread."""
    known = "the published number taken as exact"
    if noise is not None:
        known = f"the published number ± {noise.std:.3f} over {noise.runs} runs"
    return f"{ends[0]:+.3f} to {ends[1]:+.3f}, margin {margin:.3f}, {known}"


def _of_images(
    mean: float,
    number: float,
    margin: float,
    rounding: float,
    images: tuple[int, int] | None,
    n: int,
) -> Verdict:
    """Judge seeds that are all alike, which only images can do.

    An AUROC of 1 puts each of the min(normal, anomalous) disjoint pairs of images in order, so that
    an AUROC below 0.05 ** (1 / pairs) would show it in fewer than 5 % of cases.
    """
    pairs = min(images) if images else 0
    gap = mean - number
    if round(mean, DIGITS) < 1 or not pairs:
        return Verdict("inconclusive", gap, None, f"all {n} seeds alike: no spread to test over")
    low = 0.05 ** (1 / pairs)
    ends = _ends((low + 1) / 2 - number, (1 - low) / 2, rounding)
    why = (
        f"all {n} seeds at 1.000: by {pairs} pairs of test images AUROC is above {low:.3f}, a"
        f" difference of {ends[0]:+.3f} to {ends[1]:+.3f}, margin {margin:.3f}"
    )
    return Verdict(_word(ends, margin), gap, ends, why)


def seeds_needed(spread: float, margin: float, noise: Noise | None = None) -> int | None:
    """Return seeds for `reproduced` in four of five cases, if nothing differs.

    `spread` is the standard deviation over seeds. None where more than `MOST_SEEDS` are needed, or
    the published number's own spread forbids it at any number.
    """
    import numpy as np
    from scipy.special import stdtrit

    numbers = np.arange(LEAST_SEEDS, MOST_SEEDS + 1)
    errors, freedom = _welch(spread**2, numbers, noise)
    quantiles = stdtrit(freedom, (1 + LEVEL) / 2) + stdtrit(freedom, (1 + POWER) / 2)
    enough = numbers[quantiles * errors <= margin]
    return int(enough[0]) if len(enough) else None


def _advice(needed: int | None) -> str:
    if needed is None:
        return f"no number of seeds up to {MOST_SEEDS} would show it reproduced"
    return f"with this spread about {needed} seeds would show it reproduced, if it is"


def differing_settings(spec: RunSpec, stated: Mapping[str, Any], whose: str = "") -> list[str]:
    """Return settings that differ from stated ones; absent ones do not.

    A stated `{above: x}` is any larger value.
    """
    own = _settings(spec)
    if spec.external:
        own["external"] = spec.external.partition(":")[0]  # its source, not its content
    return [
        f"{key} {own[key]}, not {whose}{_named(value)}"
        for key, value in stated.items()
        if own.get(key) is not None and not _fits(own[key], value)
    ]


def _fits(value: Any, stated: Any) -> bool:
    return bool(value > stated["above"] if isinstance(stated, Mapping) else value == stated)


def _named(stated: Any) -> str:
    return f"above {stated['above']}" if isinstance(stated, Mapping) else str(stated)


def _settings(spec: RunSpec) -> dict[str, Any]:
    """Return settings and parameters by name."""
    return {**spec.parameters, **spec.as_dict()}


def departures(receipt: Receipt, table: PublishedTable) -> tuple[str, ...]:
    """Return a run's departures from the protocol of a published table.

    Every setting and parameter that the source states of its method, or of all, is compared; then
    those that we chose where it is silent. The number of steps counts, not how it is given: as many
    as the stated epochs over the normal images make are as stated.
    """
    spec = receipt.spec
    stated = table.stated(spec.method)
    chosen = {key: value for key, value in table.chosen.items() if key not in stated}
    departs = []
    for values, whose in ((stated, ""), (chosen, "the chosen ")):
        compared = {k: v for k, v in values.items() if k != "steps_per_epoch"}
        departs += differing_settings(spec, compared, whose)
    departs += _other_steps(receipt, {**chosen, **stated})
    if spec.backbone and spec.weights in (None, "none"):
        departs.append("no ImageNet weights")
    departs += [f"unofficial copy: {reason}" for reason in copy_reasons([receipt])]
    return tuple(departs)


def _other_steps(receipt: Receipt, protocol: Mapping[str, Any]) -> list[str]:
    """Return that a run of the stated epochs took another number of steps."""
    own = _settings(receipt.spec)
    counted = all(isinstance(own.get(k), int) for k in ("steps_per_epoch", "epochs", "batch_size"))
    if "steps_per_epoch" not in protocol or not counted or own["epochs"] != protocol["epochs"]:
        return []
    once = -(-(receipt.split.train_normal or 0) // max(1, own["batch_size"] // 2))
    usual = (protocol["steps_per_epoch"] or once) * protocol["epochs"]
    steps = receipt.facts.get("optimiser_steps")
    return [] if steps == usual else [f"{steps} steps, not {usual}"]
