"""The farthest patch against a search for all of them."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from baselines.blocks.neighbours import Bank
from baselines.patchcore import farthest
from baselines.patchcore.farthest import DIRECTIONS, FIRST, Farthest


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_all(patches: Tensor, bank: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest of the least distances in float64, and the indices that belong to it."""
    plain = "donot_use_mm_for_euclid_dist"
    least, vectors = torch.cdist(patches.double(), bank.double(), compute_mode=plain).min(2)
    distance, patch = least.max(1)
    return distance, patch, vectors.gather(1, patch[:, None])[:, 0]


def agrees(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(found[0].double(), wanted[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(found[1], wanted[1])
    assert torch.equal(found[2], wanted[2])


@given(
    images=st.integers(1, 4), patches=st.integers(1, 90), vectors=st.integers(1, 120),
    width=st.integers(1, 70), seed=st.integers(0, 50),
)  # fmt: skip
def test_it_is_the_farthest_patch_of_all(
    images: int, patches: int, vectors: int, width: int, seed: int
) -> None:
    bank, shown = noise(vectors, width, seed=seed), noise(images, patches, width, seed=seed + 1)
    agrees(Farthest(bank)(shown), by_all(shown, bank))


def test_it_is_so_where_the_guesses_are_bad() -> None:
    """What tells vectors apart lies in directions that the sketch leaves out."""
    bank, shown = noise(400, 3 * DIRECTIONS), noise(3, 300, 3 * DIRECTIONS, seed=1)
    bank[:, :DIRECTIONS] = 10 * bank[:1, :DIRECTIONS] + 100 * noise(400, DIRECTIONS, seed=2)
    shown[..., :DIRECTIONS] = 0
    agrees(Farthest(bank)(shown), by_all(shown, bank))


def searched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the patches of every full search."""
    counts: list[int] = []
    nearest = Bank.nearest

    def counted(bank: Bank, queries: Tensor, k: int) -> Any:
        counts.append(len(queries))
        return nearest(bank, queries, k)

    monkeypatch.setattr(Bank, "nearest", counted)
    return counts


def test_few_patches_are_searched_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a few directions say most, as of features; the first ones are searched in any case."""
    counts = searched(monkeypatch)
    scale = 0.9 ** torch.arange(200)
    bank, shown = noise(1000, 200) * scale, noise(2, 700, 200, seed=1) * scale
    agrees(Farthest(bank)(shown), by_all(shown, bank))
    assert counts[0] == 2 * FIRST
    assert sum(counts) < 0.1 * 2 * 700


def test_of_patches_that_are_alike_one_is_named_with_its_vector() -> None:
    bank = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    shown = torch.tensor([[2.0, 0.0], [8.0, 0.0]]).repeat(50, 1)[None]
    distance, patch, vector = Farthest(bank)(shown)
    assert distance.tolist() == [2.0]
    assert vector.tolist() == [patch.item() % 2]
    assert Farthest(bank)(bank[None])[0].tolist() == [0.0]


def test_what_is_held_at_once_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, shown = noise(90, 8), noise(2, 50, 8, seed=1)
    whole = Farthest(bank)(shown)
    for products in (1, 96, 1000):
        monkeypatch.setattr(farthest, "PRODUCTS", products)
        for a, b in zip(Farthest(bank)(shown), whole, strict=True):
            assert torch.equal(a, b)


def test_what_is_no_number_is_not_taken_for_a_small_distance() -> None:
    bank, shown = noise(32, 4), noise(2, 40, 4, seed=1)
    shown[1, 7] = torch.nan
    distance, _, _ = Farthest(bank)(shown)
    assert distance.isfinite().tolist() == [True, False]
