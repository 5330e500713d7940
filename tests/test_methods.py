"""What every method must do, and what is ATAC-Net's, CutMix's and shortcut's own."""

from typing import Any

import numpy as np
import pytest
import torch

from atacnet.crop import boxes_from_maps
from atacnet.detector import ATACNet
from atacnet.model import VIEWS, Network, SelfAttention
from baselines.blocks.backbone import Backbone
from baselines.cutmix import CutMix
from baselines.devnet import DevNet
from baselines.dra import DRA
from baselines.saoe import SAOE
from baselines.shortcut import STATISTICS, Shortcut
from bench.detector import BackboneSource, Context, Samples, Seeds, TrainingSet
from bench.metrics import auroc
from tests.planted import fitted, pictures, separation

TRAINED = [ATACNet, CutMix, DevNet, DRA, SAOE]
FEW = {"epochs": 2, "steps_per_epoch": 2, "rotation": 0.0}


@pytest.mark.parametrize("method", TRAINED)
def test_a_planted_defect_is_found_in_a_few_hundred_small_steps(method: Any) -> None:
    detector = fitted(method, epochs=5, steps_per_epoch=40, lr_step=3, rotation=0.0)
    assert separation(detector) > 0.95


@pytest.mark.parametrize("method", TRAINED)
def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(method: Any) -> None:
    tested = pictures(8, True, 5)
    first, again, other = (fitted(method, seed, **FEW).score(tested) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("method", [*TRAINED, Shortcut])
def test_scores_are_float32_and_scoring_twice_gives_them_again(method: Any) -> None:
    detector = fitted(method, **(FEW if method in TRAINED else {}))
    tested = pictures(5, True, 6)
    scores = detector.score(tested)
    assert scores.dtype == np.float32
    assert scores.shape == (5,)
    assert np.array_equal(scores, detector.score(tested))


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_trains_and_scores_repeatably(view: str) -> None:
    facts: dict[str, Any] = {}
    detector = fitted(ATACNet, facts=facts, view=view, **FEW)
    tested = pictures(6, True, 7)
    assert np.array_equal(detector.score(tested), detector.score(tested))
    assert facts["optimiser_steps"] == 4
    assert facts["crop_fallbacks_train"] == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"loss_form": "literal"},
        {"reference": "constant"},
        {"pseudo": False},
        {"attention": False},
        {"margin": 5.0},
        {"threshold": 0.9},
        {"padding": 0.2},
        {"top_k": 0.5},
        {"channels": 32},
        {"patch_source": "normal"},
        {"backbone_multiplier": 0.1},
    ],
    ids=str,
)
def test_every_parameter_of_atacnet_changes_its_scores(changed: dict[str, Any]) -> None:
    tested = pictures(6, True, 8)
    given = FEW | ({"margin": 0.5} if "loss_form" in changed else {})
    standard = fitted(ATACNet, **given).score(tested)
    assert not np.array_equal(fitted(ATACNet, **{**given, **changed}).score(tested), standard)


def network(view: str, **changes: Any) -> Network:
    torch.manual_seed(0)
    backbone = Backbone(BackboneSource("resnet18", 1, None), "float32")
    boxes = torch.Generator().manual_seed(0)
    return Network(backbone, view=view, boxes=boxes, **changes).eval()


@torch.inference_mode()
def test_raw_twice_scores_as_raw_and_the_zoomed_views_do_not() -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    scores = {view: network(view)(images).scores for view in VIEWS}
    assert torch.allclose(scores["raw"], scores["raw_twice"])
    for view in ("attention", "random", "centre"):
        assert not torch.allclose(scores["raw"], scores[view])


@torch.inference_mode()
def test_the_score_is_the_mean_of_both_views() -> None:
    from atacnet.crop import zoom
    from baselines.blocks.deviation import top_k_mean

    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    whole = network("attention")
    output = whole(images)
    boxes, _ = boxes_from_maps(output.attention)
    assert torch.equal(boxes, output.boxes)
    raw, zoomed = (
        top_k_mean(whole.score_map(whole.attend(whole.backbone(view))))
        for view in (images, zoom(images, boxes))
    )
    assert torch.allclose(output.scores, (raw + zoomed) / 2)
    assert (output.scores >= 0).all()


