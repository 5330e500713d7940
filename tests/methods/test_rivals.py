"""Heads and losses of DevNet, DRA and SAOE, worked out by hand; what all weak methods can do."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from atacnet.detector import ATACNet
from baselines import devnet, dra, saoe
from baselines.blocks.backbone import normalise
from baselines.blocks.deviation import ScoreMap, top_k_mean
from baselines.blocks.saliency import grad_cam
from baselines.blocks.weak import (
    EXTERNAL,
    NORMAL,
    PSEUDO,
    SEEN,
    TrainingImages,
    WeakMethod,
    WeakNetwork,
)
from baselines.cutmix import CutMix
from baselines.devnet import DevNet
from baselines.dra import DRA
from baselines.saoe import SAOE
from baselines.shortcut import Shortcut
from bench.detector import BackboneSource, Context, MethodError, Seeds
from bench.registry import METHODS, load_class
from tests.fixtures.planted import fitted, pictures

WEAK = [ATACNet, CutMix, DevNet, DRA, SAOE]
FEW = {"epochs": 1, "steps_per_epoch": 2, "rotation": 0.0}


class Pixels(nn.Module):
    """A backbone that hands on the first channels of the picture."""

    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        return images[:, : self.channels]


def context(**changes: Any) -> Context:
    backbone = BackboneSource("resnet18", 1, None)
    given = {"seeds": Seeds(0, "d", "c"), "backbone": backbone, **changes}
    return Context("cpu", **given)


def ready(method: type[WeakMethod], network: Any, **given: Any) -> Any:
    """Return a method around a network of one's own, its deviation reference constant."""
    if method is not SAOE:
        given["reference"] = "constant"
    detector = method(method.Parameters(**given))
    detector.context = context()
    detector.build(Pixels())  # type: ignore[arg-type]
    detector.network = network
    return detector


def set_score(head: ScoreMap, weight: list[float], bias: float) -> None:
    head.score.weight.data = torch.tensor(weight).view(1, -1, 1, 1)
    head.score.bias.data = torch.tensor([bias])


# DevNet


def test_devnets_score_is_the_mean_of_the_largest_absolute_tenth() -> None:
    network = devnet.Network(Pixels(), 1, 0.1)  # type: ignore[arg-type]
    set_score(network.score_map, [1.0, -2.0], 0.5)
    images = torch.zeros(1, 3, 4, 5)
    images[0, 0, 0, 0] = 3.0  # 3 + 0.5
    images[0, 1, 1, 2] = 4.0  # -8 + 0.5
    images[0, 0, 3, 3] = -2.0  # -2 + 0.5
    # 20 positions, K = 2: |-7.5| and |3.5|.
    assert network.scores(images).item() == pytest.approx((7.5 + 3.5) / 2)


def test_devnets_two_scales_are_averaged_and_the_half_size_takes_every_other_pixel() -> None:
    network = devnet.Network(Pixels(), 2, 0.1)  # type: ignore[arg-type]
    set_score(network.score_map, [1.0, 0.0], 0.0)
    images = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 3, 4, 4)
    # Full: K = 1 of 16 is 15. Half: rows and columns 0 and 2, so 0, 2, 8, 10; K = 1 is 10.
    assert network.scores(images).item() == pytest.approx((15 + 10) / 2)
    assert {k: v.item() for k, v in network.explain(images).parts.items()} == {
        "scale_1": 15.0, "scale_2": 10.0,
    }  # fmt: skip


def test_devnets_loss_has_margin_5_and_counts_every_anomaly() -> None:
    class Given(WeakNetwork):
        def scores(self, images: Tensor) -> Tensor:
            return images[:, 0, 0, 0]

    scores = torch.tensor([0.5, 2.0, 1.0, 7.0]).view(4, 1, 1, 1)
    value = ready(DevNet, Given()).loss(scores, torch.tensor([NORMAL, NORMAL, SEEN, PSEUDO])).value
    assert value.item() == pytest.approx((0.5 + 2.0 + (5 - 1.0) + 0.0) / 4)


