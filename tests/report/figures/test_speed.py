"""The figure of speed beside AUROC."""

import re
from dataclasses import replace

import pytest

from bench.analysis.filling import fill_table
from bench.analysis.timings import Span, same_but_length
from bench.report.figures import speed
from bench.report.figures.speed import common, mean_time, ticks
from tests.fixtures.figures import checked
from tests.fixtures.times import (
    ATACNET,
    GPU,
    MEMSEG,
    PADIM,
    PATCHCORE,
    SPADE,
    page_of_times,
    rounds,
    scored,
    stored,
    table_of_times,
    timed,
    whole_table_2,
)


def both(*methods_with_places):
    return {method: dict.fromkeys(places) for method, places in methods_with_places}


def test_the_places_are_those_that_all_shown_methods_have():
    pill, bottle, head = ("mvtec_ad", "pill"), ("mvtec_ad", "bottle"), ("head_ct", "head_ct")
    found = both(("a", [pill, bottle]), ("b", [bottle, pill, head]), ("c", [head]))
    assert common(found) == (["a", "b"], [bottle, pill])
    assert common({}) == ([], [])


def test_the_figure_sets_the_auroc_of_full_runs_beside_the_time():
    short = {"epochs": 1, "steps_per_epoch": 3}
    hurried = replace(ATACNET, parameters={**ATACNET.parameters, **short})
    runs = [scored(ATACNET, v, seed=i) for i, v in enumerate((0.97, 0.98, 0.99))]
    there = [*runs, scored(PADIM, 0.9, auroc_full=0.95), *rounds(hurried, 0.15, 0.15),
             *rounds(PADIM, 0.10, 0.10), *rounds(MEMSEG, 0.2)]  # fmt: skip
    (drawing,) = [plan() for plan in speed.plans(stored(*there))]
    assert drawing.note == (
        "On mvtec_ad/bottle. Timed on this machine, but without such runs there: MemSeg."
    )
    assert drawing.numbers[0].rows == (
        ("ATAC-Net", "0.980 (0.955 to 1.000, 3 seeds)", "150 (150 to 150)", "2"),
        ("PaDiM", "0.900 (one seed)", "100 (100 to 100)", "2"),
    )
    assert "PaDiM: AUROC 0.900 (one seed) at 100 (100 to 100) ms, 2 rounds" in drawing.alt
    assert "Slow 1000 (1 thread), float32" in drawing.title
    assert "ATAC-Net" in checked(drawing.svg)
    assert 'id="figure-time-slow-1000' in page_of_times(*there)


def test_another_variant_or_place_gives_no_point():
    other = replace(ATACNET, parameters={**ATACNET.parameters, "view": "raw"})
    elsewhere = replace(PADIM, category="pill")
    there = [scored(other, 0.9), scored(elsewhere, 0.9), timed(ATACNET, 0.1), timed(PADIM, 0.1)]
    assert not speed.plans(stored(*there))
    assert same_but_length(other) != same_but_length(ATACNET)


def test_another_precision_is_taken_where_the_same_is_not_there_and_said():
    half = replace(ATACNET, precision="bfloat16")
    common_runs = [scored(PADIM, 0.9), timed(ATACNET, 0.1), timed(PADIM, 0.1)]
    (drawing,) = [p() for p in speed.plans(stored(*common_runs, scored(half, 0.8)))]
    assert "ATAC-Net: AUROC 0.800 (one seed) in bfloat16 at 100" in drawing.alt
    two = stored(*common_runs, scored(half, 0.8), scored(ATACNET, 0.9))
    (drawing,) = [p() for p in speed.plans(two)]
    assert "ATAC-Net: AUROC 0.900 (one seed) at 100" in drawing.alt


def test_times_and_aurocs_are_means_over_the_places_round_by_round():
    pill = replace(PADIM, category="pill")
    there = [
        table_of_times(*rounds(PADIM, 0.1, 0.2)).timed[0],
        table_of_times(*rounds(pill, 0.3, 0.2)).timed[0],
    ]
    assert mean_time(there) == Span(pytest.approx(0.2), pytest.approx((0.2, 0.2)), 2)
    assert mean_time(there[:1]) == there[0].span("latency")
    alone = table_of_times(timed(pill, 0.4, seed=7)).timed[0]
    assert mean_time([there[0], alone]) == Span(pytest.approx(0.275), None, 0)
    runs = [scored(replace(s, category=c), v)
            for s in (ATACNET, PADIM) for c, v in (("bottle", 0.9), ("pill", 0.7))]  # fmt: skip
    times = [timed(replace(s, category=c), 0.1)
             for s in (ATACNET, PADIM) for c in ("bottle", "pill")]  # fmt: skip
    (drawing,) = [p() for p in speed.plans(stored(*runs, *times))]
    assert drawing.note.startswith("On mvtec_ad/bottle and mvtec_ad/pill.")
    assert drawing.numbers[0].rows[0][:2] == ("ATAC-Net", "0.800 (one seed)")


def test_a_method_has_one_look_on_all_machines():
    both_machines = [scored(spec, 0.9) for spec in (PATCHCORE, PADIM, SPADE, MEMSEG)]
    both_machines += [timed(spec, 0.1) for spec in (PATCHCORE, PADIM, SPADE, MEMSEG)]
    both_machines += [timed(spec, 0.1, on=GPU, seed=9) for spec in (PADIM, SPADE)]
    drawn = [plan().svg for plan in speed.plans(stored(*both_machines))]
    assert drawn == [plan().svg for plan in speed.plans(stored(*both_machines))]
    first, second = (set(re.findall(r'fill="(#[0-9a-f]{6})"', svg)) for svg in drawn)
    assert len(first) == len(second) + 2
    assert second < first


@pytest.mark.parametrize(("low", "high"), [(4, 30), (0.5, 3), (2, 900), (0.01, 9e5), (90, 110)])
def test_an_axis_has_a_few_round_numbers(low, high):
    found = ticks(low, high)
    assert found == sorted(found)
    assert 1 <= len(found) <= 9
    assert all(low <= t <= high for t in found)


def test_the_whole_of_table_2_can_be_filled():
    found = stored(*whole_table_2().receipts)
    table = fill_table("atacnet_table2", found)
    assert table.counts["not run"] == 0
    assert all(cell.ours for cell in table.times.cells if cell.published)
    assert all(mean.word for means in table.blocks[0].means for mean in means.cells[:6])
    assert len(speed.plans(found)) == 2
