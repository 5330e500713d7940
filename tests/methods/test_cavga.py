"""CAVGA: its losses by hand, its attention, its two optimisers, and what it learns."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from baselines.blocks.backbone import normalise
from baselines.cavga import CAVGA, VARIANTS, Latent, Network, attention, mean_of, pixels
from bench.detector import BackboneSource, Context, MethodError, Seeds, TrainingSet
from tests.fixtures.planted import SIZE, fitted, pictures

FEW = {"epochs": 2, "steps_per_epoch": 1, "latent": 8}


def detector(variant: str = "R_w", **changes: Any) -> Any:
    method: Any = CAVGA(CAVGA.Parameters(variant=variant, latent=8, **changes))
    method.side = SIZE
    torch.manual_seed(0)
    method.network = method.untrained(
        Context("cpu", Seeds(0, "d", "c"), backbone=BackboneSource("resnet18", 1, None))
    )
    method.noise = torch.Generator().manual_seed(0)
    return method


def batch(n: int = 4) -> torch.Tensor:
    return normalise(torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_scores_explains_and_is_saved(variant: str) -> None:
    facts: dict[str, Any] = {}
    method = fitted(CAVGA, facts=facts, variant=variant, **FEW)
    tested = pictures(6, True, 7)
    scores = method.score(tested)
    assert np.array_equal(scores, method.score(tested))
    assert (scores.dtype, scores.shape) == (np.float32, (6,))
    assert method.embed(tested).shape == (6, 8)
    seen = method.explain(tested)
    assert ((seen.maps["attention"] > 0) & (seen.maps["attention"] < 1)).all()
    assert np.allclose(seen.parts["residual"], scores, atol=1e-6)
    assert np.allclose(seen.maps["residual"].mean((1, 2)), scores, atol=1e-6)
    assert ("classifier" in seen.parts) == variant.endswith("w")
    again = CAVGA(method.parameters)
    again.load_state(method.state(), method.context)
    assert np.array_equal(again.score(tested), scores)
    assert facts["optimiser_steps"] == 2
    assert 0 <= facts["attention_loss"] < 2
    assert (method.score(pictures(40, False, 1)) < facts["normal_threshold"]).sum() == 38


@pytest.mark.parametrize("variant", ["R_w", "D_u"])
def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(variant: str) -> None:
    tested = pictures(4, True, 5)
    first, again, other = (
        fitted(CAVGA, seed, variant=variant, **FEW).score(tested) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_labelled_anomalies_train_w_and_never_u() -> None:
    tested = pictures(4, True, 5)
    normal, some, others = pictures(40, False, 1), pictures(8, True, 2), pictures(8, True, 3)
    scores = {}
    for variant in ("D_u", "D_w"):
        for name, anomalous in (("some", some), ("others", others)):
            torch.manual_seed(0)
            method = CAVGA(CAVGA.Parameters(variant=variant, **FEW))
            context = Context(
                "cpu", Seeds(0, "d", "c"), backbone=BackboneSource("resnet18", 1, None)
            )
            method.fit(TrainingSet(normal, anomalous), context)
            scores[variant, name] = method.score(tested)
    assert np.array_equal(scores["D_u", "some"], scores["D_u", "others"])
    assert not np.array_equal(scores["D_w", "some"], scores["D_w", "others"])


def test_w_without_labelled_anomalies_and_u_with_a_classifier_are_refused() -> None:
    none = pictures(0, True, 2)
    context = Context("cpu", Seeds(0, "d", "c"), backbone=BackboneSource("resnet18", 1, None))
    with pytest.raises(MethodError, match="R_w needs at least one labelled anomaly"):
        CAVGA(CAVGA.Parameters(variant="R_w")).fit(
            TrainingSet(pictures(4, False, 1), none), context
        )
    with pytest.raises(MethodError, match="score = classifier needs variant"):
        detector("R_u", score="classifier")


def test_the_attention_is_the_sigmoid_of_a_grad_cam() -> None:
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    target = (features[:, 0] * 2 + features[:, 1].square()).sum()
    seen = attention(features, target, train=False)
    weights = torch.stack(
        [torch.full((2,), 2.0), 2 * features[:, 1].mean((1, 2)), torch.zeros(2)], 1
    )
    expected = (weights[:, :, None, None] * features).sum(1).sigmoid()
    assert torch.allclose(seen, expected, atol=1e-6)


@pytest.mark.parametrize("variant", ["R_u", "R_w"])
def test_the_attention_of_an_image_is_its_own_and_its_weights_depend_on_the_image(
    variant: str,
) -> None:
    network = detector(variant).network.eval()
    several = network.explain(batch(3)).maps["attention"]
    alone = torch.cat([network.explain(one).maps["attention"] for one in batch(3).split(1)])
    assert torch.allclose(several, alone, atol=1e-5)
    latent = network.encode(batch(2))
    target = latent.mean.sum() if variant == "R_u" else network.logits(latent.mean)[:, 0].sum()
    (gradient,) = torch.autograd.grad(target, latent.features)
    one, two = gradient.mean((2, 3))
    assert not torch.allclose(one, two, rtol=1e-3)


@pytest.mark.parametrize("variant", ["R_u", "R_w", "D_u", "D_w"])
def test_a_loss_on_the_attention_reaches_the_encoder(variant: str) -> None:
    network = detector(variant).network.train()
    seen, _ = network.attentions(network.encode(batch()), train=True)
    (1 - seen).mean().backward()
    reached = [p.grad is not None and p.grad.abs().sum() > 0 for p in network.encoder.parameters()]
    assert any(reached)


class Given(nn.Module):
    """A discriminator that gives the same logits whatever it sees."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits


@pytest.mark.parametrize(("form", "fooled"), [("nonsaturating", 0.0486), ("published", -3.0486)])
def test_the_generators_loss_by_hand(
    form: str, fooled: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over normal images alone, but for the classifier; L_cga of those predicted normal."""
    method = detector("D_w", adversarial=form, attention_weight=0.5, classifier_weight=2.0)
    method.network.discriminator = Given(3.0, 3.0, -50.0)
    images, labels = batch(3), torch.tensor([False, False, True])
    mean = torch.full((3, 8, 2, 2), 2.0)
    latent = Latent(torch.zeros(3, 1, 2, 2), mean, torch.zeros(3, 8, 2, 2))
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    monkeypatch.setattr(Network, "logits", lambda *_: logits)
    maps = [torch.full((3, 2, 2), v) for v in (0.75, 0.25)]
    monkeypatch.setattr(Network, "attentions", lambda *_, **__: maps)
    again = pixels(images) + torch.tensor([0.1, 0.3, 9.0]).view(3, 1, 1, 1)
    losses = method.generator_loss(images, labels, latent, again)
    cross = float(nn.functional.cross_entropy(logits, labels.long()))
    expected = (0.01 + 0.09) / 2 + (4 + 1 - 1 - 0) / 2 + fooled + 2.0 * cross + 0.5 * 0.5
    assert losses.attention.item() == pytest.approx(0.5)  # the first image alone: 1 - .75 + .25
    assert losses.total.item() == pytest.approx(expected, abs=1e-4)


def test_no_normal_image_predicted_normal_makes_no_loss() -> None:
    assert mean_of(torch.tensor([3.0, 4.0]), torch.tensor([False, False])) == 0
    assert mean_of(torch.tensor([3.0, 4.0]), torch.tensor([False, True])) == 4


def test_each_optimiser_changes_its_own_part() -> None:
    method = detector("D_u")
    method.network.train()
    made, other = method.optimisers()
    parts = {
        "generator": method.network.generator_parameters(),
        "discriminator": list(method.network.discriminator.parameters()),
    }
    of = {id(p) for group in made.param_groups for p in group["params"]}
    assert of == {id(p) for p in parts["generator"]}
    ids = {id(p) for group in other.param_groups for p in group["params"]}
    assert ids == {id(p) for p in parts["discriminator"]}
    assert not of & ids
    assert of | ids == {id(p) for p in method.network.parameters()}
    labels = torch.zeros(4, dtype=torch.bool)
    latent = method.network.encode(batch())
    again = method.network.decode(latent.mean, SIZE)
    method.discriminator_loss(pixels(batch()), again.detach(), labels).backward()
    assert all(p.grad is None for p in parts["generator"])


def test_one_batch_is_learnt() -> None:
    method = detector("D_u", lr=1e-3, adversarial_weight=0.0)
    method.network.train()
    optimisers, labels = method.optimisers(), torch.zeros(4, dtype=torch.bool)
    losses = [float(method.step(batch(), labels, *optimisers).total) for _ in range(25)]
    assert losses[-1] < 0.85 * losses[0]


def test_the_score_draws_nothing() -> None:
    method = fitted(CAVGA, variant="D_u", **FEW)
    state = method.noise.get_state()
    method.score(pictures(3, True, 1))
    assert torch.equal(state, method.noise.get_state())


def test_pixels_undo_the_normalisation() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert torch.allclose(pixels(normalise(images)), images, atol=1e-6)