def halves(labelled: int, pseudo: int = 0) -> list[int]:
    """Return the kinds of a batch whose first half is normal."""
    return [NORMAL] * (labelled + pseudo) + [SEEN] * labelled + [PSEUDO] * pseudo


def bank_for(detector: Any, normals: int = 20, **changes: Any) -> TrainingImages:
    """Give a method its context, and training images of noise that are all different."""
    detector.context = context(**changes)
    random = np.random.RandomState(0)
    images = random.randint(100, 256, (normals + 5, 3, 16, 16)).astype(np.uint8)
    return TrainingImages(images[:normals], images[normals:], detector.context, detector.parameters)


@pytest.mark.parametrize(
    ("method", "given", "size", "expected"),
    [
        (DevNet, {}, 16, halves(8)),
        (DevNet, {}, 48, halves(24)),
        (DevNet, {"pseudo": True}, 16, halves(4, 4)),
        (DRA, {}, 16, halves(4, 4)),
        (SAOE, {}, 16, halves(4, 4)),
        (ATACNet, {}, 16, halves(4, 4)),
        (ATACNet, {"pseudo": False}, 16, halves(8)),
    ],
)
def test_a_methods_batches_are_composed_as_its_header_says(
    method: Any, given: dict[str, Any], size: int, expected: list[int]
) -> None:
    detector = method(method.Parameters(rotation=0.0, **given))
    _, kinds = detector.batches(bank_for(detector, batch_size=size))()
    assert kinds.tolist() == expected


@pytest.mark.parametrize("method", [DRA, SAOE])
def test_thirds_are_the_released_codes_batches(method: Any) -> None:
    detector = method(method.Parameters(rotation=0.0, sampler="thirds"))
    batch = detector.batches(bank_for(detector, batch_size=48))
    pseudo = []
    for _ in range(10):
        kinds = batch()[1]
        assert (kinds == SEEN).tolist() == [False] * 32 + [True] * 16
        assert set(kinds.tolist()) == {NORMAL, SEEN, PSEUDO}
        pseudo.append(int((kinds == PSEUDO).sum()))
    assert len(set(pseudo)) > 1  # by chance, not half of them
    assert sum(pseudo) == pytest.approx(160, abs=30)


@pytest.mark.parametrize("method", WEAK)
def test_batches_and_references_come_from_named_seeds_alone(method: Any) -> None:
    def drawn(at_large: int) -> list[Tensor]:
        torch.manual_seed(at_large)
        np.random.seed(at_large)
        given = {"reference_set": "redrawn"} if method is DRA else {}
        detector = method(method.Parameters(**given))
        bank = bank_for(detector, external=np.full((6, 3, 16, 16), 200, np.uint8))
        detector.prepare(bank)
        references = [detector.reference_images(training=True)] if method is DRA else []
        return [*detector.batches(bank)(), *references]

    assert all(torch.equal(a, b) for a, b in zip(drawn(0), drawn(1), strict=True))


# Two scales, worked out in numpy from what is saved


def at_half(images: NDArray[Any]) -> NDArray[Any]:
    """Every other pixel, as nearest-neighbour interpolation takes them."""
    return images[:, :, ::2, ::2]


