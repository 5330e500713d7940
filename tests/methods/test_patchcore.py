"""PatchCore's patches, coreset, distances and weights against plain statements of them."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from baselines.blocks.frozen import channels_of
from baselines.patchcore import POOLED, STAGES, PatchCore
from bench.detector import BackboneSource, Context, Seeds

WIDTHS = channels_of("resnet18", STAGES)
Maps = list[Tensor]
Array = NDArray[np.float64]


def noise(images: int, side: int = 4, seed: int = 0, widths: tuple[int, ...] = WIDTHS) -> Maps:
    """Return maps of two stages, the second of half the side."""
    rng = torch.Generator().manual_seed(seed)
    sides = (side, -(-side // 2))
    return [torch.rand(images, w, s, s, generator=rng) for w, s in zip(widths, sides, strict=True)]


def detector_of(seed: int = 0, **given: Any) -> PatchCore:
    detector = PatchCore(PatchCore.Parameters(**given))
    backbone = BackboneSource("resnet18", 3, None)
    detector.context = Context("cpu", Seeds(seed, "d", "c"), backbone=backbone)
    return detector


def fitted(maps: Maps, batch: int = 3, seed: int = 0, **given: Any) -> PatchCore:
    """Fit on maps that come in batches."""
    detector = detector_of(seed, **given)
    parts = zip(*(m.split(batch) for m in maps), strict=True)
    with torch.inference_mode():
        detector.remember([list(part) for part in parts], len(maps[0]))
    return detector


def with_bank(bank: list[list[float]], **given: Any) -> PatchCore:
    """Return a detector whose features are patches already, and whose memory is given."""
    detector = detector_of(**given)
    detector.bank = torch.tensor(bank)
    detector.embedded = lambda patches: patches  # type: ignore[assignment, method-assign]
    return detector


# Patches


def pooled(values: Array, to: int) -> Array:
    """Average a vector down (or up) to a length: the i-th value over [i n / to, (i + 1) n / to)."""
    n = len(values)
    edges = [(i * n // to, -(-(i + 1) * n // to)) for i in range(to)]
    return np.array([values[a:b].mean() for a, b in edges])


def around(level: Array, y: int, x: int) -> Array:
    """Return the 3 x 3 neighbourhood of a place, (C, 3, 3), zeros beyond the edges."""
    padded = np.pad(level, ((0, 0), (1, 1), (1, 1)))
    return padded[:, y : y + 3, x : x + 3]


def at_size(level: Array, size: int) -> Array:
    """Bring (C, h, w) to (C, size, size), bilinearly between the centres of cells."""
    axes = [(np.arange(size) + 0.5) * n / size - 0.5 for n in level.shape[1:]]
    places = np.meshgrid(*axes, indexing="ij")
    return np.stack([ndimage.map_coordinates(c, places, order=1, mode="nearest") for c in level])


def described(levels: list[Array], how: str) -> Array:
    """Return the patches (P, D) of one image."""
    stages = []
    for level in levels:
        height, width = level.shape[1:]
        places = [(y, x) for y in range(height) for x in range(width)]
        if how == "pooled":
            rows = [pooled(around(level, y, x).ravel(), POOLED) for y, x in places]
        else:
            rows = [around(level, y, x).sum((1, 2)) / 9 for y, x in places]
        stages.append(at_size(np.stack(rows, 1).reshape(-1, height, width), levels[0].shape[1]))
    joined = np.concatenate(stages).reshape(sum(map(len, stages)), -1).T
    return np.stack([pooled(row, POOLED) for row in joined]) if how == "pooled" else joined


@pytest.mark.parametrize("how", ["pooled", "joined"])
@pytest.mark.parametrize(
    ("side", "widths"), [(4, WIDTHS), (5, (7, 11)), (3, (150, 120))], ids=["even", "odd", "few"]
)
def test_patches_are_averaged_neighbourhoods_of_both_stages(
    how: str, side: int, widths: tuple[int, ...]
) -> None:
    maps = noise(2, side, widths=widths)
    found = detector_of(embedding=how).embedded(maps)
    assert found.shape == (2, side**2, POOLED if how == "pooled" else sum(widths))
    for i, patches in enumerate(found):
        wanted = described([m[i].double().numpy() for m in maps], how)
        np.testing.assert_allclose(patches, wanted, atol=1e-5)


# The coreset


def greedy(points: Array, count: int, first: int) -> list[int]:
    picks = [first]
    nearest = np.square(points - points[first]).sum(1)
    while len(picks) < count:
        picks.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(points - points[picks[-1]]).sum(1))
    return picks


@pytest.mark.parametrize(
    ("images", "share", "kept"), [(5, 0.1, 8), (5, 0.3, 24), (3, 1.0, 48), (1, 0.01, 1)]
)
def test_the_bank_holds_a_share_of_all_patches_as_they_are(
    images: int, share: float, kept: int
) -> None:
    maps, facts = noise(images), {}
    detector = fitted(maps, coreset=share)
    patches = detector.embedded(maps).flatten(0, 1)
    assert detector.bank.shape == (kept, POOLED)
    places = [int((patches - memory).abs().sum(1).argmin()) for memory in detector.bank]
    assert len(set(places)) == kept
    torch.testing.assert_close(detector.bank, patches[places])
    recording = detector_of(coreset=share)
    recording.context = Context("cpu", Seeds(0, "d", "c"), record=facts.__setitem__)
    recording.remember([maps], images)
    assert facts == {"bank_vectors": kept, "bank_bytes": kept * POOLED * 4}


def test_without_a_projection_the_coreset_is_the_greedy_one_of_the_patches_themselves() -> None:
    maps = noise(6, seed=2)
    detector = fitted(maps, coreset=0.25, projection=0, embedding="joined")
    patches = detector.embedded(maps).flatten(0, 1).double().numpy()
    first = int(np.abs(patches - detector.bank[0].double().numpy()).sum(1).argmin())
    wanted = patches[greedy(patches, 24, first)]
    np.testing.assert_allclose(detector.bank, wanted, rtol=1e-5, atol=1e-6)


def test_a_projection_keeps_distances_about_as_they_are_and_so_the_choice_nearly_as_good() -> None:
    maps = noise(20, seed=3)
    detector = fitted(maps, coreset=0.1, projection=64)
    patches = detector.embedded(maps).flatten(0, 1)
    rng = torch.Generator().manual_seed(detector.context.seeds["init"])
    begin = int(torch.randint(320, (), generator=rng))
    directions = detector._directions(POOLED, rng)
    assert directions is not None
    few = patches @ directions
    torch.testing.assert_close(detector.bank, patches[greedy(few.numpy(), 32, begin)])
    assert few.shape == (320, 64)
    ratios = torch.pdist(few) / torch.pdist(patches)
    assert ratios.mean() == pytest.approx(1, abs=0.1)
    assert ratios.std() < 2 / math.sqrt(2 * 64)
    exact = fitted(maps, coreset=0.1, projection=0)
    radius = [torch.cdist(patches, d.bank).amin(1).max().item() for d in (detector, exact)]
    assert radius[1] <= radius[0] < 1.25 * radius[1]
    assert not torch.equal(detector.bank, exact.bank)
    for dimensions in (0, POOLED, POOLED + 1):
        other = detector_of(projection=dimensions)
        assert other._directions(POOLED, torch.Generator()) is None


def test_the_seed_chooses_the_first_patch_and_the_same_seed_gives_the_same_bits() -> None:
    maps = noise(6)
    banks = [fitted(maps, seed=s, projection=0).bank for s in (0, 0, 1, 2)]
    assert torch.equal(banks[0], banks[1])
    assert len({tuple(bank[0].tolist()) for bank in banks}) == 3
    assert torch.equal(fitted(maps, seed=5).bank, fitted(maps, seed=5).bank)


@pytest.mark.parametrize("projection", [0, 64])
def test_of_too_many_patches_a_seeded_sample_competes(
    projection: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, facts = noise(20, seed=4), {}
    every = detector_of().embedded(maps).flatten(0, 1)
    monkeypatch.setattr("baselines.patchcore.MOST", len(every))
    whole = fitted(maps, coreset=0.1, projection=projection)
    monkeypatch.setattr("baselines.patchcore.MOST", len(every) + 1)
    assert torch.equal(fitted(maps, coreset=0.1, projection=projection).bank, whole.bank)

    monkeypatch.setattr("baselines.patchcore.MOST", 100)
    detector = detector_of(coreset=0.1, projection=projection)
    detector.context = replace(detector.context, record=facts.__setitem__)
    detector.remember([maps], 20)
    assert facts == {"bank_vectors": 10, "bank_bytes": 10 * POOLED * 4, "coreset_candidates": 100}
    places = [int((every - memory).abs().sum(1).argmin()) for memory in detector.bank]
    assert torch.equal(detector.bank, every[places])
    assert len({place // 16 for place in places}) > 5, "drawn from all images"
    again = [fitted(maps, seed=s, coreset=0.1, projection=projection).bank for s in (0, 1)]
    assert torch.equal(again[0], detector.bank)
    assert not torch.equal(again[1], detector.bank)
    # The choice among those drawn is the greedy one.
    rng = torch.Generator().manual_seed(detector.context.seeds["init"])
    begin = int(torch.randint(100, (), generator=rng))
    directions = detector._directions(POOLED, rng)
    drawn = torch.randperm(320, generator=rng)[:100].sort().values
    points = every if directions is None else every @ directions
    wanted = drawn[greedy(points[drawn].double().numpy(), 10, begin)]
    assert places == wanted.tolist()


def test_memory_and_time_have_a_bound_in_the_number_of_images() -> None:
    detector = detector_of()
    context = replace(detector.context)
    few, many, more = (detector.memory(n, 224, context) for n in (391, 700, 7000))
    assert few < many == more


# Distances and scores


def test_distances_are_those_to_the_nearest_memory() -> None:
    detector = fitted(noise(5))
    patches = detector.embedded(noise(3, seed=1))
    distance, index = detector.distances(patches)
    every = torch.cdist(patches.double(), detector.bank.double())
    torch.testing.assert_close(distance.double(), every.amin(2), rtol=1e-5, atol=1e-5)
    assert torch.equal(index, every.argmin(2))


def test_the_map_holds_the_distances_and_the_score_without_weight_their_largest() -> None:
    detector = fitted(noise(5), neighbours=1, sigma=1.5)
    detector.size = 12
    tested = noise(2, seed=1)
    grid = detector.distances(detector.embedded(tested))[0].view(2, 4, 4).double().numpy()
    for found, own in zip(detector.maps(tested), grid, strict=True):
        large = at_size(own[None], 12)[0]
        wanted = ndimage.gaussian_filter(large, 1.5, mode="mirror", truncate=4)
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_allclose(detector.scores(tested), grid.max((1, 2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("neighbours", "asked"), [(1, ()), (2, (5,)), (3, (5, 3)), (4, (5, 3, 9)), (9, (5, 3, 9))]
)
def test_a_score_is_weighted_down_where_its_memory_has_near_neighbours(
    neighbours: int, asked: tuple[int, ...]
) -> None:
    """The memory nearest to a patch at 5 is that at 3; nearest to that lie 0, 8 and -4."""
    detector = with_bank([[8.0], [-4.0], [3.0], [0.0]], neighbours=neighbours)
    patches = torch.tensor([[[5.0], [2.5]], [[-4.0], [5.0]]])
    weight = 1 - math.exp(2) / (math.exp(2) + sum(map(math.exp, asked))) if asked else 1
    assert detector.scores(patches).tolist() == pytest.approx([2 * weight] * 2)


def test_the_farthest_patch_is_chosen_before_it_is_weighted() -> None:
    """The patch at 13, farthest away, finds a dense memory; that at 102.5 a lonely one."""
    detector = with_bank([[10.0], [10.1], [100.0], [0.0]], neighbours=2)
    score = detector.scores(torch.tensor([[[13.0], [102.5]]])).item()
    weight = 1 - math.exp(2.9) / (math.exp(2.9) + math.exp(3.0))
    assert score == pytest.approx(2.9 * weight)
    assert score < 2


def test_large_distances_do_not_overflow_the_weight() -> None:
    detector = with_bank([[0.0], [1.0], [2000.0]], neighbours=3)
    score = detector.scores(torch.tensor([[[5000.0]]])).item()
    assert score == pytest.approx(3000)  # its neighbours are so much farther away


def test_a_single_memory_has_no_neighbours_to_weigh_it_by() -> None:
    assert with_bank([[1.0]]).scores(torch.tensor([[[4.0]]])).tolist() == [3.0]
