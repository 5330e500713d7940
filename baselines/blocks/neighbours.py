"""Exact nearest neighbours in a bank of vectors, in bounded memory.

The squared distances of a block of queries to a block of the bank come from one matrix product,
|b|^2 - 2 q.b after the bank's mean is taken from all. Its rounding can hide which of two near
vectors is nearer, so it only proposes a few more candidates than asked for; their distances are
computed anew from the differences. Where rounding could still have kept a nearer vector out, the
query is searched again in float64.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

Block = tuple[Tensor, Tensor]
"""Vectors (m, D) of a bank, from its centre, and the squares of their norms (m,)."""

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
    """Vectors (M, D), finite float32, to be searched.

    What every search asks of them is kept, as much memory again, unless they are searched `once`.
    """

    @torch.no_grad()
    def __init__(self, vectors: Tensor, *, once: bool = False) -> None:
        self.vectors = vectors
        self._centre = vectors.mean(0)
        self._prepared = None if once else list(self._blocks(torch.float32))

    @torch.no_grad()
    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the L2 distances to the k nearest vectors, ascending, and their indices.

        `queries` (Q, D), finite float32 on the bank's device -> (Q, k) float32 and (Q, k) long. Of
        vectors that are equally near, to float32's rounding, any may be named; the same call gives
        the same bits. Beside its arguments and results it holds the queries taken from the centre,
        ROWS x COLUMNS distances and COLUMNS vectors, in float64 where it has to. Raises ValueError
        for a k that is not in 1..M.
        """
        bank = self.vectors
        if not 1 <= k <= len(bank):
            raise ValueError(f"k must be in 1..{len(bank)}, the vectors of the bank, not {k}")
        count = min(k + SPARE, len(bank))
        away = queries - self._centre
        blocks = self._blocks(torch.float32) if self._prepared is None else self._prepared
        proposed, candidates = _candidates(away, blocks, count)
        distances, indices = _chosen(queries, bank, candidates, k)
        if count < len(bank):
            doubt = _doubt(away, proposed[:, -1], distances[:, -1])
            again = torch.nonzero(doubt).flatten()
            if len(again):
                away = queries[again].double() - self._centre
                _, candidates = _candidates(away, self._blocks(torch.float64), count)
                distances[again], indices[again] = _chosen(queries[again], bank, candidates, k)
        return distances, indices

    def _blocks(self, precision: torch.dtype) -> Iterator[Block]:
        centre = self._centre.to(precision)
        for vectors in self.vectors.split(COLUMNS[self.vectors.device.type]):
            away = vectors - centre
            yield away, torch.linalg.vector_norm(away, dim=1).square()


def nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Search a bank (M, D) once, as `Bank.nearest` says."""
    return Bank(bank, once=True).nearest(queries, k)


def _candidates(queries: Tensor, bank: Iterable[Block], count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` least |b|^2 - 2 q.b of each query, ascending, and their indices.

    The precision of queries (Q, D) and bank is that of the search.
    """
    least = queries.new_full((len(queries), count), torch.inf)
    indices = torch.zeros(len(queries), count, dtype=torch.long, device=queries.device)
    products: Tensor | None = None
    left = 0
    for vectors, squares in bank:
        width = -len(vectors) // GROUP * -GROUP
        if products is None:  # the first block is the largest
            products = queries.new_empty(min(ROWS, len(queries)), width)
        for top in range(0, len(queries), ROWS):
            rows = slice(top, top + ROWS)
            product = products[: len(queries[rows]), :width]
            product[:, len(vectors) :] = torch.inf
            torch.addmm(squares, queries[rows], vectors.T, alpha=-2, out=product[:, : len(vectors)])
            values, columns = _least(product, count)
            merged = torch.cat([least[rows], values], 1)
            least[rows], order = merged.topk(count, largest=False)
            indices[rows] = torch.cat([indices[rows], columns + left], 1).gather(1, order)
        left += len(vectors)
    return least, indices


def _least(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` least of each row (fewer where a row is short), and their columns.

    They lie in the `count` groups with the least minima, a group being every P-th column.
    """
    grouped = values.unflatten(1, (GROUP, -1))
    per_group = grouped.shape[2]
    groups = grouped.amin(1).topk(min(count, per_group), largest=False).indices
    inside = grouped.gather(2, groups.unsqueeze(1).expand(-1, GROUP, -1)).flatten(1)
    least, at = inside.topk(min(count, inside.shape[1]), largest=False)
    picked = groups.shape[1]
    return least, at // picked * per_group + groups.gather(1, at % picked)


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


def _doubt(queries: Tensor, last: Tensor, farthest: Tensor) -> Tensor:
    """Tell for which queries a vector that was no candidate could be nearer than the k-th chosen.

    `last` (Q,) is the largest |b|^2 - 2 q.b of a candidate, `farthest` (Q,) the k-th distance. A
    vector nearer than that has |b| < |q| + farthest, which bounds the rounding of its product.
    `queries` are taken from the centre.
    """
    norm = torch.linalg.vector_norm(queries, dim=1)
    reach = norm + farthest
    # The rounding errors of D terms add up like a random walk; 8 standard deviations of it, and
    # as much as of one term for what the centring has rounded.
    unit = torch.finfo(torch.float32).eps / 2
    rounding = 8 * unit * (queries.shape[1] ** 0.5 + 1) * reach * (reach + 2 * norm)
    # |q|^2 is added in float64: it is what cancels.
    others = last.double() + norm.double().square() - rounding
    return others < (farthest.double() * (1 - _EQUAL)).square()
