"""Nearest neighbours against brute force in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.blocks import neighbours
from baselines.blocks.neighbours import Bank, nearest


def brute(queries: Tensor, bank: Tensor, k: int) -> Tensor:
    """The k least distances, (Q, k) float64."""
    differences = queries.double().unsqueeze(1) - bank.double().unsqueeze(0)
    return differences.square().sum(2).sqrt().sort(1).values[:, :k]


def check(queries: Tensor, bank: Tensor, k: int) -> None:
    distances, indices = nearest(queries, bank, k)
    assert (distances.dtype, indices.dtype) == (torch.float32, torch.long)
    assert distances.shape == indices.shape == (len(queries), k)
    expected = brute(queries, bank, k)
    np.testing.assert_allclose(distances.double(), expected, rtol=3e-6, atol=1e-30)
    # Each index names another vector, at the distance that stands beside it.
    assert all(len(set(row)) == k for row in indices.tolist())
    picked = (queries.double().unsqueeze(1) - bank.double()[indices]).square().sum(2).sqrt()
    np.testing.assert_allclose(distances.double(), picked, rtol=1e-6, atol=1e-30)


@pytest.fixture(autouse=True, params=[(2, 4, 2), (3, 8, 4), (1024, 8192, 32)])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut small problems into many blocks too, of which the last are incomplete."""
    rows, columns, group = request.param
    monkeypatch.setattr(neighbours, "ROWS", rows)
    monkeypatch.setattr(neighbours, "COLUMNS", {"cpu": columns})
    monkeypatch.setattr(neighbours, "GROUP", group)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Clusters far from the origin, with repeated vectors and queries out of the bank."""
    bank_size, count = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    width = draw(st.integers(1, 20))
    offset = draw(st.sampled_from([0.0, 1.0, 300.0]))
    spread = draw(st.sampled_from([0.0, 1e-4, 1e-2, 1.0]))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    centres = offset * torch.randn(3, width, generator=rng)
    bank, queries = (
        centres[torch.randint(3, (n,), generator=rng)]
        + spread * torch.randn(n, width, generator=rng)
        for n in (bank_size, count)
    )
    copied = torch.randint(bank_size, (count,), generator=rng)
    taken = torch.rand(count, generator=rng) < draw(st.sampled_from([0.0, 0.5]))
    queries[taken] = bank[copied[taken]]
    return queries, bank, draw(st.integers(1, bank_size))


@given(problems())
@settings(max_examples=50, deadline=None)
def test_it_finds_what_brute_force_finds(problem: tuple[Tensor, Tensor, int]) -> None:
    check(*problem)


def test_it_finds_the_nearest_where_float32_products_cancel() -> None:
    # Squares of 1e6 are known to 0.06 in float32, the differences are 1e-3 to 4e-2.
    rng = torch.Generator().manual_seed(0)
    bank = 1000 + 0.01 * torch.randn(500, 2, generator=rng)
    queries = 1000 + 0.01 * torch.randn(20, 2, generator=rng)
    for k in (1, 9):
        check(queries, bank, k)
    squares = bank.square().sum(1) - 2 * queries @ bank.T
    naive = squares.topk(9, largest=False).indices
    assert not torch.equal(naive.sort().values, nearest(queries, bank, 9)[1].sort().values)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_ordinary_vectors_are_not_searched_again_wherever_they_lie(
    offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = torch.Generator().manual_seed(0)
    bank, queries = torch.rand(60, 300, generator=rng), torch.rand(8, 300, generator=rng)
    searches = []
    candidates = neighbours._candidates

    def counted(away: Tensor, *others: Any) -> Any:
        searches.append(away.dtype)
        return candidates(away, *others)

    monkeypatch.setattr(neighbours, "_candidates", counted)
    nearest(queries + offset, bank + offset, 3)
    assert searches == [torch.float32]


def test_a_bank_is_searched_again_and_again_as_once() -> None:
    rng = torch.Generator().manual_seed(2)
    vectors = torch.randn(60, 5, generator=rng)
    bank = Bank(vectors)
    for queries in torch.randn(3, 7, 5, generator=rng):
        for found, wanted in zip(bank.nearest(queries, 2), nearest(queries, vectors, 2),
                                 strict=True):  # fmt: skip
            assert torch.equal(found, wanted)


def test_the_least_of_a_row_may_all_lie_in_one_group_or_side_by_side() -> None:
    bank = torch.arange(64.0).unsqueeze(1)
    for query in (0.2, 31.7, 63.9):
        check(torch.tensor([[query]]), bank, 9)
    strided = torch.full((64, 1), 99.0)
    strided[5::8, 0] = torch.arange(8.0)
    check(torch.tensor([[0.1]]), strided, 8)


def test_the_same_call_gives_the_same_bits_and_changes_no_argument() -> None:
    rng = torch.Generator().manual_seed(1)
    queries, bank = torch.randn(40, 16, generator=rng), torch.randn(200, 16, generator=rng)
    kept = queries.clone(), bank.clone()
    first, second = nearest(queries, bank, 3), nearest(queries, bank, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(queries, kept[0])
    assert torch.equal(bank, kept[1])


def test_no_queries_give_no_distances_and_an_impossible_k_is_refused() -> None:
    bank = torch.zeros(3, 2)
    assert nearest(torch.zeros(0, 2), bank, 2)[0].shape == (0, 2)
    for k in (0, 4):
        with pytest.raises(ValueError, match=r"k must be in 1\.\.3"):
            nearest(torch.zeros(1, 2), bank, k)
    with pytest.raises(ValueError, match="k must be"):
        nearest(torch.zeros(1, 2), torch.zeros(0, 2), 1)
