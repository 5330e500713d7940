"""MemSeg: its made-up anomalies, its memory, its losses, and what every method must do."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from skimage.filters import threshold_otsu
from torch import Tensor

from baselines.blocks import synthesis
from baselines.blocks.segmentation import (
    CoordinateAttention,
    Decoder,
    Fusion,
    anomaly_maps,
    focal_loss,
    l1_loss,
    spatial_gates,
)
from baselines.blocks.synthesis import (
    CHANGES,
    Synthesis,
    draw_perlin,
    draw_structural,
    foregrounds,
    perlin,
    shuffle,
    structural,
)
from baselines.memseg import Batches, MemSeg, Network, Parameters, top_mean
from bench.detector import BackboneSource, Context, MethodError, Samples, Seeds, TrainingSet
from bench.execution.determinism import make_deterministic
from bench.planning.rehearsal import rehearsed_peak
from bench.registry import METHODS, Registry, load_class
from tests.fixtures.planted import SIZE, framed, pictures, separation

TEXTURES = np.random.RandomState(6).randint(0, 256, (5, 3, SIZE, SIZE)).astype(np.uint8)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(n: int, size: int = 32) -> Tensor:
    """Smooth colours in [0, 1], none of them a rounded one."""
    coarse = torch.rand(n, 3, 4, 4, generator=rng(9)) * 0.9 + 0.05
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")


# Masks


@pytest.mark.parametrize("size", [(24, 24), (17, 40)])
def test_perlin_noise_is_what_a_sum_by_hand_gives(size: tuple[int, int]) -> None:
    height, width = size
    noise = perlin(draw_perlin(6, rng(3)), height, width)
    draws = rng(3)
    cells = 2 ** torch.randint(0, 6, (2, 6), generator=draws)
    turns = math.pi / 2 * (2 * torch.rand(6, generator=draws) - 1)
    angles = (2 * math.pi * torch.rand(6, 33 * 33, generator=draws)).view(6, 33, 33)
    for i, row, column in ((0, 3, 5), (1, 8, 8), (2, 16, 11), (3, 9, 2), (4, 12, 20), (5, 10, 13)):
        x, y = (column + 0.5) / width - 0.5, (row + 0.5) / height - 0.5
        cos, sin = math.cos(turns[i]), math.sin(turns[i])
        u, v = cos * x - sin * y + 0.5, sin * x + cos * y + 0.5
        wanted = 0.0
        if 0 <= u < 1 and 0 <= v < 1:
            u, v = u * int(cells[0, i]), v * int(cells[1, i])
            for across in (int(u), int(u) + 1):
                for down in (int(v), int(v) + 1):
                    angle, du, dv = float(angles[i, down, across]), u - across, v - down
                    ramp = math.cos(angle) * du + math.sin(angle) * dv
                    ease = [1 - (6 * d**5 - 15 * d**4 + 10 * d**3) for d in (abs(du), abs(dv))]
                    wanted += math.sqrt(2) * ramp * ease[0] * ease[1]
        assert noise[i, row, column].item() == pytest.approx(wanted, abs=1e-4)


def test_the_noise_spans_its_range_and_a_twentieth_of_it_is_over_the_threshold() -> None:
    noise = perlin(draw_perlin(400, rng(1)), 64, 64)
    assert noise.abs().max() <= 1
    assert noise.max() > 0.9
    assert noise.min() < -0.9
    over = (noise > synthesis.LEVEL).flatten(1).float()
    assert 0.03 < over.mean() < 0.07
    assert over.amax(1).mean() > 0.9  # few masks are empty


def test_masks_of_one_batch_have_nothing_to_do_with_each_other() -> None:
    over = (perlin(draw_perlin(300, rng(2)), 32, 32) > 0.5).flatten(1).float()
    over = over[over.amax(1) > 0]
    shared = torch.corrcoef(over).fill_diagonal_(0)
    assert abs(shared.mean()) < 0.02
    assert shared.max() < 0.99  # none comes twice


def test_no_number_comes_from_anywhere_but_the_generator() -> None:
    torch.manual_seed(1)
    images, everywhere = photographs(6), torch.ones(6, 32, 32, dtype=torch.bool)
    before = torch.get_rng_state()
    one = made(images, everywhere, TEXTURES)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    for first, second in zip(one, made(images, everywhere, TEXTURES), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(one[1], made(images, everywhere, TEXTURES, seed=5)[1])


def made(
    images: Tensor, foreground: Tensor, external: Any = None, seed: int = 4
) -> tuple[Tensor, Tensor]:
    elsewhere = None if external is None else torch.from_numpy(external)
    return Synthesis(rng(seed), elsewhere, rng(seed + 100))(images, foreground)


@pytest.mark.parametrize("external", [None, TEXTURES], ids=["structural", "textures"])
@pytest.mark.parametrize("n", [1, 7])
def test_only_what_is_masked_changes_and_only_in_the_foreground(n: int, external: Any) -> None:
    images = photographs(n)
    foreground = torch.zeros(n, 32, 32, dtype=torch.bool)
    foreground[:, 4:28, :20] = True
    for seed in range(8):
        result, masks = made(images, foreground, external, seed)
        assert result.shape == images.shape
        assert masks.dtype == torch.bool
        assert not (masks & ~foreground).any()
        changed = (result != images).any(1)
        assert not (changed & ~masks).any()
        assert (result >= 0).all()
        assert (result <= 1).all()
    everywhere = torch.ones_like(foreground)
    seen = [made(images, everywhere, external, seed) for seed in range(8)]
    changed, masked = (
        sum(float(found.sum()) for found in many)
        for many in ([(r != images).any(1) for r, _ in seen], [m for _, m in seen])
    )
    assert changed > 0.95 * masked > 0


def test_an_image_does_not_change_what_becomes_of_the_others() -> None:
    images, everywhere = photographs(8), torch.ones(8, 32, 32, dtype=torch.bool)
    result, masks = made(images, everywhere, TEXTURES)
    other = images.clone()
    other[3] = 1 - other[3]
    again, masks_again = made(other, everywhere, TEXTURES)
    assert torch.equal(masks, masks_again)
    kept = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(result[kept], again[kept])
    assert not torch.equal(result[3], again[3])


def test_half_of_the_sources_are_from_elsewhere_and_the_blend_is_uniform(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n = 800
    red = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    monkeypatch.setattr(synthesis, "structural", lambda images, _: images + red)
    white = np.full((1, 3, 16, 16), 255, np.uint8)
    images = torch.zeros(n, 3, 16, 16)
    result, masks = made(images, torch.ones(n, 16, 16, dtype=torch.bool), white)
    result = result[masks.flatten(1).any(1)]
    blend = result[:, 0].amax((1, 2))
    assert stats.kstest(blend.numpy(), stats.uniform(0.15, 0.85).cdf).pvalue > 1e-3
    from_elsewhere = (result[:, 1].amax((1, 2)) > 0).float().mean()
    assert abs(from_elsewhere - 0.5) < 0.06


@pytest.mark.parametrize("external", [None, TEXTURES], ids=["structural", "textures"])
def test_a_gpu_makes_what_a_cpu_makes_of_those_that_need_it(
    monkeypatch: pytest.MonkeyPatch, external: Any
) -> None:
    """There all images are changed in all ways, since the shapes must not vary."""
    images, everywhere = photographs(9), torch.ones(9, 32, 32, dtype=torch.bool)
    wanted = [made(images, everywhere, external, seed) for seed in range(4)]
    monkeypatch.setattr(Tensor, "is_cpu", False, raising=False)
    for seed, pair in enumerate(wanted):
        again = made(images, everywhere, external, seed)
        torch.testing.assert_close(again, pair, rtol=0, atol=1e-6)


# Foregrounds


def rings(n: int, dark: bool = False) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A grey ring with a hole of the background's grey, noise all over."""
    y, x = np.mgrid[:40, :40] - 19.5
    radius = np.hypot(y, x)
    ring = (radius < 14) & (radius > 5)
    grey = np.where(ring, 60, 200) if dark else np.where(ring, 180, 30)
    noisy = grey + np.random.RandomState(0).normal(0, 8, (n, 3, 40, 40))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("dark", [False, True])
