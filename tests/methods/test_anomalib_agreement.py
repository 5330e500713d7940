"""PaDiM and PatchCore against anomalib 2.7.0's, on the features of `anomalib_fixtures`.

The parts that must agree do so to rounding. Where ours differs on purpose:

- PaDiM adds 0.01 to the diagonal of a covariance, as its paper has it; anomalib 0.01001.
- PatchCore's map is brought to the size of the image bilinearly, as its paper has it; anomalib
  repeats the nearest value.
- PatchCore's patches are pooled to 1024 values by default, as its authors' code does; anomalib
  joins the stages, which ours does with `embedding = "joined"`.
- Random numbers: channels, first pick and projection are drawn differently. Here ours takes over
  anomalib's channels and first pick, and neither side projects.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from baselines.blocks.frozen import smoothed
from baselines.padim import PaDiM
from baselines.patchcore import PatchCore
from baselines.patchcore.coreset import k_centre_greedy
from bench.detector import BackboneSource, Context, Seeds
from tests.campaigns.anomalib_fixtures import CASES, FOLDER, TESTED

ANOMALIBS_EPSILON = 0.01 + 1e-5
PADIM = [name for name, case in CASES.items() if case.method == "padim"]
PATCHCORE = [name for name, case in CASES.items() if case.method == "patchcore"]
BATCH = 5


class Fixture:
    """The features of a case, and what anomalib says of them."""

    def __init__(self, name: str) -> None:
        self.case = CASES[name]
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as stored:
            self._arrays = dict(stored)

    def layers(self, which: str) -> list[Tensor]:
        """Return the `normal` or `tested` features, (N, channels, h, w) by layer."""
        return [torch.from_numpy(self._arrays[f"{which}.{k}"]) for k in self.case.layers]

    def __getitem__(self, said: str) -> NDArray[Any]:
        return self._arrays[f"anomalib.{said}"]


def fitted(fixture: Fixture, method: Any, **given: Any) -> Any:
    """Fit a method on the normal features, in batches, with nothing of a network."""
    case = fixture.case
    detector = method(method.Parameters(**given))
    detector.context = Context(
        "cpu", Seeds(0, "d", "c"), backbone=BackboneSource("resnet18", 3, None)
    )
    detector.features = SimpleNamespace(channels=case.channels)
    detector.size = case.size
    with torch.inference_mode():
        layers = [layer.split(BATCH) for layer in fixture.layers("normal")]
        detector.remember([list(maps) for maps in zip(*layers, strict=True)], case.normals)
    return detector


def padim(fixture: Fixture, monkeypatch: pytest.MonkeyPatch, **given: Any) -> Any:
    """Fit PaDiM on the channels that anomalib has drawn."""
    drawn = torch.from_numpy(fixture["chosen"])
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: drawn)
    return fitted(fixture, PaDiM, channels=fixture.case.kept, **given)


def patchcore(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fit PatchCore from the first pick that anomalib has drawn, without a projection."""
    first = torch.tensor(int(fixture["picks"][0]))
    monkeypatch.setattr(torch, "randint", lambda *_, **__: first)
    case = fixture.case
    return fitted(fixture, PatchCore, embedding="joined", projection=0, coreset=case.coreset,
                  neighbours=case.neighbours)  # fmt: skip


# PaDiM


@pytest.mark.parametrize("name", PADIM)
def test_padims_gaussians_distances_maps_and_scores(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture(name)
    detector = padim(fixture, monkeypatch, epsilon=ANOMALIBS_EPSILON)
    few = fixture.case.normals < fixture.case.kept
    assert detector.factor.shape[1] == (fixture.case.normals if few else fixture.case.kept)
    # Ours keeps the channels in their order. Means of a few dozen numbers of size 1: a few units
    # in the last place of float32 (6e-8).
    mean = fixture["mean"][np.argsort(fixture["chosen"])].T
    np.testing.assert_allclose(detector.mean, mean, atol=5e-7, rtol=0)
    # Squared distances come from a matrix of condition 1e2 to 1e3 (eigenvalues from 0.01 up to
    # the variance): 1e3 times float32's unit, and anomalib inverts where ours factors.
    tested = fixture.layers("tested")
    np.testing.assert_allclose(detector.distances(tested), fixture["distance"], rtol=5e-5)
    np.testing.assert_allclose(detector.maps(tested), fixture["map"], rtol=5e-5)
    np.testing.assert_allclose(detector.scores(tested), fixture["score"], rtol=5e-5)


@pytest.mark.parametrize("name", PADIM)
def test_the_papers_diagonal_differs_from_anomalibs_by_a_little(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture(name)
    ours = padim(fixture, monkeypatch).distances(fixture.layers("tested")).numpy()
    # Squared distances scale by 1 / epsilon at most, so distances by half of 0.1 %.
    ratio = ours / fixture["distance"]
    assert 1 <= ratio.max() <= np.sqrt(ANOMALIBS_EPSILON / 0.01) + 1e-5
    assert ratio.min() >= 1 - 5e-5


# PatchCore


@pytest.mark.parametrize("name", PATCHCORE)
def test_patchcore_picks_the_same_patches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = Fixture(name)
    detector = patchcore(fixture, monkeypatch)
    # Sums of nine and of four numbers of size 1: units in the last place.
    np.testing.assert_allclose(detector.bank, fixture["bank"], atol=1e-6, rtol=0)
    patches = torch.cat([detector.embedded([m[i : i + 1] for m in fixture.layers("normal")])[0]
                         for i in range(fixture.case.normals)])  # fmt: skip
    picks = k_centre_greedy(patches, len(fixture["picks"]), int(fixture["picks"][0]))
    assert picks.tolist() == fixture["picks"].tolist()


@pytest.mark.parametrize("name", PATCHCORE)
def test_patchcores_distances_and_weighted_scores(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture(name)
    detector = patchcore(fixture, monkeypatch)
    tested = fixture.layers("tested")
    distance, index = detector.distances(detector.embedded(tested))
    # anomalib takes the root of |q|^2 + |b|^2 - 2 q.b, ours that of the differences' squares.
    # The former's error is a few units of |q|^2 (about 10), 1e-6 to 1e-5, halved and divided by
    # a distance of 1 or more by the root.
    np.testing.assert_allclose(distance, fixture["distance"], atol=1e-5, rtol=0)
    assert (index.numpy() == fixture["index"]).all()
    np.testing.assert_allclose(detector.scores(tested), fixture["score"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PATCHCORE)
def test_patchcores_map_is_anomalibs_where_the_nearest_value_is_repeated(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture(name)
    detector = patchcore(fixture, monkeypatch)
    tested = fixture.layers("tested")
    distance, _ = detector.distances(detector.embedded(tested))
    grid = distance.view(TESTED, 1, *tested[0].shape[-2:])
    repeated = F.interpolate(grid, (detector.size,) * 2)[:, 0]
    # A blur averages errors; its kernel's own are units in the last place.
    np.testing.assert_allclose(smoothed(repeated, detector.size), fixture["map"], atol=1e-5, rtol=0)
    # Ours are interpolated: they differ, and agree at a distance.
    own = detector.maps(tested).numpy()
    difference = np.abs(own - fixture["map"])
    assert 1e-3 < difference.max() < 0.1 * fixture["map"].max()
