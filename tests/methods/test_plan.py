"""Steps whose numbers are drawn ahead: the same numbers, and nothing that a GPU waits for."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atacnet.detector import ATACNet
from baselines import cavga
from baselines.blocks.backbone import Backbone
from baselines.blocks.batches import Stream
from baselines.blocks.plan import Plan
from baselines.blocks.weak import (
    BatchLoss,
    EpochScores,
    TrainingImages,
    WeakMethod,
    adam,
    descend,
)
from baselines.cavga import CAVGA
from baselines.cflow import CFlow
from baselines.cutmix import CutMix
from baselines.devnet import DevNet
from baselines.dra import DRA
from baselines.fastflow import FastFlow
from baselines.memseg import MemSeg
from baselines.patchsvdd import LEAST_SIZE, PatchSVDD
from baselines.prn import PRN
from baselines.saoe import SAOE
from bench.detector import BackboneSource, Context, Seeds, TrainingSet
from bench.planning.rehearsal import torch_internals
from tests.fixtures.fake_cuda import kernels, on_fake_cuda, waits
from tests.fixtures.planted import fitted
from tests.fixtures.random_fit import random_images, samples

STEPS: list[tuple[Any, dict[str, Any]]] = [
    (DevNet, {}),
    (DevNet, {"pseudo": True, "patch_source": "anomaly", "scales": 2}),
    (DRA, {}),
    (DRA, {"sampler": "thirds", "reference_set": "redrawn"}),
    (SAOE, {}),
    (SAOE, {"sampler": "thirds", "patch_source": "normal"}),
    (CutMix, {}),
    (CutMix, {"patch_source": "anomaly", "pseudo_probability": 0.1}),
    (ATACNet, {}),
    (ATACNet, {"view": "random", "padding": 0.1}),
    (ATACNet, {"view": "raw_augmented", "batch_norm": "shared"}),
    (ATACNet, {"view": "centre", "pseudo": False}),
    (PatchSVDD, {}),
]
STEPS_OF_FITS: list[tuple[Any, dict[str, Any]]] = [
    (MemSeg, {}),
    (MemSeg, {"external": False}),
    (PRN, {"width": 4}),
    (PRN, {"width": 4, "anomalies": "simulated", "external": False}),
    (FastFlow, {"flow_steps": 2}),
    (CFlow, {"blocks": 2, "fibers": 64}),
    (CFlow, {"blocks": 1, "fibers": 64, "rotation": 0.0, "permutation": "hard"}),
    (CAVGA, {"variant": "R_u"}),
    (CAVGA, {"variant": "D_w"}),
]
"""Methods whose `fit` makes the step, with backward pass and optimiser."""


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ready(method: Any, backbone: tuple[str, int] = ("resnet18", 1), **given: Any) -> Any:
    """Return a method in training, and a step up to its loss, which returns all that it made."""
    torch.manual_seed(0)
    side = LEAST_SIZE if method is PatchSVDD else 32
    images = random_images(16, side)
    source = BackboneSource(*backbone, None)
    context = Context("cpu", Seeds(0, "d", "c"), batch_size=8, backbone=source, external=images[:3])
    detector = method(method.Parameters(**given))
    if method is PatchSVDD:
        return detector, patches_step(detector, torch.from_numpy(images) / 255, context)
    detector.begin(context)
    bank = TrainingImages(images[:12], images[12:], context, detector.parameters, detector.plan)
    detector.prepare(bank)
    detector.network.train()
    batch = detector.batches(bank)

    def step() -> tuple[Tensor, ...]:
        taken, kinds = batch()
        return taken, kinds, *(t for t in detector.loss(taken, kinds) if t is not None)

    return detector, step


def patches_step(detector: Any, images: Tensor, context: Context) -> Callable[[], Any]:
    """Return a step of Patch-SVDD up to its loss."""
    detector.begin(images.shape[-1], context)
    draws, noise, stream = rng(1), rng(2), Stream(len(images), rng(3))

    def draw() -> tuple[Tensor, ...]:
        return (stream.take(4),)

    return lambda: (detector.loss(images, *detector.plan.take(draw), draws, noise),)


class _StepReadyError(Exception):
    """The step is made, nothing of it done."""


def of_fit(
    patch: pytest.MonkeyPatch, method: Any, external: bool = True, **given: Any
) -> tuple[Any, Callable[[], tuple[Tensor, ...]]]:
    """Return a method and the step that its `fit` would give to the training loop."""
    torch.manual_seed(0)
    images = random_images(16, 32)
    context = Context(
        "cpu", Seeds(0, "d", "c"), batch_size=8, backbone=BackboneSource("resnet18", 3, None),
        external=images[:3] if external else None,
    )  # fmt: skip
    steps: list[Callable[[], Tensor]] = []

    def run_steps(step: Callable[[], Tensor], *_: Any, **__: Any) -> None:
        steps.append(step)
        raise _StepReadyError

    detector = method(method.Parameters(**given))
    patch.setattr(sys.modules[method.__module__], "run_steps", run_steps)
    with pytest.raises(_StepReadyError):
        detector.fit(TrainingSet(samples(images[:12]), samples(images[12:])), context)
    return detector, lambda: (steps[0](),)


def planned(plan: Plan, step: Callable[[], Any], epochs: int, steps: int) -> Iterator[Any]:
    """Yield what a step gives in each of its turns."""
    for _ in range(epochs):
        for left in range(steps, 0, -1):
            plan.prepare(left)
            with plan.step():
                made = step()
            yield made


@pytest.mark.parametrize(("method", "given"), STEPS, ids=str)
def test_planned_batches_and_losses_are_those_drawn_on_the_spot(
    method: Any, given: dict[str, Any]
) -> None:
    _, spot = ready(method, **given)
    detector, step = ready(method, **given)
    for ahead in planned(detector.plan, step, 2, 3):
        assert all(torch.equal(a, b) for a, b in zip(spot(), ahead, strict=True))


@pytest.mark.parametrize(("method", "given"), STEPS_OF_FITS, ids=str)
def test_planned_steps_are_those_that_draw_on_the_spot(
    monkeypatch: pytest.MonkeyPatch, method: Any, given: dict[str, Any]
) -> None:
    _, spot = of_fit(monkeypatch, method, **given)
    detector, step = of_fit(monkeypatch, method, **given)
    losses = [(spot()[0].item(), ahead[0].item()) for ahead in planned(detector.plan, step, 2, 3)]
    assert len(set(losses)) == 6
    assert all(np.isfinite(a) and a == b for a, b in losses)


@pytest.mark.parametrize(("method", "given"), STEPS, ids=str)
def test_a_step_passes_nothing_between_host_and_gpu_and_its_shapes_are_static(
    method: Any, given: dict[str, Any]
) -> None:
    detector, forward = ready(method, **given)
    assert_static(detector, forward)


@pytest.mark.parametrize(("method", "given"), STEPS_OF_FITS, ids=str)
def test_a_step_of_a_fit_passes_nothing_between_host_and_gpu_and_its_shapes_are_static(
    monkeypatch: pytest.MonkeyPatch, method: Any, given: dict[str, Any]
) -> None:
    """Without gradients, which fake tensors cannot have: they ask the host for nothing."""
    detector, forward = of_fit(monkeypatch, method, **given)
    monkeypatch.setattr(Tensor, "backward", lambda *_, **__: None)
    monkeypatch.setattr(cavga, "attention", lambda features, *_: features.sum(1).sigmoid())
    assert_static(detector, forward)


def assert_static(detector: Any, forward: Callable[[], Any]) -> None:
    """Assert that a step neither copies nor has shapes that depend on data, once planned."""
    fake_tensor_mode, *_ = torch_internals()

    def step() -> Any:
        with detector.plan.step():
            return forward()

    for left in (3, 2):
        detector.plan.prepare(left)
        step()
    with fake_tensor_mode(allow_non_fake_inputs=True):
        on_fake_cuda([step, detector])
        assert waits(step) == []
        network = detector.flows if hasattr(detector, "flows") else detector.network
        assert all(t.is_cuda for t in (*step(), *network.parameters()))


def test_what_an_epoch_adds_up_stays_on_the_gpu() -> None:
    fake_tensor_mode, *_ = torch_internals()
    with fake_tensor_mode(allow_non_fake_inputs=True):
        epoch, scores = EpochScores(5.0, "cuda"), torch.empty(4, device="cuda")
        result = BatchLoss(scores.sum(), scores, scores)
        assert waits(lambda: epoch.add(result, torch.zeros_like(scores).long())) == []
        assert waits(epoch.clear) == []


@pytest.mark.parametrize(
    ("step", "operation"),
    [
        (lambda x: x + x.new_tensor([1.0, 2.0]), "_to_copy"),
        (lambda x: x.exp() + x.cpu().to(x.device), "_to_copy"),
        (lambda x: x[torch.tensor([1, 0])], "index"),
        (lambda x: x * torch.ones(()), "mul"),  # a number of the host, captured for good
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0], "index"),
        (lambda x: x if x.sum() > 0 else -x, "_local_scalar_dense"),
    ],
)
def test_what_a_gpu_would_wait_for_is_found_by_its_line(
    step: Callable[[Tensor], Tensor], operation: str
) -> None:
    fake_tensor_mode, *_ = torch_internals()
    held = [torch.ones(2)]
    with fake_tensor_mode(allow_non_fake_inputs=True):
        on_fake_cuda(held)
        first = waits(lambda: step(held[0]))[0]
        assert waits(lambda: held[0].exp().sum()) == []
    assert first.startswith(f"test_plan.py:{step.__code__.co_firstlineno} ")
    assert operation in first


def test_atacnets_step_is_within_its_budget_of_kernels() -> None:
    detector, forward = ready(ATACNet, ("resnet50", 3))
    optimiser = adam(detector.network, detector.parameters)

    def step() -> None:
        with detector.plan.step():
            descend(forward()[2], optimiser, detector.parameters)

    detector.plan.prepare(2)
    step()  # draws on the spot and makes Adam's moments
    detector.plan.prepare(1)
    counts = kernels(step)
    assert 900 < counts.total() <= 1128


def counted(plan: Plan) -> tuple[Callable[[], Tensor], list[int]]:
    """Return a step that takes two draws of one generator, and how often they were drawn."""
    generator, draws = rng(), [0]

    def first(n: int) -> tuple[Tensor, ...]:
        draws[0] += 1
        return torch.rand(n, generator=generator), torch.randperm(n, generator=generator)

    def second() -> tuple[Tensor, ...]:
        return (torch.randn((), generator=generator),)

    def step() -> Tensor:
        numbers, order = plan.take(first, 4)
        return torch.cat([numbers, order.double(), *(t.view(1) for t in plan.take(second))])

    return step, draws


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_an_epoch_is_drawn_ahead_and_never_more(steps: int) -> None:
    plan = Plan()
    step, draws = counted(plan)
    for number, _ in enumerate(planned(plan, step, 3, steps)):
        assert draws[0] == number // steps * steps + (1 if number == 0 else steps)
    assert draws[0] == 3 * steps


def test_a_long_epoch_is_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baselines.blocks.plan.AHEAD", 3 * (4 * 4 + 4 * 8 + 4))  # three steps
    plan = Plan()
    spot, _ = counted(Plan())
    step, draws = counted(plan)
    for ahead in planned(plan, step, 2, 8):
        assert torch.equal(ahead, spot())
    assert draws[0] == 16


def test_outside_of_steps_a_draw_is_made_on_the_spot() -> None:
    plan = Plan()
    step, _ = counted(plan)
    (spot, _), drawn = counted(Plan()), []
    for ahead in planned(plan, step, 2, 2):
        drawn.append(ahead)
        if len(drawn) == 2:  # between epochs, say to score
            drawn.append(step())
    assert all(torch.equal(ahead, spot()) for ahead in drawn)


@pytest.mark.parametrize("wrong", ["other arguments", "one more", "one less"])
def test_steps_that_draw_otherwise_than_the_first_are_refused(wrong: str) -> None:
    plan, turns = Plan(), iter(range(9))

    def draw(n: int) -> tuple[Tensor, ...]:
        return (torch.zeros(n),)

    def step() -> None:
        later = next(turns) > 0
        plan.take(draw, 3 if later and wrong == "other arguments" else 2)
        for _ in range(1 + later * {"one more": 1, "one less": -1}.get(wrong, 0)):
            plan.take(draw, 2)

    with pytest.raises(RuntimeError, match=r"a step (takes|does not take)"):
        list(planned(plan, step, 1, 2))


@pytest.mark.parametrize("inherits", [True, False])
def test_a_method_of_ones_own_is_not_planned_unless_it_says_so(
    monkeypatch: pytest.MonkeyPatch, inherits: bool
) -> None:
    """It may draw a number by itself in each step, of which a captured one would keep the first."""
    plans: list[Any] = []
    monkeypatch.setattr("baselines.blocks.weak.run_steps", lambda *given: plans.append(given[-1]))

    class Own(DevNet if inherits else WeakMethod):  # type: ignore[misc]
        name, Parameters = "own", DevNet.Parameters

        def build(self, backbone: Backbone) -> Any:
            return DevNet.build(self, backbone)  # type: ignore[arg-type]

        def loss(self, images: Tensor, kinds: Tensor) -> BatchLoss:
            raise NotImplementedError

    for method in (Own, DevNet):
        fitted(method)
    assert plans[0] is None
    assert isinstance(plans[1], Plan)
