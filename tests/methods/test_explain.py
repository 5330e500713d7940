"""What `explain` shows, worked out from what the networks' layers give."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atacnet.crop import boxes_from_maps, zoom
from atacnet.detector import ATACNet
from baselines.blocks.deviation import top_k_mean
from baselines.cutmix import CutMix
from baselines.devnet import DevNet
from baselines.dra import DRA
from baselines.saoe import SAOE
from bench.detector import Explanation
from tests.fixtures.planted import fitted, pictures

TESTED = pictures(6, True, 5)
FEW = {"epochs": 1, "steps_per_epoch": 3, "rotation": 0.0}
Seen = tuple[Any, Explanation, Tensor, Tensor]


def seen_by(method: Any, **given: Any) -> Seen:
    """Return a trained network, what it explains of images, these, and its features of them."""
    detector = fitted(method, **FEW, **given)
    images = torch.cat(list(detector.evaluation(TESTED)))
    network = detector.network
    with torch.no_grad():
        features = network.backbone(images).float()
    return network, detector.explain(TESTED), images, features


def close(found: Any, expected: Any) -> bool:
    return np.allclose(found, expected, atol=1e-5, rtol=1e-4)


def convolved(layer: Any, features: Tensor) -> Any:
    """Apply a 1x1 convolution as a sum over channels."""
    weight, bias = layer.weight[:, :, 0, 0], layer.bias
    return (torch.einsum("oc,bchw->bohw", weight, features) + bias[:, None, None]).detach().numpy()


def top(maps: Any) -> Any:
    return top_k_mean(torch.from_numpy(maps), 0.1)


def test_devnets_map_is_its_scores_map() -> None:
    network, seen, _, features = seen_by(DevNet)
    expected = np.abs(convolved(network.score_map.score, features))[:, 0]
    assert close(seen.maps["score"], expected)
    assert close(seen.parts["scale_1"], top(expected))


def test_dras_map_is_the_sum_of_the_maps_of_its_three_heads() -> None:
    network, seen, _, features = seen_by(DRA)
    heads = [
        np.abs(convolved(head.score, features))[:, 0] for head in (network.seen, network.pseudo)
    ]
    assert close(seen.maps["seen"], heads[0])
    assert close(seen.maps["pseudo"], heads[1])
    heads.append(seen.maps["residual"])
    assert close(seen.maps["score"], sum(heads))
    for name in ("seen", "pseudo", "residual"):
        assert close(seen.parts[name], top(seen.maps[name]))


def test_saoes_map_is_the_log_odds_of_not_being_normal() -> None:
    network, seen, _, features = seen_by(SAOE)
    normal, labelled, pseudo = np.moveaxis(convolved(network.classes, features), 1, 0)
    assert close(seen.maps["score"], np.logaddexp(labelled, pseudo) - normal)


def test_cutmixs_grad_cam_speaks_for_the_anomalous_class() -> None:
    """Behind average pooling the gradient is the same at every position."""
    network, seen, _, features = seen_by(CutMix)
    layer, classes = network.hidden[0], network.classes
    active = (features.mean((2, 3)) @ layer.weight.T + layer.bias > 0).float()
    gap = classes.weight[1] - classes.weight[0]
    gradient = (active * gap) @ layer.weight / features[0, 0].numel()
    expected = torch.einsum("bc,bchw->bhw", gradient, features).clamp(min=0).detach().numpy()
    assert expected.max() > 0
    assert close(seen.maps["grad_cam"] / expected.max(), expected / expected.max())


@pytest.mark.parametrize("view", ["attention", "random", "centre", "raw_twice", "raw"])
def test_atacnets_attention_is_a_channel_mean_and_its_boxes_are_what_it_zoomed_into(
    view: str,
) -> None:
    network, seen, images, features = seen_by(ATACNet, view=view)
    with torch.no_grad():
        attended = network.attend(features)
        score_map = network.score_map(attended)
    attention = attended.mean(1)
    assert not close(attention, attended.amax(1))
    assert close(seen.maps["attention"], attention)
    assert close(seen.maps["score"], score_map)
    assert close(seen.parts["raw"], top(seen.maps["score"]))
    if view == "raw":
        assert seen.boxes is None
        assert "zoomed" not in seen.parts
        return
    assert seen.boxes is not None
    boxes = torch.from_numpy(seen.boxes)
    own, _ = boxes_from_maps(attention, network.threshold, network.padding)
    assert close(boxes, own) == (view == "attention")
    with torch.no_grad(), network.second_pass():
        zoomed = network.score(network.attend(network.backbone(zoom(images, boxes))))
    assert close(seen.parts["zoomed"], zoomed)
    assert close(seen.parts["zoomed"], top(seen.maps["score_zoomed"]))
