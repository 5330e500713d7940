"""PRN: its network by hand, its anomalies, its prototypes, and what every method must do."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.blocks.backbone import normalise
from baselines.blocks.synthesis import foregrounds
from baselines.prn import PRN, Parameters
from baselines.prn.anomalies import Batches, Extension, middles, moved, pieces_of
from baselines.prn.network import (
    Fusion,
    Head,
    MultiSizeAttention,
    Network,
    PatchAttention,
    enlarge,
    fold,
    parts_of,
    top_mean,
    unfold,
)
from baselines.prn.prototypes import centres, clusters, squares_to_centres
from bench.detector import BackboneSource, Context, MethodError, Samples, Seeds, TrainingSet
from bench.execution.determinism import make_deterministic
from bench.metrics import auroc
from bench.planning.matrix import Selection, expand
from bench.planning.plan import Folders, plan_runs
from bench.planning.rehearsal import rehearsed_peak
from bench.planning.suite import read_suite
from bench.registry import Registry
from tests.fixtures.planted import SIZE, framed, pictures, separation

SMALL: dict[str, Any] = {"epochs": 1, "steps_per_epoch": 2, "width": 4, "attentions": 1}
TESTED = pictures(7, True, 5)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def marked(n: int, seed: int) -> Samples:
    """Defective pictures with their masks."""
    samples = pictures(n, True, seed)
    return dataclasses.replace(samples, masks=samples.images[:, 0] == 240)


def context_of(seed: int = 0, **changes: Any) -> Context:
    backbone = BackboneSource("resnet18", 3, None)
    given = {"batch_size": 8, "score_batch_size": 3, "backbone": backbone, **changes}
    return Context("cpu", Seeds(seed, "planted", "planted"), **given)


def fitted(
    seed: int = 0, train: TrainingSet | None = None, context: Any = None, **given: Any
) -> Any:
    """Fit on twenty pictures and three labelled anomalies in two steps."""
    made = context_of(seed, **(context or {}))
    make_deterministic(torch.get_num_threads(), made.seeds["init"])
    detector = PRN(Parameters(**{**SMALL, **given}))
    detector.fit(train or TrainingSet(pictures(20, False, 1), marked(3, 2)), made)
    return detector


FACTS: dict[str, Any] = {}


@functools.cache
def ready() -> Any:
    """Return a fitted detector that several tests only ask; what it recorded is in `FACTS`."""
    return fitted(context={"record": FACTS.__setitem__})


# The network


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("side", "tokens", "total"), [(256, 21_934_080, 88_712_321), (128, 5_483_520, 72_261_761)]
)
def test_it_has_as_many_parameters_as_published(side: int, tokens: int, total: int) -> None:
    with torch.device("meta"):
        head = Head((64, 128, 256, 512), side, 64, 3, "dim")
    weighed = [p for n, p in head.attention.named_parameters() if ".sizes." in n]
    assert sum(p.numel() for p in weighed) == tokens
    assert count(head.attention) == tokens + 50_596_224
    assert [count(part) for part in (head.narrow, head.first, head.second, head.decoder)] == [
        0, 68_096, 250_880, 4_686_529,
    ]  # fmt: skip
    assert count(head) + 11_176_512 == total  # with ResNet-18 to stage 4


@pytest.mark.parametrize("size", [(10, 14), (5, 7), (9, 16), (1, 1)])
def test_enlarging_is_bilinear_with_aligned_corners(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, 5, 7, generator=rng())
    expected = F.interpolate(maps, size, mode="bilinear", align_corners=True)
    result = enlarge(maps, *size)
    assert torch.allclose(result, expected, atol=1e-5)
    assert torch.equal(enlarge(maps[:, :, :1, :1], 2, 2), maps[:, :, :1, :1].expand(-1, -1, 2, 2))


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_patches_are_cut_and_put_back(parts: int) -> None:
    maps = torch.randn(2, 3, 8, 8, generator=rng())
    tokens = unfold(maps, parts)
    side = 8 // parts
    assert tokens.shape == (2, parts**2, side**2 * 3)
    last = maps[1, :, 8 - side :, 8 - side :].permute(1, 2, 0).flatten()
    assert torch.equal(tokens[1, -1], last)
    assert torch.equal(fold(tokens, parts, 3), maps)


@pytest.mark.parametrize(
    ("side", "parts"),
    [(64, [1, 2, 4, 8]), (16, [1, 2, 4, 8]), (28, [1, 2, 4, 14]), (14, [1, 2, 7, 14]),
     (4, [1, 2, 4]), (7, [1, 7]), (25, [1, 5]), (113, [1]), (1, [1])],
)  # fmt: skip
def test_a_side_is_cut_into_what_divides_it(side: int, parts: list[int]) -> None:
    assert parts_of(side) == parts


@pytest.mark.parametrize("scale", ["dim", "sqrt"])
@pytest.mark.parametrize("parts", [1, 2])
def test_patch_attention_is_queries_keys_and_values_by_the_book(parts: int, scale: str) -> None:
    layer, maps = PatchAttention(3, 4, parts, scale), torch.randn(2, 3, 4, 4, generator=rng())
    tokens = unfold(maps, parts)
    q, k, v = (tokens * w + b for w, b in zip(layer.weight, layer.bias, strict=True))
    values = tokens.shape[2]
    shares = (q @ k.transpose(1, 2) / (values if scale == "dim" else values**0.5)).softmax(2)
    assert torch.allclose(layer(maps), fold(shares @ v, parts, 3), atol=1e-5)
    if parts == 1:
        assert torch.allclose(layer(maps), fold(v, 1, 3), atol=1e-6)


def test_fusion_brings_every_level_to_every_other() -> None:
    fusion = Fusion((2, 4, 8))
    levels = [torch.randn(1, c, s, s, generator=rng(c)) for c, s in ((2, 13), (4, 7), (8, 4))]
    fused = fusion(levels)
    assert [f.shape for f in fused] == [level.shape for level in levels]
    for i in range(3):
        changed = [level + (j == i) for j, level in enumerate(levels)]
        assert not any(torch.equal(a, b) for a, b in zip(fusion(changed), fused, strict=True))
    deep, deeper = fusion.between["10"](levels[1]), fusion.between["20"](levels[2])
    by_hand = levels[0] + enlarge(deep, 13, 13) + enlarge(deeper, 13, 13)
    assert torch.allclose(fused[0], by_hand, atol=1e-6)
    assert [(p.groups, p.stride[0], p.kernel_size[0]) for p in fusion.between.values()] == [
        (2, 2, 3), (2, 4, 5), (1, 1, 1), (4, 2, 3), (1, 1, 1), (1, 1, 1),
    ]  # fmt: skip


def test_an_attention_keeps_the_shape_of_odd_maps() -> None:
    assert MultiSizeAttention(2, 7, "dim")(torch.randn(2, 2, 7, 7)).shape == (2, 2, 7, 7)


def test_a_score_is_the_mean_of_the_hundred_largest_values() -> None:
    maps = torch.rand(3, 20, 30, generator=rng())
    expected = [np.sort(m.numpy().ravel())[-100:].mean() for m in maps]
    assert top_mean(maps).tolist() == pytest.approx(expected, rel=1e-6)
    assert top_mean(torch.tensor([[[0.1, 0.3]]])).item() == pytest.approx(0.2)


# Prototypes


def test_distances_to_centres_follow_from_those_between_items() -> None:
    items = torch.randn(12, 5, generator=rng(), dtype=torch.float64)
    labels = torch.arange(12) % 3
    found = squares_to_centres(torch.cdist(items, items) ** 2, labels, 4)
    means = torch.stack([items[labels == k].mean(0) for k in range(3)])
    assert torch.allclose(found[:, :3], torch.cdist(items, means) ** 2)
    assert torch.isinf(found[:, 3]).all()


def test_separate_groups_are_found_and_their_means_are_the_centres() -> None:
    groups = torch.arange(24) % 4
    items = 20 + 9.0 * F.one_hot(groups, 6) + 0.1 * torch.randn(24, 6, generator=rng())
    expected = torch.stack([items[groups == k].mean(0) for k in range(4)])
    for seed in range(5):
        found = centres(items.clone(), 4, rng(seed))
        nearest = torch.cdist(expected, found).argmin(1)
        assert sorted(nearest.tolist()) == [0, 1, 2, 3]
        assert torch.allclose(found[nearest], expected, atol=1e-4)


@pytest.mark.parametrize("number", [1, 3, 6])
def test_no_cluster_is_empty_and_equal_images_are_no_trouble(number: int) -> None:
    for distances in (torch.zeros(6, 6), 1 - torch.eye(6)):
        labels = clusters(distances.double(), number, rng())
        assert set(labels.tolist()) == set(range(number))


def test_the_residual_is_the_squared_difference_to_the_nearest_prototype() -> None:
    network = ready().network
    assert [tuple(p.shape) for p in network.prototypes] == [
        (2, 8, 8, 64), (2, 4, 4, 128), (2, 2, 2, 256),
    ]  # fmt: skip
    stages = [torch.rand(3, *p.permute(0, 3, 1, 2).shape[1:]) for p in network.prototypes]
    for stage, stored in zip(stages, network.prototypes, strict=True):
        stage[0] = stored[1].permute(2, 0, 1)
    for stage, stored, found in zip(
        stages, network.prototypes, network.residuals(stages), strict=True
    ):
        squares = (stage[:, None] - stored.permute(0, 3, 1, 2)) ** 2
        nearest = squares.sum((2, 3, 4)).argmin(1)
        assert torch.allclose(found, squares[torch.arange(3), nearest])
        assert not found[0].any()


# Anomalies


def test_pieces_are_what_touches_the_largest_first_and_eight_at_most() -> None:
    mask = np.zeros((2, 12, 12), bool)
    mask[0, 1:3, 1:3] = mask[0, 3, 3] = True  # touches at a corner
    mask[0, 8:12, 8:12] = True
    pieces = pieces_of(mask)
    assert pieces.shape == (2, 2, 12, 12)
    assert pieces[0].sum((1, 2)).tolist() == [16, 5]
    assert not pieces[1].any()
    mask[1, ::2, ::2] = True
    pieces = pieces_of(mask)
    assert pieces.shape == (2, 8, 12, 12)
    assert pieces[1].sum((1, 2)).tolist() == [1] * 7 + [29]
    assert (pieces.any(1) == mask).all()


def test_maps_move_whole_and_leave_nothing() -> None:
    maps = torch.rand(2, 2, 5, 6, generator=rng())
    result = moved(maps, torch.tensor([[2, -1], [0, 0]]))
    assert torch.equal(result[1], maps[1])
    assert torch.equal(result[0, :, 2:, :5], maps[0, :, :3, 1:])
    assert not result[0, :, :2].any()
    assert not result[0, :, :, 5].any()
    dot = torch.zeros(1, 2, 5, 6, dtype=torch.bool)
    dot[0, 0, 1:4, 2] = True
    assert middles(dot).tolist() == [[[2, 2], [0, 0]]]


def test_an_anomaly_stays_in_place_or_its_pieces_move_to_the_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks = np.zeros((1, 16, 16), bool)
    masks[0, 1:4, 1:4] = masks[0, 1:3, 8:10] = True
    anomalies = dataclasses.replace(
        pictures(1, True, 1), images=np.full((1, 3, 16, 16), 255, np.uint8), masks=masks
    )
    extension = Extension(anomalies, rng(), "cpu")
    monkeypatch.setattr(Extension, "_changed", lambda _, images, pieces: (images, pieces))
    targets, foreground = torch.zeros(40, 3, 16, 16), torch.zeros(40, 16, 16, dtype=torch.bool)
    foreground[:20, :5] = True  # where the anomaly lies
    foreground[20:, 9:14, 9:14] = True
    result, marks = extension.pasted(torch.zeros(40, dtype=torch.long), targets, foreground)
    assert torch.equal(result.amin(1) == 1, marks)  # white where it was pasted, else the target
    assert torch.equal(result.amax(1) == 1, marks)
    assert (marks[:20] == torch.from_numpy(masks)).all()
    assert (marks[20:].sum((1, 2)) >= 9).all()
    assert not marks[20:, :8].any()
    places = {tuple(m.flatten().tolist()) for m in marks[20:]}
    assert len(places) > 15
    points = extension._points(foreground, 50)[20:]
    assert ((points >= 9) & (points < 14)).all()
    assert len(points.flatten(0, 1).unique(dim=0)) == 25


def test_three_changes_turn_the_mask_with_the_image() -> None:
    anomalies = marked(6, 3)
    extension = Extension(anomalies, rng(1), "cpu")
    which = torch.arange(6).repeat(6)
    images, pieces = extension._changed(extension.real(which)[0], extension.pieces[which])
    assert ((images >= 0) & (images <= 1)).all()
    before = extension.pieces[which]
    turned = (pieces != before).flatten(1).any(1)
    assert 0.1 < turned.float().mean() < 0.5  # three of ten
    same = (images == extension.real(which)[0]).flatten(1).all(1)
    assert same.float().mean() < 0.1
    share = pieces.sum((1, 2, 3)) / before.sum((1, 2, 3))
    assert ((share > 0.5) & (share < 1.5)).all()


KINDS: dict[str, Any] = {"foreground": "none", "copies": 1, "turned": 0.0}


def batches_of(labelled: Samples | None, batch_size: int = 8, **changes: Any) -> Batches:
    normal = np.full((10, 3, SIZE, SIZE), 120, np.uint8)
    context = Context("cpu", Seeds(0, "d", "c"), batch_size=batch_size)
    return Batches(normal, labelled, context, **{**KINDS, **changes})


def plain(images: Tensor) -> Tensor:
    """Return where images are as the normal ones of `batches_of`."""
    return (images - normalise(torch.full((1, 3, 1, 1), 120 / 255))).abs().amax(1) < 1e-5


@pytest.mark.parametrize(("size", "normals", "extended"), [(8, 4, 2), (5, 3, 1), (4, 2, 1)])
def test_a_batch_is_half_normal_and_a_quarter_each_kind_of_anomaly(
    size: int, normals: int, extended: int
) -> None:
    """Outside of its mask every image is the normal one."""
    labelled = marked(2, 2)
    assert labelled.masks is not None
    batch = batches_of(labelled, size)
    seen = 0
    for _ in range(10):
        images, masks = batch()
        assert images.shape == (size, 3, SIZE, SIZE)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert masks.shape == (size, SIZE, SIZE)
        assert not masks[:normals].any()
        assert plain(images[:normals]).all()
        assert plain(images[normals + extended :])[~masks[normals + extended :]].all()
        for image, mask in zip(images[normals:][:extended], masks[normals:], strict=False):
            real = [(mask.numpy() == m).all() for m in labelled.masks]
            as_is = any(real) and not plain(image[None])[0][~mask].all()
            assert as_is or plain(image[None])[0][~mask].all()
            seen += as_is
    assert seen == pytest.approx(10 * extended * 2 / 5, abs=1)  # a copy of two in five of N / 2


def test_simulated_anomalies_are_darker_and_lighter_and_need_no_labelled_ones() -> None:
    batch = batches_of(None)
    drawn = [batch() for _ in range(10)]
    images, masks = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    anomalous = masks.flatten(1).any(1).view(10, 8)
    assert not anomalous[:, :4].any()
    assert anomalous[:, 4:].float().mean() > 0.7
    assert plain(images)[~masks].all()
    with_texture = np.random.RandomState(0).randint(0, 256, (3, 3, SIZE, SIZE)).astype(np.uint8)
    context = Context("cpu", Seeds(0, "d", "c"), batch_size=16, external=with_texture)
    normal = np.full((10, 3, SIZE, SIZE), 120, np.uint8)
    images, masks = Batches(normal, None, context, **KINDS)()
    level = plain(images)
    assert level[~masks].all()
    inside = images.permute(0, 2, 3, 1)[masks] - images[0, :, 0, 0]
    assert (inside > 0.1).any()
    assert (inside < -0.1).any()


def test_a_share_of_normal_images_is_turned() -> None:
    batch = batches_of(None, turned=0.3)
    turned = torch.cat([~plain(batch()[0][:4]).flatten(1).all(1) for _ in range(40)])
    assert 0.2 < turned.float().mean() < 0.4


# The loss


def test_the_loss_is_the_one_worked_out_by_hand() -> None:
    detector = PRN(Parameters())
    mask = torch.rand(2, 4, 4, generator=rng(1)) < 0.5

    def loss(logits: Tensor) -> float:
        detector.network = lambda _: type("O", (), {"logits": logits})
        return float(detector.segmentation_loss(logits, mask))

    assert loss(torch.zeros(2, 4, 4)) == pytest.approx(0.233, abs=5e-4)
    logits = 2 * torch.randn(2, 4, 4, generator=rng())
    p = logits.sigmoid()
    right = torch.where(mask, p, 1 - p)
    focal = -0.5 * ((1 - right) ** 4 * right.log()).mean()
    expected = ((p - mask.float()) ** 2).mean() / 2 + 5 * focal
    assert loss(logits) == pytest.approx(expected.item(), rel=1e-5)


# The method


@pytest.mark.parametrize("anomalies", ["extended", "simulated"])
def test_a_planted_defect_is_found_and_shown_where_it_is(anomalies: str) -> None:
    detector = fitted(
        steps_per_epoch=40, width=16, lr=1e-3, anomalies=anomalies,
        train=TrainingSet(pictures(40, False, 1), marked(8, 2)),
    )  # fmt: skip
    assert separation(detector) > 0.95
    tested = marked(20, 5)
    assert tested.masks is not None
    maps = detector.explain(tested).maps["score"]
    shown = [auroc(m.ravel(), p.ravel()) for m, p in zip(maps, tested.masks, strict=True)]
    assert np.mean(shown) > 0.6  # .64; by chance .5


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not() -> None:
    scores = [d.score(TESTED) for d in (ready(), fitted(), fitted(1))]
    assert (scores[0].dtype, scores[0].shape) == (np.float32, (7,))
    assert ((scores[0] > 0) & (scores[0] < 1)).all()
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])
    assert np.array_equal(scores[0], ready().score(TESTED))


def test_an_image_is_scored_alike_alone() -> None:
    one = dataclasses.replace(TESTED, images=TESTED.images[4:5], names=TESTED.names[4:5])
    assert ready().score(one) == pytest.approx(ready().score(TESTED)[4:5], rel=1e-5)


def test_the_map_that_explains_is_the_scores_own() -> None:
    seen = ready().explain(TESTED)
    assert list(seen.maps) == ["score", "residual"]
    assert seen.maps["residual"].shape == (7, 8, 8)
    largest = np.sort(seen.maps["score"].reshape(7, -1), 1)[:, -100:]
    assert ready().score(TESTED) == pytest.approx(largest.mean(1), rel=1e-5)
    assert (seen.parts["distance"] > seen.maps["residual"].mean((1, 2))).all()
    assert ready().embed(TESTED).shape == (7, 8 + 16 + 32)


def test_labelled_anomalies_and_their_masks_train_extended_ones_alone() -> None:
    normal, other = pictures(20, False, 1), marked(3, 3)
    assert other.masks is not None
    flipped = dataclasses.replace(other, masks=other.masks[:, ::-1].copy())
    empty = pictures(0, True, 2)
    for anomalies, same in (("extended", False), ("simulated", True)):
        sets = [TrainingSet(normal, a) for a in (other, flipped)]
        one, two = (fitted(train=t, anomalies=anomalies).score(TESTED) for t in sets)
        assert np.array_equal(one, two) == same
    assert np.array_equal(
        two, fitted(train=TrainingSet(normal, empty), anomalies="simulated").score(TESTED)
    )


def test_without_labelled_anomalies_or_masks_extended_ones_are_refused() -> None:
    normal = pictures(5, False, 1)
    for labelled, complaint in (
        (pictures(0, True, 2), "needs at least one labelled anomaly"),
        (pictures(2, True, 2), "needs masks of the labelled anomalies"),
    ):
        with pytest.raises(MethodError, match=complaint):
            fitted(train=TrainingSet(normal, labelled))


def test_training_leaves_the_frozen_part_alone_and_moves_all_else() -> None:
    make_deterministic(torch.get_num_threads(), Seeds(0, "planted", "planted")["init"])
    detector = PRN(Parameters(**SMALL))
    detector.side = SIZE
    before = detector.untrained(context_of()).state_dict()
    network = ready().network
    assert isinstance(network, Network)
    network.train()
    assert not any(m.training for m in network.frozen.modules())
    network.eval()
    for name, tensor in network.state_dict().items():
        if name.startswith("frozen."):
            assert torch.equal(tensor, before[name]), name
        elif not name.endswith("num_batches_tracked"):
            assert not torch.equal(tensor, before[name]), name


CHANGED: dict[str, Any] = {
    "anomalies": "simulated", "epochs": 2, "steps_per_epoch": 3, "lr": 1e-3, "weight_decay": 0.5,
    "focal_weight": 1.0, "gamma": 1.0, "prototypes": 0.5, "width": 6, "attentions": 2,
    "scale": "sqrt", "copies": 0, "turned": 1.0, "foreground": "none",
}  # fmt: skip


def test_every_parameter_changes_the_scores() -> None:
    assert CHANGED.keys() == {f.name for f in dataclasses.fields(Parameters)}
    scene = framed(20, 1)
    assert foregrounds(scene.images).mean() < 0.5
    train = TrainingSet(scene, marked(3, 2))
    standard = fitted(train=train).score(TESTED)
    unchanged = [
        name
        for name, value in CHANGED.items()
        if np.array_equal(fitted(train=train, **{name: value}).score(TESTED), standard)
    ]
    assert unchanged == []


def test_a_loaded_model_gives_the_same_scores() -> None:
    arrays = ready().state()
    loaded = PRN(ready().parameters)
    loaded.load_state(arrays, context_of(9))
    assert np.array_equal(loaded.score(TESTED), ready().score(TESTED))
    for name in ("side", "prototypes.1", "head.second.between.01.weight"):
        less = {k: v for k, v in arrays.items() if k != name}
        with pytest.raises(MethodError, match=r"the saved model does not fit: [^\n]*$"):
            PRN(ready().parameters).load_state(less, context_of())


@pytest.mark.parametrize(
    ("backbone", "stage", "size", "batch"), [("mobilenet_v2", 4, 37, 5), ("resnet50", 3, 56, 4)]
)
def test_other_backbones_and_sizes_are_no_trouble(
    backbone: str, stage: int, size: int, batch: int
) -> None:
    def larger(samples: Samples) -> Samples:
        more = ((0, 0), (0, 0), (0, size - SIZE), (0, size - SIZE))
        masks = None if samples.masks is None else np.pad(samples.masks, (more[0], *more[2:]))
        return dataclasses.replace(samples, images=np.pad(samples.images, more), masks=masks)

    given = {"backbone": BackboneSource(backbone, stage, None), "batch_size": batch}
    train = TrainingSet(larger(pictures(4, False, 1)), larger(marked(1, 2)))
    detector = fitted(train=train, context={**given, "precision": "bfloat16"}, steps_per_epoch=1)
    assert np.isfinite(detector.score(larger(TESTED))).all()
    assert detector.explain(larger(TESTED)).maps["score"].shape == (7, size, size)


def test_it_records_what_it_did_and_shows_itself_after_each_epoch() -> None:
    assert ready()
    assert FACTS["optimiser_steps"] == 2
    assert FACTS["bank_vectors"] == 2
    assert FACTS["bank_bytes"] == 2 * 4 * (64 * 64 + 128 * 16 + 256 * 4)
    assert 0 < FACTS["final_loss"] < 2
    facts, seen = {}, []
    shown = {
        "record": facts.__setitem__, "after_epoch": lambda n, d: seen.append((n, d.score(TESTED))),
    }  # fmt: skip
    detector = fitted(context=shown, epochs=2, steps_per_epoch=0)
    assert facts["optimiser_steps"] == 2 * 5  # twice twenty in batches of eight
    assert [epoch for epoch, _ in seen] == [1, 2]
    assert np.array_equal(seen[1][1], detector.score(TESTED))
    assert not np.array_equal(seen[0][1], seen[1][1])


def test_memory_is_that_of_a_step_and_of_the_features_for_the_prototypes() -> None:
    def peak(batch_size: int) -> int:
        context = context_of(batch_size=batch_size)
        return rehearsed_peak(PRN(Parameters(**SMALL)), 256, context)

    assert (few := peak(16)) < peak(32) < 2 * few
    detector, values = PRN(Parameters(**SMALL)), 64 * 64 + 128 * 16 + 256 * 4
    few, many = (detector.memory(n, SIZE, context_of()) for n in (10, 210))
    assert many - few == 4 * values * (200 + 20)
    detector.side = SIZE
    head = detector.head(BackboneSource("resnet18", 3, None))
    assert few == 4 * (values * 11 + count(head))


# In the harness


def test_its_card(warm_cache: Any) -> None:
    card = Registry(warm_cache).find("prn")
    assert card.settings == {"precision", "batch_size", "backbone", "external", "masks"}
    assert card.abilities == {"embed", "epochs", "explain", "state", "rehearse", "memory"}
    assert card.supervised(card.parameters({})) == "weak"
    assert card.supervised(card.parameters({"anomalies": "simulated"})) == "unsupervised"


def test_a_category_without_masks_is_refused_before_anything_runs(
    tmp_path: Path, warm_cache: Path
) -> None:
    shades = iter(range(100, 250, 5))
    for place, number in (("train/good", 2), ("test/good", 2), ("test/bent", 12)):
        folder = tmp_path / "nuts" / place
        folder.mkdir(parents=True)
        for i in range(number):
            Image.new("L", (8, 8), next(shades)).save(folder / f"{i}.png")
    (tmp_path / "mine.toml").write_text(
        'methods = ["prn"]\ndata = ["nuts"]\nshots = [1]\n'
        '[set]\nweights = "none"\n[vary.prn]\nanomalies = ["extended", "simulated"]\n'
    )
    suite = read_suite(str(tmp_path / "mine.toml"))
    cells = expand(suite, Selection(), Registry(warm_cache), tmp_path)
    assert [cell.shots for cell in cells] == [1, 0]
    folders = Folders(tmp_path, tmp_path, tmp_path / "results", warm_cache)

    def planned() -> tuple[dict[str, str | None], list[str]]:
        plan = plan_runs(cells, folders)
        masks = {str(r.spec.parameters["anomalies"]): r.spec.masks for r in plan.runs}
        return masks, [m.remedy for m in plan.missing]

    assert planned() == (
        {"simulated": None},
        [
            f"the method trains on masks: there are none in {tmp_path / 'nuts'}; it needs none by"
            " --set prn.anomalies=simulated"
        ],
    )
    folder = tmp_path / "nuts/ground_truth/bent"
    folder.mkdir(parents=True)
    for i in range(12):
        Image.new("L", (8, 8), 255).save(folder / f"{i}_mask.png")
    masks, missing = planned()
    assert not missing
    assert masks["simulated"] is None
    assert masks["extended"] is not None
