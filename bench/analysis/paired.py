"""Paired differences of AUROC: over seeds, and over seeds and images."""

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.analysis.statistics import Estimate, holm, paired_p, shared_difference
from bench.store.receipt import Receipt
from bench.store.scores import Scores
from bench.store.tuning import tuning_seeds
from bench.text import counted, joined, p_words

AUROC = "auroc"
REPEATS = 2000
LEVEL = 0.95
Pair = TypeVar("Pair", bound=Hashable)
Runs = Mapping[int, Receipt]
"""Runs of one configuration by seed."""


def recorded_number(receipt: Receipt, name: str) -> float | None:
    """Return a metric of a run, or a number that its method recorded; None without it."""
    number = receipt.metrics.number(name)
    return receipt.facts.number(name) if number is None else number


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, with what says how sure it is."""

    over_seeds: Estimate
    """With a 95 % t-interval: other draws and starts, the same test images."""
    with_images: tuple[float, float] | None
    """95 %, seeds and test images resampled; None where a pair has other images."""
    p: float
    """Of a two-sided paired t-test over seeds, Holm-adjusted over its family."""
    without_tuning: Estimate | None = None
    """Over the seeds that chose no setting; None where none of the seeds did."""
    tuned_by: tuple[int, ...] = ()
    """The seeds whose results chose a setting of these runs."""


def difference(
    first: Runs,
    second: Runs,
    scores: Callable[[Receipt], Scores],
    tuned_by: Collection[int] = (),
) -> Difference | None:
    """Compare runs of the same seeds, on the images that count; None without a shared seed."""
    gap = seed_difference(first, second, tuned_by)
    return gap and replace(gap, with_images=images_interval(first, second, scores))


def seed_difference(
    first: Runs, second: Runs, tuned_by: Collection[int] = (), value: str = AUROC
) -> Difference | None:
    """Compare runs of the same seeds, over seeds alone; None without a shared seed.

    `tuned_by` are seeds that chose a setting, beside those that the runs name themselves. `value`
    is a number of the receipts, as `recorded_number` takes it.
    """
    values = [
        {s: v for s, r in runs.items() if (v := recorded_number(r, value)) is not None}
        for runs in (first, second)
    ]
    estimate = shared_difference(*values)
    if estimate is None:
        return None
    shared = first.keys() & second.keys()
    receipts = [*first.values(), *second.values()]
    chose = shared & {*tuned_by}.union(*map(tuning_seeds, receipts))
    rest = [{s: v for s, v in column.items() if s not in chose} for column in values]
    without = shared_difference(*rest) if chose else None
    return Difference(estimate, None, paired_p(*values), without, tuple(sorted(chose)))


def images_interval(
    first: Runs, second: Runs, scores: Callable[[Receipt], Scores]
) -> tuple[float, float] | None:
    """Return the crossed interval of runs of the same seeds."""
    shared = sorted(first.keys() & second.keys())
    return crossed_interval([(scores(first[seed]), scores(second[seed])) for seed in shared])


def family(differences: Mapping[Pair, Difference]) -> dict[Pair, Difference]:
    """Adjust the p values of differences that are looked at together.

    One of a single seed has no p, and no part in the family.
    """
    tested = {key: d.p for key, d in differences.items() if d.over_seeds.n > 1}
    adjusted = holm(tested)
    return {key: replace(d, p=adjusted.get(key, 1.0)) for key, d in differences.items()}


def written_family(differences: Iterable[Difference]) -> str:
    """Say of how many differences the p values are."""
    tested = sum(d.over_seeds.n > 1 for d in differences)
    return f"p of {counted(tested, 'difference')} together (Holm)"


def crossed_interval(
    pairs: Sequence[tuple[Scores, Scores]], repeats: int = REPEATS
) -> tuple[float, float] | None:
    """Return an interval of the mean difference, by seeds and images resampled together.

    A crossed bootstrap (Owen 2007): seeds, and normal and anomalous images by file, are drawn with
    replacement independently; an image has the same weight in every seed that tests it. What
    belongs to one seed and one image counts twice, so the interval is somewhat wide. None for one
    seed, and where the two of a pair were tested on different images.
    """
    if len(pairs) < 2 or not all(_same_images(*pair) for pair in pairs):
        return None
    tested = [first.counted() for first, _ in pairs]
    names = [np.array(p[0].file)[mask] for p, mask in zip(pairs, tested, strict=True)]
    labels = [p[0].label[mask] for p, mask in zip(pairs, tested, strict=True)]
    rng = np.random.default_rng(0)
    weight = {
        anomalous: _image_weights(
            sorted({n for ns, ls in zip(names, labels, strict=True) for n in ns[ls == anomalous]}),
            repeats,
            rng,
        )
        for anomalous in (False, True)
    }
    seeds = rng.multinomial(len(pairs), [1 / len(pairs)] * len(pairs), repeats)
    total = np.zeros(repeats)
    for i, ((first, second), mask) in enumerate(zip(pairs, tested, strict=True)):
        wins = _wins(first.score[mask], labels[i]) - _wins(second.score[mask], labels[i])
        of_normal = weight[False](names[i][~labels[i]])
        of_anomalous = weight[True](names[i][labels[i]])
        mass = of_anomalous.sum(1) * of_normal.sum(1)
        gain = ((of_anomalous @ wins) * of_normal).sum(1) / np.maximum(mass, 1)
        total += seeds[:, i] * gain
    low, high = np.quantile(total / len(pairs), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _same_images(first: Scores, second: Scores) -> bool:
    same = tuple(first.file) == tuple(second.file) and tuple(first.role) == tuple(second.role)
    return same and bool((first.label == second.label).all())


def _image_weights(
    files: Sequence[str], repeats: int, rng: np.random.Generator
) -> Callable[[Iterable[str]], NDArray[np.float64]]:
    """Resample files; return what gives the weights (repeats, N) of N of them."""
    position = {file: i for i, file in enumerate(files)}
    weights = rng.multinomial(len(files), [1 / len(files)] * len(files), repeats).astype(float)
    return lambda chosen: weights[:, [position[file] for file in chosen]]


def _wins(score: NDArray[np.float32], label: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return which anomalous image is above which normal one, (A, N); half for a tie."""
    anomalous, normal = score[label][:, None], score[~label]
    wins: NDArray[np.float64] = (anomalous > normal) + 0.5 * (anomalous == normal)
    return wins


