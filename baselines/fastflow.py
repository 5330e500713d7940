"""FastFlow: a convolutional normalising flow of normal features, an image by its least likely spot.

Reproduces: "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows" (Yu
et al., arXiv 2111.07677). Its authors released nothing; this is written from a description of two
reimplementations, gathierry/FastFlow and anomalib's.

- A frozen backbone gives stages 1 to 3. Behind each lies a flow of 8 steps of its own; a step is
  an affine coupling (`baselines.blocks.coupling`, clamp 2) whose subnet has two convolutions with
  zero padding and ReLU between them, as wide inside as the half that they see.
- Kernels of 3 and of 1 take turns; with `conv3x3_only` all are 3, as published for ResNet-18.
- Loss: 1/2 sum z^2 - log|det J| of a stage, averaged over the batch and summed over the stages.
  Adam 1e-3, weight decay 1e-5, 500 epochs, batches of 32 (`batch_size = 32`), no schedule. The last
  step counts; both reimplementations choose an epoch by pixel AUROC on the test set.
- A position is likely by p = exp(-1/2 mean z^2) over the channels. The map is -p, brought to the
  size of the image bilinearly and averaged over the stages; the score, in [-1, 0], its maximum.

The budget is part of the result: it is in the parameters, so in a run's identity. As published it
takes minutes of a GPU for a category with a ResNet-50, and days of a CPU core; a `hidden_ratio` of
0.16 (published for transformers) makes a step six times cheaper.

Chosen here: the features are normalised over channels and positions without weights
(`layer_norm = "plain"`). The paper does not mention it; both reimplementations have weights too
("affine"), which the loss pays for with nothing: they shrink, the flow grows, and the loss falls
without bound while z stays as it is. ResNet-50, 224 px and the house's batches of 16 as for all of
Table 2, where the published networks are ResNet-18, Wide ResNet-50 and two transformers. No
augmentation, as in the code of both; the paper turns and flips images, without details. Batches
come from endless permutations and hold all images where there are fewer than a batch; an epoch is
floor(N / batch) of them. The features of all normal images are computed once and stay in memory.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.blocks.batches import Stream, generator
from baselines.blocks.coupling import Coupling, Flow
from baselines.blocks.flows import FlowMethod
from baselines.blocks.frozen import AT_ONCE, CHUNK
from baselines.blocks.loop import learning_rate, run_steps
from bench.detector import BackboneSource, Context, TrainingSet, parameter

STAGES = (1, 2, 3)
CLAMP = 2.0
NORMS = ("plain", "affine", "none")
KEPT = 5
"""Values that a step keeps of each feature for its gradient: about 3 by the shapes of the subnet,
and what libraries take beside, by the memory of a process."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The published constants."""

    epochs: int = parameter(500, least=1)
    steps_per_epoch: int = parameter(0, least=0)
    """0: floor(normals / batch_size), one at least."""
    lr: float = parameter(1e-3, above=0)
    weight_decay: float = parameter(1e-5, least=0)
    flow_steps: int = parameter(8, least=1)
    hidden_ratio: float = parameter(1.0, above=0)
    """Hidden channels of a subnet by those that it sees."""
    conv3x3_only: bool = False
    layer_norm: str = parameter("plain", choices=NORMS)


class NormalisedFlow(Flow):
    """A flow behind a layer normalisation."""

    def __init__(self, channels: int, side: int, parameters: Parameters) -> None:
        super().__init__(step(channels, i, parameters) for i in range(parameters.flow_steps))
        form, shape = parameters.layer_norm, (channels, side, side)
        affine = form == "affine"
        self.norm = nn.Identity() if form == "none" else nn.LayerNorm(shape, 1e-5, affine)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return z like x (B, C, h, w), and log|det| of the flow's Jacobian of each, (B,)."""
        return super().forward(self.norm(x), condition)


def step(channels: int, number: int, parameters: Parameters) -> Coupling:
    """Return a step of a flow; the steps are counted from 0."""
    first, second = channels - channels // 2, channels // 2
    hidden = max(1, int(first * parameters.hidden_ratio))
    kernel = 3 if parameters.conv3x3_only or number % 2 == 0 else 1
    subnet = nn.Sequential(
        nn.Conv2d(first, hidden, kernel, padding="same"),
        nn.ReLU(),
        nn.Conv2d(hidden, 2 * second, kernel, padding="same"),
    )
    return Coupling(channels, subnet, CLAMP, soft=False)


