from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from baselines.blocks.backbone import Backbone, normalise
from baselines.blocks.loop import learning_rate
from baselines.blocks.weak import (
    EXTERNAL,
    NORMAL,
    PSEUDO,
    SEEN,
    BatchLoss,
    EpochScores,
    TrainingImages,
    TrainingParameters,
    adam,
    balanced_batches,
    descend,
    thirds_batches,
    train,
)
from bench.detector import BackboneSource, Context, MethodError, Samples, Seeds


def samples(n: int, low: int = 0, high: int = 255, size: int = 16) -> Samples:
    images = np.random.RandomState(n).randint(low, high + 1, (n, 3, size, size)).astype(np.uint8)
    ones = np.ones(n, np.int64)
    return Samples(images, tuple(map(str, range(n))), ones, ones, ("RGB",) * n, ones)


def context(**changes: Any) -> Context:
    return Context(device="cpu", seeds=Seeds(0, "d", "c"), **changes)


def images(parameters: TrainingParameters, normals: int = 10, shots: int = 3) -> TrainingImages:
    """Dark normals and bright anomalies."""
    normal, anomalous = samples(normals, 0, 100).images, samples(shots, 200, 255).images
    return TrainingImages(normal, anomalous, context(), parameters)


def test_balanced_batches_are_half_normal_a_quarter_labelled_a_quarter_pseudo() -> None:
    parameters = TrainingParameters(rotation=0.0, patch_source="same")
    batch = balanced_batches(images(parameters), 16, True, torch.Generator().manual_seed(0))
    for _ in range(5):
        pictures, kinds = batch()
        assert pictures.shape == (16, 3, 16, 16)
        assert pictures.is_contiguous(memory_format=torch.channels_last)
        assert kinds.tolist() == [NORMAL] * 8 + [SEEN] * 4 + [PSEUDO] * 4
        bright = pictures.mean((1, 2, 3)) > 0.5
        assert bright.tolist() == [False] * 8 + [True] * 4 + [False] * 4


def test_pseudo_anomalies_are_made_of_normals_drawn_for_themselves_and_nothing_else_is() -> None:
    parameters = TrainingParameters(rotation=0.0, patch_source="anomaly")
    bank = images(parameters, normals=12)
    batch = balanced_batches(bank, 16, True, torch.Generator().manual_seed(0))
    plain = normalise(bank.pick(torch.arange(15)))
    taken, sources = [], []
    for _ in range(6):
        pictures, kinds = batch()
        same = (pictures.unsqueeze(1) == plain).float().mean((2, 3, 4))
        share, nearest = same.max(1)
        assert torch.equal(share < 1, kinds == PSEUDO)
        assert (share > 0.75).all()  # a patch takes at most 15 % of the area
        assert torch.equal(nearest >= 12, kinds == SEEN)
        taken += nearest[kinds == NORMAL].tolist()
        sources += nearest[kinds == PSEUDO].tolist()
    assert sorted(taken) == sorted([*range(12)] * 4)  # every normal as often as every other
    assert sorted(sources) == sorted([*range(12)] * 2)
    assert sources != taken[: len(sources)]


def test_without_pseudo_anomalies_the_second_half_is_labelled_ones() -> None:
    parameters = TrainingParameters(rotation=0.0)
    batch = balanced_batches(images(parameters), 16, False, torch.Generator().manual_seed(0))
    pictures, kinds = batch()
    assert (pictures.mean((1, 2, 3)) > 0.5).tolist() == [False] * 8 + [True] * 8
    assert kinds.tolist() == [NORMAL] * 8 + [SEEN] * 8


def test_thirds_are_a_third_labelled_and_each_normal_turns_by_chance() -> None:
    bank = images(TrainingParameters(rotation=0.0), normals=20)
    plain = bank.pick(torch.arange(20))
    batch = thirds_batches(bank, 48, torch.Generator().manual_seed(0))
    counts = torch.zeros(3)
    for _ in range(40):
        pictures, kinds = batch()
        assert kinds[-16:].tolist() == [SEEN] * 16
        assert SEEN not in kinds[:32].tolist()
        assert torch.equal(pictures.mean((1, 2, 3)) > 0.5, kinds == SEEN)
        known = (pictures.unsqueeze(1) - normalise(plain)).abs().flatten(2).amax(2).amin(1) < 1e-5
        assert torch.equal(known, kinds == NORMAL)  # a pseudo anomaly is not its source any more
        counts += torch.bincount(kinds, minlength=3)
    shares = counts / counts.sum()
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.03)


