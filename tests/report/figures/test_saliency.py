"""The cases and maps that the figures of saliency show."""

from dataclasses import replace

import numpy as np

from bench.report.figures.saliency import Views, crop_cases, hot, zoom_cases
from tests.fixtures.runs import SPEC


def seen(**changes):
    """Six images; the anomalous ones, 2 to 5, change by +4, +1, -1 and 0 in the zoomed view."""
    raw = np.array([1, 1, 1, 1, 3, 2], np.float32)
    zoomed = np.array([1.5, 0.5, 5, 2, 2, 2], np.float32)
    maps = {n: np.zeros((6, 2, 2), np.float32) for n in ("score", "attention", "grad_cam")}
    given = Views(
        spec=SPEC, where="Head-CT", file=tuple("abcdef"), label=np.arange(6) > 1,
        defect=tuple("ggcccc"),
        score=(raw + zoomed) / 2, maps=maps, boxes=np.full((6, 4), 0.5, np.float32), raw=raw,
        zoomed=zoomed,
    )  # fmt: skip
    return replace(given, **changes)


def test_zoomed_views_are_chosen_by_the_change_of_score():
    assert zoom_cases(seen()) == [
        ("largest gain", 2), ("median change", 5), ("largest loss", 4), ("median normal", 1),
    ]  # fmt: skip
    worse = seen(zoomed=np.array([0, 0, 0.5, 0.1, 0, 0], np.float32))
    assert zoom_cases(worse)[0] == ("smallest loss", 2)
    better = seen(zoomed=np.full(6, 9, np.float32))
    assert zoom_cases(better)[2] == ("smallest gain", 4)


def test_crops_are_chosen_by_score_right_and_wrong():
    score = np.array([0.2, 0.9, 0.5, 0.7, 0.1, 0.6], np.float32)
    assert crop_cases(seen(score=score)) == [
        ("highest-scored anomaly", 3), ("median anomaly", 2), ("lowest-scored anomaly", 4),
        ("highest-scored normal", 1), ("median normal", 0),
    ]  # fmt: skip


def test_equal_scores_go_by_name_and_no_image_stands_twice():
    flat = seen(score=np.ones(6, np.float32), file=tuple("fedcba"))
    assert [i for _, i in crop_cases(flat)] == [5, 3, 2, 1, 0]
    one = seen(label=np.array([False, True, False, False, False, False]))
    assert [i for _, i in crop_cases(one)] == [1, 2, 5]


def test_what_is_hot_and_what_is_active_by_hand():
    maps = np.array([[[0, 1], [2, 4]], [[0, 0], [0, 0]]], np.float32)
    assert list(hot(maps)) == [0.5, 0]
    attention = np.array([[[1, 2], [3, 6]], [[7, 7], [7, 7]]], np.float32)  # scaled 0 .2 .4 1
    active = seen(maps={"attention": attention}).active
    assert active[0].tolist() == [[False, False], [True, True]]
    assert not active[1].any(), "a constant map has no active cell"
