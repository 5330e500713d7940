"""Patch-SVDD: what the encoders see, the losses, and the maps, each by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines import patchsvdd
from baselines.patchsvdd import Directions, Encoders, Network, PatchSVDD, vectors
from baselines.patchsvdd.patches import DIRECTIONS, near_pairs, position_pairs
from bench.detector import Context, MethodError, Samples, Seeds, TrainingSet
from bench.execution.determinism import make_deterministic
from bench.metrics import auroc
from bench.planning.rehearsal import ledger, rehearsed_peak
from tests.methods.test_patches import brute_spread, rng

SIZE = 84
"""Two 64 px patches along an axis, fourteen of 32 px."""


def pictures(n: int, defective: bool, seed: int, size: int = SIZE) -> Samples:
    """A coarse pattern that is the same in all, noise on top, and a bright cross if defective."""
    random = np.random.RandomState(seed)
    y, x = np.mgrid[:size, :size]
    pattern = 110 + 40 * np.sin(y / 9) * np.cos(x / 13)
    images = pattern + random.normal(0, 8, (n, 3, size, size))
    if defective:
        for image in images:
            row, column = random.randint(10, size - 10, 2)
            image[0, row - 7 : row + 8, column - 1 : column + 2] = 250
            image[0, row - 1 : row + 2, column - 7 : column + 8] = 250
    sides = np.full(n, size, np.int64)
    names = tuple(f"{defective}{i}" for i in range(n))
    return Samples(images.clip(0, 255).astype(np.uint8), names, sides, sides, ("RGB",) * n, sides)


def context(seed: int = 0, **given: Any) -> Context:
    return Context("cpu", Seeds(seed, "planted", "planted"), **{"batch_size": 2, **given})


def fitted(seed: int = 0, normals: int = 6, size: int = SIZE, **given: Any) -> Any:
    """Fit on a few normals, for two steps if nothing else is asked."""
    told = {k: given.pop(k) for k in ("batch_size", "record", "progress") if k in given}
    make_deterministic(1, 99)  # no named seed: nothing may come from it
    detector = PatchSVDD(PatchSVDD.Parameters(**{"epochs": 1, "steps_per_epoch": 2, **given}))
    train = TrainingSet(pictures(normals, False, 1, size), pictures(0, True, 2, size))
    detector.fit(train, context(seed, **told))
    return detector


# The network


def test_an_encoder_gives_64_values_and_sees_its_patch() -> None:
    encoders = Network(rng()).encoders.double()
    for side, seen in ((32, 31), (64, 63)):
        # Of 32 px a convolution of 3 with stride 2 leaves the last one out.
        patch = torch.randn(1, 3, side, side, dtype=torch.double, requires_grad=True)
        out = encoders(patch)
        assert out.shape == (1, 64)
        assert out.abs().max() < 1
        out.sum().backward()
        assert patch.grad is not None
        touched = patch.grad.abs().sum((0, 1)) > 0
        inside = torch.arange(side) % 32 < 31
        assert torch.equal(touched, inside.unsqueeze(0) & inside.unsqueeze(1))
        assert inside.nonzero().max() == seen - 1
    small = nn.Sequential(encoders.small, encoders.small_last)
    assert small(torch.zeros(1, 3, 32, 32).double()).shape == (1, 64, 1, 1)
    kernels = [m for m in small.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in kernels] == [32, 64, 128, 128, 64, 32, 32, 64]
    assert {m.kernel_size for m in kernels} == {(3, 3)}
    assert [m.stride for m in kernels] == [(2, 2)] + [(1, 1)] * 7


def test_the_large_encoder_joins_the_small_ones_of_the_quadrants() -> None:
    encoders = Network(rng()).encoders
    patch = torch.randn(2, 3, 64, 64, generator=rng(1))
    quadrants = [[patch[:, :, i : i + 32, j : j + 32] for j in (0, 32)] for i in (0, 32)]
    stitched = torch.stack([torch.stack([encoders(q) for q in row], 2) for row in quadrants], 2)
    assert stitched.shape == (2, 64, 2, 2)
    weight = encoders.join.weight
    hidden = (stitched.unsqueeze(1) * weight).sum((2, 3, 4)) + encoders.join.bias
    hidden = torch.where(hidden > 0, hidden, 0.1 * hidden)
    expected = torch.tanh(
        hidden @ encoders.large_last.weight[:, :, 0, 0].T + encoders.large_last.bias
    )
    torch.testing.assert_close(encoders(patch), expected)


def lively(network: Network) -> Network:
    """Scale the weights up, so that embeddings differ by more than rounding."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data *= 2.2
    return network.eval()


