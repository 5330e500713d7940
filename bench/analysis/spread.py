"""Where the spread of AUROC comes from: draw, initialisation, test images.

Runs of every seed on every draw are a two-way table without repetitions, since equal runs give
equal scores. Its model is that of crossed random effects, AUROC = mean + draw + seed + rest; the
variances follow from mean squares (Searle, Casella, McCulloch 1992, chapter 4).
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.analysis.configurations import StoredRuns, is_stale
from bench.analysis.labels import hardware, name_of
from bench.analysis.sections import TableSection
from bench.analysis.selection import ranked
from bench.spec import RunSpec
from bench.store.receipt import Receipt
from bench.store.scores import Scores

REPEATS = 2000
LEVEL = 0.95
Grid = Mapping[tuple[int, int], Receipt]
"""Runs by the seeds of their draw and of all else; complete."""
TITLE = "Where the spread comes from"
READING = (
    "Standard deviations of one run’s AUROC by source, from runs of every seed on every draw:"
    " two-way crossed random effects, estimated by mean squares. The draw decides which anomalies"
    " train and which ten leave the test; the seed gives initialisation, batches and augmentation;"
    " the rest is their interaction. In brackets about 95 % by Williams and Tukey, of the rest by"
    " chi-squared, with the degrees of freedom. Three draws and three seeds are few: an interval"
    " that spans a factor of ten says little but the largest value that the data allow, and sources"
    " whose intervals overlap cannot be ranked. Test images: bootstrap of the images of one run,"
    " mean over runs. A zero stands where the estimate is not positive; † older code of the method."
)


@dataclass(frozen=True)
class Component:
    """A variance with its degrees of freedom and interval."""

    variance: float
    """Of mean squares, which may be negative."""
    df: int
    interval: tuple[float, float]
    """About 95 %, of the variance; 0 or more."""


@dataclass(frozen=True)
class Spread:
    """The sources of spread of one configuration."""

    mean: float
    draw: Component
    seed: Component
    rest: Component


def decompose(values: ArrayLike) -> Spread:
    """Estimate the variances of a table (draws, seeds) of AUROC.

    Raises ValueError for fewer than two draws or seeds, or values that are not finite.
    """
    table = np.asarray(values, float)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError("a spread takes two draws and two seeds or more, of finite values")
    draws, seeds = table.shape
    mean = table.mean()
    of_draw, of_seed = table.mean(1) - mean, table.mean(0) - mean
    left = table - mean - of_draw[:, None] - of_seed
    df = (draws - 1) * (seeds - 1)
    error = float((left**2).sum()) / df
    return Spread(
        float(mean),
        _effect(seeds * float((of_draw**2).sum()), draws - 1, seeds, error, df),
        _effect(draws * float((of_seed**2).sum()), seeds - 1, draws, error, df),
        _residual(error, df),
    )


def _effect(squares: float, df: int, each: int, error: float, error_df: int) -> Component:
    """Return an effect's variance from its sum of squares over `each` runs a level.

    The interval is that of Williams (1962) and Tukey (1951): 90 % at least, about 95 %.
    """
    from scipy.stats import chi2, f

    low, high = (
        (squares - df * f.ppf(q, df, error_df) * error) / (each * chi2.ppf(q, df))
        for q in ((1 + LEVEL) / 2, (1 - LEVEL) / 2)
    )
    interval = (max(0.0, float(low)), max(0.0, float(high)))
    return Component((squares / df - error) / each, df, interval)


def _residual(error: float, df: int) -> Component:
    from scipy.stats import chi2

    low, high = (df * error / float(chi2.ppf(q, df)) for q in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    return Component(error, df, (low, high))


def image_variance(scores: Scores, repeats: int = REPEATS) -> float:
    """Return the variance of AUROC over test images, by bootstrap per class."""
    counted = scores.counted()
    score, label = scores.score[counted], scores.label[counted]
    anomalous, normal = score[label][:, None], score[~label]
    wins: NDArray[np.float64] = (anomalous > normal) + 0.5 * (anomalous == normal)
    rng = np.random.default_rng(0)
    weights = [rng.multinomial(n, [1 / n] * n, repeats).astype(float) for n in wins.shape]
    drawn = ((weights[0] @ wins) * weights[1]).sum(1) / wins.size
    return float(drawn.var(ddof=1))


def grids(stored: StoredRuns) -> dict[RunSpec, Grid]:
    """Return complete tables of runs by configuration, two draws and two seeds at least.

    Of a configuration the draws count that another seed than their own has run on, and the seeds
    that have run on all of these.
    """
    runs: dict[RunSpec, dict[tuple[int, int], Receipt]] = defaultdict(dict)
    for receipt in stored.accuracy:
        spec = receipt.spec
        key = replace(spec, seed=0, draw_seed=None)
        runs[key][spec.seeds.draw_seed, spec.seed] = receipt
    complete: dict[RunSpec, Grid] = {}
    for key, cells in runs.items():
        draws = sorted({d for d, s in cells if d != s})
        seeds = [s for s in sorted({s for _, s in cells}) if all((d, s) in cells for d in draws)]
        if min(len(draws), len(seeds)) > 1:
            complete[key] = {(d, s): cells[d, s] for d in draws for s in seeds}
    return complete


def spread_of(grid: Grid) -> Spread:
    """Decompose the AUROC of a complete table of runs."""
    draws, seeds = ({at[i]: None for at in grid} for i in (0, 1))
    return decompose([[grid[d, s].metrics.auroc for s in seeds] for d in draws])


def spread_table(stored: StoredRuns) -> TableSection | None:
    """Return the spread of all crossed runs; None without any.

    Raises CorruptRun for damaged scores.
    """
    complete = grids(stored)
    order = {place: i for i, place in enumerate(ranked(map(stored.place, complete)))}
    specs = sorted(complete, key=lambda s: (order[stored.place(s)], s.shots, stored.label(s)))
    rows = tuple(_row(spec, complete[spec], stored) for spec in specs)
    columns = ("data", "shots", "configuration", "draws × seeds", "mean AUROC", "draw",
               "initialisation", "rest", "test images")  # fmt: skip
    return TableSection("spread", TITLE, READING, columns, rows) if rows else None


def _row(spec: RunSpec, grid: Grid, stored: StoredRuns) -> tuple[str, ...]:
    spread = spread_of(grid)
    draws, seeds = spread.draw.df + 1, spread.seed.df + 1
    images = float(np.mean([image_variance(stored.scores(r)) for r in grid.values()]))
    machines = {hardware(r) for r in grid.values()}
    remark = "†" * any(map(is_stale, grid.values()))
    remark += f" ({len(machines)} machines, in the rest)" * (len(machines) > 1)
    return (
        name_of(stored.place(spec)),
        str(spec.shots),
        stored.label(spec) + remark,
        f"{draws} × {seeds}",
        f"{spread.mean:.3f}",
        *(written_component(c) for c in (spread.draw, spread.seed, spread.rest)),
        f"{images**0.5:.3f}",
    )


def written_component(component: Component) -> str:
    """Write a standard deviation with interval and degrees of freedom."""
    low, high = (end**0.5 for end in component.interval)
    middle = max(0.0, component.variance) ** 0.5
    return f"{middle:.3f} ({low:.3f} to {high:.3f}, {component.df} df)"
