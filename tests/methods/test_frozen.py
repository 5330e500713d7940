"""The maps of frozen backbones against torchvision's own networks, and the blur of a map."""

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from baselines.blocks.frozen import Features, channels_of, smoothed
from bench.detector import BackboneSource, MethodError
from bench.weights import BACKBONES

ALL = (1, 2, 3, 4)
MOBILE = {1: 3, 2: 6, 3: 13, 4: 18}
"""The blocks of mobilenet_v2.features before its maps shrink, and the last one."""


def features_of(
    name: str, stages: tuple[int, ...] = ALL, cut: int = 4, strides: str = "v1.5", seed: int = 0
) -> Features:
    """Return features with random weights and random statistics."""
    torch.manual_seed(seed)
    features = Features(BackboneSource(name, cut, None, strides), "float32", stages)
    for module in features.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.02, 0.02)
            module.running_var.uniform_(0.5, 1.5)
    return features


def own_maps(features: Features, name: str, images: Tensor, strides: str) -> list[Tensor]:
    """Return the maps of all stages of torchvision's network with the same weights."""
    with torch.device("meta"):
        network: Any = torchvision.models.get_model(name, weights=None).eval()
    outer = ["conv1", "bn1", "relu", "maxpool", *(f"layer{s}" for s in ALL)]
    named = {}
    for key, value in features.state_dict().items():
        _, block, rest = key.split(".", 2)
        mobile = name == "mobilenet_v2"
        named[f"features.{block}.{rest}" if mobile else f"{outer[int(block)]}.{rest}"] = value
    left = network.load_state_dict(named, strict=False, assign=True)
    assert not left.unexpected_keys
    assert {k.split(".")[0] for k in left.missing_keys} <= {"fc", "classifier"}
    if strides == "v1":
        for layer in (network.layer2, network.layer3, network.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    if name == "mobilenet_v2":
        network = network.features
    names = {str(MOBILE[s]) if name == "mobilenet_v2" else f"layer{s}": s for s in ALL}
    with torch.no_grad():
        maps = IntermediateLayerGetter(network, names)(images)
    return [maps[s] for s in ALL]


@pytest.mark.parametrize(
    ("name", "strides"), [*((name, "v1.5") for name in BACKBONES), ("resnet50", "v1")]
)
def test_the_maps_are_those_of_torchvisions_own_network(name: str, strides: str) -> None:
    features = features_of(name, strides=strides)
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    maps = features(images)
    for stage, found, own in zip(ALL, maps, own_maps(features, name, images, strides), strict=True):
        assert found.shape == (1, *channels_of(name, (stage,)), *(n >> stage + 1 for n in (64, 96)))
        assert own.std() > 0
        torch.testing.assert_close(found / own.std(), own / own.std(), rtol=1e-4, atol=1e-4)


def test_the_strides_of_v1_give_other_maps() -> None:
    images = torch.randn(1, 3, 64, 64)
    first, *deeper = (features_of("resnet50", strides=s)(images) for s in ("v1.5", "v1"))
    assert torch.equal(first[0], deeper[0][0])
    assert not any(torch.allclose(a, b) for a, b in zip(first[1:], deeper[0][1:], strict=True))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_stages_are_given_alone_in_their_order_and_no_deeper_block_is_built(name: str) -> None:
    images = torch.randn(1, 3, 64, 64)
    every = features_of(name, (1, 2, 3), cut=3)(images)
    for stages in ((2,), (1, 3), (2, 3)):
        some = features_of(name, stages)
        assert len(some.blocks) == some.ends[-1] + 1
        assert [m.shape for m in some(images)] == [every[s - 1].shape for s in stages]


def test_they_stay_in_evaluation_mode_and_carry_no_gradient() -> None:
    features = features_of("resnet18", (1, 2), cut=2)
    images = torch.randn(2, 3, 32, 32)
    before, statistics = features(images), features.state_dict()["blocks.1.running_mean"].clone()
    nn.Sequential(features).train()
    assert not any(m.training for m in features.modules())
    assert all(torch.equal(a, b) for a, b in zip(before, features(images), strict=True))
    assert torch.equal(statistics, features.state_dict()["blocks.1.running_mean"])
    assert not any(p.requires_grad for p in features.parameters())
    assert not any(m.requires_grad for m in features(images))


def test_bfloat16_gives_float32_maps_near_those_of_float32() -> None:
    exact = features_of("resnet18", (1, 2, 3))
    rough = Features(BackboneSource("resnet18", 4, None), "bfloat16", (1, 2, 3))
    rough.load_state_dict(exact.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for a, b in zip(exact(images), rough(images), strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert not torch.equal(a, b)
        assert (a - b).norm() < 0.02 * a.norm()


def test_a_stage_beyond_the_cut_is_refused_with_the_remedy() -> None:
    with pytest.raises(MethodError) as refused:
        Features(BackboneSource("resnet18", 2, None), "float32", (1, 2, 3))
    assert str(refused.value) == (
        "it reads stage 3 of resnet18, which is cut after stage 2: --set stage=3"
    )


def upsampled(grid: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Interpolate (h, w) bilinearly between the centres of cells, constant beyond the outer."""
    axes = [(np.arange(size) + 0.5) * n / size - 0.5 for n in grid.shape]
    places = np.meshgrid(*axes, indexing="ij")
    return np.asarray(ndimage.map_coordinates(grid, places, order=1, mode="nearest"))


@given(
    st.integers(1, 14), st.integers(1, 14), st.integers(33, 70), st.sampled_from([1.0, 2.5, 4.0])
)
def test_a_smoothed_map_is_scipys_mirrored_gaussian_of_the_bilinear_one(
    height: int, width: int, size: int, sigma: float
) -> None:
    grids = np.random.RandomState(height * width + size).rand(3, height, width)
    found = smoothed(torch.tensor(grids, dtype=torch.float32), size, sigma)
    for grid, own in zip(grids, found, strict=True):
        large = upsampled(grid, size)
        blurred = ndimage.gaussian_filter(large, sigma, mode="mirror", truncate=4)
        np.testing.assert_allclose(own, blurred, atol=2e-6)


def test_an_image_is_continued_by_reflection_about_the_centre_of_its_last_pixel() -> None:
    """Torch's `reflect` is scipy's `mirror`; scipy's own default, `reflect`, repeats that pixel."""
    grid = np.zeros((48, 48))
    grid[0] = 1
    found = smoothed(torch.tensor(grid, dtype=torch.float32)[None], 48)[0]
    other = ndimage.gaussian_filter(grid, 4, mode="reflect", truncate=4)
    assert np.abs(found.numpy() - other).max() > 0.05
    mirrored = ndimage.gaussian_filter(grid, 4, mode="mirror", truncate=4)
    np.testing.assert_allclose(found, mirrored, atol=1e-6)


@pytest.mark.parametrize("size", [16, 17, 32])
def test_where_the_kernel_has_no_room_it_is_cut_and_a_constant_map_stays(size: int) -> None:
    found = smoothed(torch.full((2, 4, 4), 3.0), size)
    assert found.shape == (2, size, size)
    torch.testing.assert_close(found, torch.full_like(found, 3.0))
