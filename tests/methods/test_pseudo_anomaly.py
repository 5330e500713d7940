import colorsys

import numpy as np
import pytest
import torch
from scipy import stats

from baselines.blocks import pseudo_anomaly
from baselines.blocks.pseudo_anomaly import (
    draw_pastes,
    draw_patches,
    paste,
    rotate,
    shift_hue,
    spread,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_patches_have_the_stated_distributions() -> None:
    size = 1000  # rounding to pixels does not matter here
    h, w, source_top, source_left, top, left = draw_patches(4000, size, size, rng()).double().T
    area = h * w / size**2
    whole = (h < size) & (w < size)
    uniform = stats.uniform(0.02, 0.13)
    assert stats.kstest(area[whole].numpy(), uniform.cdf).pvalue > 1e-3
    log_aspect = torch.log(h / w)[whole].numpy() / np.log(1 / 0.3)
    assert stats.kstest(log_aspect, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    for corner, side in ((source_top, h), (source_left, w), (top, h), (left, w)):
        place = ((corner + 0.5) / (size - side + 1)).numpy()
        assert stats.kstest(place, stats.uniform().cdf).pvalue > 1e-3


@pytest.mark.parametrize("size", [(8, 8), (224, 224), (16, 64), (1, 5)])
def test_patches_lie_inside_the_image(size: tuple[int, int]) -> None:
    height, width = size
    h, w, *corners = draw_patches(500, height, width, rng()).T
    assert (h >= 1).all()
    assert (w >= 1).all()
    for corner, side, limit in zip(corners, (h, w, h, w), (height, width) * 2, strict=True):
        assert (corner >= 0).all()
        assert (corner + side <= limit).all()


def test_pasting_changes_the_target_box_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pseudo_anomaly, "JITTER", 0.0)
    images = torch.rand(6, 3, 32, 32, generator=rng(1))
    pasted = paste(images, images, draw_pastes(6, 32, 32, rng(2)))
    patches = draw_patches(6, 32, 32, rng(2))
    for image, result, patch in zip(images, pasted, patches, strict=True):
        h, w, source_top, source_left, top, left = patch.tolist()
        wanted = image.clone()
        source = image[:, source_top : source_top + h, source_left : source_left + w]
        wanted[:, top : top + h, left : left + w] = source
        assert torch.allclose(result, wanted, atol=1e-6)


def test_the_jitter_changes_the_patch_a_little() -> None:
    images = torch.rand(16, 3, 32, 32, generator=rng(1)) * 0.5 + 0.25
    flat = images.mean((2, 3), keepdim=True).expand_as(images)
    pasted = paste(flat, flat, draw_pastes(16, 32, 32, rng(2)))
    change = (pasted - flat).abs().amax((1, 2, 3))
    assert (change > 1e-3).all()
    assert (change < 0.25).all()
    assert pasted.min() >= 0
    assert pasted.max() <= 1


def test_the_hue_turns_as_in_hsv() -> None:
    images = torch.rand(4, 3, 5, 5, generator=rng(3))
    turns = torch.tensor([-0.1, -0.03, 0.05, 0.5])
    shifted = shift_hue(images, turns)
    for b in range(4):
        for y, x in ((0, 0), (2, 3), (4, 4)):
            hue, saturation, value = colorsys.rgb_to_hsv(*images[b, :, y, x].tolist())
            wanted = colorsys.hsv_to_rgb((hue + turns[b].item()) % 1, saturation, value)
            assert shifted[b, :, y, x].tolist() == pytest.approx(wanted, abs=1e-5)
    grey = torch.full((1, 3, 2, 2), 0.4)
    assert torch.allclose(shift_hue(grey, torch.tensor([0.3])), grey)


def test_a_rotation_by_zero_is_the_identity_and_corners_turn_black() -> None:
    images = torch.rand(8, 3, 21, 21, generator=rng(4))
    assert torch.allclose(rotate(images, 0.0, rng()), images, atol=1e-5)
    turned = rotate(torch.ones(64, 3, 21, 21), 180.0, rng())
    assert (turned[:, :, 10, 10] > 0.999).all()
    assert turned[:, :, 0, 0].min() == 0


def test_a_rotation_keeps_shapes_also_in_oblong_images(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.zeros(1, 1, 21, 41).expand(1, 3, 21, 41).clone()
    image[:, :, 10, 12:29] = 1.0  # a horizontal bar of 17 pixels
    monkeypatch.setattr(pseudo_anomaly, "_uniform", lambda n, low, high, g: torch.full((n,), high))
    turned = rotate(image, 90.0, rng())
    column = turned[0, 0, :, 20]
    assert column[3:18].min() > 0.99  # now vertical, and as long as before
    assert column[:1].max() < 0.01
    assert turned[0, 0, 10, 23:].max() < 0.01


def test_the_same_generator_gives_the_same_images() -> None:
    images = torch.rand(4, 3, 16, 16, generator=rng(5))
    first, again, other = (
        paste(images, images, draw_pastes(4, 16, 16, rng(seed))) for seed in (6, 6, 7)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("chosen", [[0, 1, 1, 0, 1], [0] * 5, [1] * 5], ids=str)
def test_pasting_into_some_of_a_batch_is_pasting_into_those_alone(chosen: list[int]) -> None:
    images, rows = torch.rand(5, 3, 16, 16, generator=rng(5)), torch.tensor(chosen) == 1
    drawn = draw_pastes(sum(chosen), 16, 16, rng(6))
    pasted = paste(images, images, spread(drawn, rows))
    wanted = images.clone()
    wanted[rows] = paste(images[rows], images[rows], drawn)
    assert torch.equal(pasted, wanted)
