"""Grad-CAM (Selvaraju et al., ICCV 2017)."""

from collections.abc import Callable

import torch
from torch import Tensor


def grad_cam(features: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """Where features (B, C, h, w) speak for a score: (B, h, w), >= 0 (Eqs. 1 and 2).

    `score` maps the features to (B,), each image by itself. Not for inference mode.
    """
    with torch.enable_grad():
        leaf = features.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(score(leaf).sum(), leaf)
    return (gradient.mean((2, 3), keepdim=True) * features).sum(1).clamp(min=0)
