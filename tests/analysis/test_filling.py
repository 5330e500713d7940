"""Our runs in the published tables: Table 2's times and unsupervised columns."""

from dataclasses import replace

import pytest

from bench.analysis.filling import fill_table
from bench.published.tables import published_tables
from tests.fixtures.runs import SCORES
from tests.fixtures.times import (
    ATACNET,
    GPU,
    MEMSEG,
    PADIM,
    PATCHCORE,
    SPADE,
    files_of_times,
    page_of_times,
    rounds,
    scored,
    stored,
    table_2_cells,
    timed,
)

WIDE = {"backbone": "wide_resnet50_2", "weights": "b" * 64}


def row_of_times(*receipts):
    """Return Table 2's row of times and its cells by method."""
    table = fill_table("atacnet_table2", stored(*receipts))
    cells = zip(table.columns, table.times.cells, strict=True)
    return table.times, {column.method: cell for column, cell in cells}


# Clocks


def test_the_row_is_of_the_machine_with_the_most_methods_and_says_which():
    slow = [timed(spec, 0.2) for spec in (ATACNET, PADIM)]
    fast = [timed(spec, 0.01, seed=9, on=GPU) for spec in (ATACNET, PADIM, SPADE)]
    found, cells = row_of_times(*slow, *fast)
    assert str(found.clock) == "Fast GPU (Host 9, 8 threads), float32, mvtec_ad/bottle"
    assert cells["padim"].ours.span("latency").middle == 0.01
    assert cells["patchcore"].ours is None
    assert {m: int(c.published.value) for m, c in cells.items() if c.published} == {
        "patchsvdd": 480, "spade": 339, "padim": 319, "patchcore": 225, "memseg": 32, "atacnet": 29,
    }  # fmt: skip
    page = page_of_times(*slow, *fast)
    assert "ours on Fast GPU (Host 9, 8 threads), float32, mvtec_ad/bottle" in page
    assert "<summary>Slow 1000 (1 thread), float32, mvtec_ad/bottle</summary>" in page
    assert "MemSeg&#39;s 32 ms is that method&#39;s published 31.3 frames a second" in page


def test_of_equal_machines_the_row_is_of_that_with_atacnet():
    unsupervised = [timed(PADIM, 0.1), timed(SPADE, 0.1), timed(SPADE, 0.1, seed=1)]
    found, cells = row_of_times(
        *unsupervised, *(timed(s, 0.1, seed=9, on=GPU) for s in (ATACNET, PADIM))
    )
    assert found.clock.machine.device == "Fast GPU"
    assert cells["atacnet"].ours


def test_times_of_two_machines_are_never_set_against_each_other():
    found, _ = row_of_times(
        timed(ATACNET, 0.2), timed(PADIM, 0.01, on=GPU), timed(PADIM, 0.01, seed=1)
    )
    assert "times as long" not in found.comparison
    page = page_of_times(timed(ATACNET, 0.2), timed(PADIM, 0.01, on=GPU))
    assert "times as long" not in page


def test_the_timed_way_nearest_the_stated_network_stands_in_the_row():
    wide = replace(PADIM, **WIDE)
    _, cells = row_of_times(*rounds(wide, 0.5, 0.5), timed(PADIM, 0.1))
    assert cells["padim"].ours.span("latency").middle == 0.1
    assert cells["padim"].departures == ()
    _, cells = row_of_times(*rounds(wide, 0.5, 0.5))
    assert cells["padim"].departures == ("backbone wide_resnet50_2, not resnet50",)
    short = replace(ATACNET, parameters={**ATACNET.parameters, "epochs": 1, "steps_per_epoch": 3})
    assert row_of_times(timed(short, 0.1))[1]["atacnet"].departures == ()


# Ratios


def test_the_order_is_told_by_ratios_paired_by_round():
    """Both methods slow down together: 4 to 1 in every round, whatever the round."""
    ours, theirs = rounds(ATACNET, 0.4, 0.8, 4.0), rounds(PADIM, 0.1, 0.2, 1.0)
    found, _ = row_of_times(*ours, *theirs)
    assert found.comparison == (
        "By the published times ATAC-Net is the fastest. ATAC-Net takes 4.00 (4.00 to"
        " 4.00) times as long as PaDiM. So it is not the fastest of them: PaDiM takes less."
        " Not timed there: Patch-SVDD, SPADE, PatchCore and MemSeg."
    )


def test_one_round_gives_a_ratio_and_no_order():
    found, _ = row_of_times(timed(ATACNET, 0.2), timed(PADIM, 0.1))
    assert "takes 2.00 (one round) times as long as PaDiM" in found.comparison
    assert "One round does not tell which of them is the fastest." in found.comparison


def test_rounds_that_are_not_shared_make_no_ratio():
    found, _ = row_of_times(timed(ATACNET, 0.2), timed(PADIM, 0.1, seed=1))
    assert "No other method was timed in the same rounds." in found.comparison
    calm = rounds(ATACNET, 0.2, 0.2)
    busy = [timed(PADIM, 9.0, disturbed="x"), timed(PADIM, 0.1, seed=1)]
    assert "takes 2.00 (one round) times" in row_of_times(*calm, *busy)[0].comparison


