"""What FastFlow and CFlow share, and what each has of its own."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines import cflow, fastflow
from baselines.blocks.coupling import initialise
from baselines.blocks.flows import side_of
from baselines.cflow import CFlow, ConditionalFlow, fibers_of, positions
from baselines.fastflow import FastFlow, NormalisedFlow
from bench.detector import BackboneSource, Context, MethodError, Samples, Seeds, TrainingSet
from bench.execution.determinism import make_deterministic
from bench.metrics import auroc
from bench.planning.rehearsal import ledger, rehearsed_peak
from bench.registry import Registry
from bench.store.models import model_bytes, read_model
from tests.fixtures.planted import SIZE, pictures, separation

METHODS = [FastFlow, CFlow]
SMALL: dict[Any, dict[str, Any]] = {
    FastFlow: {"epochs": 2, "steps_per_epoch": 2, "flow_steps": 2, "hidden_ratio": 0.2},
    CFlow: {
        "epochs": 2,
        "steps_per_epoch": 2,
        "blocks": 1,
        "fibers": 64,
        "first_stage": 1,
        "rotation": 0.0,
    },
}
LONGER: dict[Any, dict[str, Any]] = {
    FastFlow: {"epochs": 3, "steps_per_epoch": 10},
    CFlow: {"epochs": 3, "steps_per_epoch": 3, "lr": 1e-3},
}
"""Enough to learn what a normal picture is."""
CHANGED: dict[Any, dict[str, Any]] = {
    FastFlow: {
        "epochs": 3, "steps_per_epoch": 3, "lr": 1e-2, "weight_decay": 0.5, "flow_steps": 3,
        "hidden_ratio": 0.5, "conv3x3_only": True, "layer_norm": "none",
    },
    CFlow: {
        "epochs": 3, "steps_per_epoch": 3, "passes": 1, "fibers": 32, "lr": 1e-3, "lr_end": 1e-4,
        "warmup": 1.0, "rotation": 5.0, "blocks": 2, "permutation": "hard", "first_stage": 2,
    },
}  # fmt: skip
TESTED = pictures(7, True, 5)
WIDTHS = {"resnet18": (64, 128, 256, 512), "resnet50": (256, 512, 1024, 2048)}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def context_of(seed: int = 0, **changes: Any) -> Context:
    backbone = BackboneSource("mobilenet_v2", 3, None)
    given = {"seeds": Seeds(seed, "planted", "planted"), "backbone": backbone, "batch_size": 8}
    return Context("cpu", **{**given, **changes})


def fitted(
    method: Any, seed: int = 0, normal: Samples | None = None, context: Any = None, **given: Any
) -> Any:
    """Fit on 24 pictures in four steps; a backbone from scratch is the same for every seed."""
    make_deterministic(torch.get_num_threads(), 0)
    detector = method(method.Parameters(**{**SMALL[method], **given}))
    normal = pictures(24, False, 1) if normal is None else normal
    detector.fit(TrainingSet(normal, pictures(0, True, 2)), context_of(seed, **(context or {})))
    return detector


FACTS: dict[Any, dict[str, Any]] = {FastFlow: {}, CFlow: {}}


@functools.cache
def ready(method: Any) -> Any:
    """Return a fitted detector that several tests only ask; what it recorded is in `FACTS`."""
    return fitted(method, context={"record": FACTS[method].__setitem__})


# Both


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_defect_is_found_and_shown_where_it_is(method: Any) -> None:
    resnet18 = {"backbone": BackboneSource("resnet18", 3, None)}
    detector = fitted(method, context=resnet18, **LONGER[method])
    assert separation(detector) > 0.97
    tested = pictures(20, True, 5)
    maps = detector.explain(tested).maps["score"]
    planted = (tested.images[:, 0] == 240).reshape(20, 8, 4, 8, 4).any((2, 4))
    shown = [auroc(m.ravel(), p.ravel()) for m, p in zip(maps, planted, strict=True)]
    assert np.mean(shown) > 0.7  # turned or mirrored maps stay below


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(method: Any) -> None:
    first, again, other = (
        detector.score(TESTED)
        for detector in (ready(method), fitted(method), fitted(method, seed=1))
    )
    assert first.dtype == np.float32
    assert first.shape == (7,)
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    rough = fitted(method, context={"precision": "bfloat16"}, epochs=1, steps_per_epoch=1)
    assert not np.array_equal(first, rough.score(TESTED))


@pytest.mark.parametrize("method", METHODS)
def test_no_number_comes_from_torchs_own_generator(method: Any) -> None:
    detector, drawn = method(method.Parameters(**SMALL[method])), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        drawn.append(detector.untrained(SIZE, context_of()).state_dict())
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])


@pytest.mark.parametrize("method", METHODS)
def test_images_are_scored_alike_alone_in_other_batches_and_twice(method: Any) -> None:
    detector = ready(method)
    scores = detector.score(TESTED)
    assert np.array_equal(scores, detector.score(TESTED))
    alone = [detector.score(part(TESTED, i, i + 1)) for i in range(7)]
    np.testing.assert_allclose(np.concatenate(alone), scores, rtol=1e-4)
    turned = dataclasses.replace(TESTED, images=TESTED.images[::-1].copy())
    np.testing.assert_allclose(detector.score(turned)[::-1], scores, rtol=1e-4)


def part(samples: Samples, start: int, stop: int) -> Samples:
    fields = {name: value for name, value in vars(samples).items() if value is not None}
    return Samples(**{name: value[start:stop] for name, value in fields.items()})


@pytest.mark.parametrize("method", METHODS)
def test_labelled_anomalies_and_the_samples_stay_as_they_are(method: Any) -> None:
    normal = pictures(24, False, 1)
    before = normal.images.copy()
    detector = method(method.Parameters(**SMALL[method]))
    make_deterministic(torch.get_num_threads(), 0)
    detector.fit(TrainingSet(normal, pictures(5, True, 3)), context_of())
    assert np.array_equal(detector.score(TESTED), ready(method).score(TESTED))
    assert np.array_equal(normal.images, before)


@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_the_scores_own_and_the_features_are_of_all_stages(method: Any) -> None:
    detector = ready(method)
    assert detector.explain(TESTED).maps["score"].shape == (7, 8, 8)
    with torch.inference_mode():
        maps = torch.cat([detector.maps(f) for f in detector._features(TESTED)])
    assert maps.shape == (7, SIZE, SIZE)
    np.testing.assert_allclose(detector.score(TESTED), maps.amax((1, 2)), rtol=1e-5)
    assert maps.max() <= 0
    embedded = detector.embed(TESTED)
    assert embedded.shape == (7, 24 + 32 + 96)
    assert np.isfinite(embedded).all()


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_changes_the_scores(method: Any) -> None:
    assert CHANGED[method].keys() == {f.name for f in dataclasses.fields(method.Parameters)}
    standard = ready(method).score(TESTED)
    without = []
    for name, value in CHANGED[method].items():
        given = {name: value, **({"steps_per_epoch": 0} if name == "passes" else {})}
        if np.array_equal(fitted(method, **given).score(TESTED), standard):
            without.append(name)
    assert without == []


@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_model_gives_the_same_scores_maps_and_features(method: Any) -> None:
    detector = ready(method)
    if method is FastFlow:  # whose weights are of the size of the image
        detector = fitted(FastFlow, layer_norm="affine")
    saved = read_model(model_bytes(detector.state()))
    torch.manual_seed(5)
    loaded = method(detector.parameters)
    loaded.load_state(saved, context_of(seed=3))
    assert np.array_equal(loaded.score(TESTED), detector.score(TESTED))
    assert np.array_equal(loaded.embed(TESTED), detector.embed(TESTED))
    one, other = (d.explain(TESTED).maps["score"] for d in (detector, loaded))
    assert np.array_equal(one, other)
    for name in (next(k for k in saved if k.startswith("flows.")), "size", *method.memory_of):
        less = {k: v for k, v in saved.items() if k != name}
        with pytest.raises(MethodError, match=r"the saved model does not fit: [^\n]*$"):
            method(detector.parameters).load_state(less, context_of())


@pytest.mark.parametrize("method", METHODS)
def test_fewer_images_than_a_batch_make_a_batch_of_all(method: Any) -> None:
    facts: dict[str, Any] = {}
    given = {"batch_size": 32, "record": facts.__setitem__}
    detector = fitted(
        method, normal=pictures(5, False, 1), context=given, steps_per_epoch=0, epochs=1
    )
    assert np.isfinite(detector.score(TESTED)).all()
    assert facts["optimiser_steps"] >= 1


@pytest.mark.parametrize("method", METHODS)
def test_a_size_that_no_stride_divides_and_other_backbones_are_no_trouble(method: Any) -> None:
    def odd(n: int, defective: bool, seed: int) -> Samples:
        even = pictures(n, defective, seed)
        larger = np.pad(even.images, ((0, 0), (0, 0), (0, 5), (0, 5)), "edge")
        return dataclasses.replace(even, images=larger)

    mobile = {"backbone": BackboneSource("mobilenet_v2", 4, None), "batch_size": 3}
    detector = fitted(method, normal=odd(6, False, 1), context=mobile, epochs=1)
    assert np.isfinite(detector.score(odd(3, True, 2))).all()
    assert detector.explain(odd(3, True, 2)).maps["score"].shape == (3, 10, 10)
    widths = {FastFlow: 24 + 32 + 96, CFlow: 24 + 32 + 96 + 1280}
    assert detector.embed(odd(3, True, 2)).shape == (3, widths[method])


@pytest.mark.parametrize("method", METHODS)
def test_what_it_cannot_do_without_is_said(method: Any) -> None:
    with pytest.raises(MethodError, match="needs a backbone"):
        fitted(method, context={"backbone": None})
    with pytest.raises(MethodError, match="which is cut after stage 2: --set stage=3"):
        fitted(method, context={"backbone": BackboneSource("resnet18", 2, None)})


@pytest.mark.parametrize("method", METHODS)
def test_it_shows_itself_after_every_epoch_ready_to_score(method: Any) -> None:
    shown: list[Any] = []
    detector = fitted(
        method, context={"after_epoch": lambda e, d: shown.append((e, d.score(TESTED)))}
    )
    assert [epoch for epoch, _ in shown] == [1, 2]
    assert np.array_equal(shown[-1][1], detector.score(TESTED))
    assert np.array_equal(shown[-1][1], ready(method).score(TESTED))
    assert not np.array_equal(shown[0][1], shown[1][1])


@pytest.mark.parametrize("method", METHODS)
def test_a_rehearsal_makes_a_step_of_the_flows(method: Any) -> None:
    wide: dict[Any, dict[str, Any]] = {FastFlow: {"hidden_ratio": 64.0}, CFlow: {"blocks": 8}}
    small, large = (
        rehearsed_peak(method(method.Parameters(**{**SMALL[method], **given})), SIZE, context_of())
        for given in ({}, wide[method])
    )
    assert small < large


@pytest.mark.parametrize(
    ("method", "given"),
    [
        (FastFlow, {"flow_steps": 4}),
        (FastFlow, {"flow_steps": 8, "hidden_ratio": 0.16}),
        (CFlow, {"rotation": 0.0, "blocks": 4, "fibers": 64}),
        (CFlow, {"rotation": 0.0, "blocks": 2, "fibers": 128, "first_stage": 1}),
    ],
)
def test_the_estimate_is_of_the_features_the_flows_and_a_step(
    method: Any, given: dict[str, Any]
) -> None:
    context, size = context_of(batch_size=2, backbone=BackboneSource("resnet18", 3, None)), 96
    detector = method(method.Parameters(**given))
    detector.context = context
    detector.flows = detector.untrained(size, context)
    shapes = detector.shapes(size, context.backbone)
    features = [torch.rand(2, c, side, side, generator=rng()) for c, side in shapes]
    step = (
        detector.step(features)
        if method is FastFlow
        else detector.step(lambda: features, rng(), steps=1)
    )
    with ledger() as counts:
        step()
    held = [*features, *detector.flows.state_dict().values()]
    taken = counts.peak + sum(tensor.nbytes for tensor in held)
    estimate = detector.memory(2, size, context)
    assert 0.75 * taken < estimate < 2 * taken
    stored = sum(level[0].nbytes for level in features)
    assert detector.memory(500, size, context) - estimate == 498 * stored


@pytest.mark.parametrize("method", METHODS)
def test_its_card(method: Any, tmp_path: Any) -> None:
    card = Registry(tmp_path).find(method.name)
    assert card.supervision == "unsupervised"
    assert card.settings == {"precision", "batch_size", "backbone"}
    assert card.abilities == {"embed", "epochs", "explain", "state", "rehearse", "memory"}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# FastFlow


def fast(channels: int, side: int, **given: Any) -> NormalisedFlow:
    built = NormalisedFlow(channels, side, fastflow.Parameters(**given))
    initialise(built, rng())
    return built


@pytest.mark.parametrize(
    ("backbone", "given", "size", "parameters"),
    [
        ("resnet18", {}, 256, 2_593_024),
        ("resnet18", {"conv3x3_only": True}, 256, 4_657_408),
        ("resnet50", {}, 256, 41_337_856),
        ("resnet50", {"conv3x3_only": True}, 256, 74_368_000),
        ("resnet18", {"layer_norm": "affine"}, 256, 3_510_528),
        ("resnet18", {"layer_norm": "affine", "conv3x3_only": True}, 256, 5_574_912),
        ("resnet50", {"layer_norm": "affine"}, 224, 41_337_856 + 2_809_856),
    ],
)
def test_fastflow_has_as_many_parameters_as_its_reimplementations(
    backbone: str, given: dict[str, Any], size: int, parameters: int
) -> None:
    with torch.device("meta"):
        flows = [
            NormalisedFlow(width, side_of(size, stage), fastflow.Parameters(**given))
            for stage, width in enumerate(WIDTHS[backbone][:3], 1)
        ]
    assert sum(map(count, flows)) == parameters


def test_kernels_of_three_and_one_take_turns() -> None:
    def kernels(**given: Any) -> list[int]:
        return [b.subnet[0].kernel_size[0] for b in fast(4, 2, flow_steps=5, **given).blocks]

    assert kernels() == [3, 1, 3, 1, 3]
    assert kernels(conv3x3_only=True) == [3] * 5


def test_fastflows_loss_begins_with_half_the_number_of_values() -> None:
    for channels, side in ((64, 16), (128, 8)):
        level = torch.randn(4, channels, side, side, generator=rng(channels)).relu()
        losses = fastflow.losses(fast(channels, side), level)
        assert losses.tolist() == pytest.approx([level[0].numel() / 2] * 4, rel=0.05)


def test_fastflows_loss_and_score_are_those_worked_out_by_hand() -> None:
    detector = FastFlow(fastflow.Parameters(flow_steps=2))
    detector.context, detector.size = context_of(), 9
    features = [torch.randn(3, c, s, s, generator=rng(c)) for c, s in ((6, 4), (10, 2))]
    detector.flows = nn.ModuleList(fast(m.shape[1], m.shape[2], flow_steps=2) for m in features)
    detector.flows.requires_grad_(False)
    maps = torch.zeros(3, 9, 9)
    for flow, level in zip(detector.flows, features, strict=True):
        z, log_det = flow(level)
        for i in range(3):
            loss = 0.5 * float((z[i] ** 2).sum()) - float(log_det[i])
            assert fastflow.losses(flow, level)[i].item() == pytest.approx(loss, rel=1e-5)
        probability = torch.exp(-0.5 * (z**2).mean(1, keepdim=True))
        maps -= F.interpolate(probability, (9, 9), mode="bilinear", align_corners=False)[:, 0] / 2
    torch.testing.assert_close(detector.maps(features), maps)
    torch.testing.assert_close(detector.scores(features), maps.flatten(1).amax(1))
    assert (maps >= -1).all()
    assert (maps <= 0).all()


def test_a_layer_norm_with_weights_lets_the_loss_fall_without_bound_and_changes_nothing() -> None:
    """Weights that shrink are made up for by the first block, which the loss rewards for it."""
    flow = fast(24, 2, layer_norm="affine", flow_steps=1).double()
    x = torch.randn(3, 24, 2, 2, generator=rng(5), dtype=torch.float64)
    (block,) = flow.blocks

    def loss() -> tuple[float, Tensor]:
        return fastflow.losses(flow, x).mean().item(), flow(x)[0]

    first, z = loss()
    shrunk = 0.01
    with torch.no_grad():
        flow.norm.weight *= shrunk
        # What the subnet sees is as before: its first layer makes up for the shrinking.
        block.subnet[0].weight /= shrunk
        half = block.parts[1]
        scale = 0.1 * F.softplus(block.global_scale, beta=0.5)
        block.global_scale.copy_(2 * torch.log(torch.expm1(5 * scale / shrunk)))
        shift = block.subnet[2]
        shift.weight[half:] *= shrunk
        shift.bias[half:] *= shrunk
    second, again = loss()
    torch.testing.assert_close(again, z, rtol=1e-9, atol=1e-9)
    assert first - second == pytest.approx(96 * math.log(100), rel=1e-6)


def test_a_plain_layer_norm_has_nothing_to_shrink() -> None:
    flow = fast(6, 3)
    assert count(flow.norm) == 0
    x = torch.randn(2, 6, 3, 3, generator=rng())
    torch.testing.assert_close(flow(5 * x + 3)[0], flow(x)[0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(fast(6, 3, layer_norm="none")(5 * x)[0], flow(x)[0])


def test_a_step_follows_the_gradient_of_the_mean_loss_of_the_batch() -> None:
    """Though it is added up over stages and, on a CPU, over a few images at once."""
    detector = FastFlow(fastflow.Parameters())
    detector.context = context_of(batch_size=5)
    features = [torch.randn(5, c, 4, 4, generator=rng(c)).relu() for c in (6, 8)]
    detector.flows = nn.ModuleList(fast(c, 4, flow_steps=2) for c in (6, 8))
    pairs = list(zip(detector.flows, features, strict=True))
    loss = torch.stack([fastflow.losses(flow, level).mean() for flow, level in pairs]).sum()
    expected = torch.autograd.grad(loss, list(detector.flows.parameters()))
    assert detector.step(features)().item() == pytest.approx(loss.item(), rel=1e-6)
    for found, gradient in zip(detector.flows.parameters(), expected, strict=True):
        assert found.grad is not None
        torch.testing.assert_close(found.grad, gradient, rtol=1e-3, atol=1e-5)


def test_fastflows_loss_falls_on_one_batch() -> None:
    detector = FastFlow(fastflow.Parameters(lr=1e-2))
    detector.context = context_of()
    features = [torch.randn(8, 16, 8, 8, generator=rng(1)).relu()]
    detector.flows = nn.ModuleList([fast(16, 8, flow_steps=2, hidden_ratio=0.5)])
    step = detector.step(features)
    losses = [step().item() for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]


def test_fastflow_makes_as_many_steps_as_whole_batches() -> None:
    facts: dict[str, Any] = {}
    given = {"record": facts.__setitem__, "batch_size": 7}
    fitted(FastFlow, context=given, steps_per_epoch=0, epochs=2, flow_steps=1)
    assert facts["optimiser_steps"] == 2 * (24 // 7)


# CFlow


def conditional(channels: int, side: int, **given: Any) -> ConditionalFlow:
    built = ConditionalFlow(channels, side, cflow.Parameters(**given))
    initialise(built, rng())
    return built


@pytest.mark.parametrize(
    ("backbone", "stages", "parameters"),
    [
        ("resnet18", (2, 3, 4), 8_620_032),
        ("resnet18", (1, 2, 3), 3_674_112),
        ("resnet50", (2, 3, 4), 81_647_616),
        ("resnet50", (1, 2, 3), 24_705_024),
        ("resnet50", (2, 3), 22_597_632),
    ],
)
def test_cflow_has_as_many_parameters_as_the_released_code(
    backbone: str, stages: tuple[int, ...], parameters: int
) -> None:
    widths = [WIDTHS[backbone][stage - 1] for stage in stages]
    with torch.device("meta"):
        flows = [ConditionalFlow(width, 2, cflow.Parameters()) for width in widths]
    assert sum(map(count, flows)) == parameters
    for width, flow in zip(widths, flows, strict=True):
        i, second = width // 2 + 128, width // 2
        assert count(flow) == 8 * (2 * i**2 + 2 * i + 4 * i * second + 2 * second + 2 * width)


def test_cflow_reads_stage_2_to_the_deepest() -> None:
    def read(stage: int, **given: Any) -> tuple[int, ...]:
        source = BackboneSource("resnet18", stage, None)
        return CFlow(cflow.Parameters(**given)).stages(source)

    assert read(4) == (2, 3, 4)
    assert read(3) == (2, 3)
    assert read(3, first_stage=1) == (1, 2, 3)


def test_positions_are_told_by_sines_and_cosines() -> None:
    told = positions(5).view(5, 5, 128)
    assert (told[0, 0, 0::2] == 0).all()
    assert (told[0, 0, 1::2] == 1).all()
    assert torch.equal(told[:, :, :64], told[:1, :, :64].expand(5, 5, 64))
    assert torch.equal(told[:, :, 64:], told[:, :1, 64:].expand(5, 5, 64))
    for row, column, i in ((3, 1, 0), (2, 4, 7), (4, 0, 31)):
        wave = 10_000 ** (-2 * i / 64)
        expected = [f(at * wave) for at in (column, row) for f in (math.sin, math.cos)]
        channels = [2 * i, 2 * i + 1, 64 + 2 * i, 64 + 2 * i + 1]
        assert told[row, column, channels].tolist() == pytest.approx(expected, abs=1e-5)


def test_cflows_likelihood_and_loss_at_the_beginning() -> None:
    flow = conditional(64, 4)
    fibers = torch.randn(2000, 64, generator=rng(1))
    likelihood, z = flow.likelihood(fibers, torch.arange(2000) % 16)
    assert z.shape == (2000, 64)
    assert likelihood.mean().item() == pytest.approx(-1.419, abs=0.02)
    assert -F.logsigmoid(likelihood).mean().item() == pytest.approx(1.64, abs=0.02)


def test_the_rate_rises_for_two_epochs_and_falls_by_a_cosine_of_epochs() -> None:
    p = cflow.Parameters()
    steps = 25 * 8
    rates = [p.rate(step / steps) for step in range(steps)]
    assert rates[0] == pytest.approx(2e-5)
    top = 2e-7 + (2e-4 - 2e-7) * (1 + math.cos(math.pi * 2 / 25)) / 2
    assert rates[8] == pytest.approx((2e-5 + top) / 2)
    assert rates[16] == pytest.approx(top)
    for epoch in range(2, 25):
        expected = 2e-7 + (2e-4 - 2e-7) * (1 + math.cos(math.pi * epoch / 25)) / 2
        assert rates[8 * epoch : 8 * epoch + 8] == pytest.approx([expected] * 8)
    for warmup in (0.0, 1.0):
        few = cflow.Parameters(epochs=3, warmup=warmup)
        assert all(0 < few.rate(i / 9) <= 2e-4 for i in range(9))


def test_every_position_of_a_batch_is_seen_once_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = CFlow(cflow.Parameters(fibers=7, blocks=1))
    flow = conditional(6, 4, blocks=1)
    level = torch.randn(3, 6, 4, 4, generator=rng(3))
    seen: list[tuple[Tensor, Tensor]] = []
    real = flow.likelihood

    def likelihood(fibers: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((fibers, where))
        return real(fibers, where)

    monkeypatch.setattr(flow, "likelihood", likelihood)
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-3)
    losses = detector.descend(flow, optimiser, level, rng(4))
    assert len(losses) == len(seen) == 48 // 7
    rows, places = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert len(rows) == 42
    flat = fibers_of(level)
    sources = [int((flat == row).all(1).nonzero()) for row in rows]
    assert len(set(sources)) == 42
    assert [s % 16 for s in sources] == places.tolist()
    assert sources != sorted(sources)
    row, column = divmod(int(places[0]), 4)
    assert torch.equal(rows[0], level[sources[0] // 16, :, row, column])


def test_so_many_steps_are_made_of_every_stage() -> None:
    ready(CFlow)
    # Of a batch of 8: 512 positions of stage 1, 128 of stage 2, and 32 of stage 3 in one step.
    assert FACTS[CFlow]["optimiser_steps"] == 4 * (512 // 64 + 128 // 64 + 1)
    assert FACTS[CFlow]["final_loss"] > 0


def test_a_score_is_relative_to_the_normal_images_and_not_to_the_batch() -> None:
    detector = ready(CFlow)
    assert detector.largest.shape == (3,)
    normal = pictures(24, False, 1)
    with torch.inference_mode():
        grids = [detector.likelihoods(f) for f in detector._features(normal)]
        (features,) = detector._features(part(TESTED, 0, 7))
        own = detector.likelihoods(features)
        maps = detector.maps(features)
    largest = [max(float(g[k].max()) for g in grids) for k in range(3)]
    assert detector.largest.tolist() == pytest.approx(largest, rel=1e-5)
    expected = torch.zeros(7, SIZE, SIZE, dtype=torch.float64)
    for grid, most in zip(own, detector.largest, strict=True):
        likely = torch.exp(grid - most)[:, None]
        expected -= F.interpolate(likely, (SIZE,) * 2, mode="bilinear", align_corners=True)[:, 0]
    torch.testing.assert_close(maps, expected)


def test_an_optimiser_moves_the_flow_of_its_stage_alone() -> None:
    detector = CFlow(cflow.Parameters(blocks=1, fibers=8))
    flows = [conditional(c, 2, blocks=1) for c in (4, 6)]
    detector.flows, detector.context = nn.ModuleList(flows), context_of()
    before = [{k: v.clone() for k, v in f.state_dict().items()} for f in flows]
    level = torch.randn(4, 4, 2, 2, generator=rng(1))
    optimiser = torch.optim.Adam(flows[0].parameters(), lr=1e-2)
    detector.descend(flows[0], optimiser, level, rng(2))
    for flow, old, moved in zip(flows, before, (True, False), strict=True):
        new = flow.state_dict()
        learnt = {name for name, _ in flow.named_parameters()}
        assert {k for k in old if not torch.equal(old[k], new[k])} == (learnt if moved else set())


def test_rotation_trains_on_turned_images_and_its_lack_on_stored_features() -> None:
    stored = 24 * 4 * (24 * 64 + 32 * 16 + 96 * 4)
    for method in METHODS:
        ready(method)
        assert FACTS[method]["bank_bytes"] == stored
    facts: dict[str, Any] = {}
    fitted(CFlow, context={"record": facts.__setitem__}, rotation=5.0)
    assert "bank_bytes" not in facts
