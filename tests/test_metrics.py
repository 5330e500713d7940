import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm
from sklearn.metrics import average_precision_score, roc_auc_score

from atacnet.crop import random_boxes
from bench.metrics import (
    auroc,
    auroc_interval,
    average_precision,
    bilinear,
    box_recall,
    pixel_auroc,
    pointing,
)

TIED = st.sampled_from([-1e300, -1.0, -0.0, 0.0, 5e-324, 0.1, 0.1 + 2**-56, 1.0, 1e300])
FEW = st.integers(0, 3).map(float)
WIDE = st.floats(-1e300, 1e300)
SCORES = st.sampled_from([TIED, FEW, WIDE]).flatmap(lambda s: st.lists(s, min_size=1, max_size=40))
BOTH = [auroc, average_precision]


def one_vector(normal, anomalous):
    return np.array(normal + anomalous), np.repeat([0, 1], [len(normal), len(anomalous)])


@given(SCORES, SCORES)
def test_auroc_is_that_of_scikit_learn(normal, anomalous):
    scores, labels = one_vector(normal, anomalous)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_in_order(normal, anomalous):
    """Mann and Whitney's U over the number of pairs, a tie half."""
    scores, labels = one_vector(normal, anomalous)
    pairs = [(a > n) + (a == n) / 2 for a in anomalous for n in normal]
    assert auroc(scores, labels) == pytest.approx(np.mean(pairs), abs=1e-12)
    u = mannwhitneyu(anomalous, normal, method="asymptotic").statistic
    assert auroc(scores, labels) == pytest.approx(u / len(pairs), abs=1e-12)


@given(SCORES, SCORES)
def test_average_precision_is_that_of_scikit_learn(normal, anomalous):
    scores, labels = one_vector(normal, anomalous)
    expected = average_precision_score(labels, scores)
    assert average_precision(scores, labels) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4))
def test_float32_scores_are_ranked_exactly(values):
    scores = np.array(values, dtype=np.float32)
    labels = np.arange(len(scores)) % 2
    wide = scores.astype(np.float64)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, wide), abs=1e-12)
    assert average_precision(scores, labels) == average_precision(wide, labels)