def test_without_times_the_row_says_so():
    found, cells = row_of_times(scored(PADIM, 0.9))
    assert (found.clock, found.comparison) == (None, "")
    assert not any(cell.ours for cell in cells.values())
    page = page_of_times(scored(PADIM, 0.9))
    assert "None was measured in these results." in page
    assert 'id="time"' not in page
    assert not [f for f in files_of_times(scored(PADIM, 0.9)) if f.startswith("time")]


# Table 2's unsupervised columns


@pytest.mark.parametrize(
    ("gap", "word"), [(0.004, "reproduced"), (-0.009, "reproduced"), (0.02, "differs"),
                      (-0.3, "differs"), (0.01, "inconclusive")],
)  # fmt: skip
def test_of_a_method_without_randomness_one_run_says_all(gap, word):
    published = 0.972  # SPADE on bottle
    found = table_2_cells(scored(SPADE, 0.5, auroc_full=published + gap, seedless=True))["spade"]
    assert found.word == word
    assert found.verdict.interval == pytest.approx((gap - 0.0005, gap + 0.0005))
    assert found.verdict.why.startswith(
        f"no randomness, one run says all: a difference of {gap - 0.0005:+.3f} to"
    )


def test_randomness_is_assumed_where_a_run_does_not_deny_it():
    assert table_2_cells(scored(SPADE, 0.5, auroc_full=0.972))["spade"].word == "inconclusive"
    mixed = [scored(SPADE, 0.5, auroc_full=0.972, seedless=True),
             scored(SPADE, 0.5, auroc_full=0.972, seed=1)]  # fmt: skip
    assert table_2_cells(*mixed)["spade"].word == "inconclusive"
    belied = [scored(SPADE, 0.5, auroc_full=0.97 + 0.002 * i, seed=i, seedless=True)
              for i in range(2)]  # fmt: skip
    assert table_2_cells(*belied)["spade"].word == "inconclusive"


def test_a_draw_is_randomness_too():
    """ATAC-Net's test set depends on the draw, whatever the method says of itself."""
    found = table_2_cells(*(scored(ATACNET, 1.0, seed=i, seedless=True) for i in range(2)))
    assert found["atacnet"].word == "inconclusive"


def test_a_printed_mean_of_a_method_without_randomness_is_judged_by_one_seed():
    categories = [k.category for k in published_tables()["atacnet_table2"].rows("spade", 0)]
    for says, word in (({"seedless": True}, "reproduced"), ({}, "inconclusive")):
        runs = [scored(replace(SPADE, category=c), 0.8, auroc_full=0.86, **says)
                for c in categories]  # fmt: skip
        table = fill_table("atacnet_table2", stored(*runs))
        mean = table.blocks[0].means[-1].cells[1]
        assert (mean.word, mean.ours, mean.same_test) == (word, pytest.approx(0.86), 0.8)


def test_average_precision_is_over_the_images_of_the_auroc():
    there = stored(scored(PADIM, 0.9))
    (cell,) = [c for c in fill_table("atacnet_table2", there).cells() if c.ours]
    (line,) = there.lines(cell.ours)
    assert line.ap == SCORES.metrics(full=True)["ap_full"]
    assert line.ap != SCORES.metrics(full=True)["ap"]


def test_the_way_nearest_the_stated_network_is_shown_first():
    ways = [replace(SPADE, **WIDE), replace(SPADE, **WIDE, parameters={"k": 50})]
    found = table_2_cells(*(scored(w, 0.9) for w in ways), scored(SPADE, 0.8, auroc_full=0.8))[
        "spade"
    ]
    assert found.ours.row.backbone == "resnet50"
    assert found.ours.departures == ()
    assert [w.departures for w in found.others] == [("backbone wide_resnet50_2, not resnet50",)] * 2


def test_what_is_left_open_of_a_method_is_no_departure_and_less_training_is_one():
    short = {"epochs": 9, "steps_per_epoch": 2}
    bent = [
        replace(MEMSEG, stage=3, batch_size=2, external="textures:4f", parameters=short),
        replace(PATCHCORE, stage=2, parameters={"coreset": 0.01, "embedding": "joined"}),
    ]
    found = table_2_cells(*(scored(spec, 0.9) for spec in bent))
    assert found["patchcore"].ours.departures == ()
    assert found["memseg"].ours.departures == (
        "stage 3, not 4", "batch_size 2, not 8", "epochs 9, not 50", "external textures, not dtd",
    )  # fmt: skip
    larger = replace(PADIM, image_size=256, backbone="resnet18")
    assert table_2_cells(scored(larger, 0.9))["padim"].ours.departures == (
        "image_size 256, not 224", "backbone resnet18, not resnet50")  # fmt: skip
