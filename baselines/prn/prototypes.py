"""K-means over whole feature maps, from the distances between them alone.

A feature map has 65,536 to 262,144 values and a category a few hundred images, so the squared
distances between images are all that clustering looks at: ||x - c||^2 for the centre c of a cluster
is the mean of ||x - y||^2 over its members y, less half of the mean of ||y - z||^2 over pairs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDS = 300
"""Most rounds of Lloyd's algorithm, scikit-learn's default."""
TINY = 1e-30
"""Weight of an image that equals one already chosen: never drawn while another is left."""


def centres(maps: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Return the centres of clusters of maps (N, D), (count, D) float32.

    `maps` are overwritten: their mean is subtracted, so that distances keep their digits.
    """
    mean = maps.mean(0)
    maps -= mean
    products = maps @ maps.T
    squares = products.diagonal()
    distances = (squares[:, None] + squares - 2 * products).clamp(min=0).double().cpu()
    shares = shares_of(clusters(distances.fill_diagonal_(0), count, rng), count)
    return shares.T.to(maps) @ maps + mean


def clusters(distances: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Return the cluster of each of N items, (N,) long; none of the clusters is empty.

    `distances` (N, N) float64 are squared; `count` is at most N. Seeded by k-means++.
    """
    labels = distances[seeds(distances, count, rng)].argmin(0)
    for _ in range(ROUNDS):
        to_centre = squares_to_centres(distances, labels, count)
        moved = to_centre.argmin(1)
        if torch.equal(moved, labels):
            break
        labels = moved
    return occupied(labels, squares_to_centres(distances, labels, count), count)


def seeds(distances: Tensor, count: int, rng: torch.Generator) -> list[int]:
    """Draw items, each with a chance by its squared distance to those drawn before."""
    drawn = [int(torch.randint(len(distances), (1,), generator=rng))]
    while len(drawn) < count:
        nearest = distances[drawn].amin(0).clamp(min=TINY)
        drawn.append(int(nearest.multinomial(1, generator=rng)))
    return drawn


def shares_of(labels: Tensor, count: int) -> Tensor:
    """Return each item's share in the mean of its cluster, (N, count) float64."""
    members = F.one_hot(labels, count).double()
    return members / members.sum(0).clamp(min=1)


def squares_to_centres(distances: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return squared distances to the clusters' centres, (N, count); infinite if empty."""
    shares = shares_of(labels, count)
    means = distances @ shares
    squares = means - (shares * means).sum(0) / 2
    empty = shares.sum(0) == 0
    return squares.masked_fill(empty, torch.inf)


def occupied(labels: Tensor, squares: Tensor, count: int) -> Tensor:
    """Return labels with the farthest items moved to empty clusters.

    `squares` (N, count) are distances to the centres. An item alone in its cluster stays.
    """
    labels = labels.clone()
    own = squares.gather(1, labels[:, None]).squeeze(1)
    for empty in (torch.bincount(labels, minlength=count) == 0).nonzero().flatten().tolist():
        alone = torch.bincount(labels, minlength=count)[labels] == 1
        farthest = int(own.masked_fill(alone, -1).argmax())
        labels[farthest], own[farthest] = empty, -1
    return labels