@given(SCORES, SCORES, st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(normal, anomalous, random):
    scores, labels = one_vector(normal, anomalous)
    order = list(range(len(scores)))
    random.shuffle(order)
    for metric in BOTH:
        assert metric(scores[order], labels[order]) == pytest.approx(metric(scores, labels))


@given(SCORES, SCORES)
def test_auroc_of_the_negated_scores_is_its_complement(normal, anomalous):
    scores, labels = one_vector(normal, anomalous)
    assert auroc(-scores, labels) == pytest.approx(1 - auroc(scores, labels))


def test_values_by_hand():
    labels = [0, 0, 1, 1]
    assert auroc([1, 2, 3, 4], labels) == 1
    assert auroc([4, 3, 2, 1], labels) == 0
    assert auroc([5, 5, 5, 5], labels) == 0.5
    assert auroc([1, 3, 2, 4], labels) == 0.75
    assert average_precision([1, 2, 3, 4], labels) == 1
    assert average_precision([5, 5, 5, 5], labels) == 0.5
    assert average_precision([1, 3, 2, 4], labels) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


@pytest.mark.parametrize("metric", BOTH)
def test_the_largest_finite_scores_are_ranked(metric):
    assert metric([-1.7e308, 1.7e308], [0, 1]) == 1


@pytest.mark.parametrize("metric", BOTH)
def test_boolean_labels_are_taken(metric):
    assert metric([1.0, 2.0, 0.5], np.array([False, True, False])) == 1


@pytest.mark.parametrize("metric", BOTH)
@pytest.mark.parametrize("labels", [[0, 0], [1, 1], [True, True]])
def test_one_class_is_an_error(metric, labels):
    with pytest.raises(ValueError, match="only one"):
        metric([1.0, 2.0], labels)


@pytest.mark.parametrize("metric", BOTH)
def test_an_empty_test_set_is_an_error(metric):
    with pytest.raises(ValueError, match="both classes"):
        metric([], [])


@pytest.mark.parametrize("metric", BOTH)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_an_error(metric, bad):
    with pytest.raises(ValueError, match="1 of 3 scores are not finite"):
        metric([1.0, bad, 2.0], [0, 1, 1])


@pytest.mark.parametrize("metric", BOTH)
@pytest.mark.parametrize("scores", [[1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], 1.0])
def test_scores_and_labels_of_other_lengths_are_an_error(metric, scores):
    with pytest.raises(ValueError, match="one length"):
        metric(scores, [0, 1])


@pytest.mark.parametrize("metric", BOTH)
@pytest.mark.parametrize("labels", [[0, 2], [-1, 1], [0.5, 1], [np.nan, 1]])
def test_other_labels_than_0_and_1_are_an_error(metric, labels):
    with pytest.raises(ValueError, match=r"0 .normal. or 1"):
        metric([1.0, 2.0], labels)


def test_an_interval_is_that_of_a_plain_bootstrap():
    random = np.random.RandomState(1)
    labels = np.repeat([0, 1], [25, 60])
    scores = np.round(random.normal(labels * 1.2, 1), 1)  # with ties
    plain = []
    for _ in range(1500):
        drawn = np.concatenate([random.choice(np.flatnonzero(labels == k), (labels == k).sum())
                                for k in (0, 1)])  # fmt: skip
        plain.append(auroc(scores[drawn], labels[drawn]))
    low, high = auroc_interval(scores, labels)
    assert (low, high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.01)
    assert auroc_interval(scores, labels) == (low, high)


def covered(auroc_there, anomalous, normal, simulations):
    """How often an interval holds the true AUROC of two normal laws, and how often it is [1, 1]."""
    shift = norm.ppf(auroc_there) * np.sqrt(2)
    random, labels = np.random.RandomState(0), np.repeat([0, 1], [normal, anomalous])
    found = [
        auroc_interval(random.normal(labels * shift, 1), labels, repeats=1000)
        for _ in range(simulations)
    ]
    held = sum(low <= auroc_there <= high for low, high in found)
    return held / simulations, found.count((1.0, 1.0)) / simulations


def test_an_interval_covers_as_often_as_it_says():
    held, apart = covered(0.85, 50, 100, 1000)
    assert 0.93 < held < 0.97
    assert apart == 0


@pytest.mark.parametrize(
    ("auroc_there", "anomalous", "normal", "least", "most"),
    [(0.99, 100, 50, 0.86, 0.92), (0.90, 20, 12, 0.87, 0.93), (0.98, 20, 12, 0.70, 0.80)],
)
def test_near_one_and_with_few_images_it_is_too_sure(auroc_there, anomalous, normal, least, most):
    """What the docstring warns of; toothbrush has 20 anomalous and 12 normal images to test on."""
    held, apart = covered(auroc_there, anomalous, normal, 800)
    assert least < held < most
    assert (apart > 0.2) == (auroc_there == 0.98)


def test_an_interval_needs_no_time():
    """A report asks for hundreds; test sets of one size share their draws."""
    random, labels = np.random.RandomState(0), np.repeat([0, 1], [50, 100])
    scores = random.normal(labels, 1)
    auroc_interval(scores, labels)
    spent = []
    for _ in range(20):
        start = time.perf_counter()
        auroc_interval(scores, labels)
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.005


def test_an_interval_is_of_its_arguments_alone():
    random, labels = np.random.RandomState(0), np.repeat([0, 1], [30, 20])
    first, second = (random.normal(labels, 1) for _ in range(2))
    before = auroc_interval(first, labels)
    assert auroc_interval(second, labels) != before
    assert auroc_interval(first, labels, seed=1) != before
    assert auroc_interval(first, labels, repeats=100) != before
    assert auroc_interval(first, labels) == before
    wide, narrow = (np.diff(auroc_interval(first, labels, level=x)) for x in (0.99, 0.5))
    assert wide > narrow


def test_where_the_classes_are_apart_it_is_a_point():
    assert auroc_interval([0, 0, 0, 1, 1], [0, 0, 0, 1, 1]) == (1.0, 1.0)
    assert auroc_interval([0.5] * 5, [0, 0, 0, 1, 1]) == (0.5, 0.5)


def test_an_interval_of_one_class_is_refused():
    with pytest.raises(ValueError, match="both classes"):
        auroc_interval([0.1, 0.2], [1, 1])


@pytest.mark.parametrize(("cells", "pixels"), [(1, 5), (3, 7), (14, 224), (8, 8), (5, 3)])
def test_lines_are_stretched_as_torch_does(cells: int, pixels: int) -> None:
    maps = np.random.RandomState(0).rand(2, cells, cells).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None], (pixels, pixels), mode="bilinear", align_corners=False
    )[0].numpy()
    weights = bilinear(cells, pixels)
    assert np.allclose(weights @ maps @ weights.T, theirs, atol=1e-6)


