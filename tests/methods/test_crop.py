import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from atacnet.crop import boxes_from_maps, centre_boxes, draw_corners, random_boxes, zoom


def test_the_box_is_the_tightest_around_all_active_cells() -> None:
    maps = torch.zeros(2, 7, 7)
    maps[0, 2, 3], maps[0, 4, 1] = 1.0, 0.41
    maps[0, 6, 6] = 0.39  # below the threshold
    maps[1] = 5.0
    maps[1, 0, 0] = 9.0  # scaled by its own minimum and maximum
    boxes, fallbacks = boxes_from_maps(maps, 0.4)
    assert (boxes[0] * 7).tolist() == pytest.approx([1, 2, 4, 5])
    assert (boxes[1] * 7).tolist() == pytest.approx([0, 0, 1, 1])
    assert not fallbacks.any()


@pytest.mark.parametrize("value", [0.0, -3.0, float("nan"), float("inf")])
def test_a_map_that_says_nothing_gives_the_whole_image(value: float) -> None:
    boxes, fallbacks = boxes_from_maps(torch.full((1, 14, 14), value))
    assert boxes.tolist() == [[0, 0, 1, 1]]
    assert fallbacks.tolist() == [True]


def test_one_bad_cell_makes_a_fallback_and_leaves_its_neighbours_alone() -> None:
    maps = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0))
    alone, _ = boxes_from_maps(maps)
    maps[1, 3, 3] = float("nan")
    boxes, fallbacks = boxes_from_maps(maps)
    assert fallbacks.tolist() == [False, True, False]
    assert torch.equal(boxes[[0, 2]], alone[[0, 2]])


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.05, 0.95), st.integers(0, 10**6))
def test_every_active_cell_lies_in_the_box(h: int, w: int, threshold: float, seed: int) -> None:
    maps = torch.rand(3, h, w, generator=torch.Generator().manual_seed(seed))
    boxes, fallbacks = boxes_from_maps(maps, threshold)
    for image, box, fallback in zip(maps, boxes, fallbacks, strict=True):
        assert bool(fallback) == (h * w == 1)
        if fallback:
            continue
        scaled = (image - image.min()) / (image.max() - image.min())
        ys, xs = torch.nonzero(scaled >= threshold, as_tuple=True)
        cells = (box * torch.tensor([w, h, w, h])).round().int().tolist()
        assert cells == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_padding_widens_the_box_inside_the_image() -> None:
    maps = torch.zeros(1, 10, 10)
    maps[0, 4:6, 0:2] = 1.0
    boxes, _ = boxes_from_maps(maps, padding=0.5)
    assert boxes[0].tolist() == pytest.approx([0.0, 0.3, 0.3, 0.7])


@given(st.integers(0, 10**6))
def test_zooming_equals_cropping_and_interpolating(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 3, 32, 48, generator=generator)
    corners = torch.rand(4, 2, 2, generator=generator).sort(1).values
    boxes = torch.cat([corners[:, 0], corners[:, 1]], 1)
    zoomed = zoom(images, boxes)
    scale = torch.tensor([48, 32, 48, 32])
    for image, box, result in zip(images, boxes, zoomed, strict=True):
        left, top, right, bottom = (box * scale).round().int().tolist()
        left, top = min(left, 47), min(top, 31)
        right, bottom = max(right, left + 1), max(bottom, top + 1)
        crop = image[:, top:bottom, left:right].unsqueeze(0)
        wanted = F.interpolate(crop, (32, 48), mode="bilinear", align_corners=False)[0]
        assert torch.allclose(result, wanted, atol=1e-4)


def test_zooming_into_the_whole_image_is_the_identity() -> None:
    images = torch.rand(2, 3, 16, 16)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, 4)
    assert torch.allclose(zoom(images, whole), images, atol=1e-5)


def test_moved_boxes_keep_their_size_and_stay_inside() -> None:
    boxes = torch.tensor([[0.0, 0.5, 0.25, 1.0], [0.1, 0.1, 0.2, 0.2]]).repeat(100, 1)
    size = boxes[:, 2:] - boxes[:, :2]
    (corners,) = draw_corners(len(boxes), torch.Generator().manual_seed(0))
    for moved in (centre_boxes(boxes), random_boxes(boxes, corners)):
        assert torch.allclose(moved[:, 2:] - moved[:, :2], size, atol=1e-6)
        assert moved.min() >= 0
        assert moved.max() <= 1 + 1e-6
    assert torch.allclose(centre_boxes(boxes).view(-1, 2, 2).mean(1), torch.tensor(0.5))
    assert random_boxes(boxes, corners)[:, 0].std() > 0.1
