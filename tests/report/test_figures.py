"""What figures reckon and draw: by hand, by rule, and harmless whatever the names are."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from bench.analysis.statistics import Estimate, Ranking, ranking
from bench.metrics import auroc
from bench.report.figures.ablation import intervals
from bench.report.figures.clusters import Cloud, thinned
from bench.report.figures.figure import key
from bench.report.figures.ranks import alike, complete_places
from bench.report.figures.saliency import Seen, crop_cases, hot, zoom_cases
from bench.report.figures.scores import histograms, mean_roc, overlap, roc, roc_points
from bench.report.figures.sheet import LARGEST, Tile, Words, coarse, cut, sheet
from bench.report.figures.svg import marks, panels, plotting, svg
from bench.report.figures.trends import defect_auroc, defects_plot, shots_plot
from bench.text import brief, listed, signed
from tests.fixtures.runs import SCORES, SPEC

HOSTILE = '</text><script>alert(1)</script><img src=x onerror=alert(2)>"\'& $\\frac{$ style="a:b"'
SCORE = np.array([0.1, 0.4, 0.35, 0.8], np.float32)
LABEL = np.array([False, False, True, True])


def checked(drawn):
    """Parse an SVG element and make sure that a strict policy takes it."""
    for part in ElementTree.fromstring(drawn).iter():
        tag = part.tag.rpartition("}")[2]
        assert tag not in ("script", "style", "a", "img", "foreignObject", "metadata"), tag
        for name, value in part.attrib.items():
            name = name.rpartition("}")[2]
            assert name != "style"
            assert not name.startswith("on"), name
            if name == "href":
                assert re.match(r"#|data:image/(png|jpeg);base64,", value), value[:40]
    return drawn


# Scores


def test_overlap_and_roc_by_hand():
    x, y = roc_points(SCORE, LABEL)
    assert list(x) == [0, 0, 0.5, 0.5, 1]
    assert list(y) == [0, 0.5, 0.5, 1, 1]
    assert overlap(SCORE, LABEL) == 0.5
    assert overlap(np.array([0.1, 0.2, 9], np.float32), np.array([False, False, True])) == 0
    assert overlap(np.full(4, 0.5, np.float32), LABEL) == 1


def test_the_mean_curve_of_two_seeds_by_hand():
    x, y = mean_roc([(SCORE, LABEL), (np.array([1, 2, 3, 4], np.float32), LABEL)])
    assert list(x) == [0, 0, 0.5, 0.5, 1, 1]
    assert list(y) == pytest.approx([0, 0.75, 0.75, 1, 1, 1])


def test_the_area_under_the_mean_curve_is_the_mean_area():
    random = np.random.RandomState(0)
    label = np.arange(60) < 25
    runs = [(random.randint(0, 8, 60).astype(np.float32) + label, label) for _ in range(5)]
    wanted = np.mean([auroc(*run) for run in runs])
    assert np.trapezoid(*mean_roc(runs)[::-1]) == pytest.approx(wanted, abs=1e-6)
    few = mean_roc(runs, points=7)
    assert len(few[0]) == 14
    assert (few[0][-1], few[1][-1]) == (1, 1)


def test_one_type_of_defect_against_all_normals_by_hand():
    mixed = replace(
        SCORES, defect=("good", "good", "hole", "cut", "hole"),
        role=("test", "test", "test", "test", "drawn"),
    )  # fmt: skip
    assert defect_auroc(mixed, "hole") == 0.5  # 0.35 against 0.1 and 0.4; the drawn one is out
    assert defect_auroc(mixed, "cut") == 1
    assert defect_auroc(mixed, "crack") is None


# Clusters


def test_the_silhouette_is_that_of_the_space_and_leaves_out_what_was_trained_on():
    values = np.array([[0, 0, 0], [0, 0, 1], [0, 4, 0], [0, 4, 1], [0, 0, 0.5]], np.float32)
    cloud = Cloud(values, np.array([0, 0, 1, 1, 2]))
    own, other = 1, (4 + 17**0.5) / 2  # mean distances to the own class and to the other one
    assert cloud.silhouette == pytest.approx((other - own) / other)


def test_the_plane_is_the_same_each_time_and_keeps_neighbours():
    random = np.random.RandomState(1)
    values = np.concatenate([random.normal(0, 1, (20, 5)), random.normal(30, 1, (20, 5))])
    cloud = Cloud(values.astype(np.float32), np.repeat([0, 1], 20))
    plane = cloud.plane()
    assert plane.tobytes() == cloud.plane().tobytes()
    middle = [plane[:20].mean(0), plane[20:].mean(0)]
    near = np.linalg.norm(plane[:, None] - np.stack(middle), axis=2).argmin(1)
    assert list(near) == list(cloud.group)


@pytest.mark.parametrize("values", [np.arange(12)[:, None], np.zeros((12, 3)), np.ones((12, 1))])
def test_embeddings_that_say_little_make_a_cloud_all_the_same(values):
    cloud = Cloud(values.astype(np.float32), np.repeat([0, 1], 6))
    assert np.isfinite(cloud.plane()).all()
    assert -1 <= cloud.silhouette <= 1


def test_of_many_images_some_are_drawn_evenly():
    many = Cloud(np.arange(1000, dtype=np.float32)[:, None], np.zeros(1000, int))
    few = thinned(many)
    assert len(few.values) == 400
    assert (few.values[0], few.values[-1]) == (0, 999)
    assert np.diff(few.values[:, 0]).max() <= 3


# What was seen


def seen(**changes):
    """Six images; the anomalous ones, 2 to 5, change by +4, +1, -1 and 0 in the zoomed view."""
    raw = np.array([1, 1, 1, 1, 3, 2], np.float32)
    zoomed = np.array([1.5, 0.5, 5, 2, 2, 2], np.float32)
    maps = {n: np.zeros((6, 2, 2), np.float32) for n in ("score", "attention", "grad_cam")}
    given = Seen(
        spec=SPEC, file=tuple("abcdef"), label=np.arange(6) > 1, defect=tuple("ggcccc"),
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


def test_what_a_box_cuts_out():
    picture = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    assert np.asarray(cut(picture, (0.5, 0, 1, 0.5))).tolist() == [[2, 3], [6, 7]]
    assert cut(picture, (0.5, 0.5, 0.5, 0.5)).size == (1, 1)


def test_a_sheet_keeps_photos_and_maps_apart_and_small():
    noise = np.random.RandomState(0).randint(0, 255, (900, 900, 3)).astype(np.uint8)
    photo = Tile(0, 0, 112, Image.fromarray(noise), True, (0.25, 0.25, 0.5, 0.5))
    tile = Tile(120, 0, 66, coarse(np.eye(7, dtype=np.float32), 1.0), False)
    both = checked(sheet(120, [photo, tile], [Words(0, 10, HOSTILE)], HOSTILE))
    assert both == sheet(120, [photo, tile], [Words(0, 10, HOSTILE)], HOSTILE)
    assert (both.count("data:image/jpeg"), both.count("data:image/png")) == (1, 1)
    assert len(both) < 60_000
    alone = checked(sheet(120, [tile], [], "a map"))
    assert "jpeg" not in alone
    assert len(alone) < 3_000
    assert LARGEST <= 160


# Ranks


def test_the_largest_set_of_places_that_three_methods_share():
    ten = [("d", f"c{i}") for i in range(12)]
    methods = {"a": frozenset(ten), "b": frozenset(ten), "c": frozenset(ten[:11]),
               "d": frozenset(ten[:10]), "e": frozenset(ten[3:])}  # fmt: skip
    places, ranked = complete_places(methods)
    assert places == sorted(ten[:11])
    assert ranked == ["a", "b", "c"]
    assert complete_places({m: frozenset(ten[:9]) for m in "abc"}) is None
    assert complete_places({m: frozenset(ten) for m in "ab"}) is None


def test_bars_join_what_does_not_differ():
    pairs = {("a", "b"): 0.6, ("a", "c"): 0.01, ("a", "d"): 0.01, ("b", "c"): 0.2, ("b", "d"): 0.01,
             ("c", "d"): 0.04}  # fmt: skip
    found = Ranking({"a": 1.2, "b": 1.9, "c": 3.0, "d": 3.9}, 10, 0.01, pairs)
    assert alike(found) == [("a", "b"), ("b", "c")]
    assert alike(replace(found, pairs=dict.fromkeys(pairs, 1.0))) == [("a", "d")]
    same = ranking({m: [0.5, 0.6, 0.7] for m in "abc"})
    assert alike(same) == [("a", "c")]


# Drawing


def test_hostile_names_are_only_names():
    runs = {HOSTILE: (SCORE, LABEL), "\N{PILE OF POO}": (SCORE, LABEL)}
    by_name = {name: {1: Estimate(0.5, 1, None), 10: Estimate(0.7, 2, (0.4, 1.3))} for name in runs}
    for drawn in (
        histograms(runs, HOSTILE),
        roc({name: [run] for name, run in runs.items()}, HOSTILE),
        shots_plot(by_name, HOSTILE),
        defects_plot({HOSTILE: {0: Estimate(0.5, 1, None)}}, [HOSTILE], HOSTILE),
        intervals([(HOSTILE, Estimate(0.1, 2, (-0.1, 0.3)))], HOSTILE),
    ):
        assert "<script" not in checked(drawn)
        assert "alert(1)" in drawn


def test_drawn_again_a_figure_is_the_same_to_the_byte():
    runs = {"one": (SCORE, LABEL), "two": (-SCORE, LABEL)}
    drawn = histograms(runs, "one place")
    assert histograms(runs, "one place") == drawn
    first, second = (set(re.findall(r' id="([^"]*)"', d))
                     for d in (drawn, histograms(runs, "another")))  # fmt: skip
    assert first
    assert not first & second, "ids would meet on a page"


def test_numbers_lose_digits_as_coordinates_not_as_text():
    with plotting("key") as plt:
        figure, (axis,) = panels(plt, 1.0)
        axis.plot([0.123456, 0.2], [0.1, 0.98765])
        axis.text(0, 0, "0.98765")
        drawn = checked(svg(figure, "0.12345"))
    assert ">0.98765</text>" in drawn
    assert 'aria-label="0.12345"' in drawn
    assert not re.search(r' d="[^"]*\.\d{3}', drawn)


def test_a_method_looks_the_same_in_every_figure():
    one, two = marks(["ATAC-Net", "PaDiM", "shortcut"]), marks(["CutMix", "ATAC-Net"])
    assert one[0] == two[1]
    everyone = marks(["ATAC-Net", "DevNet", "mine", "DRA", "SAOE", "CutMix", "shortcut"])
    for what in ("color", "marker", "linestyle"):
        assert len({str(mark[what]) for mark in everyone}) == 7


def test_words():
    assert key("zoom", "mvtec_ad/metal_nut", 10) == "zoom-mvtec-ad-metal-nut-10"
    assert re.fullmatch("[a-z0-9-]+", key("x", HOSTILE))
    assert brief("a\nb\x00\ud800") == r"a\nb\x00\ud800"
    assert len(brief("x" * 99)) == 40
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert signed(-0.0381) == "\N{MINUS SIGN}0.038"