def test_the_patch_comes_from_the_named_source() -> None:
    for source, bright in (("same", False), ("normal", False), ("anomaly", True)):
        bank = images(TrainingParameters(patch_source=source))
        pseudo = bank.pseudo(bank.pick(torch.arange(10)))
        assert bool((pseudo.amax((1, 2, 3)) > 0.6).all()) == bright
        assert not torch.equal(pseudo, bank.pick(torch.arange(10)))


@pytest.mark.parametrize("source", ["same", "anomaly"])
def test_a_cpu_pastes_into_the_chosen_alone_what_a_gpu_pastes_into_all(source: str) -> None:
    bank = images(TrainingParameters(patch_source=source))
    picked = bank.pick(torch.arange(6))
    for chosen in ([0, 1, 0, 0, 1, 1], [0] * 6, [1] * 6):
        drawn = bank.draw_pseudo(torch.tensor(chosen) == 1)
        before = picked.clone()
        assert torch.equal(bank.pseudo(picked, drawn), bank._pasted(picked, drawn))
        assert torch.equal(picked, before)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(MethodError, match="at least 3"):
        thirds_batches(images(TrainingParameters()), 2, torch.Generator())
    with pytest.raises(MethodError, match="at least one labelled"):
        images(TrainingParameters(), shots=0)
    with pytest.raises(MethodError, match="multiple of 4"):
        balanced_batches(images(TrainingParameters()), 10, True, torch.Generator())


def small_training(
    parameters: TrainingParameters, normals: int = 10
) -> tuple[nn.Module, dict[str, Any], list[int]]:
    torch.manual_seed(0)
    facts: dict[str, Any] = {}
    epochs: list[int] = []
    bank = images(parameters, normals)
    batch = balanced_batches(bank, 8, True, torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1))
    told = context(
        batch_size=8, record=facts.__setitem__, progress=lambda e, n, loss: epochs.append(e)
    )

    def loss(pictures: torch.Tensor, kinds: torch.Tensor) -> BatchLoss:
        labels, scores = (kinds != NORMAL).float(), model(pictures)[:, 0]
        value = nn.functional.binary_cross_entropy_with_logits(scores, labels)
        return BatchLoss(value, scores)

    train(model, batch, loss, bank, parameters, told)
    return model, facts, epochs


@pytest.mark.parametrize(
    ("normals", "fixed", "steps"), [(10, 0, 3), (12, 0, 3), (13, 0, 4), (10, 7, 7)]
)
def test_an_epoch_is_once_over_the_normals_unless_fixed(
    normals: int, fixed: int, steps: int
) -> None:
    _, facts, epochs = small_training(TrainingParameters(epochs=4, steps_per_epoch=fixed), normals)
    assert facts["optimiser_steps"] == 4 * steps
    assert epochs == [0, 1, 2, 3, 4]


def test_training_learns_and_repeats_itself() -> None:
    parameters = TrainingParameters(epochs=30, lr=0.05, lr_step=100)
    model, facts, _ = small_training(parameters)
    again, same, _ = small_training(parameters)
    assert facts["final_loss"] == same["final_loss"] < 0.6
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_scores_of_an_epoch_are_means_by_kind_of_its_batches_alone() -> None:
    facts: dict[str, Any] = {}
    nothing, epoch = torch.zeros(()), EpochScores(5.0, "cpu")
    kinds = torch.tensor([NORMAL, SEEN, PSEUDO, SEEN, EXTERNAL])
    before = torch.full((5,), 99.0)
    epoch.add(BatchLoss(nothing, before, before), kinds)
    epoch.clear()
    for scores in (torch.tensor([1.0, 2.0, 3.0, 4.0, 50.0]), torch.tensor([3.0, 6.0, 5.0, 8.0, 9])):
        epoch.add(BatchLoss(nothing, scores, scores), kinds)
    epoch.record(context(record=facts.__setitem__))
    assert facts == {
        "train_score_normal": 2.0,
        "train_score_labelled": 5.0,
        "train_score_pseudo": 4.0,
        "labelled_hinge_train": (3 + 1) / 4,
    }