def losses(flow: nn.Module, level: Tensor) -> Tensor:
    """Return -log-likelihoods of a stage (B, C, h, w) without their constant, (B,)."""
    z, log_det = flow(level)
    return z.square().flatten(1).sum(1) / 2 - log_det


class FastFlow(FlowMethod):
    """A flow behind each stage."""

    name = "fastflow"
    version = 1
    Parameters = Parameters

    def stages(self, source: BackboneSource) -> tuple[int, ...]:
        """Read stages 1 to 3."""
        return STAGES

    def flow(self, channels: int, side: int) -> nn.Module:
        """Return the flow of a stage."""
        return NormalisedFlow(channels, side, self.parameters)

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Compute the features of the normal images and train on them to the last step."""
        self.prepare(train.normal.images.shape[-1], context)
        p, normals = self.parameters, len(train.normal)
        steps = p.steps_per_epoch or max(1, normals // context.batch_size)
        step = self.step(self.remembered(train.normal))
        run_steps(step, p.epochs, steps, context, self.after_epoch, self.plan)

    def step(self, features: list[Tensor]) -> Callable[[], Tensor]:
        """Return a function that makes one training step on features and returns its loss."""
        p, count, device = self.parameters, len(features[0]), features[0].device
        stream = Stream(count, generator(self.context, "batches"))
        optimiser = torch.optim.Adam(
            self.flows.parameters(),
            lr=learning_rate(p.lr, device),
            weight_decay=p.weight_decay,
            fused=True,
            capturable=device.type == "cuda",
        )

        def draw() -> tuple[Tensor, ...]:
            return (stream.take(min(self.context.batch_size, count)),)

        def step() -> Tensor:
            (which,) = self.plan.take(draw)
            optimiser.zero_grad()
            total = features[0].new_zeros(())
            for flow, level in zip(self.flows, features, strict=True):
                for part in level[which].split(self.at_once()):  # gradients add up
                    value = losses(flow, part).sum() / len(which)
                    value.backward()
                    total += value.detach()
            optimiser.step()
            return total

        return step

    def maps(self, features: list[Tensor]) -> Tensor:
        """Return -p, averaged over the stages, (B, size, size)."""
        total = features[0].new_zeros(())
        for flow, level in zip(self.flows, features, strict=True):
            squares = [flow(part)[0].square().mean(1) for part in level.split(self.at_once())]
            likely = torch.exp(-torch.cat(squares).unsqueeze(1) / 2)
            total = total - F.interpolate(likely, self.size, mode="bilinear")
        return total.squeeze(1) / len(self.flows)

    def pooled(self, features: list[Tensor]) -> Tensor:
        """Return the mean of z over positions, (B, channels of all stages)."""
        pairs = zip(self.flows, features, strict=True)
        return torch.cat([flow(level)[0].mean((2, 3)) for flow, level in pairs], 1)

    def rehearse(self, size: int, context: Context) -> None:
        """Make one training step on those images of zeros that pass the flows at once."""
        self.context = context
        few = dataclasses.replace(context, batch_size=min(context.batch_size, self.at_once()))
        self.step(self.rehearsed(size, few))()

    def memory(self, normals: int, size: int, context: Context) -> int:
        """Return the bytes of all features, and of a training step."""
        assert context.backbone is not None
        shapes = self.shapes(size, context.backbone)
        with torch.device("meta"):
            flows = self.built(size, context)
        learnt = sum(p.numel() for p in flows.parameters())
        values = [channels * side**2 for channels, side in shapes]
        batch = min(normals, context.batch_size)
        few = min(batch, AT_ONCE.get(torch.device(context.device).type, batch))
        step = max(values) * (batch + few * self.parameters.flow_steps * KEPT)
        scoring = CHUNK * sum(values) * 2
        return 4 * (sum(values) * normals + max(step, scoring) + 4 * learnt)