@pytest.mark.parametrize("size", [67, 80, 99])
def test_whole_images_are_embedded_as_patch_by_patch(size: int) -> None:
    encoders: Encoders = lively(Network(rng())).encoders.double()
    images = torch.randn(2, 3, size, size, generator=rng(1), dtype=torch.double)
    with torch.no_grad():
        grids = encoders.grids(images)
        for side, stride in ((64, 16), (32, 4)):
            n = (size - side) // stride + 1
            assert grids[side].shape == (2, 64, n, n)
            every = images.unfold(2, side, stride).unfold(3, side, stride)
            patches = every.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
            one_by_one = encoders(patches)
            assert one_by_one.std(0).mean() > 1e-3
            torch.testing.assert_close(vectors(grids[side]), one_by_one, rtol=0, atol=1e-13)


def test_a_direction_depends_on_the_difference_through_columns_of_norm_1() -> None:
    directions = Directions()
    directions.hidden = nn.Sequential(nn.ConstantPad1d((0, 64), 0.0))
    directions.last.weight.data.zero_()
    directions.last.weight.data[:2, 0] = torch.tensor([3.0, 4.0])
    directions.last.weight.data[5, 1] = -7.0
    directions.last.weight.data[:, 2:] = 1.0
    directions.last.bias.data = torch.arange(8.0)
    first, second = torch.zeros(1, 64), torch.zeros(1, 64)
    first[0, :2], second[0, :2] = torch.tensor([2.0, 5.0]), torch.tensor([1.0, 3.0])
    # Differences 1 and 2; columns (0.6, 0.8) and (-1).
    expected = [0.6, 1.8, 2.0, 3.0, 4.0, 5.0 - 2.0, 6.0, 7.0]
    assert directions(first, second)[0].tolist() == pytest.approx(expected)


# Losses


class Corners(nn.Module):
    """Encoders that tell where a patch of `coordinates` lies."""

    def forward(self, patches: Tensor) -> Tensor:
        return patches[:, :2, 0, 0]


class Given(nn.Module):
    """A classifier that reads the direction off the difference of corners."""

    certainty = 0.0

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        step = (second - first).sign()
        return self.certainty * (step.unsqueeze(1) == DIRECTIONS).all(2).float()


def coordinates(n: int, size: int) -> Tensor:
    """Images that hold down, right and 0 at each pixel."""
    axis = torch.arange(float(size))
    image = torch.stack([axis.view(-1, 1).expand(size, size), axis.expand(size, size)])
    return torch.cat([image, torch.zeros(1, size, size)]).expand(n, 3, size, size)


@pytest.mark.parametrize("weight", [0.0, 1e-3, 1.0])
def test_the_loss_is_cross_entropy_and_the_mean_norm_of_small_displacements(
    weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patchsvdd, "JITTER", 0.0)
    detector: Any = PatchSVDD(PatchSVDD.Parameters(svdd_weight=weight))
    detector.network = nn.Module()
    detector.network.encoders = Corners()
    detector.network.directions = nn.ModuleDict({"64": Given(), "32": Given()})
    which = torch.zeros(40, dtype=torch.long)
    value = detector.loss(coordinates(1, 400), which, rng(7), rng(8))

    again, norms, sure = rng(7), [], []
    for side in (64, 32):
        first, second, direction = position_pairs(40, side, 400, again)
        sure.append(((second - first).sign() == DIRECTIONS[direction]).all(1))
        one, other = near_pairs(40, side, 400, again)
        norms.append((one - other).float().square().sum(1).sqrt().mean().item())
    assert value.item() == pytest.approx(2 * math.log(8) + weight * sum(norms))

    for classifier in detector.network.directions.values():
        classifier.certainty = 100.0
    value = detector.loss(coordinates(1, 400), which, rng(7), rng(8))
    wrong = [100 * (1 - s.float().mean().item()) for s in sure]
    assert sum(wrong) < 20, "clipped to nothing, at the border"
    assert value.item() == pytest.approx(weight * sum(norms) + sum(wrong), abs=25)


def test_training_learns_where_patches_lie_if_that_can_be_seen() -> None:
    make_deterministic(1, 99)
    detector: Any = PatchSVDD(PatchSVDD.Parameters(lr=1e-3, svdd_weight=1e-3))
    detector.begin(120, context(batch_size=4))
    step = detector.step(coordinates(4, 120) / 120)
    losses = [step().item() for _ in range(40)]
    # Guessing costs log 8 = 2.08 of either size.
    assert np.mean(losses[:10]) == pytest.approx(2 * math.log(8), abs=0.5)
    assert np.mean(losses[-15:]) < 3.7


def test_patches_that_are_all_alike_leave_the_gradient_finite() -> None:
    detector: Any = PatchSVDD(PatchSVDD.Parameters())
    detector.begin(SIZE, context())
    for _ in range(2):
        value = detector.step(torch.zeros(2, 3, SIZE, SIZE))()
    assert math.isfinite(value)
    assert all(p.isfinite().all() for p in detector.network.parameters())


# The method