def top_tenth(maps: NDArray[Any]) -> NDArray[Any]:
    flat = np.sort(maps.reshape(len(maps), -1), 1)[:, ::-1]
    return flat[:, : max(1, flat.shape[1] // 10)].mean(1)


def one_by_one(state: dict[str, NDArray[Any]], name: str, features: NDArray[Any]) -> NDArray[Any]:
    """A 1x1 convolution: (B, C, h, w) -> (B, D, h, w)."""
    weight, bias = state[f"{name}.weight"][:, :, 0, 0], state[f"{name}.bias"]
    return np.asarray(np.einsum("dc,bchw->bdhw", weight, features) + bias[:, None, None])


def residual_map(state: dict[str, NDArray[Any]], difference: NDArray[Any]) -> NDArray[Any]:
    """3x3 convolution, batch normalisation, ReLU, 1x1 convolution, absolute value."""
    height, width = difference.shape[2:]
    padded = np.pad(difference, ((0, 0), (0, 0), (1, 1), (1, 1)))
    kernel = state["residual.0.weight"]
    convolved = state["residual.0.bias"][:, None, None] + sum(
        np.einsum("dc,bchw->bdhw", kernel[:, :, i, j], padded[:, :, i : i + height, j : j + width])
        for i in range(3)
        for j in range(3)
    )
    mean, variance, gain, shift = (
        state[f"residual.1.{k}"][:, None, None]
        for k in ("running_mean", "running_var", "weight", "bias")
    )
    normed = (convolved - mean) / np.sqrt(variance + 1e-5) * gain + shift
    return np.abs(one_by_one(state, "residual.3.score", np.maximum(normed, 0)))


def dras_heads(
    state: dict[str, NDArray[Any]], images: NDArray[Any], reference: NDArray[Any]
) -> NDArray[Any]:
    """Return (4, B), what the heads give at one scale."""
    pooled = images.mean((2, 3)) @ state["normality.2.weight"].T + state["normality.2.bias"]
    normality = np.maximum(pooled, 0) @ state["normality.4.weight"].T + state["normality.4.bias"]
    return np.stack([
        top_tenth(np.abs(one_by_one(state, "seen.score", images))),
        top_tenth(np.abs(one_by_one(state, "pseudo.score", images))),
        top_tenth(residual_map(state, reference - images)),
        np.abs(normality[:, 0]),
    ])  # fmt: skip


def stirred(network: nn.Module) -> Any:
    """Give every parameter and every statistic a value of its own."""
    rng = torch.Generator().manual_seed(3)
    for value in (*network.parameters(), *network.buffers()):
        if value.is_floating_point():
            value.data = torch.rand(value.shape, generator=rng) + 0.1
            value.data *= 1 if value.dim() < 2 else torch.randn(value.shape, generator=rng).sign()
    return network.eval()


def test_dras_two_scales_are_each_held_against_their_own_reference_and_averaged() -> None:
    network = stirred(dra.Network(Pixels(), 2, 0.1, hidden=3))  # type: ignore[arg-type]
    detector = ready(DRA, network, scales=2)
    rng = torch.Generator().manual_seed(4)
    images, references = (torch.randn(n, 3, 8, 8, generator=rng) for n in (6, 5))
    detector.reference_images = lambda training: references
    detector.finish()
    state = detector.state()
    seen, drawn = images[:, :2].numpy(), references[:, :2].numpy()
    means = [state["references.0"], state["references.1"]]
    assert means[0] == pytest.approx(drawn.mean(0, keepdims=True), abs=1e-6)
    assert means[1] == pytest.approx(at_half(drawn).mean(0, keepdims=True), abs=1e-6)
    by_hand = (dras_heads(state, seen, means[0]) + dras_heads(state, at_half(seen), means[1])) / 2
    for heads in (network.evaluate(images, network.references()), network(images, references)):
        assert torch.stack(list(heads)).detach().numpy() == pytest.approx(by_hand, rel=1e-4)
    score = by_hand[0] + by_hand[1] + by_hand[2] - by_hand[3]
    assert network.scores(images).detach().numpy() == pytest.approx(score, rel=1e-4)


def test_saoes_two_scales_are_averaged_as_logits() -> None:
    network = stirred(saoe.Network(Pixels(), 2, 0.1))  # type: ignore[arg-type]
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    state = ready(SAOE, network, scales=2).state()
    seen = images[:, :2].numpy()
    views = [one_by_one(state, "classes", view) for view in (seen, at_half(seen))]
    logits = np.mean([[top_tenth(v[:, c]) for c in range(3)] for v in views], 0).T
    assert network(images).detach().numpy() == pytest.approx(logits, rel=1e-4)
    score = np.logaddexp(logits[:, 1], logits[:, 2]) - logits[:, 0]
    assert network.scores(images).detach().numpy() == pytest.approx(score, rel=1e-4)


# DRA


def four_heads() -> dra.Network:
    network = dra.Network(Pixels(), 1, 0.1, hidden=2).eval()  # type: ignore[arg-type]
    set_score(network.seen, [1.0, 0.0], 0.0)
    set_score(network.pseudo, [0.0, 1.0], 1.0)
    convolution, norm, _, score = network.residual
    convolution.weight.data.zero_()
    convolution.weight.data[0, 0, 1, 1] = convolution.weight.data[1, 1, 1, 1] = 1.0
    convolution.bias.data.zero_()
    norm.eps = 1e-12  # in evaluation and untrained the identity
    set_score(score, [2.0, 0.0], 0.0)
    first, last = network.normality[2], network.normality[4]
    first.weight.data = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    first.bias.data.zero_()
    last.weight.data, last.bias.data = torch.tensor([[-1.0, 3.0]]), torch.tensor([0.25])
    return network


def test_each_head_of_dra_gives_what_it_should() -> None:
    network = four_heads()
    image = torch.zeros(1, 3, 2, 2)
    image[0, 0] = torch.tensor([[1.0, -4.0], [2.0, 5.0]])
    image[0, 1] = torch.tensor([[0.0, 0.5], [-3.0, 0.5]])
    references = torch.zeros(2, 3, 2, 2)
    references[0, 0, 0, 1], references[1, 0, 0, 1] = 2.0, 4.0  # mean 3 at one place
    heads = network(image, references)
    assert heads.seen.item() == pytest.approx(5.0)  # K = 1 of 4 of |first channel|
    assert heads.pseudo.item() == pytest.approx(2.0)  # |-3 + 1|
    # Mean reference minus image: [-1, 3 + 4, -2, -5] -> ReLU -> 2x: 14.
    assert heads.residual.item() == pytest.approx(14.0)
    # Means 1 and -0.5 -> ReLU(1, 0.5) -> |-1 + 1.5 + 0.25|.
    assert heads.normality.item() == pytest.approx(0.75)
    assert heads.score.item() == pytest.approx(5 + 2 + 14 - 0.75)


def dra_loss(heads: list[list[float]], kinds: list[int]) -> float:
    class Given(nn.Module):
        def forward(self, images: Tensor, references: Tensor) -> dra.Heads:
            return dra.Heads(*torch.tensor(heads))

    detector = ready(DRA, Given())
    detector.reference_images = lambda training: None
    return float(detector.loss(torch.zeros(len(kinds), 3, 4, 4), torch.tensor(kinds)).value)


def test_dras_loss_sums_four_deviation_losses_over_the_samples_of_each_head() -> None:
    kinds = [NORMAL, SEEN, PSEUDO]
    seen, pseudo, residual, normality = [1.0, 2.0, 9.0], [0.5, 9.0, 4.0], [1.0, 1.0, 6.0], [3.0] * 3
    by_hand = (
        (1.0 + (5 - 2.0)) / 2  # normal and seen
        + (0.5 + (5 - 4.0)) / 2  # normal and pseudo
        + (1.0 + (5 - 1.0) + 0.0) / 3  # all, both kinds anomalous
        + ((5 - 3.0) + 3.0 + 3.0) / 3  # all, normal is the positive class
    )
    assert dra_loss([seen, pseudo, residual, normality], kinds) == pytest.approx(by_hand)


def test_dras_seen_and_pseudo_heads_never_learn_from_each_others_anomalies() -> None:
    kinds = [NORMAL, SEEN, PSEUDO]
    plain = [[1.0, 2.0, 3.0]] * 4
    changed = [[1.0, 2.0, 90.0], [1.0, -70.0, 3.0], *plain[2:]]
    assert dra_loss(changed, kinds) == dra_loss(plain, kinds)


def test_dra_has_a_fixed_reference_set_unless_redrawn() -> None:
    tested = pictures(6, True, 5)
    fixed = fitted(DRA, **{**FEW, "rotation": 180.0})
    assert np.array_equal(fixed.score(tested), fixed.score(tested))
    assert len(fixed._pool) == 5
    as_they_are = fixed.reference_images(training=False)
    assert torch.equal(as_they_are, normalise(fixed._pool.float() / 255))
    assert not torch.equal(fixed.reference_images(training=True), as_they_are)  # rotated
    redrawn = fitted(DRA, reference_set="redrawn", **FEW)
    assert not np.array_equal(redrawn.score(tested), redrawn.score(tested))


@pytest.mark.parametrize("given", [{}, {"scales": 2, "reference_images": 3}], ids=str)
def test_dras_fixed_maps_are_what_the_trained_network_makes_of_its_references(
    given: dict[str, Any],
) -> None:
    detector = fitted(DRA, **FEW, **given)
    assert not detector.network.training
    with torch.inference_mode():
        maps = detector.network.eval().reference_maps(detector.reference_images(training=False))
    state = detector.state()
    assert sum(k.startswith("references.") for k in state) == len(maps) == given.get("scales", 1)
    assert all(np.array_equal(state[f"references.{i}"], m.numpy()) for i, m in enumerate(maps))


def references_of(seed: int = 0, **given: Any) -> tuple[Any, Tensor]:
    """Return a DRA that has drawn its references, and its 20 normals as a network sees them."""
    detector = DRA(DRA.Parameters(**given))
    bank = bank_for(detector, seeds=Seeds(seed, "d", "c"))
    detector.prepare(bank)
    return detector, normalise(bank.pick(torch.arange(20)))


def places(references: Tensor, normals: Tensor) -> list[int | None]:
    """Return which normal each reference image is; None for another picture.

    A rotation by nothing costs the last digits.
    """
    same = ((references.unsqueeze(1) - normals).abs() < 1e-4).flatten(2).all(2)
    return [int(row.nonzero()[0]) if row.any() else None for row in same]


def test_dras_fixed_five_are_drawn_by_the_seed() -> None:
    drawn = []
    for seed in range(4):
        detector, normals = references_of(seed)
        found = places(detector.reference_images(training=False), normals)
        assert None not in found
        assert len(set(found)) == 5
        assert found != [0, 1, 2, 3, 4]
        drawn.append(tuple(found))
    assert len(set(drawn)) == 4
    detector, normals = references_of(0)
    assert tuple(places(detector.reference_images(training=False), normals)) == drawn[0]


@pytest.mark.parametrize("training", [False, True])
def test_dras_redrawn_references_are_other_normals_each_time_half_of_them_pseudo(
    training: bool,
) -> None:
    detector, normals = references_of(reference_set="redrawn", rotation=0.0)
    drawn = [places(detector.reference_images(training=training), normals) for _ in range(80)]
    whole = [i for row in drawn for i in row if i is not None]
    assert len(whole) / 400 == pytest.approx(0.5, abs=0.08)
    assert set(whole) == set(range(20))
    assert len({tuple(row) for row in drawn}) > 70


BLACK = normalise(torch.zeros(1, 3, 1, 1))


@pytest.mark.parametrize(
    ("given", "training", "turned"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"reference_set": "redrawn"}, True, True),
        ({"reference_set": "redrawn"}, False, True),
    ],
)
def test_dras_references_turn_in_training_and_redrawn_ones_at_test_too(
    given: dict[str, Any], training: bool, turned: bool
) -> None:
    detector, _ = references_of(**given)  # no pixel of a normal is black
    corners = [detector.reference_images(training=training)[:, :, 0, 0] for _ in range(4)]
    black = ((torch.cat(corners) - BLACK[:, :, 0, 0]).abs() < 1e-4).all(1)
    assert bool(black.any()) == turned


