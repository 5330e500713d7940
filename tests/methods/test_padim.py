"""PaDiM's Gaussians and distances against numpy in float64, and its choice of channels."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from baselines.blocks.frozen import channels_of
from baselines.padim import STAGES, PaDiM
from bench.detector import BackboneSource, Context, MethodError, Seeds

WIDTHS = channels_of("resnet18", STAGES)
Maps = list[Tensor]


def noise(images: int, side: int = 4, seed: int = 0, offset: float = 0.0) -> Maps:
    """Return maps of images as a ResNet-18 shapes them; channels differ in mean and spread."""
    random = np.random.RandomState(seed)
    spread = np.random.RandomState(99)
    maps = []
    for width, shrunk in zip(WIDTHS, (1, 2, 4), strict=True):
        shape = (images, width, -(-side // shrunk), -(-side // shrunk))
        scale, mean = (spread.uniform(low, 2, (1, width, 1, 1)) for low in (0.1, -2))
        values = offset + mean + scale * random.normal(size=shape)
        maps.append(torch.tensor(values, dtype=torch.float32))
    return maps


def fitted(maps: Maps, batch: int = 8, seed: int = 0, **given: Any) -> PaDiM:
    """Fit on maps that come in batches."""
    detector = PaDiM(PaDiM.Parameters(**given))
    seeds = Seeds(seed, "d", "c")
    detector.context = Context("cpu", seeds, backbone=BackboneSource("resnet18", 3, None))
    parts = zip(*(m.split(batch) for m in maps), strict=True)
    with torch.inference_mode():
        detector.remember((list(part) for part in parts), len(maps[0]))
    return detector


def embedded(maps: Maps, chosen: Tensor) -> NDArray[np.float64]:
    """Return the chosen channels at all positions of stage 1, (P, N, d), for even sides."""
    side = maps[0].shape[-1]
    levels = [
        m.numpy().repeat(side // m.shape[-1], 2).repeat(side // m.shape[-1], 3).astype(np.float64)
        for m in maps
    ]
    joined = np.concatenate(levels, 1)[:, chosen.numpy()]
    return np.asarray(joined.reshape(*joined.shape[:2], -1).transpose(2, 0, 1))


def expected(detector: PaDiM, normal: Maps, tested: Maps) -> NDArray[np.float64]:
    """Return Mahalanobis distances (B, P) by the definition."""
    x, z = embedded(normal, detector.chosen), embedded(tested, detector.chosen)
    distances = []
    for own, queries in zip(x, z, strict=True):
        covariance = np.cov(own, rowvar=False).reshape(own.shape[1], -1)
        covariance += detector.parameters.epsilon * np.eye(len(covariance))
        away = queries - own.mean(0)
        distances.append(np.sqrt((away * np.linalg.solve(covariance, away.T).T).sum(1)))
    return np.stack(distances, 1)


@pytest.mark.parametrize("images", [2, 3, 19, 20, 21, 50])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_distances_are_mahalanobis_distances_with_more_and_with_fewer_channels_than_images(
    images: int, offset: float
) -> None:
    normal, tested = noise(images, offset=offset), noise(5, seed=1, offset=offset)
    detector = fitted(normal, channels=20)
    assert (detector.factor.shape[1] < 20) == (images < 20)
    assert detector.factor.shape == (16, min(images, 20), 20)
    mean = embedded(normal, detector.chosen).mean(1)
    np.testing.assert_allclose(detector.mean, mean, rtol=1e-5, atol=1e-5)
    found = detector.distances(tested)
    assert found.shape == (5, 4, 4)
    wanted = expected(detector, normal, tested)
    np.testing.assert_allclose(found.flatten(1), wanted, rtol=2e-3)


def test_the_factor_of_many_images_is_the_inverse_of_the_covariances() -> None:
    normal = noise(60)
    detector = fitted(normal, channels=15)
    x = embedded(normal, detector.chosen)
    for own, factor in zip(x, detector.factor.double().numpy(), strict=True):
        covariance = np.cov(own, rowvar=False) + 0.01 * np.eye(15)
        np.testing.assert_allclose(factor.T @ factor @ covariance, np.eye(15), atol=1e-3)


@given(
    images=st.integers(2, 30), channels=st.integers(1, 30), batch=st.integers(1, 9),
    epsilon=st.sampled_from([0.01, 0.5]),
)  # fmt: skip
def test_distances_hold_for_any_number_of_images_channels_and_batches(
    images: int, channels: int, batch: int, epsilon: float
) -> None:
    normal, tested = noise(images), noise(3, seed=images)
    detector = fitted(normal, batch, seed=channels, channels=channels, epsilon=epsilon)
    found = detector.distances(tested).flatten(1)
    np.testing.assert_allclose(found, expected(detector, normal, tested), rtol=2e-3)


def test_both_forms_agree_where_there_are_as_many_images_as_channels() -> None:
    normal, tested = noise(24), noise(6, seed=1)
    detector = fitted(normal, channels=24)
    by_channels = detector.distances(tested).flatten(1).T
    x = detector.embedded(normal)
    mean, factor = detector._by_images(iter([x]), 24, x.mean(2))
    z = detector.embedded(tested) - mean.unsqueeze(2)
    epsilon = detector.parameters.epsilon
    by_images = ((z.square().sum(1) - (factor @ z).square().sum(1)) / epsilon).sqrt()
    torch.testing.assert_close(by_images, by_channels, rtol=1e-3, atol=1e-3)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("images", [250, 600])
def test_a_batch_of_large_matrices_is_factored_rightly_on_two_threads(images: int) -> None:
    """Batched inverses of general matrices are silently wrong there with some builds of torch."""
    x = torch.randn(4, 550, images, generator=torch.Generator().manual_seed(0))
    detector = PaDiM(PaDiM.Parameters())
    fit = detector._by_images if images < 550 else detector._by_channels
    _, factor = fit(iter([x.clone()]), images, x.mean(2))
    held = (x - x.mean(2, keepdim=True)).double()
    if images < 550:  # F'F = X' (X X' + ridge)^-1 X
        gram = held.mT @ held
        ridge = 0.01 * (images - 1) * torch.eye(images, dtype=torch.float64)
        found = factor.double().mT @ factor.double()
        wanted = held @ torch.from_numpy(np.linalg.inv((gram + ridge).numpy())) @ held.mT
    else:
        covariance = held @ held.mT / (images - 1) + 0.01 * torch.eye(550, dtype=torch.float64)
        found = factor.double() @ covariance @ factor.double().mT
        wanted = torch.eye(550, dtype=torch.float64).expand_as(found)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_the_channels_depend_on_the_seed_alone() -> None:
    first = fitted(noise(6), channels=30).chosen
    assert torch.equal(first, fitted(noise(9, seed=5), batch=2, channels=30, epsilon=1.0).chosen)
    assert not torch.equal(first, fitted(noise(6), seed=1, channels=30).chosen)
    assert first.tolist() == sorted(set(first.tolist()))
    assert 0 <= first.min() < first.max() < sum(WIDTHS)
    seen = torch.cat([fitted(noise(2), seed=s, channels=30).chosen for s in range(60)])
    assert len(set(seen.tolist())) > 0.95 * sum(WIDTHS)


@pytest.mark.parametrize(
    ("backbone", "asked", "kept"),
    [
        ("resnet18", 0, 100), ("resnet50", 0, 550), ("wide_resnet50_2", 0, 550),
        ("mobilenet_v2", 0, 152), ("resnet18", 448, 448), ("resnet18", 1000, 448),
        ("resnet50", 7, 7),
    ],
)  # fmt: skip
def test_so_many_channels_are_kept(backbone: str, asked: int, kept: int) -> None:
    assert PaDiM(PaDiM.Parameters(channels=asked)).dimensions(backbone) == kept


def test_deeper_stages_are_spread_by_nearest_neighbours() -> None:
    maps = [
        torch.zeros(1, width, side, side) for width, side in zip(WIDTHS, (5, 3, 2), strict=True)
    ]
    for level in maps:
        level[:] = torch.arange(level[0, 0].numel()).view(level.shape[-2:])
    detector = fitted(noise(3), channels=448)
    columns = detector.embedded(maps)[:, :, 0]
    assert columns.shape == (25, 448)
    rows = columns[:, [0, 64, 447]].T.view(3, 5, 5).long().tolist()
    # Cell i of 5 reads cell floor(i * 3 / 5) or floor(i * 2 / 5).
    assert rows[0] == torch.arange(25).view(5, 5).tolist()
    assert rows[1] == [[3 * i + j for j in (0, 0, 1, 1, 2)] for i in (0, 0, 1, 1, 2)]
    assert rows[2] == [[2 * i + j for j in (0, 0, 0, 1, 1)] for i in (0, 0, 0, 1, 1)]


def test_the_score_is_the_largest_value_of_the_blurred_map() -> None:
    detector = fitted(noise(8), channels=10, sigma=2.0)
    detector.size = 16
    tested = noise(3, seed=1)
    tested[0][1, :, 2, 3] += 5
    distances = detector.distances(tested)
    places = np.meshgrid(*[(np.arange(16) + 0.5) / 4 - 0.5] * 2, indexing="ij")
    for i, score in enumerate(detector.scores(tested).tolist()):
        large = ndimage.map_coordinates(distances[i].double(), places, order=1, mode="nearest")
        blurred = ndimage.gaussian_filter(large, 2.0, mode="mirror", truncate=4)
        assert score == pytest.approx(blurred.max(), rel=1e-5)
        np.testing.assert_allclose(detector.maps(tested)[i], blurred, rtol=1e-4)


def test_one_image_has_no_covariance_and_two_have() -> None:
    with pytest.raises(MethodError, match="two normal images at least"):
        fitted(noise(1))
    detector = fitted(noise(2))
    assert detector.distances(noise(2, seed=1)).isfinite().all()


@pytest.mark.parametrize("images", [4, 40])
def test_features_that_never_change_count_by_epsilon_alone(images: int) -> None:
    constant = [torch.full((images, w, s, s), 7.0) for w, s in zip(WIDTHS, (4, 2, 1), strict=True)]
    detector = fitted(constant, channels=25)
    one = [m[:1] for m in constant]
    assert (detector.distances(one) == 0).all()
    # A step of 0.3 in all of 25 channels, each of variance 0.01.
    away = detector.distances([m + 0.3 for m in one])
    torch.testing.assert_close(away, torch.full_like(away, (25 * 0.3**2 / 0.01) ** 0.5))


@pytest.mark.parametrize(("images", "channels"), [(2, 100), (3, 100), (60, 50)])
def test_features_of_any_size_give_finite_distances_or_are_refused(
    images: int, channels: int
) -> None:
    """What float32 leaves of a small distance to large features is not below zero."""
    large = [30 * m for m in noise(images)]
    gentle = fitted(large, channels=channels, epsilon=1.0)
    assert gentle.distances(large).isfinite().all()
    try:  # which of both is a matter of the library's rounding
        found = fitted(large, channels=channels).distances(large)
    except MethodError as error:
        refused = str(error)
    else:
        refused = "" if found.isfinite().all() else "infinite"
    assert refused in ("", "features are too large for epsilon = 0.01: raise it")
    with pytest.raises(MethodError, match=r"too large for epsilon = 1e-12: raise it$"):
        fitted(large, channels=100, epsilon=1e-12)


def test_a_channel_count_that_leaves_a_stage_out_still_works() -> None:
    normal, tested = noise(5), noise(2, seed=1)
    for seed in range(6):
        detector = fitted(normal, seed=seed, channels=1)
        found = detector.distances(tested).flatten(1)
        np.testing.assert_allclose(found, expected(detector, normal, tested), rtol=2e-3)


def test_it_records_the_size_of_what_it_remembers() -> None:
    facts: dict[str, Any] = {}
    for images, rows in ((5, 5), (30, 12)):
        detector = PaDiM(PaDiM.Parameters(channels=12))
        detector.context = Context(
            "cpu", Seeds(0, "d", "c"), backbone=BackboneSource("resnet18", 3, None),
            record=facts.__setitem__,
        )  # fmt: skip
        detector.remember(iter([noise(images)]), images)
        assert facts == {"bank_vectors": 16 * rows, "bank_bytes": 4 * 16 * rows * 12}