def test_no_gradient_flows_through_the_box() -> None:
    model = network("attention").train()
    images = torch.rand(4, 3, 32, 32, requires_grad=True)
    boxes = model(images).boxes
    assert not boxes.requires_grad


def test_random_boxes_have_the_sizes_of_the_attention_boxes() -> None:
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        attention, random = (network(view)(images).boxes for view in ("attention", "random"))
    size = attention[:, 2:] - attention[:, :2]
    assert torch.allclose(random[:, 2:] - random[:, :2], size, atol=1e-6)


def test_self_attention_starts_as_the_identity_and_can_be_worked_out_by_hand() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(8)
    features = torch.rand(2, 8, 3, 4)
    assert torch.equal(layer(features), features)
    layer.gain.data.fill_(2.0)
    flat = features.flatten(2)
    query, key, value = (
        torch.einsum("oc,bcn->bon", m.weight[:, :, 0, 0], flat) + m.bias[:, None]
        for m in (layer.query, layer.key, layer.value)
    )
    weights = torch.einsum("bcn,bcm->bnm", query, key).softmax(2)
    mixed = torch.einsum("bcm,bnm->bcn", value, weights).view_as(features)
    assert torch.allclose(layer(features), features + 2 * mixed, atol=1e-5)


def facts_of(width: list[int], height: list[int], size: list[int], images: Any = None) -> Samples:
    n = len(width)
    if images is None:
        images = np.full((n, 3, 4, 4), 100, np.uint8)
    columns = [np.array(c, np.int64) for c in (width, height, size)]
    names = tuple(map(str, range(n)))
    return Samples(images, names, columns[0], columns[1], ("L",) * n, columns[2])


def shortcut(train: TrainingSet) -> tuple[Shortcut, dict[str, Any]]:
    facts: dict[str, Any] = {}
    method = Shortcut(Shortcut.Parameters())
    method.fit(train, Context("cpu", Seeds(0, "d", "c"), record=facts.__setitem__))
    return method, facts


def test_the_shortcut_takes_the_statistic_and_direction_of_the_training_set() -> None:
    normal = facts_of([100, 110, 120, 130], [200] * 4, [7, 5, 6, 8])
    anomalous = facts_of([50, 60], [200] * 2, [6, 7])
    method, facts = shortcut(TrainingSet(normal, anomalous))
    # Width and aspect ratio both separate; width lies further away in standard deviations or not,
    # but a smaller width must score higher.
    assert facts["statistic"] in ("width", "aspect_ratio")
    assert facts["training_auroc"] == 1.0
    scores = method.score(facts_of([55, 115, 200], [200] * 3, [6] * 3))
    assert scores[0] > scores[1] > scores[2]


def test_the_statistics_of_an_image_are_what_they_are_called() -> None:
    images = np.zeros((1, 3, 4, 4), np.uint8)
    images[0, :, :, 2:] = 200
    values = Shortcut(Shortcut.Parameters()).statistics(facts_of([30], [60], [999], images))
    named = dict(zip(STATISTICS, values[0].tolist(), strict=True))
    assert named == pytest.approx({
        "width": 30, "height": 60, "aspect_ratio": 2, "bytes": 999,
        "mean_grey": 100, "share_of_black": 0.5,
    })  # fmt: skip


def test_constant_statistics_give_constant_scores_not_nan() -> None:
    same = facts_of([10] * 3, [10] * 3, [10] * 3)
    method, facts = shortcut(TrainingSet(same, same))
    assert facts["training_auroc"] == 0.5
    assert method.score(same).tolist() == [0, 0, 0]


def test_the_shortcut_on_head_ct_is_as_strong_as_the_literature_warns(shared: Any) -> None:
    """Image width alone separates Head-CT's 200 images with 0.805."""
    from pathlib import Path

    from PIL import Image

    def width(number: int) -> int:
        with Image.open(Path(shared) / f"data/head_ct/head_ct/{number:03d}.png") as image:
            return image.width

    separated = auroc([width(i) for i in range(200)], np.arange(200) < 100)
    assert max(separated, 1 - separated) == pytest.approx(0.805, abs=0.001)