@pytest.mark.parametrize("reference_set", ["fixed", "redrawn"])
def test_dras_loss_takes_the_references_of_training(reference_set: str) -> None:
    asked: list[Tensor] = []

    class Recording(nn.Module):
        def forward(self, images: Tensor, references: Tensor) -> dra.Heads:
            asked.append(references)
            return dra.Heads(*torch.zeros(4, len(images)))

    detector, _ = references_of(reference_set=reference_set)
    other, _ = references_of(reference_set=reference_set)
    detector.network = Recording()
    detector.build(Pixels())
    for _ in range(3):
        detector.loss(torch.zeros(4, 3, 4, 4), torch.tensor([NORMAL, NORMAL, SEEN, PSEUDO]))
        assert torch.equal(asked.pop(), other.reference_images(training=True))


def test_dras_mean_map_travels_with_its_state() -> None:
    detector = fitted(DRA, scales=2, **FEW)
    state = detector.state()
    assert state["references.0"].shape == (1, 64, 8, 8)
    assert state["references.1"].shape == (1, 64, 4, 4)
    moved = {**state, "references.0": state["references.0"] + 1}
    other = DRA(detector.parameters)
    other.load_state(moved, detector.context)
    tested = pictures(4, True, 5)
    assert not np.array_equal(other.score(tested), detector.score(tested))


