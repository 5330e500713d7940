"""Greedy k-centre selection: a subset that leaves no point far away."""

import torch
from torch import Tensor

CANDIDATES = 1024
"""Points that compete for the next picks."""
SLICES = 8
"""Parts of the candidates that are brought up to date together."""


def k_centre_greedy(points: Tensor, count: int, first: int) -> Tensor:
    """Return the indices of `count` points, each the farthest from those before.

    `points` is (n, d), `first` the index of the first pick. The result is (count,) long, in the
    order of the picks, as the plain greedy algorithm gives it up to rounding; of equally far points
    any may be taken, and none twice. Raises ValueError where there are fewer points than `count`.

    The distance of a point to its nearest pick only shrinks, so an earlier distance bounds it from
    above. Only the candidates with the largest bounds are brought up to date, with all new picks in
    one matrix product. They compete among themselves while one of them is above every other bound.
    """
    n, d = points.shape
    if not 1 <= count <= n:
        raise ValueError(f"cannot pick {count} of {n} points")
    picks = torch.empty(count, dtype=torch.long, device=points.device)
    centres = points.new_empty(count, d)
    norms = torch.cat([part.square().sum(1) for part in points.split(CANDIDATES)])
    bounds = torch.full_like(norms, torch.inf)
    seen = torch.zeros_like(norms, dtype=torch.long)
    """How many picks the bound of each point takes into account."""

    def take(made: int, index: Tensor | int) -> None:
        picks[made], centres[made] = index, points[index]
        bounds[index] = -1

    take(0, first)
    made = 1
    while made < count:
        some = min(CANDIDATES, n)
        top = bounds.topk(some + (n > some))
        ceiling = top.values[-1] if n > some else top.values.new_tensor(-torch.inf)
        candidates = top.indices[:some]
        candidates = candidates[seen[candidates].argsort(stable=True)]
        for part in candidates.tensor_split(SLICES):
            _update(part, points, norms, bounds, seen, centres, picks, made)
        near, own = points[candidates], norms[candidates]
        distance = bounds[candidates]
        while made < count:
            best, pick = distance.max(0)
            if best < ceiling or best < 0:
                break
            take(made, candidates[pick])
            distance = torch.minimum(distance, _squared(near, own, near[pick], own[pick]))
            distance[pick] = -1
            made += 1
        bounds[candidates], seen[candidates] = distance, made
    return picks


def _update(
    part: Tensor, points: Tensor, norms: Tensor, bounds: Tensor, seen: Tensor, centres: Tensor,
    picks: Tensor, made: int,
) -> None:  # fmt: skip
    """Bring the bounds of some points up to date with all picks made."""
    since = int(seen[part[0]]) if len(part) else made  # sorted: the oldest of them
    if since == made:
        return
    product = points[part] @ centres[since:made].T
    squared = norms[part, None] + norms[picks[since:made]] - 2 * product
    bounds[part] = torch.minimum(bounds[part], squared.amin(1).clamp(min=0))


def _squared(points: Tensor, norms: Tensor, centre: Tensor, norm: Tensor) -> Tensor:
    """Return the squared distances of points to one centre by the expansion of the square."""
    return (norms + norm - 2 * (points @ centre)).clamp(min=0)