def test_pixels_are_ranked_over_all_images() -> None:
    random = np.random.RandomState(1)
    masks = random.rand(3, 8, 8) < 0.2
    maps = (random.rand(3, 8, 8) + masks).astype(np.float32)
    assert pixel_auroc(maps, masks) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    one_per_image = np.stack([np.full((2, 2), i, np.float32) for i in range(3)])
    assert pixel_auroc(one_per_image, np.arange(3).repeat(64).reshape(3, 8, 8) == 2) == 1
    with pytest.raises(ValueError, match="only one"):
        pixel_auroc(maps, np.zeros((3, 8, 8), bool))


@given(
    st.integers(1, 6), st.integers(1, 9), st.sampled_from([1, 4, 13, 32]), st.integers(0, 2**20),
    st.sampled_from([0.02, 0.5, 0.97]), st.sampled_from([0, 1, None]),
)  # fmt: skip
def test_pixels_in_parts_have_the_bits_of_all_at_once(
    images: int, cells: int, side: int, seed: int, share: float, digits: int | None
) -> None:
    """With ties, constant images, either class the larger one, and negative values."""
    random = np.random.RandomState(seed)
    masks = random.rand(images, side, side) < share
    masks.flat[0] = True
    masks.flat[-1] = images * side == 1
    maps = random.normal(size=(images, cells, cells)).astype(np.float32)
    maps = maps if digits is None else np.round(maps, digits)
    if masks.all():
        return
    stretch = bilinear(cells, side)
    assert pixel_auroc(maps, masks) == auroc((stretch @ maps @ stretch.T).ravel(), masks.ravel())


def test_pixels_are_ranked_in_bounded_memory() -> None:
    """All at once took some 60 bytes a pixel."""
    random = np.random.RandomState(3)
    masks = random.rand(24, 256, 256) < 0.05
    maps = random.rand(24, 14, 14).astype(np.float32)
    tracemalloc.start()
    pixel_auroc(maps, masks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * masks.size


def test_what_a_box_holds_of_a_defect_is_counted() -> None:
    masks = np.zeros((4, 4, 8), bool)
    masks[0, 1:3, 2:6] = True  # eight pixels, of which the box holds the left four
    masks[1, 0, 0] = masks[1, 3, 7] = True  # one of two
    masks[2, 2, 2] = True  # none
    boxes = np.array([[0, 0, 0.5, 1], [0.5, 0.5, 1, 1], [0.5, 0, 1, 0.5], [0, 0, 1, 1]], np.float32)
    assert box_recall(boxes, masks)[0] == pytest.approx((0.5 + 0.5 + 0) / 3)
    shared = box_recall(boxes[:3], masks[:3])  # centred: columns 2 to 5, and rows 1 and 2 of them
    assert shared.centred == pytest.approx((8 / 8 + 0 + 1) / 3)
    assert box_recall(boxes[3:].repeat(4, 0), masks) == (1, 1, 1)
    with pytest.raises(ValueError, match="no mask shows a defect"):
        box_recall(boxes[3:], masks[3:])


def test_the_highest_point_of_a_map_lies_on_a_defect_or_not() -> None:
    masks = np.zeros((5, 8, 8), bool)
    masks[0, :4, :4] = masks[1, :4, :4] = masks[2, :, :4] = True
    masks[4, 0, 0] = True
    maps = np.zeros((5, 2, 2), np.float32)
    maps[0, 0, 0] = maps[1, 1, 1] = maps[3, 1, 1] = 1  # a hit, a miss, all alike, normal, all alike
    hits, by_chance = pointing(maps, masks)
    assert hits == pytest.approx((1 + 0 + 1 / 2 + 1 / 64) / 4)
    assert by_chance == pytest.approx((1 / 4 + 1 / 4 + 1 / 2 + 1 / 64) / 4)
    with pytest.raises(ValueError, match="no mask shows a defect"):
        pointing(maps, np.zeros_like(masks))
    with pytest.raises(ValueError, match="1 of 20 scores are not finite"):
        pointing(np.where(np.arange(20).reshape(5, 2, 2) == 3, np.nan, maps), masks)


def test_by_chance_is_what_random_boxes_hold() -> None:
    random = np.random.RandomState(2)
    masks = random.rand(2, 9, 14) < 0.1
    masks[1, :, :3] = True
    low = random.rand(2, 2) / 2
    boxes = np.concatenate([low, low + random.uniform(0.2, 0.5, (2, 2))], 1).astype(np.float32)
    placed = random_boxes(
        torch.from_numpy(boxes).repeat(20_000, 1),
        torch.rand(40_000, 2, generator=torch.Generator().manual_seed(0)),
    ).numpy()
    found = box_recall(placed, np.tile(masks, (20_000, 1, 1)))[0]
    assert box_recall(boxes, masks)[1] == pytest.approx(found, abs=0.005)