# SAOE


def saoe_loss(logits: list[list[float]], kinds: list[int], weight: float) -> float:
    detector = ready(SAOE, lambda images: torch.tensor(logits), exposure_weight=weight)
    return float(detector.loss(torch.zeros(len(kinds), 3, 4, 4), torch.tensor(kinds)).value)


def log_softmax(logits: list[float]) -> list[float]:
    total = math.log(sum(math.exp(v) for v in logits))
    return [v - total for v in logits]


def test_saoes_loss_is_cross_entropy_and_on_external_images_that_to_the_uniform() -> None:
    logits = [[2.0, 0.0, -1.0], [0.0, 1.0, 3.0], [1.0, 1.0, 0.0], [0.5, -2.0, 4.0]]
    kinds = [NORMAL, SEEN, PSEUDO, EXTERNAL]
    logs = [log_softmax(row) for row in logits]
    known = -(logs[0][0] + logs[1][1] + logs[2][2]) / 3
    exposure = -sum(logs[3]) / 3
    assert saoe_loss(logits, kinds, 0.5) == pytest.approx(known + 0.5 * exposure)
    assert saoe_loss(logits, kinds, 0.0) == pytest.approx(known)
    assert saoe_loss(logits[:3], kinds[:3], 0.5) == pytest.approx(known)
    even = [*logits[:3], [1.0, 1.0, 1.0]]  # what exposure asks for costs least: log 3
    assert saoe_loss(even, kinds, 1.0) == pytest.approx(known + math.log(3))


