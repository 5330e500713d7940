"""SPADE's scores and maps against brute force, and that nothing in it is random."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from baselines.spade import SPADE
from bench.detector import BackboneSource, Context, MethodError, Samples, Seeds, TrainingSet
from bench.planning.matrix import Selection, expand
from bench.planning.suite import read_suite
from bench.registry import Registry
from tests.fixtures.planted import SIZE, pictures

Array = NDArray[np.float64]


def fitted(normal: Samples, stage: int = 3, seed: int = 0, **given: Any) -> SPADE:
    """Fit on a backbone whose random weights do not depend on the seed of the run."""
    torch.manual_seed(0)
    detector = SPADE(SPADE.Parameters(**given))
    backbone = BackboneSource("resnet18", stage, None)
    context = Context("cpu", Seeds(seed, "d", "c"), backbone=backbone)
    detector.fit(TrainingSet(normal, pictures(0, True, 0)), context)
    return detector


def features_of(detector: SPADE, samples: Samples) -> list[Tensor]:
    """Return the maps of all samples, batches joined."""
    with torch.inference_mode():
        return [torch.cat(level) for level in zip(*detector._features(samples), strict=True)]


def retrieved(detector: SPADE, normal: Samples, tested: Samples, k: int) -> tuple[Array, Any]:
    """Return the distances to the k nearest normal images, ascending, and which they are."""
    gallery, queries = (
        features_of(detector, samples)[-1].double().mean((2, 3)).numpy()
        for samples in (normal, tested)
    )
    distances = np.sqrt(np.square(queries[:, None] - gallery).sum(2))
    order = distances.argsort(1)[:, :k]
    return np.take_along_axis(distances, order, 1), order


@pytest.mark.parametrize(("k", "stage"), [(1, 3), (5, 3), (5, 4), (50, 3)])
def test_the_score_is_the_mean_distance_to_the_k_nearest_normal_images(k: int, stage: int) -> None:
    normal, tested = pictures(19, False, 1), pictures(9, True, 2)
    detector = fitted(normal, stage, k=k)
    assert detector.gallery.shape == (19, (256, 512)[stage - 3])
    distances, _ = retrieved(detector, normal, tested, k)
    assert distances.shape == (9, min(k, 19))  # never more than there are
    np.testing.assert_allclose(detector.score(tested), distances.mean(1), rtol=1e-5)


def test_the_map_compares_each_place_with_all_places_of_the_nearest_images() -> None:
    normal, tested = pictures(7, False, 1), pictures(2, True, 2)
    detector = fitted(normal, stage=4, k=3, sigma=2.0)
    _, similar = retrieved(detector, normal, tested, 3)
    ours = [m[:3] for m in (features_of(detector, tested), features_of(detector, normal))]
    found = detector.maps(features_of(detector, tested))
    for image in range(2):
        total = np.zeros((SIZE, SIZE))
        for level, gallery in zip(*ours, strict=True):
            places = gallery.double().numpy()[similar[image]].transpose(0, 2, 3, 1)
            places = places.reshape(-1, places.shape[-1])
            grid = np.empty(level.shape[2:])
            for y, x in np.ndindex(grid.shape):
                one = level[image, :, y, x].double().numpy()
                grid[y, x] = np.sqrt(np.square(places - one).sum(1)).min()
            axes = [(np.arange(SIZE) + 0.5) * n / SIZE - 0.5 for n in grid.shape]
            where = np.meshgrid(*axes, indexing="ij")
            large = ndimage.map_coordinates(grid, where, order=1, mode="nearest")
            total += ndimage.gaussian_filter(large, 2.0, mode="mirror", truncate=4)
        np.testing.assert_allclose(found[image], total / 3, rtol=1e-4)


def test_a_normal_image_that_is_remembered_has_an_empty_map() -> None:
    normal = pictures(6, False, 1)
    detector = fitted(normal, k=1)
    assert detector.score(normal).max() < 1e-3
    assert detector.explain(normal).maps["score"].max() < 1e-3


def test_the_deepest_stage_gives_the_score_and_a_shallow_backbone_is_refused() -> None:
    normal, tested = pictures(8, False, 1), pictures(4, True, 2)
    scores = [fitted(normal, stage).score(tested) for stage in (3, 4)]
    assert not np.allclose(*scores)
    with pytest.raises(MethodError, match=r"cut after stage 2: --set stage=3$"):
        fitted(normal, stage=2)


def test_nothing_is_random() -> None:
    normal, tested = pictures(12, False, 1), pictures(5, True, 2)
    first, other = (fitted(normal, seed=seed) for seed in (0, 1))
    assert np.array_equal(first.score(tested), other.score(tested))
    assert np.array_equal(*(d.explain(tested).maps["score"] for d in (first, other)))


def test_fitted_anew_it_forgets_the_images_before() -> None:
    before, after, tested = pictures(5, False, 1), pictures(4, True, 2), pictures(2, True, 3)
    detector = fitted(before)
    old = detector.explain(tested).maps["score"]
    torch.manual_seed(0)
    detector.fit(TrainingSet(after, pictures(0, True, 0)), detector.context)
    new = detector.explain(tested).maps["score"]
    assert not np.allclose(old, new)
    assert np.array_equal(new, fitted(after).explain(tested).maps["score"])


SUITE = """
methods = ["spade", "padim", "patchcore", "devnet"]
data = ["synthetic/washer"]
shots = [1, 10]
seeds = 3
"""


@pytest.mark.parametrize(
    ("more", "seeds"), [("", 1), ('kind = "timing"', 3), ('[set]\nweights = "none"', 3)]
)
def test_one_seed_says_all_of_it_unless_it_is_timed_or_its_backbone_is_random(
    tmp_path: Path, warm_cache: Path, more: str, seeds: int
) -> None:
    registry = Registry(warm_cache)
    assert registry.find("spade").seedless
    assert not any(registry.find(m).seedless for m in ("padim", "patchcore", "devnet"))
    path = tmp_path / "some.toml"
    path.write_text(SUITE + more)
    cells = expand(read_suite(str(path)), Selection(), registry, tmp_path)
    made = [(c.method.name, c.shots, c.seed) for c in cells]
    assert len(set(made)) == len(made)
    unsupervised = {"spade": seeds, "padim": 3, "patchcore": 3}
    wanted = {(m, 0, seed) for m, count in unsupervised.items() for seed in range(count)}
    wanted |= {("devnet", shots, seed) for shots in (1, 10) for seed in range(3)}
    assert set(made) == wanted
