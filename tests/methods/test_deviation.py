import pytest
import torch

from baselines.blocks.deviation import DeviationLoss, top_k_mean


def constant(margin: float = 10.0, form: str = "hinge") -> DeviationLoss:
    return DeviationLoss(margin, form, "constant")


def test_the_hinge_has_the_values_worked_out_by_hand() -> None:
    scores = torch.tensor([2.0, -3.0, 4.0, 12.0, -10.0])
    labels = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0])
    terms = [constant()(s.view(1), y.view(1)).item() for s, y in zip(scores, labels, strict=True)]
    assert terms == [2.0, 3.0, 6.0, 0.0, 20.0]
    assert constant()(scores, labels).item() == pytest.approx(31 / 5)


def test_the_literal_form_diverges_where_the_hinge_does_not() -> None:
    def trained(form: str) -> float:
        score = torch.tensor([1.0], requires_grad=True)
        optimiser = torch.optim.SGD([score], lr=1.0)
        for _ in range(200):
            optimiser.zero_grad()
            constant(form=form)(score, torch.ones(1)).backward()
            optimiser.step()
        return score.item()

    assert trained("hinge") == pytest.approx(10.0, abs=1.0)
    assert trained("literal") > 190
    far = torch.tensor([100.0]), torch.ones(1)
    assert constant(form="literal")(*far).item() == -90
    assert constant(form="hinge")(*far).item() == 0


def test_the_drawn_reference_is_a_jitter_of_the_constant_one() -> None:
    scores, labels = torch.tensor([1.0, 5.0]), torch.tensor([0.0, 1.0])
    drawn = DeviationLoss(10.0, generator=torch.Generator().manual_seed(0))
    values = [drawn(scores, labels).item() for _ in range(50)]
    assert len(set(values)) == 50
    assert values == pytest.approx([constant()(scores, labels).item()] * 50, abs=0.3)
    again = DeviationLoss(10.0, generator=torch.Generator().manual_seed(0))
    assert again(scores, labels).item() == values[0]


@pytest.mark.parametrize("wrong", [{"form": "soft"}, {"reference": "none"}])
def test_unknown_forms_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is one of"):
        DeviationLoss(10.0, **wrong)


@pytest.mark.parametrize(
    ("side", "k"), [(28, 78), (14, 19), (7, 4), (4, 1), (2, 1), (1, 1)], ids=lambda v: str(v)
)
def test_k_of_each_map_size_is_the_floor_of_a_tenth(side: int, k: int) -> None:
    maps = torch.zeros(2, side, side)
    maps[0].view(-1)[:k] = 1.0
    maps[1].view(-1)[: k + 1] = 1.0
    maps[1].view(-1)[0] = 3.0
    means = top_k_mean(maps)
    assert means[0].item() == pytest.approx(1.0)  # k ones fill the top k exactly
    assert means[1].item() == pytest.approx((3.0 + k - 1) / k)
