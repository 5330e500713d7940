import copy

import pytest
import torch
from torch import nn

from atacnet.view_norm import ViewNorm, separate_views


def batch(seed: int, mean: float = 0.0) -> torch.Tensor:
    return torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) + mean


def norm() -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(3)
    nn.init.uniform_(layer.weight, 0.5, 2.0)
    nn.init.uniform_(layer.bias)
    layer(batch(0, 5.0))  # statistics as of a pre-trained network
    return layer


def test_a_batch_in_training_is_normalised_as_by_batch_norm_in_both_views() -> None:
    plain = norm()
    layer = ViewNorm(copy.deepcopy(plain))
    for second in (False, True):
        layer.second = second
        assert torch.equal(layer(batch(1, 2.0)), plain.train()(batch(1, 2.0)))


def test_each_view_keeps_the_running_statistics_of_its_own_batches() -> None:
    plain = norm()
    alone = {False: copy.deepcopy(plain), True: copy.deepcopy(plain)}
    layer = ViewNorm(plain)
    for step in range(5):
        for second, mean in ((False, 1.0), (True, -3.0)):
            layer.second = second
            layer(batch(step, mean))
            alone[second](batch(step, mean))
    layer.eval()
    for second, reference in alone.items():
        layer.second = second
        tested = batch(9)
        assert torch.allclose(layer(tested), reference.eval()(tested), atol=1e-6)
    assert not torch.allclose(layer.running_mean, layer.second_mean, atol=1.0)


def test_both_views_learn_one_set_of_weights() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))
    weights = {id(p) for p in network.parameters()}
    (layer,) = separate_views(network)
    assert {id(p) for p in network.parameters()} == weights
    assert network[1][0] is layer
    for second in (False, True):
        network.zero_grad()
        layer.second = second
        network(batch(2)).square().sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("part", ["running_mean", "second_mean", "second_var"])
def test_the_statistics_are_part_of_the_state(part: str) -> None:
    layer = ViewNorm(norm())
    layer.second = True
    layer(batch(3, 7.0))
    loaded = ViewNorm(norm())
    loaded.load_state_dict(layer.state_dict())
    assert torch.equal(getattr(loaded, part), getattr(layer, part))