def test_saoes_score_orders_as_the_probability_of_not_being_normal_and_never_saturates() -> None:
    logits = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double() * 3
    scores = saoe.log_odds(logits)
    probability = 1 - logits.softmax(1)[:, 0]
    assert torch.equal(scores.argsort(), probability.argsort())
    assert scores.sigmoid().numpy() == pytest.approx(probability.numpy())
    far = saoe.log_odds(torch.tensor([[-60.0, 60.0, 0.0], [-70.0, 60.0, 0.0]]))
    assert far[1] > far[0]


def test_saoes_logits_are_top_k_means_of_signed_maps() -> None:
    network = saoe.Network(Pixels(3), 1, 0.1)  # type: ignore[arg-type]
    network.classes.weight.data = torch.eye(3).view(3, 3, 1, 1)
    network.classes.bias.data.zero_()
    images = -torch.arange(60.0).view(1, 3, 4, 5)
    tops = [top_k_mean(images[:, c]).item() for c in range(3)]
    assert network(images).flatten().tolist() == tops == [-0.5, -20.5, -40.5]


def test_saoe_adds_external_images_to_a_batch() -> None:
    external = np.full((6, 3, 16, 16), 255, np.uint8)
    detector = SAOE(SAOE.Parameters(rotation=0.0, exposure_share=0.25))
    dark = np.zeros((10, 3, 16, 16), np.uint8)
    for given, extra in ((external, 4), (None, 0)):
        detector.context = context(external=given)
        bank = TrainingImages(dark, dark[:3], detector.context, detector.parameters)
        pictured, kinds = detector.batches(bank)()
        assert (kinds == EXTERNAL).sum() == extra == len(pictured) - 16
        assert torch.equal(pictured.mean((1, 2, 3)) > 0.5, kinds == EXTERNAL)
        assert detector.batch_images() == 16 + extra


