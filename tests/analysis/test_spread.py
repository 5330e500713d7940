"""Where the spread comes from: estimates against known variances, and which runs count."""

from dataclasses import replace

import numpy as np
import pytest

from bench.analysis.configurations import StoredRuns
from bench.analysis.spread import (
    decompose,
    grids,
    image_variance,
    spread_of,
    spread_table,
    written_component,
)
from bench.store.results import receipts
from bench.store.scores import Scores
from tests.fixtures.runs import FAR, MIDDLE, SCORES, SPEC, bench, receipt_of, store_at

TRUE = {"draw": 0.04, "seed": 0.02, "rest": 0.03}
"""Standard deviations of simulated tables."""


def simulated(random, draws, seeds, count):
    """Yield tables (draws, seeds) of AUROC without a ceiling."""
    for _ in range(count):
        of_draw = random.normal(0, TRUE["draw"], (draws, 1))
        of_seed = random.normal(0, TRUE["seed"], (1, seeds))
        yield 0.8 + of_draw + of_seed + random.normal(0, TRUE["rest"], (draws, seeds))


def by_loop(table):
    """Return mean squares of draw, seed and rest, one term after the other."""
    draws, seeds = len(table), len(table[0])
    mean = sum(map(sum, table)) / (draws * seeds)
    rows = [sum(row) / seeds for row in table]
    columns = [sum(row[j] for row in table) / draws for j in range(seeds)]
    rest = sum(
        (table[i][j] - rows[i] - columns[j] + mean) ** 2 for i in range(draws) for j in range(seeds)
    )
    return (
        seeds * sum((r - mean) ** 2 for r in rows) / (draws - 1),
        draws * sum((c - mean) ** 2 for c in columns) / (seeds - 1),
        rest / ((draws - 1) * (seeds - 1)),
    )