def written_difference(gap: Difference) -> str:
    """Write a difference with its intervals, p and seeds."""
    estimate = gap.over_seeds
    seeds = f"{estimate.n} seed" + "s" * (estimate.n != 1)
    if estimate.interval is None:
        return f"{estimate.mean:+.3f}, {seeds}"
    low, high = estimate.interval
    spans = [f"[{low:+.3f}, {high:+.3f}]" if low < high else "alike in all"]
    if gap.with_images is not None:
        spans.append("with images [{:+.3f}, {:+.3f}]".format(*gap.with_images))
    p = p_words(gap.p) if gap.p < 0.001 or low < high else "no spread to test"
    return f"{estimate.mean:+.3f} {', '.join(spans)}, {p}, {seeds}{_written_rest(gap)}"


def _written_rest(gap: Difference) -> str:
    """Write the difference without the seeds that chose a setting."""
    if not gap.tuned_by:
        return ""
    seeds = f"seed{'s' * (len(gap.tuned_by) > 1)} {joined(map(str, gap.tuned_by))}"
    rest = gap.without_tuning
    if rest is None:
        return f"; all of them chose a setting ({seeds})"
    low, high = rest.interval or (math.nan, math.nan)
    span = "" if rest.interval is None else f" [{low:+.3f}, {high:+.3f}]"
    return f"; without {seeds}, which chose a setting: {rest.mean:+.3f}{span}"