def test_saoes_external_images_turn_like_all_others() -> None:
    white = np.full((6, 3, 16, 16), 255, np.uint8)
    for rotation in (180.0, 0.0):
        detector = SAOE(SAOE.Parameters(rotation=rotation))
        batch = detector.batches(bank_for(detector, external=white))
        pictured = torch.cat([images[kinds == EXTERNAL] for images, kinds in (batch(), batch())])
        black = ((pictured[:, :, 0, 0] - BLACK[:, :, 0, 0]).abs() < 1e-4).all(1)
        assert len(black) == 8
        assert bool(black.any()) == bool(rotation)


# What every weak method can do


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    return {m.name: fitted(m, **FEW) for m in WEAK}


def test_all_weak_networks_of_the_registry_are_tested_here() -> None:
    here = {m.name for m in WEAK}
    classes = {name: load_class(entry.path) for name, entry in METHODS.items()}
    weak = {n for n, cls in classes.items() if cls.supervision == "weak"}
    assert here == {n for n in weak if issubclass(classes[n], WeakMethod)}


@pytest.mark.parametrize("method", WEAK)
def test_a_loaded_state_gives_the_same_scores_features_and_maps(
    trained: dict[str, Any], method: Any
) -> None:
    detector, tested = trained[method.name], pictures(7, True, 5)
    other = method(detector.parameters)
    other.load_state(detector.state(), dataclasses.replace(detector.context))
    assert np.array_equal(other.score(tested), detector.score(tested))
    assert np.array_equal(other.embed(tested), detector.embed(tested))
    ours, theirs = detector.explain(tested), other.explain(tested)
    assert ours.maps.keys() == theirs.maps.keys()
    assert all(np.array_equal(ours.maps[k], theirs.maps[k]) for k in ours.maps)


@pytest.mark.parametrize("method", WEAK)
def test_a_state_that_does_not_fit_is_refused_in_one_line(
    trained: dict[str, Any], method: Any
) -> None:
    detector = trained[method.name]
    state = detector.state()
    state.pop(next(iter(state)))
    with pytest.raises(MethodError, match=r"the saved model does not fit: [^\n]*$"):
        method(detector.parameters).load_state(state, detector.context)


def test_a_redrawn_reference_set_and_shortcut_load_as_well() -> None:
    tested = pictures(5, True, 5)
    redrawn = fitted(DRA, reference_set="redrawn", **FEW)
    first = redrawn.score(tested)
    assert redrawn.state()["references.pool"].shape == (40, 3, 32, 32)
    other = DRA(redrawn.parameters)
    other.load_state(redrawn.state(), redrawn.context)
    assert np.array_equal(other.score(tested), first)  # its draws go on from training
    seen = other.explain(tested)
    drawn_once = top_k_mean(torch.from_numpy(seen.maps["residual"]), 0.1)
    assert np.allclose(drawn_once, seen.parts["residual"], atol=1e-6)
    shortcut = fitted(Shortcut)
    loaded = Shortcut(Shortcut.Parameters())
    loaded.load_state(shortcut.state(), context())
    assert np.array_equal(loaded.score(tested), shortcut.score(tested))


