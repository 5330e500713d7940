"""The weighted classifier with pseudo anomalies: its weights, batches, loss and score, by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines import cutmix
from baselines.blocks.backbone import normalise
from baselines.blocks.weak import NORMAL, PSEUDO, SEEN, TrainingImages
from baselines.cutmix import CutMix
from bench.detector import Context, Seeds


class Pixels(nn.Module):
    """A backbone that hands on the first two channels of the picture."""

    channels = 2

    def forward(self, images: Tensor) -> Tensor:
        return images[:, : self.channels]


def prepared(
    normals: int, anomalies: int, batch_size: int = 16, **given: Any
) -> tuple[CutMix, TrainingImages]:
    """Return the method and its bank of dark normals and bright anomalies, all different."""
    detector = CutMix(CutMix.Parameters(rotation=0.0, **given))
    detector.context = Context("cpu", Seeds(0, "d", "c"), batch_size=batch_size)
    random = np.random.RandomState(0)
    dark = random.randint(0, 100, (normals, 3, 16, 16)).astype(np.uint8)
    bright = random.randint(156, 256, (anomalies, 3, 16, 16)).astype(np.uint8)
    bank = TrainingImages(dark, bright, detector.context, detector.parameters)
    detector.prepare(bank)
    return detector, bank


@pytest.mark.parametrize(
    ("normals", "anomalies", "probability", "weights"),
    [
        (30, 10, 0.5, (40 / (2 * 15), 40 / (2 * 25))),
        (30, 10, 0.0, (40 / (2 * 30), 40 / (2 * 10))),
        (74, 1, 0.25, (75 / (2 * 55.5), 75 / (2 * 19.5))),
    ],
)
def test_a_class_weighs_by_how_rarely_it_is_expected(
    normals: int, anomalies: int, probability: float, weights: tuple[float, float]
) -> None:
    detector, _ = prepared(normals, anomalies, pseudo_probability=probability)
    assert detector.cross_entropy.weight.tolist() == pytest.approx(weights)


def test_the_loss_is_the_weighted_mean_with_pseudo_anomalies_in_class_1() -> None:
    detector, _ = prepared(30, 10)  # weights 4/3 and 4/5
    logits = torch.tensor([[2.0, 0.0], [0.5, 1.0], [1.0, -1.0]])
    detector.network = lambda images: logits
    value = detector.loss(torch.zeros(3, 3, 4, 4), torch.tensor([NORMAL, SEEN, PSEUDO])).value
    # -log p of the class, from the difference of both logits.
    normal, seen, pseudo = (math.log1p(math.exp(-d)) for d in (2.0, 0.5, -2.0))
    by_hand = (4 / 3 * normal + 4 / 5 * (seen + pseudo)) / (4 / 3 + 2 * 4 / 5)
    assert value.item() == pytest.approx(by_hand)


def test_batches_are_plain_shuffled_ones_of_all_training_images() -> None:
    detector, bank = prepared(13, 3, batch_size=8, pseudo_probability=0.0)
    batch = detector.batches(bank)
    everything = normalise(bank.pick(torch.arange(16)))
    for _ in range(3):  # two batches are once over the 16 images
        (first, kinds), (second, more) = batch(), batch()
        pictured = torch.cat([first, second])
        places = [int((everything - p).abs().flatten(1).amax(1).argmin()) for p in pictured]
        assert sorted(places) == list(range(16))
        assert torch.equal(everything[places], pictured)
        expected = [SEEN if i >= 13 else NORMAL for i in places]
        assert torch.cat([kinds, more]).tolist() == expected


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_each_normal_turns_pseudo_by_chance_and_is_pasted_into(probability: float) -> None:
    detector, bank = prepared(20, 12, pseudo_probability=probability)
    batch, known = detector.batches(bank), normalise(bank.pick(torch.arange(32)))
    counts = torch.zeros(3)
    for _ in range(60):
        pictured, kinds = batch()
        assert pictured.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(pictured.mean((1, 2, 3)) > 0.5, kinds == SEEN)
        distance = (pictured.unsqueeze(1) - known).abs().flatten(2).amax(2).amin(1)
        assert torch.equal(distance > 0, kinds == PSEUDO)
        counts += torch.bincount(kinds, minlength=3)
    assert counts[PSEUDO] / (counts[NORMAL] + counts[PSEUDO]) == pytest.approx(
        probability, abs=0.05
    )
    assert counts[SEEN] / counts.sum() == pytest.approx(12 / 32, abs=0.01)


def classifier() -> cutmix.Network:
    """An MLP whose four layers can be followed by hand."""
    network = cutmix.Network(Pixels(), hidden=2)  # type: ignore[arg-type]
    linear = network.hidden[0]
    linear.weight.data = torch.tensor([[1.0, 2.0], [-1.0, 0.0]])
    linear.bias.data = torch.tensor([0.5, 0.25])
    network.classes.weight.data = torch.tensor([[1.0, 3.0], [-2.0, 4.0]])
    network.classes.bias.data = torch.tensor([0.25, -1.0])
    return network


def test_the_score_is_the_difference_of_the_mlps_logits() -> None:
    network = classifier()
    images = torch.zeros(2, 3, 2, 2)
    images[0, 0], images[0, 1] = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), 2.0  # means 1 and 2
    images[1, 0], images[1, 1] = -2.0, 0.5
    # First: hidden (1 + 4 + .5, -1 + .25 -> 0). Second: (-2 + 1 + .5 -> 0, 2 + .25).
    assert network.embed(images).tolist() == [[5.5, 0.0], [0.0, 2.25]]
    normal, anomalous = (5.5 + 0.25, 3 * 2.25 + 0.25), (-2 * 5.5 - 1, 4 * 2.25 - 1)
    assert network(images).tolist() == [list(row) for row in zip(normal, anomalous, strict=True)]
    expected = [anomalous[i] - normal[i] for i in range(2)]
    assert network.scores(images).tolist() == pytest.approx(expected)
    seen = network.explain(images)
    assert seen.parts["normal"].tolist() == pytest.approx(normal)
    assert seen.parts["anomalous"].tolist() == pytest.approx(anomalous)
