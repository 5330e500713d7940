"""Batch normalisation for two views: one set of weights, running statistics for each view."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


class ViewNorm(nn.BatchNorm2d):
    """Batch normalisation (B, C, h, w) -> same with running statistics for each of two views.

    In training a batch is normalised by its own statistics, as ever; in evaluation the second view
    is normalised by those of second views alone. Both begin with the statistics of `norm`, whose
    weights it takes over.
    """

    second_mean: Tensor
    second_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.register_buffer("second_mean", _copied(norm.running_mean))
        self.register_buffer("second_var", _copied(norm.running_var))
        self.second = False
        """Whether the next batch is of second views."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalise a batch of one view."""
        if not self.second:
            return super().forward(features)
        return F.batch_norm(
            features,
            self.second_mean,
            self.second_var,
            self.weight,
            self.bias,
            self.training,
            cast(float, self.momentum),
            self.eps,
        )


def _copied(statistics: Tensor | None) -> Tensor:
    return cast(Tensor, statistics).clone()


def separate_views(network: nn.Module) -> list[ViewNorm]:
    """Replace each batch normalisation in place by one for two views; return these."""
    replaced = []
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, ViewNorm(child))
                replaced.append(getattr(parent, name))
    return replaced