@pytest.mark.parametrize(("draws", "seeds"), [(2, 2), (3, 3), (4, 3), (2, 6)])
def test_the_estimates_are_those_of_mean_squares(draws, seeds):
    (table,) = simulated(np.random.RandomState(0), draws, seeds, 1)
    of_draw, of_seed, of_rest = by_loop(table.tolist())
    spread = decompose(table)
    assert spread.mean == pytest.approx(table.mean())
    assert spread.rest.variance == pytest.approx(of_rest)
    assert spread.draw.variance == pytest.approx((of_draw - of_rest) / seeds)
    assert spread.seed.variance == pytest.approx((of_seed - of_rest) / draws)
    assert [c.df for c in (spread.draw, spread.seed, spread.rest)] == [
        draws - 1, seeds - 1, (draws - 1) * (seeds - 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("draws", "seeds"), [(3, 3), (5, 4)])
def test_simulated_variances_come_back_and_intervals_hold_them(draws, seeds):
    count = 600
    spreads = [decompose(t) for t in simulated(np.random.RandomState(1), draws, seeds, count)]
    for name, deviation in TRUE.items():
        components = [getattr(s, name) for s in spreads]
        estimates = [c.variance for c in components]
        error = np.std(estimates) / count**0.5
        assert np.mean(estimates) == pytest.approx(deviation**2, abs=4 * error), "unbiased"
        held = np.mean([c.interval[0] <= deviation**2 <= c.interval[1] for c in components])
        assert 0.925 <= held <= 0.985, name


def test_three_by_three_says_how_little_it_says():
    widths = [
        c.interval[1] ** 0.5 / TRUE["draw"]
        for c in (decompose(t).draw for t in simulated(np.random.RandomState(2), 3, 3, 200))
    ]
    assert np.median(widths) > 3, "the upper end is far above the truth"


def test_what_no_seed_changes_is_all_of_the_draw():
    spread = decompose(np.array([[0.7] * 3, [0.8] * 3, [0.9] * 3]))
    assert spread.draw.variance == pytest.approx(0.01)
    assert spread.draw.interval[0] > 0
    assert max(*spread.seed.interval, *spread.rest.interval) < 1e-12
    assert written_component(spread.seed) == "0.000 (0.000 to 0.000, 2 df)"
    assert written_component(spread.draw).startswith("0.100 (0.052 to 0.628")


@pytest.mark.parametrize("values", [[[1.0, 2.0]], [[1.0], [2.0]], [1.0, 2.0], [[1, np.nan]] * 2])
def test_too_few_or_no_numbers_are_refused(values):
    with pytest.raises(ValueError, match="two draws and two seeds"):
        decompose(values)


def test_the_variance_of_images_is_that_of_delong():
    random = np.random.RandomState(3)
    label = np.arange(90) % 3 > 0
    score = random.normal(label * 1.2).astype(np.float32)
    names = tuple(map(str, range(90)))
    scores = Scores(names, label, names, ("test",) * 90, score)
    wins = score[label][:, None] > score[~label]
    delong = wins.mean(1).var(ddof=1) / 60 + wins.mean(0).var(ddof=1) / 30
    assert image_variance(scores) == pytest.approx(delong, rel=0.15)
    fewer = replace(scores, role=("drawn", "test") * 45)
    assert image_variance(fewer) > 1.4 * image_variance(scores), "of the images that count"


# Which runs count


def crossed(draws, seeds, spec=SPEC):
    return [replace(spec, seed=s, draw_seed=d) for d in draws for s in seeds]


def at(spec):
    return spec.seeds.draw_seed, spec.seed


def stored_of(specs):
    return StoredRuns(None, tuple(map(receipt_of, specs)))


def test_plain_runs_alone_are_no_table():
    plain = [replace(SPEC, seed=s) for s in range(5)]
    assert grids(stored_of(plain)) == {}
    assert grids(stored_of([*plain, replace(SPEC, seed=1, draw_seed=0)])) == {}


def test_plain_runs_are_the_diagonal_and_those_beyond_it_stay_out():
    specs = [*crossed(range(3), range(3)), *(replace(SPEC, seed=s) for s in (3, 4))]
    other = crossed((0, 1), (0, 1), replace(SPEC, image_size=32))
    tables = grids(stored_of([*specs, *other]))
    assert {key.image_size: len(grid) for key, grid in tables.items()} == {64: 9, 32: 4}
    grid = tables[SPEC]
    assert all(at(receipt.spec) == place for place, receipt in grid.items())


def test_a_table_that_is_under_way_has_the_seeds_of_all_its_draws():
    specs = [s for s in crossed(range(3), range(3)) if at(s) != (2, 1)]
    (grid,) = grids(stored_of(specs)).values()
    assert {*grid} == {(d, s) for d in range(3) for s in (0, 2)}


def test_auroc_stands_by_draw_and_seed():
    of = {0: SCORES, 1: MIDDLE, 2: FAR}
    grid = {at(s): receipt_of(s, of[at(s)[0]]) for s in crossed(range(3), range(2))}
    spread = spread_of(grid)
    assert spread.draw.variance == pytest.approx(np.var([0.75, 0.5, 0.0], ddof=1))
    assert (spread.draw.df, spread.seed.df) == (2, 1)


# What is shown


@pytest.fixture
def results(tmp_path):
    return store_at(tmp_path / "crossed", *crossed(range(3), range(3)))


def test_a_row_names_the_configuration_and_what_it_rests_on(results):
    stored = StoredRuns(results, tuple(receipts(results)))
    (row,) = spread_table(stored).rows
    assert row[:5] == ("head_ct", "10", "shortcut†", "3 × 3", "0.750"), "of older code"
    assert row[5] == "0.000 (0.000 to 0.000, 2 df)"
    assert float(row[-1]) > 0.1, "four images"


def test_the_command_prints_it_or_says_what_to_run(results, tmp_path, capsys):
    code, out, _ = bench(capsys, "table", "--results", results.root, "--spread")
    assert code == 0
    assert "| head\\_ct | 10 | shortcut† | 3 × 3 |" in out
    assert "says little but the largest value" in out
    plain = store_at(tmp_path / "plain", SPEC)
    code, _, err = bench(capsys, "table", "--results", plain.root, "--spread")
    assert (code, "bench run --suite spread" in err) == (2, True), err
    both = ("--spread", "--against", "shortcut")
    code, _, err = bench(capsys, "table", "--results", results.root, *both)
    assert (code, "leave --against out" in err) == (2, True), err
    code, _, err = bench(
        capsys, "table", "--results", results.root, "--spread", "--where", "image_size=9"
    )
    assert (code, "no stored run fits" in err) == (2, True), err