def test_the_foreground_is_the_object_and_what_it_encloses(dark: bool) -> None:
    y, x = np.mgrid[:40, :40] - 19.5
    found = foregrounds(rings(3, dark))
    assert found.shape == (3, 40, 40)
    assert (found == (np.hypot(y, x) < 14)).all()


def test_textures_and_flat_images_are_foreground_everywhere() -> None:
    random = np.random.RandomState(0)
    noise = random.normal(120, 20, (4, 3, 40, 40)).clip(0, 255).astype(np.uint8)
    stripes = np.where(np.arange(40) % 8 < 4, 40, 200) + np.zeros((4, 3, 40, 1))
    for texture in (noise, stripes, np.full((4, 3, 40, 40), 90)):
        assert foregrounds(texture.astype(np.uint8)).all()
    speck = np.full((4, 3, 40, 40), 30)
    speck[:, :, 20, 20:22] = 200
    assert foregrounds(speck.astype(np.uint8)).all()
    assert foregrounds(rings(2), "none").all()


@given(st.integers(0, 10_000), st.integers(20, 120), st.floats(0.1, 0.9))
def test_otsus_threshold_is_that_of_scikit_image(seed: int, apart: int, share: float) -> None:
    random = np.random.RandomState(seed)
    means = np.where(random.random_sample(4000) < share, 100 - apart // 2, 100 + apart // 2)
    values = random.normal(means, 12).clip(0, 255).astype(np.uint8)
    ours = synthesis.otsu(np.bincount(values, minlength=256))
    assert between(values, ours) == pytest.approx(between(values, int(threshold_otsu(values))))


def between(values: Any, threshold: int) -> float:
    """The variance between the two sides of a threshold."""
    dark, bright = values[values <= threshold], values[values > threshold]
    return len(dark) * len(bright) / len(values) ** 2 * (dark.mean() - bright.mean()) ** 2


def test_real_objects_have_their_foreground_and_it_is_where_they_are(shared: Any) -> None:
    from PIL import Image

    for category, least, most in (("bottle", 0.5, 0.7), ("capsule", 0.15, 0.3), ("pill", 0.3, 0.5)):
        files = sorted((shared / f"data/mvtec_ad/{category}/train/good").iterdir())[:12]
        images = [np.asarray(Image.open(f).convert("RGB").resize((96, 96))) for f in files]
        found = foregrounds(np.stack(images).transpose(0, 3, 1, 2))
        assert least < found.mean() < most
        assert found[:, 44:52, 30:66].mean() > 0.95
        assert not found[:, :4].any()


# Structural sources


def numbers(first: float, second: float = 0.5) -> Tensor:
    return torch.tensor([first, second]).view(2, 1, 1, 1, 1)


PIXELS = torch.tensor([0.0, 0.1, 0.4, 0.8]).view(1, 1, 2, 2).expand(1, 3, 2, 2)


@pytest.mark.parametrize(
    ("change", "at", "wanted"),
    [
        ("brightness", (1.0, 0.5), [0, 0.12, 0.48, 0.96]),
        ("brightness", (0.5, 0.0), [-30 / 255, 0.1 - 30 / 255, 0.4 - 30 / 255, 0.8 - 30 / 255]),
        ("gamma", (1.0, 0.0), [0, 0.01, 0.16, 0.64]),
        ("gamma", (0.0, 0.0), [0, 0.1**0.5, 0.4**0.5, 0.8**0.5]),
        ("sharpness", (0.0, 0.0), [0, 0.1, 0.4, 0.8]),
        ("colour", (0.9, 0.9), [0, 0.1, 0.4, 0.8]),  # grey has none
        ("solarise", (1.0, 0.0), [0, 0.1, 0.4, 0.2]),
        ("posterise", (0.3, 0.0), [0, 0, 0.25, 0.75]),
        ("invert", (0.0, 0.0), [1, 0.9, 0.6, 0.2]),
        ("stretch", (0.0, 0.0), [0, 0.125, 0.5, 1]),
        ("equalise", (0.0, 0.0), [0.25, 0.5, 0.75, 1]),
    ],
)
def test_each_change_is_what_it_is_called(
    change: str, at: tuple[float, float], wanted: list[float]
) -> None:
    found = getattr(synthesis, change)(PIXELS, numbers(*at))
    assert found[0, 1].flatten().tolist() == pytest.approx(wanted, abs=1e-6)


def test_sharpening_and_colour_by_hand() -> None:
    corner = synthesis.sharpness(PIXELS, numbers(1.0))[0, 0, 0, 0].item()
    mean = (4 * 0.0 + 2 * 0.1 + 2 * 0.4 + 0.8) / 9
    assert corner == pytest.approx(0 + 2 * (0 - mean), abs=1e-6)
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    half = synthesis.colour(red, numbers(0.5, 0.0))[0, :, 0, 0].tolist()
    grey = 0.299
    assert half == pytest.approx([grey + 0.5 * (1 - grey), grey / 2, grey / 2], abs=1e-6)


def test_every_image_gets_three_of_the_ten_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change adds a digit of its own to an image, and the rotation the tenth."""
    n = 2000
    digits = [lambda images, at, k=k: images + 2.0**-k for k in range(1, len(CHANGES) + 1)]
    monkeypatch.setattr(synthesis, "CHANGES", tuple(digits))
    monkeypatch.setattr(synthesis, "turn", lambda images, *_: images + 2.0**-10)
    monkeypatch.setattr(synthesis, "shuffle", lambda images, order: images)
    made = structural(torch.zeros(n, 3, 1, 1), draw_structural(n, rng()))
    seen = (made[:, 0, 0, 0] * 1024).long()
    bits = torch.stack([seen >> k & 1 for k in range(10)])
    assert (bits.sum(0) == 3).all()
    assert (abs(bits.float().mean(1) - 0.3) < 0.05).all()


@pytest.mark.parametrize("size", [(32, 32), (64, 40), (37, 29), (8, 8)])
def test_shuffling_moves_tiles_whole_and_loses_none(size: tuple[int, int]) -> None:
    images = torch.rand(3, 3, *size, generator=rng(1))
    straight = torch.arange(64).repeat(3, 1)
    assert torch.equal(shuffle(images, straight), images)
    order = torch.rand(3, 64, generator=rng(2)).argsort(1)
    moved = shuffle(images, order)
    h, w = size[0] // 8, size[1] // 8
    for i in range(3):
        for place, tile in enumerate(order[i].tolist()):
            y, x, from_y, from_x = place // 8 * h, place % 8 * w, tile // 8 * h, tile % 8 * w
            source = images[i, :, from_y : from_y + h, from_x : from_x + w]
            assert torch.equal(moved[i, :, y : y + h, x : x + w], source)
    assert torch.equal(moved[:, :, 8 * h :], images[:, :, 8 * h :])
    assert torch.equal(moved[:, :, :, 8 * w :], images[:, :, :, 8 * w :])


# Losses, score, rate


def test_the_losses_are_those_worked_out_by_hand() -> None:
    p = torch.tensor([0.9, 0.2, 0.5])  # of being anomalous
    logits = torch.stack([(1 - p).log(), p.log()]).view(1, 2, 1, 3)
    anomalous = torch.tensor([True, True, False]).view(1, 1, 3)
    assert anomaly_maps(logits).flatten().tolist() == pytest.approx([0.9, 0.2, 0.5])
    assert l1_loss(logits, anomalous).item() == pytest.approx((0.1 + 0.8 + 0.5) / 3)
    wanted = -(0.1**4 * math.log(0.9) + 0.8**4 * math.log(0.2) + 0.5**4 * math.log(0.5)) / 3
    assert focal_loss(logits, anomalous, 4.0).item() == pytest.approx(wanted, rel=1e-5)
    entropy = -(math.log(0.9) + math.log(0.2) + math.log(0.5)) / 3
    assert focal_loss(logits, anomalous, 0.0).item() == pytest.approx(entropy, rel=1e-5)


def test_a_sure_answer_gives_a_finite_gradient() -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]]).view(1, 2, 1, 2).requires_grad_()
    for right in (True, False):
        anomalous = torch.tensor([not right, right]).view(1, 1, 2)
        focal_loss(logits, anomalous, 4.0).backward()
        assert torch.isfinite(logits.grad).all()


def test_the_loss_of_a_batch_weighs_both() -> None:
    detector = MemSeg(Parameters(l1_weight=0.6, focal_weight=0.4))
    logits = torch.randn(2, 2, 4, 4, generator=rng())
    detector.network = lambda images: type("O", (), {"logits": logits})
    anomalous = torch.rand(2, 4, 4, generator=rng(1)) < 0.5
    wanted = 0.6 * l1_loss(logits, anomalous) + 0.4 * focal_loss(logits, anomalous, 4.0)
    assert detector.segmentation_loss(logits, anomalous).item() == pytest.approx(wanted.item())


def test_a_score_is_the_mean_of_the_hundred_largest_values() -> None:
    maps = torch.rand(3, 20, 30, generator=rng())
    wanted = [np.sort(m.numpy().ravel())[-100:].mean() for m in maps]
    assert top_mean(maps).tolist() == pytest.approx(wanted, rel=1e-6)
    few = torch.tensor([[[0.1, 0.3]]])
    assert top_mean(few).item() == pytest.approx(0.2)


def test_the_rate_rises_for_a_tenth_and_falls_by_a_cosine() -> None:
    p = Parameters(epochs=10, steps_per_epoch=10)
    rates = [p.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4 + 2.9e-3 / 10)
    assert rates[9] == rates[10] == pytest.approx(3e-3)
    assert rates[55] == pytest.approx((3e-3 + 1e-4) / 2)
    assert rates[99] == pytest.approx(1e-4, abs=1e-6)
    assert np.argmax(rates) == 9
    assert (np.diff(rates[10:]) < 0).all()
    for warmup in (0.0, 1.0):
        few = Parameters(epochs=1, steps_per_epoch=3, warmup=warmup)
        assert all(1e-4 <= few.rate(step) <= 3e-3 for step in range(3))


def test_five_thousand_steps_are_the_default_and_all_else_as_in_the_header() -> None:
    assert dataclasses.asdict(Parameters()) == {
        "epochs": 50, "steps_per_epoch": 100, "lr": 3e-3, "lr_end": 1e-4, "warmup": 0.1,
        "weight_decay": 5e-4, "l1_weight": 0.6, "focal_weight": 0.4, "gamma": 4.0, "memory": 30,
        "memory_trains": False, "foreground": "otsu", "widths": "published",
    }  # fmt: skip
    assert Parameters().steps == 5000


# The network


def network(
    backbone: str = "resnet18",
    stage: int = 3,
    widths: str = "published",
    precision: str = "float32",
) -> Network:
    torch.manual_seed(0)
    return Network(BackboneSource(backbone, stage, None), precision, widths)


@torch.no_grad()
def test_the_memory_gives_the_nearest_image_of_all_stages_together() -> None:
    model = network("mobilenet_v2")
    shapes = ((6, 5, 7), (4, 3, 4), (10, 2, 2))
    for seed in range(5):
        stored = [torch.randn(9, *s, generator=rng(seed)) for s in shapes]
        model.bank = [s.permute(0, 2, 3, 1).contiguous() for s in stored]
        model.recalled()
        stages = [torch.randn(4, *s, generator=rng(seed + 50)) for s in shapes]
        stages = [s.contiguous(memory_format=torch.channels_last) for s in stages]
        found, distance = model.recall(stages)
        for i in range(4):
            by_hand = [
                sum(float(((s[i] - m[j]) ** 2).mean()) for s, m in zip(stages, stored, strict=True))
                for j in range(9)
            ]
            nearest = int(np.argmin(by_hand))
            assert distance[i].item() == pytest.approx(by_hand[nearest], abs=1e-4)
            for level, m in zip(found, stored, strict=True):
                assert torch.equal(level[i], m[nearest])


@torch.no_grad()
def test_a_stored_image_recalls_itself() -> None:
    model = network()
    images = torch.randn(11, 3, 64, 64, generator=rng())
    model.remember(images.split(4))
    assert [tuple(b.shape) for b in model.bank] == [
        (11, 16, 16, 64), (11, 8, 8, 128), (11, 4, 4, 256),
    ]  # fmt: skip
    found, distance = model.recall(model.frozen(images)[1:])
    for level, bank in zip(found, model.bank, strict=True):
        assert torch.equal(level.permute(0, 2, 3, 1), bank)
    assert distance.abs().max() < 1e-4 * float((model.bank[0] ** 2).mean())


def test_spatial_gates_multiply_from_deep_to_shallow() -> None:
    one, two, three = (
        torch.rand(2, c, s, s, generator=rng(c)) for c, s in ((4, 8), (6, 4), (8, 2))
    )
    gates = spatial_gates([one, two, three])
    assert [tuple(g.shape) for g in gates] == [(2, 1, 8, 8), (2, 1, 4, 4), (2, 1, 2, 2)]
    assert torch.allclose(gates[2], three.mean(1, keepdim=True))
    flat = [torch.full_like(t, v) for t, v in ((one, 2.0), (two, 3.0), (three, 5.0))]
    assert [g.unique().tolist() for g in spatial_gates(flat)] == [[30.0], [15.0], [5.0]]
    corner = three.mean(1)[:, 0, 0]  # bilinear enlarging keeps the corners
    assert torch.allclose(
        gates[0][:, 0, 0, 0], one.mean(1)[:, 0, 0] * two.mean(1)[:, 0, 0] * corner
    )


@torch.no_grad()
def test_coordinate_attention_weighs_by_row_and_column() -> None:
    torch.manual_seed(0)
    layer = CoordinateAttention(16).eval()
    features = torch.rand(2, 16, 5, 3, generator=rng())
    weights = layer(features) / features
    row, column = weights[:, :, :, :1], weights[:, :, :1]
    assert torch.allclose(weights * weights[:, :, :1, :1], row * column, atol=1e-6)
    shared = layer.shared(features.mean(3, keepdim=True))
    by_hand = layer.row(shared).sigmoid()
    assert torch.allclose(row / row[:, :, :1], by_hand / by_hand[:, :, :1], atol=1e-5)
    assert ((weights > 0) & (weights < 1)).all()


@torch.no_grad()
def test_fused_stages_are_weighted_and_deeper_ones_reach_shallower_ones() -> None:
    torch.manual_seed(0)
    fusion = Fusion((8, 12, 20), (8, 6, 20)).eval()
    joined = [torch.randn(2, 2 * c, s, s, generator=rng(c)) for c, s in ((8, 8), (12, 4), (20, 2))]
    gates = [torch.ones(2, 1, s, s) for s in (8, 4, 2)]
    plain = fusion(joined, gates)
    assert [tuple(f.shape) for f in plain] == [(2, 8, 8, 8), (2, 6, 4, 4), (2, 20, 2, 2)]
    weighted = fusion(joined, [3 * g for g in gates])
    assert all(torch.allclose(w, 3 * p) for w, p in zip(weighted, plain, strict=True))
    other = fusion([*joined[:2], joined[2] + 1], gates)
    assert [torch.equal(a, b) for a, b in zip(other, plain, strict=True)] == [False] * 3
    other = fusion([joined[0] + 1, *joined[1:]], gates)
    assert [torch.equal(a, b) for a, b in zip(other, plain, strict=True)] == [False, True, True]


@torch.no_grad()
@pytest.mark.parametrize(("deepest", "size"), [(4, 64), (2, 64), (7, 100)])
def test_the_decoder_ends_at_the_inputs_size(deepest: int, size: int) -> None:
    sides = [-(-size // s) for s in (2, 4, 8, 16)]
    skips = [torch.rand(1, c, s, s) for c, s in zip((5, 6, 7, 8), sides, strict=True)]
    decoder = Decoder(9, (5, 6, 7, 8))
    assert decoder(torch.rand(1, 9, deepest, deepest), skips, (size, size)).shape == (
        1, 2, size, size,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("backbone", "stage", "stem", "read"),
    [
        ("resnet18", 3, 64, (64, 128, 256)),
        ("resnet18", 4, 64, (64, 128, 256)),
        ("resnet50", 3, 64, (256, 512, 1024)),
        ("mobilenet_v2", 4, 16, (24, 32, 96)),
    ],
)
def test_the_frozen_part_is_stem_to_stage_3_and_the_rest_is_trained(
    backbone: str, stage: int, stem: int, read: tuple[int, ...]
) -> None:
    model = network(backbone, stage)
    with torch.no_grad():
        maps = model.frozen(torch.rand(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == [stem, *read]
    assert [m.shape[2] for m in maps] == [32, 16, 8, 4]
    assert not any(p.requires_grad for p in model.frozen.parameters())
    assert all(p.requires_grad for p in model.deepest.parameters())
    assert (len(list(model.deepest.parameters())) > 0) == (stage == 4)
    model.train()
    assert not any(m.training for m in model.frozen.modules())
    assert all(m.training for m in model.deepest.modules())


def test_widths_are_resnet18s_or_the_backbones() -> None:
    def inner(widths: str, backbone: str) -> list[int]:
        return [stage[1].out_channels for stage in network(backbone, 3, widths).fusion.stages]

    assert inner("published", "resnet18") == inner("backbone", "resnet18") == [128, 256, 512]
    assert inner("published", "resnet50") == [128, 256, 512]
    assert inner("backbone", "resnet50") == [512, 1024, 2048]
    assert inner("published", "mobilenet_v2") == [48, 64, 192]


def test_a_backbone_cut_before_stage_3_is_refused_with_the_remedy() -> None:
    with pytest.raises(MethodError, match="--set stage=3"):
        network(stage=2)


# The method


def fitted(
    seed: int = 0,
    facts: dict[str, Any] | None = None,
    train: TrainingSet | None = None,
    backbone: str = "mobilenet_v2",
    stage: int = 3,
    **changes: Any,
) -> Any:
    """Fit on forty pictures in two steps, or as told; context settings are told from parameters."""
    context = {
        key: changes.pop(key) for key in ("precision", "batch_size", "external") if key in changes
    }
    seeds = Seeds(seed, "planted", "planted")
    make_deterministic(torch.get_num_threads(), seeds["init"])
    detector = MemSeg(Parameters(**{"epochs": 1, "steps_per_epoch": 2, "memory": 5, **changes}))
    told = Context(
        device="cpu", seeds=seeds, backbone=BackboneSource(backbone, stage, None),
        record=(facts if facts is not None else {}).__setitem__,
        **{"batch_size": 6, "score_batch_size": 3, **context},
    )  # fmt: skip
    detector.fit(train or TrainingSet(pictures(40, False, 1), pictures(2, True, 2)), told)
    return detector


@pytest.mark.parametrize(("backbone", "stage"), [("resnet18", 3), ("mobilenet_v2", 4)])
def test_a_planted_defect_is_found_in_a_few_dozen_small_steps(backbone: str, stage: int) -> None:
    detector = fitted(backbone=backbone, stage=stage, epochs=2, steps_per_epoch=20)
    assert separation(detector) > 0.95


TESTED = pictures(7, True, 5)
HARD: dict[str, Any] = {
    "external": TEXTURES, "precision": "bfloat16", "batch_size": 5, "steps_per_epoch": 3,
}  # fmt: skip
"""What could make numbers come out otherwise."""


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not() -> None:
    first, again, other = (fitted(seed, **HARD).score(TESTED) for seed in (0, 0, 1))
    assert first.dtype == np.float32
    assert first.shape == (7,)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, fitted(0, **{**HARD, "precision": "float32"}).score(TESTED))


def test_a_score_lies_between_0_and_1_and_scoring_twice_gives_it_again() -> None:
    detector = fitted()
    scores = detector.score(TESTED)
    assert ((scores > 0) & (scores < 1)).all()
    assert np.array_equal(scores, detector.score(TESTED))


def test_labelled_anomalies_change_nothing() -> None:
    normal = pictures(40, False, 1)
    scores = [
        fitted(train=TrainingSet(normal, anomalous)).score(TESTED)
        for anomalous in (pictures(0, True, 2), pictures(5, True, 3))
    ]
    assert np.array_equal(*scores)


@pytest.mark.parametrize("stage", [3, 4])
@pytest.mark.parametrize(("size", "batch"), [(64, 3), (100, 2), (224, 2)])
@pytest.mark.parametrize("external", ["none", "textures"])
def test_it_runs_at_any_stage_size_and_batch_size(
    stage: int, size: int, batch: int, external: str
) -> None:
    images = np.random.RandomState(0).randint(0, 256, (4, 3, size, size)).astype(np.uint8)
    samples = dataclasses.replace(pictures(4, False, 1), images=images)
    outside = images[:2] if external == "textures" else None
    detector = fitted(
        stage=stage, train=TrainingSet(samples, pictures(0, True, 2)), batch_size=batch,
        steps_per_epoch=1, external=outside, memory=2,
    )  # fmt: skip
    scores = detector.score(samples)
    assert np.isfinite(scores).all()
    seen = detector.explain(samples)
    side = min(size, 56)
    assert seen.maps["score"].shape == (4, side, side)
    assert list(seen.maps) == ["score", "difference"]
    assert seen.parts["distance"].shape == (4,)
    assert detector.embed(samples).shape == (4, 24 + 32 + 96)


def test_the_map_that_explains_is_the_scores_own() -> None:
    detector = fitted()
    maps = detector.explain(TESTED).maps["score"]  # as fine as the picture
    largest = np.sort(maps.reshape(len(maps), -1), 1)[:, -100:]
    assert detector.score(TESTED) == pytest.approx(largest.mean(1), rel=1e-5)


def test_batch_size_1_is_refused() -> None:
    with pytest.raises(MethodError, match="batch_size"):
        fitted(batch_size=1)


@pytest.mark.parametrize("size", [2, 5, 8])
def test_half_of_a_batch_is_made_up(size: int) -> None:
    context = Context("cpu", Seeds(0, "d", "c"), batch_size=size)
    normal = np.full((6, 3, 32, 32), 100, np.uint8)
    normal[:, 0] += np.arange(6, dtype=np.uint8)[:, None, None]
    batches = Batches(normal, "none", context)
    kept = size - size // 2
    for _ in range(6):
        images, anomalous = batches()
        assert images.shape == (size, 3, 32, 32)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert anomalous.shape == (size, 32, 32)
        assert not anomalous[:kept].any()
        spread = (images.amax((2, 3)) - images.amin((2, 3))).amax(1)
        assert (spread[:kept] < 1e-6).all()
        assert ((spread[kept:] > 0) <= anomalous[kept:].flatten(1).any(1)).all()


def test_what_is_stored_does_not_train_unless_told() -> None:
    def parted(normals: int, **changes: Any) -> tuple[list[int], list[int]]:
        detector = MemSeg(Parameters(**changes))
        detector.context = Context("cpu", Seeds(0, "d", "c"))
        return detector.parted(normals)

    stored, rest = parted(100)
    assert len(stored) == 30
    assert sorted(stored + rest) == list(range(100))
    stored, rest = parted(20)
    assert len(stored) == 10
    assert sorted(stored + rest) == list(range(20))
    assert parted(1) == ([0], [0])
    stored, rest = parted(20, memory_trains=True)
    assert stored == rest == list(range(20))
    stored, rest = parted(50, memory_trains=True)
    assert len(stored) == 30
    assert rest == list(range(50))


def test_training_leaves_the_frozen_part_alone_and_moves_all_else() -> None:
    make_deterministic(torch.get_num_threads(), Seeds(0, "planted", "planted")["init"])
    before = Network(BackboneSource("mobilenet_v2", 4, None), "float32", "published").state_dict()
    detector = fitted(stage=4, steps_per_epoch=3)
    trained = {name for name, p in detector.network.named_parameters() if p.requires_grad}
    for name, tensor in detector.network.state_dict().items():
        if name.startswith("frozen."):
            assert torch.equal(tensor, before[name]), name
        elif name in trained or name.endswith("running_mean"):
            assert not torch.equal(tensor, before[name]), name


CHANGED: dict[str, Any] = {
    "epochs": 2, "steps_per_epoch": 3, "lr": 1e-3, "lr_end": 1e-3, "warmup": 1.0,
    "weight_decay": 0.5, "l1_weight": 0.1, "focal_weight": 3.0, "gamma": 1.0, "memory": 7,
    "memory_trains": True, "foreground": "none", "widths": "backbone",
}  # fmt: skip


def test_every_parameter_changes_the_scores() -> None:
    assert CHANGED.keys() == {f.name for f in dataclasses.fields(Parameters)}
    scene = framed(20, 1)
    assert foregrounds(scene.images).mean() < 0.5
    train = TrainingSet(scene, pictures(0, True, 2))

    def scores(**changes: Any) -> Any:
        given = {"lr_end": 2e-3, "epochs": 1, "steps_per_epoch": 4, **changes}
        backbone = "resnet50" if "widths" in changes else "mobilenet_v2"
        return fitted(train=train, backbone=backbone, **given).score(TESTED)

    standard = scores()
    assert np.array_equal(standard, scores())
    changed = {k: v for k, v in CHANGED.items() if k != "widths"}  # tested above: its channels
    without = [k for k, v in changed.items() if np.array_equal(scores(**{k: v}), standard)]
    assert without == []


def test_a_loaded_model_gives_the_same_scores() -> None:
    detector = fitted(stage=4, memory=6)
    arrays = detector.state()
    assert sum(k.startswith("bank.") for k in arrays) == 3
    loaded = MemSeg(Parameters(memory=6))
    loaded.load_state(arrays, dataclasses.replace(detector.context, seeds=Seeds(9, "x", "y")))
    assert np.array_equal(loaded.score(TESTED), detector.score(TESTED))
    del arrays["fusion.down.0.0.weight"]
    with pytest.raises(MethodError, match="does not fit"):
        loaded.load_state(arrays, detector.context)


def test_it_records_what_it_did() -> None:
    facts: dict[str, Any] = {}
    told: list[tuple[int, int]] = []
    detector = MemSeg(Parameters(epochs=2, steps_per_epoch=2, memory=5))
    seeds = Seeds(0, "planted", "planted")
    make_deterministic(torch.get_num_threads(), seeds["init"])
    context = Context(
        device="cpu", seeds=seeds, batch_size=4, record=facts.__setitem__,
        backbone=BackboneSource("mobilenet_v2", 3, None),
        progress=lambda epoch, epochs, loss: told.append((epoch, epochs)),
    )  # fmt: skip
    detector.fit(TrainingSet(pictures(20, False, 1), pictures(0, True, 2)), context)
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert facts["optimiser_steps"] == 4
    assert facts["bank_vectors"] == 5
    assert facts["bank_bytes"] == 5 * 4 * (24 * 8 * 8 + 32 * 4 * 4 + 96 * 2 * 2)
    assert 0 < facts["final_loss"] < 2
    assert facts["train_images_per_s"] > 0


def test_a_rehearsal_counts_the_memory_of_a_step() -> None:
    def peak(size: int, batch: int, **changes: Any) -> int:
        context = Context(
            "cpu", Seeds(0, "d", "c"), batch_size=batch,
            backbone=BackboneSource("mobilenet_v2", 3, None),
        )  # fmt: skip
        return rehearsed_peak(MemSeg(Parameters(**changes)), size, context)

    small, large = peak(64, 4), peak(64, 8)
    assert small < large < 2 * small
    assert peak(256, 8) > 2 * large
    stored = peak(64, 4, memory=130) - small
    assert stored == pytest.approx(100 * 4 * (24 * 256 + 32 * 64 + 96 * 16), rel=0.2)


def test_the_registry_knows_it() -> None:
    assert load_class(METHODS["memseg"].path) is MemSeg


def test_its_card_needs_no_class(tmp_path: Any) -> None:
    card = Registry(tmp_path).find("memseg")
    assert card.supervision == "unsupervised"
    assert card.settings == {"precision", "batch_size", "backbone", "external"}
    assert card.abilities >= {"embed", "explain", "state", "rehearse"}


def test_samples_are_left_as_they_are() -> None:
    normal: Samples = pictures(20, False, 1)
    before = normal.images.copy()
    fitted(train=TrainingSet(normal, pictures(0, True, 2)))
    assert np.array_equal(normal.images, before)