def test_an_image_is_scored_by_the_largest_product_of_both_maps() -> None:
    detector = fitted(normals=2)
    lively(detector.network)
    detector._remember(pictures(2, False, 1))
    tested = pictures(2, True, 5)
    mean = pictures(2, False, 1).images.astype(np.float64).mean(0)
    product = np.ones((2, SIZE, SIZE))
    for side, stride in ((64, 16), (32, 4)):
        places = range(0, SIZE - side + 1, stride)
        kept, asked = (
            torch.stack(
                [
                    torch.from_numpy((image - mean) / 255).float()[:, y : y + side, x : x + side]
                    for image in samples.images
                    for y in places
                    for x in places
                ]
            )
            for samples in (pictures(2, False, 1), tested)
        )
        with torch.no_grad():
            near = torch.cdist(
                detector.network.encoders(asked).double(), detector.network.encoders(kept).double()
            ).amin(1)
        for i, values in enumerate(near.view(2, len(places), len(places))):
            product[i] *= brute_spread(values, SIZE, side, stride)
    np.testing.assert_allclose(detector.score(tested), product.max((1, 2)), rtol=1e-3)
    explained = detector.explain(tested).maps["score"]
    assert explained.shape == (2, 56, 56)
    coarse = [product[i][6:9, 75:78] for i in range(2)]  # 84 / 56 = 1.5: cell (4, 50) and half more
    cells = [(c[0:2, 0:2]).mean() for c in coarse]
    np.testing.assert_allclose(explained[:, 4, 50], cells, rtol=1e-3)


def test_a_training_image_has_no_distance_to_itself() -> None:
    assert fitted().score(pictures(6, False, 1)).tolist() == pytest.approx([0.0] * 6, abs=1e-12)


def test_a_planted_defect_is_found_after_a_few_hundred_small_steps() -> None:
    detector = fitted(normals=8, batch_size=1, epochs=2, steps_per_epoch=50)
    scores = [detector.score(pictures(10, defective, 3)) for defective in (False, True)]
    assert auroc(np.concatenate(scores), [0] * 10 + [1] * 10) > 0.95


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not() -> None:
    tested = pictures(3, True, 5)
    first, again, other = (fitted(seed).score(tested) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_saved_model_gives_the_same_scores_and_maps() -> None:
    detector, tested = fitted(), pictures(3, True, 5)
    loaded: Any = PatchSVDD(PatchSVDD.Parameters())
    loaded.load_state(detector.state(), context(1))
    assert np.array_equal(loaded.score(tested), detector.score(tested))
    assert np.array_equal(
        loaded.explain(tested).maps["score"], detector.explain(tested).maps["score"]
    )
    embedded = loaded.embed(tested)
    assert embedded.shape == (3, 128)
    assert np.array_equal(embedded, detector.embed(tested))
    damaged = detector.state()
    del damaged["bank.32"]
    with pytest.raises(MethodError, match="does not fit"):
        loaded.load_state(damaged, context())


def test_training_goes_as_far_as_it_is_told_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    facts: dict[str, Any] = {}
    heard: list[tuple[int, int]] = []
    fitted(
        epochs=2, steps_per_epoch=1, record=facts.__setitem__,
        progress=lambda epoch, epochs, loss: heard.append((epoch, epochs)),
    )  # fmt: skip
    assert heard == [(0, 2), (1, 2), (2, 2)]
    assert facts["optimiser_steps"] == 2
    assert 0 < facts["final_loss"] < 10
    assert facts["train_images_per_s"] > 0
    assert facts["bank_vectors"] == 6 * (2 * 2 + 14 * 14)
    assert facts["bank_bytes"] == facts["bank_vectors"] * 64 * 4
    assert facts["embedding_std"] > 0
    monkeypatch.setattr(patchsvdd, "REPEATS", 1)
    fitted(normals=5, steps_per_epoch=0, record=facts.__setitem__)
    assert facts["optimiser_steps"] == 3  # ceil(5 / 2)


def test_images_too_small_for_its_patches_are_refused() -> None:
    with pytest.raises(MethodError, match="67 px at least, not 66"):
        fitted(size=66)
    fitted(size=67, steps_per_epoch=1)


@pytest.mark.parametrize(("normals", "size", "batch"), [(2, 84, 8), (30, 84, 1), (4, 180, 2)])
def test_memory_is_foretold(normals: int, size: int, batch: int) -> None:
    detector = PatchSVDD(PatchSVDD.Parameters())
    given = context(batch_size=batch, score_batch_size=4)
    told = detector.memory(normals, size, given)
    step = rehearsed_peak(detector, size, given)
    images = (normals - batch) * 3 * size * size * 4  # a rehearsal has as many as its batch
    assert step + images < told
    with ledger() as counts:
        detector = fitted(normals=normals, size=size, batch_size=batch)
        detector.score(pictures(4, True, 3, size))
    assert 0.2 * told < counts.peak < told
