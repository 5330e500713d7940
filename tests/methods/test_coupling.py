"""The coupling block: a bijection, and the Jacobian that it reports."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from baselines.blocks.coupling import Coupling, Flow, SoftPermutation, initialise

Subnet = Callable[[int, int], nn.Module]


def convolutions(kernel: int) -> Subnet:
    """Return what builds two convolutions."""
    return lambda before, after: nn.Sequential(
        nn.Conv2d(before, before, kernel, padding="same"), nn.ReLU(),
        nn.Conv2d(before, after, kernel, padding="same"),
    )  # fmt: skip


def linear(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Linear(before, 2 * before), nn.ReLU(), nn.Linear(2 * before, after))


def flow(
    channels: int, subnet: Subnet, blocks: int = 2, condition: int = 0, soft: bool = False,
    shaken: float = 0.3, kind: torch.dtype = torch.float64,
) -> Flow:  # fmt: skip
    """Return a flow whose parameters are not those that it begins with."""
    first, second = channels - channels // 2, channels // 2
    built = Flow(
        Coupling(channels, subnet(first + condition, 2 * second), 2.0, soft=soft)
        for _ in range(blocks)
    )
    rng = torch.Generator().manual_seed(1)
    initialise(built, rng)
    with torch.no_grad():
        for values in built.parameters():
            values += shaken * torch.randn(values.shape, generator=rng)
    return built.to(kind)


def normal(*shape: int, kind: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(
        kind
    )


@pytest.mark.parametrize("channels", [6, 5])
@pytest.mark.parametrize("subnet", [convolutions(1), convolutions(3)], ids=["1x1", "3x3"])
def test_the_log_determinant_is_that_of_autograds_jacobian(channels: int, subnet: Subnet) -> None:
    built, x = flow(channels, subnet), normal(1, channels, 3, 3)
    jacobian = torch.autograd.functional.jacobian(lambda v: built(v)[0], x)
    size = x.numel()
    expected = torch.linalg.slogdet(jacobian.view(size, size)).logabsdet
    assert abs(built(x)[1].item() - expected.item()) < 1e-12
    assert abs(expected) > 0.1


@pytest.mark.parametrize("soft", [False, True])
def test_so_it_is_of_conditional_vectors(soft: bool) -> None:
    built, x, seen = flow(7, linear, condition=3, soft=soft), normal(1, 7), normal(1, 3)
    jacobian = torch.autograd.functional.jacobian(lambda v: built(v, seen)[0], x).view(7, 7)
    expected = torch.linalg.slogdet(jacobian).logabsdet
    # A soft permutation is rounded to float32 once: its own is 1e-7 instead of 0.
    assert abs(built(x, seen)[1].item() - expected.item()) < (1e-6 if soft else 1e-12)
    assert not torch.equal(built(x, seen)[0], built(x, seen + 1)[0])


@pytest.mark.parametrize(("kind", "error"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_the_inverse_gives_back_what_was_transformed(kind: torch.dtype, error: float) -> None:
    for built, x, seen in (
        (flow(6, convolutions(3), kind=kind), normal(2, 6, 4, 5, kind=kind), None),
        (flow(5, convolutions(1), kind=kind), normal(3, 5, 2, 2, kind=kind), None),
        (flow(9, linear, 3, 4, kind=kind), normal(8, 9, kind=kind), normal(8, 4, kind=kind)),
    ):
        z, log_det = built(x, seen)
        back, backward = built.inverse(z, seen)
        torch.testing.assert_close(back, x, rtol=0, atol=error)
        torch.testing.assert_close(backward, -log_det, rtol=error, atol=100 * error)
        assert not torch.allclose(z, x)


def test_a_soft_flow_is_inverted_as_well_as_its_float32_matrix_is_orthogonal() -> None:
    built, x, seen = flow(8, linear, condition=2, soft=True), normal(5, 8), normal(5, 2)
    back, _ = built.inverse(built(x, seen)[0], seen)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


def test_a_block_by_hand() -> None:
    block = flow(3, convolutions(1), blocks=1).blocks[0]
    x = normal(2, 3, 2, 2)
    first, second = x[:, :2], x[:, 2:]
    raw = 0.1 * block.subnet(first)
    s, t = 2 * torch.tanh(raw[:, :1]), raw[:, 1:]
    scale = 0.1 * 2 * torch.log(1 + torch.exp(block.global_scale / 2))
    y = torch.cat([first, second * torch.exp(s) + t], 1)
    y = y * scale.view(3, 1, 1) + block.global_offset.view(3, 1, 1)
    found, log_det = block(x)
    for i, source in enumerate(block.permutation.order.tolist()):
        torch.testing.assert_close(found[:, i], y[:, source], rtol=1e-12, atol=1e-12)
    expected = s.sum((1, 2, 3)) + 4 * scale.log().sum()
    torch.testing.assert_close(log_det, expected, rtol=1e-12, atol=1e-12)


def test_it_begins_with_scale_1_and_offset_0() -> None:
    block = flow(4, convolutions(1), 1, shaken=0).blocks[0]
    assert block.global_scale[0].item() == pytest.approx(9.98648, abs=1e-5)
    scale = 0.1 * nn.functional.softplus(block.global_scale, beta=0.5)
    torch.testing.assert_close(scale, torch.ones_like(scale), rtol=1e-6, atol=0)
    assert (block.global_offset == 0).all()
    assert math.isclose(scale.log().sum().item(), 0, abs_tol=1e-6)


def test_soft_permutations_are_rotations_and_differ() -> None:
    rng = torch.Generator().manual_seed(0)
    matrices = []
    for _ in range(6):
        permutation = SoftPermutation(30)
        permutation.draw(rng)
        matrices.append(permutation.matrix.double())
    for matrix in matrices:
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(30).double(), rtol=0, atol=1e-6)
        assert torch.linalg.det(matrix).item() == pytest.approx(1, abs=1e-6)
    assert not torch.allclose(matrices[0], matrices[1])
    # Uniform over rotations: entries have mean 0 and variance 1/30.
    entries = torch.stack(matrices)
    assert abs(entries.mean()) < 0.01
    assert entries.var().item() == pytest.approx(1 / 30, rel=0.01)


def test_an_image_alone_is_transformed_as_in_a_batch() -> None:
    built, x = flow(6, convolutions(3)), normal(4, 6, 4, 4)
    z, log_det = built(x)
    for i in range(4):
        alone, own = built(x[i : i + 1])
        torch.testing.assert_close(alone[0], z[i], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(own[0], log_det[i], rtol=1e-13, atol=1e-13)


def test_the_gradient_reaches_all_that_learns_and_is_right() -> None:
    built, x = flow(6, convolutions(3)), normal(2, 6, 3, 3).requires_grad_()
    z, log_det = built(x)
    (z.square().sum() - log_det.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in built.parameters())
    assert not any("permutation" in name for name, _ in built.named_parameters())
    small = normal(1, 4, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(flow(4, convolutions(1)), (small,))


def test_all_numbers_come_from_the_generator_and_are_as_torch_draws_them() -> None:
    torch.manual_seed(1)
    one = flow(64, convolutions(3), shaken=0, kind=torch.float32).state_dict()
    torch.manual_seed(2)
    two = flow(64, convolutions(3), shaken=0, kind=torch.float32).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["blocks.0.permutation.order"], one["blocks.1.permutation.order"])
    plain = nn.Conv2d(32, 32, 3)
    for ours, theirs in (("weight", plain.weight), ("bias", plain.bias)):
        drawn = one[f"blocks.0.subnet.0.{ours}"]
        assert drawn.abs().max() <= (9 * 32) ** -0.5
        assert drawn.std().item() == pytest.approx(theirs.std().item(), rel=0.3)
