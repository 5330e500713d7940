"""Exact nearest neighbours in a bank of vectors, in bounded memory.

The squared distances of a block of queries to a block of the bank come from one matrix product:
up to what is the same for all of a query's, they are |b - c|^2 - 2 (q - c).b, c being the bank's
mean. Its rounding can hide which of two near vectors is nearer, so it only proposes a few more
candidates than asked for; their distances are computed anew from the differences. Where rounding
could still have kept a nearer vector out, the query is searched again in float64.
"""

import torch
from torch import Tensor

ROWS = 1024
"""Queries of a block."""
COLUMNS = {"cpu": 8192, "cuda": 65536}
"""Vectors of the bank in a block: what stays near a CPU's caches, what keeps a GPU busy."""
GROUP = 32
"""Columns that are reduced to their least before any is picked; divides COLUMNS. A partial sort
of all of them takes longer than the product where vectors are short."""
SPARE = 4
"""Candidates beside the k."""
_EQUAL = 1e-6
"""Relative difference of distances below which a vector counts as equally near."""


class Bank:
    """Vectors (M, D), finite float32, to be searched; what every search asks of them is kept."""

    @torch.no_grad()
    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors
        self._centre = vectors.mean(0)
        self._squares = _squares(vectors, self._centre)

    @torch.no_grad()
    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the L2 distances to the k nearest vectors, ascending, and their indices.

        `queries` (Q, D), finite float32 on the bank's device -> (Q, k) float32 and (Q, k) long. Of
        vectors that are equally near, to float32's rounding, any may be named; the same call gives
        the same bits. Beside its arguments and results it holds a block of ROWS x COLUMNS
        distances. Raises ValueError for a k that is not in 1..M.
        """
        bank, centre = self.vectors, self._centre
        if not 1 <= k <= len(bank):
            raise ValueError(f"k must be in 1..{len(bank)}, the vectors of the bank, not {k}")
        count = min(k + SPARE, len(bank))
        away = queries - centre
        proposed, candidates = _candidates(away, bank, self._squares, count)
        distances, indices = _chosen(queries, bank, candidates, k)
        if count < len(bank):
            last = proposed[:, -1] + 2 * (away @ centre)
            doubt = _doubt(away, last, distances[:, -1], centre)
            again = torch.nonzero(doubt).flatten()
            if len(again):
                away = queries[again].double() - centre
                squares = _squares(bank, centre.double())
                _, candidates = _candidates(away, bank, squares, count)
                distances[again], indices[again] = _chosen(queries[again], bank, candidates, k)
        return distances, indices


def nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Search a bank (M, D) once, as `Bank.nearest` says."""
    return Bank(bank).nearest(queries, k)


def _squares(bank: Tensor, centre: Tensor) -> Tensor:
    """Return |b - c|^2 of each vector, (M,), in the precision of the centre."""
    parts = bank.split(COLUMNS[bank.device.type])
    return torch.cat([torch.linalg.vector_norm(part - centre, dim=1).square() for part in parts])


def _candidates(away: Tensor, bank: Tensor, squares: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` least |b - c|^2 - 2 (q - c).b of each query, ascending, and their indices.

    `away` (Q, D) is q - c and says in which precision; `squares` (M,) are |b - c|^2.
    """
    least = away.new_full((len(away), count), torch.inf)
    indices = torch.zeros(len(away), count, dtype=torch.long, device=away.device)
    columns = min(COLUMNS[away.device.type], -len(bank) // GROUP * -GROUP)
    products = away.new_empty(min(ROWS, len(away)), columns)
    for left in range(0, len(bank), columns):
        block = bank[left : left + columns].to(away.dtype)
        width = -len(block) // GROUP * -GROUP
        for top in range(0, len(away), ROWS):
            rows = slice(top, top + ROWS)
            product = products[: len(away[rows]), :width]
            product[:, len(block) :] = torch.inf
            torch.addmm(
                squares[left : left + columns], away[rows], block.T, alpha=-2,
                out=product[:, : len(block)],
            )  # fmt: skip
            found, where = _least(product, count)
            merged = torch.cat([least[rows], found], 1)
            least[rows], order = merged.topk(count, largest=False)
            indices[rows] = torch.cat([indices[rows], where + left], 1).gather(1, order)
    return least, indices


def _least(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` least of each row (fewer where a row is short), and their columns.

    They lie in the `count` groups with the least minima, a group being every P-th column.
    """
    grouped = values.unflatten(1, (GROUP, -1))
    per_group = grouped.shape[2]
    groups = grouped.amin(1).topk(min(count, per_group), largest=False).indices
    inside = grouped.gather(2, groups.unsqueeze(1).expand(-1, GROUP, -1)).flatten(1)
    found, at = inside.topk(min(count, inside.shape[1]), largest=False)
    picked = groups.shape[1]
    return found, at // picked * per_group + groups.gather(1, at % picked)


def _chosen(queries: Tensor, bank: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest among the candidates (Q, C) by their differences from the queries."""
    distances = queries.new_empty(len(queries), k)
    indices = candidates.new_empty(len(queries), k)
    step = max(1, ROWS * COLUMNS["cpu"] // (candidates.shape[1] * bank.shape[1]))
    for top in range(0, len(queries), step):
        rows = slice(top, top + step)
        differences = bank[candidates[rows]].sub_(queries[rows].unsqueeze(1))
        exact = torch.linalg.vector_norm(differences, dim=2)
        distances[rows], order = exact.topk(k, largest=False)
        indices[rows] = candidates[rows].gather(1, order)
    return distances, indices


def _doubt(away: Tensor, last: Tensor, farthest: Tensor, centre: Tensor) -> Tensor:
    """Tell for which queries a vector that was no candidate could be nearer than the k-th chosen.

    `away` (Q, D) is q - c; `last` (Q,) the largest |b - c|^2 - 2 (q - c).(b - c) of a candidate,
    `farthest` (Q,) the k-th distance. A vector nearer than that has |b - c| < |q - c| + farthest,
    which bounds the rounding of its product.
    """
    norm = torch.linalg.vector_norm(away, dim=1)
    reach = norm + farthest
    # The rounding errors of D terms add up like a random walk; 8 standard deviations of it, and
    # as much as of one term for what the centring has rounded.
    unit = torch.finfo(torch.float32).eps / 2
    terms = (reach + torch.linalg.vector_norm(centre)) * (reach + 4 * norm)
    rounding = 8 * unit * (away.shape[1] ** 0.5 + 1) * terms
    # |q - c|^2 is added in float64: it is what cancels.
    others = last.double() + norm.double().square() - rounding
    return others < (farthest.double() * (1 - _EQUAL)).square()