def two_parts() -> tuple[nn.Module, nn.Module]:
    """A model of a backbone and one weight behind it, all of them 1; and the backbone."""
    backbone = Backbone(BackboneSource("resnet18", 1, None), "float32")
    model = nn.Sequential(backbone, nn.Conv2d(backbone.channels, 1, 1, bias=False))
    for weight in model.parameters():
        nn.init.ones_(weight)
    return model, backbone


def slope(model: nn.Module, by: float) -> torch.Tensor:
    """A loss with the gradient `by` in every weight."""
    return by * torch.stack([weight.sum() for weight in model.parameters()]).sum()


@pytest.mark.parametrize("clip", [1.0, 0.25])
def test_the_gradient_of_all_weights_together_is_clipped(clip: float) -> None:
    model, _ = two_parts()
    parameters = TrainingParameters(clip=clip)
    optimiser = adam(model, parameters)

    def norm() -> float:
        return float(torch.cat([w.grad.flatten() for w in model.parameters()]).norm())

    descend(slope(model, 3.0), optimiser, parameters)
    assert norm() == pytest.approx(clip, rel=1e-4)
    descend(slope(model, 1e-6), optimiser, parameters)  # short enough; nothing is left of before
    count = sum(w.numel() for w in model.parameters())
    assert norm() == pytest.approx(1e-6 * count**0.5, rel=1e-4)


@pytest.mark.parametrize("decay", [1e-2, 0.0])
def test_weight_decay_is_adams_own_and_pulls_every_weight(decay: float) -> None:
    """Where the loss is flat, the decay is the whole gradient and a first step is as long as lr."""
    model, backbone = two_parts()
    parameters = TrainingParameters(lr=0.1, backbone_multiplier=0.5, weight_decay=decay)
    descend(slope(model, 0.0), adam(model, parameters), parameters)
    inside = {id(w) for w in backbone.parameters()}
    for weight in model.parameters():
        step = (0.05 if id(weight) in inside else 0.1) if decay else 0.0
        assert torch.allclose(weight, torch.full_like(weight, 1 - step), atol=1e-5)


def test_a_rate_as_a_float64_tensor_moves_weights_by_the_bits_of_a_number() -> None:
    """And as float32 it does not."""

    def weight(rate: Any) -> torch.Tensor:
        moved = torch.linspace(-1e-3, 1e-3, 4096).requires_grad_()
        optimiser = torch.optim.Adam([moved], lr=rate, weight_decay=1e-5, fused=True)
        schedule = torch.optim.lr_scheduler.StepLR(optimiser, 2, 0.1)
        for _ in range(8):
            optimiser.zero_grad()
            (moved**2).sum().backward()
            optimiser.step()
            schedule.step()
        assert optimiser.param_groups[0]["lr"] is rate or isinstance(rate, float)
        return moved.detach()

    rate = learning_rate(2e-4, torch.device("cpu"))
    assert torch.equal(weight(rate), weight(2e-4))
    assert not torch.equal(weight(torch.tensor(2e-4)), weight(2e-4))


def test_the_rate_falls_with_the_epochs() -> None:
    """A step of Adam moves a weight by about the rate: 1, then 0.1, then 0.01."""
    start, _, _ = small_training(TrainingParameters(epochs=1, steps_per_epoch=1, lr=0.0))
    moved, _, _ = small_training(
        TrainingParameters(epochs=3, steps_per_epoch=1, lr=1.0, lr_step=1, lr_gamma=0.1)
    )
    step = (moved[2].weight - start[2].weight).abs().max().item()
    assert 1.0 <= step <= 1.111 + 1e-3
