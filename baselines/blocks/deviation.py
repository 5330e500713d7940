"""The deviation loss (Pang et al., KDD 2019) and the top-K score of DevNet (arXiv 2108.00462).

DevNet for images joined them; DRA keeps both for each of its heads and ATAC-Net for its score.
"""

import torch
from torch import Tensor, nn

from baselines.blocks.plan import Plan

REFERENCE_DRAWS = 5000
FORMS = ("hinge", "literal")
REFERENCES = ("drawn", "constant")


def draw_reference(generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of a reference drawn anew, () float32 each."""
    draws = torch.randn(REFERENCE_DRAWS, generator=generator)
    return draws.mean(), draws.std()


def top_k_mean(maps: Tensor, share: float = 0.1) -> Tensor:
    """Mean of the largest floor(share * positions) values of each map, at least one.

    maps: (B, ...) -> (B,). At 224 px and a share of 0.1: K = 4 of 49 at stage 4, 19 of 196 at
    stage 3.
    """
    flat = maps.flatten(1)
    k = max(1, int(share * flat.shape[1]))
    return flat.topk(k, dim=1).values.mean(1)


class ScoreMap(nn.Module):
    """A 1x1 convolution to absolute scores: (B, C, h, w) -> (B, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the map of scores, >= 0."""
        scores: Tensor = self.score(features)
        return scores.abs().squeeze(1)


class DeviationLoss:
    """Mean deviation loss of scores (B,) against labels (B,) in {0, 1}.

    dev = (score - mean) / std of a reference: 5000 draws of N(0, 1) made anew at every call
    (`drawn`), or the constants 0 and 1 (`constant`).

    `hinge`, the default: (1 - y) |dev| + y max(0, margin - dev), DevNet's. `literal` is
    ATAC-Net's Eq. 12 as printed, (1 - y) |dev| + y (margin - |dev|), which has no lower bound.
    """

    def __init__(
        self,
        margin: float,
        form: str = "hinge",
        reference: str = "drawn",
        generator: torch.Generator | None = None,
        plan: Plan | None = None,
    ) -> None:
        if form not in FORMS:
            raise ValueError(f"loss_form is one of {', '.join(FORMS)}, not {form!r}")
        if reference not in REFERENCES:
            raise ValueError(f"reference is one of {', '.join(REFERENCES)}, not {reference!r}")
        self.margin, self.form, self.reference = margin, form, reference
        self.generator, self._plan = generator, plan or Plan()

    def __call__(self, scores: Tensor, labels: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Return the scalar loss; with `chosen`, (B,) bool, the mean is over these alone."""
        deviation = scores
        if self.reference == "drawn":
            mean, std = self._plan.take(draw_reference, self.generator)
            deviation = (scores - mean) / std
        normal = (1 - labels) * deviation.abs()
        if self.form == "hinge":
            losses = normal + labels * (self.margin - deviation).clamp(min=0)
        else:
            losses = normal + labels * (self.margin - deviation.abs())
        return losses.mean() if chosen is None else (losses * chosen).sum() / chosen.sum()