@pytest.mark.parametrize("method", WEAK)
def test_maps_boxes_and_features_have_their_shapes_and_ranges(
    trained: dict[str, Any], method: Any
) -> None:
    detector, tested = trained[method.name], pictures(7, True, 5)
    features = detector.embed(tested)
    assert features.dtype == np.float32
    assert features.shape[0] == 7
    assert np.isfinite(features).all()
    seen = detector.explain(tested)
    for values in (*seen.maps.values(), *seen.parts.values()):
        assert values.dtype == np.float32
        assert len(values) == 7
        assert np.isfinite(values).all()
    assert all(values.shape == (7, 8, 8) for values in seen.maps.values())
    assert all((v >= 0).all() for k, v in seen.maps.items() if k.startswith("grad_cam"))
    if method is ATACNet:
        assert seen.boxes.shape == (7, 4)
        assert (seen.boxes >= 0).all()
        assert (seen.boxes <= 1).all()
        assert (seen.boxes[:, :2] < seen.boxes[:, 2:]).all()
    else:
        assert seen.boxes is None


def recombined(name: str, parts: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    if name == "dra":
        return parts["seen"] + parts["pseudo"] + parts["residual"] - parts["normality"]
    if name == "cutmix":
        return parts["anomalous"] - parts["normal"]
    if name == "saoe":
        return np.logaddexp(parts["seen"], parts["pseudo"]) - parts["normal"]
    return np.mean(list(parts.values()), 0)


@pytest.mark.parametrize("method", WEAK)
def test_the_parts_of_an_explanation_make_up_the_score(
    trained: dict[str, Any], method: Any
) -> None:
    detector, tested = trained[method.name], pictures(7, True, 5)
    parts = dict(detector.explain(tested).parts)
    assert recombined(method.name, parts) == pytest.approx(detector.score(tested), abs=1e-4)


def test_atacnet_without_a_second_view_has_no_box() -> None:
    seen = fitted(ATACNet, view="raw", **FEW).explain(pictures(2, True, 5))
    assert seen.boxes is None
    assert set(seen.maps) == {"score", "attention", "grad_cam"}
    assert set(seen.parts) == {"raw"}


def test_random_boxes_are_the_same_for_the_score_and_its_explanation() -> None:
    detector, tested = fitted(ATACNet, view="random", **FEW), pictures(6, True, 5)
    parts = detector.explain(tested).parts
    assert np.mean(list(parts.values()), 0) == pytest.approx(detector.score(tested), abs=1e-4)


def test_grad_cam_weighs_channels_by_their_mean_gradient() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # two channels of 1 x 2

    def score(leaf: Tensor) -> Tensor:
        return 2 * leaf[:, 0, 0, 0] - 4 * leaf[:, 1, 0, 1]

    # Mean gradients 1 and -2: [1 - 6, 2 + 2], the negative part cut off.
    assert grad_cam(features, score).tolist() == [[[0.0, 4.0]]]
    with torch.no_grad():
        assert grad_cam(features, score).tolist() == [[[0.0, 4.0]]]


@pytest.mark.parametrize("method", WEAK)
def test_a_rehearsal_trains_one_step_of_the_whole_batch(method: Any) -> None:
    detector = method(method.Parameters())
    asked: list[int] = []
    loss = detector.loss
    detector.loss = lambda images, kinds: (asked.append(len(images)), loss(images, kinds))[1]
    external = np.zeros((1, 3, 32, 32), np.uint8) if method is SAOE else None
    detector.rehearse(32, context(batch_size=8, external=external))
    assert asked == [10 if method is SAOE else 8]
    assert all(p.grad is not None for p in detector.network.backbone.parameters())
