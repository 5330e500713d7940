"""CFlow-AD: at every position a normalising flow of normal features, told where the position is.

Reproduces: "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via Conditional
Normalizing Flows" (Gudovskiy, Ishizaka and Kozuka, WACV 2022, arXiv 2107.12571), from a description
of it and of its authors' code (gudovskiy/cflow-ad).

- A frozen backbone gives stages 2 to 4. Behind each lies a flow of 8 affine couplings
  (`baselines.blocks.coupling`, clamp 1.9, soft permutations) over the channels of single positions.
  A subnet sees half of the channels and 128 sines and cosines of row and column, and has one hidden
  layer of twice as many.
- Loss: the mean of -log sigmoid(l) over 256 positions, l being the log-likelihood by the number of
  channels. All positions of a batch of 32 images (`batch_size = 32`) are shuffled, stage by stage;
  every 256 of them make a step of Adam, and what is left over is dropped.
- 25 epochs of 8 passes over the images, turned by up to 5 degrees. The rate falls from 2e-4 to 2e-7
  by a cosine, constant within an epoch; before that it rises for two epochs from a tenth. The last
  step counts; the released code evaluates every epoch on the test set and reports the best one.
- A position is likely by exp(l), relative to the largest of its stage. The map is minus that,
  brought to the size of the image bilinearly and summed over the stages; the score its maximum.

The budget is part of the result: it is in the parameters, so in a run's identity. As published a
category takes tens of minutes of a fast GPU, and days of a CPU core.

Chosen here: one optimiser for each flow. The released code has one for all and clears the gradients
before each step, which with the torch of its time moved every flow by its momentum in the steps of
the others, and with today's does not. The largest likelihood of a stage is that of the normal
training images, where the released code takes that of the test set and anomalib that of the batch:
so a score does not depend on what else is scored. One image size for all categories; the authors
chose 512, 256 or 128 px for each. The first stage that is read is `first_stage`; the last one is
the deepest of the run, so where the weights end with stage 3 stages 2 and 3 are read. Batches come
from endless permutations and hold all images where there are fewer than a batch; where a stage of a
batch has fewer than 256 positions, they make one step. Without rotation the features are computed
once and stay in memory. Likelihoods are compared in float64. A saved model holds the permutations:
with a Wide ResNet-50 they are as large as the weights.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.blocks.backbone import normalise
from baselines.blocks.batches import Stream, generator
from baselines.blocks.coupling import Coupling, Flow
from baselines.blocks.flows import FlowMethod
from baselines.blocks.frozen import CHUNK
from baselines.blocks.loop import learning_rate, run_steps
from baselines.blocks.pseudo_anomaly import draw_angles, turn
from bench.detector import BackboneSource, Context, TrainingSet, parameter

DEEPEST = 3
"""The stage that it reads at least."""
CLAMP = 1.9
CONDITION = 128
"""Numbers that tell a position."""
KEPT = 10
"""Values that a step keeps of each channel of a position for its gradient: about 7 by the shapes of
the subnet, and what libraries take beside, by the memory of a process."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The published constants."""

    epochs: int = parameter(25, least=1)
    steps_per_epoch: int = parameter(0, least=0)
    """Batches of images; 0: `passes` times floor(normals / batch_size), one at least."""
    passes: int = parameter(8, least=1)
    """Over the normal images in an epoch, where `steps_per_epoch` is 0."""
    fibers: int = parameter(256, least=1)
    """Positions of a step."""
    lr: float = parameter(2e-4, above=0)
    lr_end: float = parameter(2e-7, least=0)
    warmup: float = parameter(0.08, least=0, most=1)
    """Share of the epochs in which the rate rises from a tenth."""
    rotation: float = parameter(5.0, least=0, most=180)
    """Training images turn by a uniform angle in +- this many degrees."""
    blocks: int = parameter(8, least=1)
    permutation: str = parameter("soft", choices=("soft", "hard"))
    first_stage: int = parameter(2, least=1, most=DEEPEST)

    def rate(self, share: float) -> float:
        """Return the learning rate once a share of the training is done."""
        if share < self.warmup:
            start = self.lr / 10
            return start + (self._cosine(self.warmup) - start) * share / self.warmup
        # A step's share may lie a rounding below that of its epoch.
        return self._cosine(math.floor(share * self.epochs + 1e-9) / self.epochs)

    def _cosine(self, share: float) -> float:
        return self.lr_end + (self.lr - self.lr_end) * (1 + math.cos(math.pi * share)) / 2


def positions(side: int) -> Tensor:
    """Return what tells each position of a grid, (side * side, 128), row by row.

    The first half are sines and cosines, in turns, of the column at 32 wavelengths from 2 pi to
    10000 times that, the second half those of the row.
    """
    quarter = CONDITION // 4
    wave = torch.exp(torch.arange(quarter) * (-math.log(10_000.0) / quarter))
    angles = torch.arange(side).unsqueeze(1) * wave
    line = torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
    columns = line.expand(side, side, -1)
    return torch.cat([columns, columns.transpose(0, 1)], 2).flatten(0, 1)


class ConditionalFlow(Flow):
    """A flow of the channels of single positions."""

    places: Tensor

    def __init__(self, channels: int, side: int, parameters: Parameters) -> None:
        soft = parameters.permutation == "soft"
        super().__init__(
            Coupling(channels, subnet(channels), CLAMP, soft=soft) for _ in range(parameters.blocks)
        )
        self.register_buffer("places", positions(side), persistent=False)

    def likelihood(self, fibers: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-likelihoods by the number of channels, (M,), and z (M, C).

        `where` holds the numbers of the positions that fibers (M, C) come from.
        """
        z, log_det = self(fibers, self.places[where])
        channels = fibers.shape[1]
        constant = -channels * math.log(2 * math.pi) / 2
        return (constant - z.square().sum(1) / 2 + log_det) / channels, z


def subnet(channels: int) -> nn.Module:
    """Return the subnet of a block."""
    seen, second = channels - channels // 2 + CONDITION, channels // 2
    return nn.Sequential(nn.Linear(seen, 2 * seen), nn.ReLU(), nn.Linear(2 * seen, 2 * second))


def fibers_of(level: Tensor) -> Tensor:
    """Return maps (B, C, h, w) as (B h w, C), image by image and row by row."""
    return level.permute(0, 2, 3, 1).flatten(0, 2).contiguous()


def draw_order(count: int, rng: torch.Generator) -> tuple[Tensor, ...]:
    """Draw an order of items, (count,) long on the CPU."""
    return (torch.randperm(count, generator=rng),)


class CFlow(FlowMethod):
    """A conditional flow behind each stage."""

    name = "cflow"
    version = 1
    memory_of = ("largest",)
    Parameters = Parameters
    updates: int
    """Optimiser steps that a batch makes."""

    def stages(self, source: BackboneSource) -> tuple[int, ...]:
        """Read the first stage to the deepest one, the third at least."""
        return tuple(range(self.parameters.first_stage, max(DEEPEST, source.stage) + 1))

    def flow(self, channels: int, side: int) -> nn.Module:
        """Return the flow of a stage."""
        return ConditionalFlow(channels, side, self.parameters)

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Train on the normal images to the last step, then take their largest likelihoods."""
        self.prepare(train.normal.images.shape[-1], context)
        p, self.normal = self.parameters, train.normal
        steps = p.steps_per_epoch or p.passes * max(1, len(self.normal) // context.batch_size)
        self.cached = None if p.rotation else self.remembered(self.normal)
        rng = generator(context, "batches")
        step = self.step(self.batches(rng), rng, p.epochs * steps)
        run_steps(step, p.epochs, steps, context, self.after_epoch, self.plan)
        context.record("optimiser_steps", self.updates * p.epochs * steps)
        self.finish()
        del self.normal, self.cached

    def batches(self, rng: torch.Generator) -> Callable[[], list[Tensor]]:
        """Return what gives the features of the next batch of images."""
        context, rotation = self.context, self.parameters.rotation
        count = len(self.normal)
        stream = Stream(count, rng)
        turns = generator(context, "augment")
        images = torch.from_numpy(self.normal.images).to(context.device) if rotation else None

        def draw() -> tuple[Tensor, ...]:
            return (stream.take(min(context.batch_size, count)),)

        def batch() -> list[Tensor]:
            (which,) = self.plan.take(draw)
            if images is None:
                return [level[which] for level in self.cached or ()]
            (angles,) = self.plan.take(draw_angles, len(which), rotation, turns)
            turned = turn(images[which].float() / 255, angles)
            return self.read(normalise(turned).contiguous(memory_format=torch.channels_last))

        return batch

    def step(
        self, batch: Callable[[], list[Tensor]], rng: torch.Generator, steps: int
    ) -> Callable[[], Tensor]:
        """Return a function that trains all flows on a batch and returns the mean loss."""
        p, number = self.parameters, itertools.count()
        optimisers = [self.optimiser(flow) for flow in self.flows]

        def draw_rate() -> tuple[Tensor, ...]:
            return (torch.tensor(p.rate(next(number) / steps), dtype=torch.float64),)

        def step() -> Tensor:
            (rate,) = self.plan.take(draw_rate)
            losses = []
            for flow, optimiser, level in zip(self.flows, optimisers, batch(), strict=True):
                for group in optimiser.param_groups:
                    group["lr"].copy_(rate)
                losses += self.descend(flow, optimiser, level, rng)
            self.updates = len(losses)
            return torch.stack(losses).mean()

        return step

    def optimiser(self, flow: nn.Module) -> torch.optim.Optimizer:
        """Return Adam over a flow."""
        weights = list(flow.parameters())
        rate = learning_rate(self.parameters.lr, weights[0].device)
        return torch.optim.Adam(weights, rate, fused=True, capturable=rate.is_cuda)

    def descend(
        self, flow: nn.Module, optimiser: torch.optim.Optimizer, level: Tensor, rng: torch.Generator
    ) -> list[Tensor]:
        """Train a flow on the positions of a batch, shuffled; return the losses of its steps."""
        rows, grid = fibers_of(level), level[0, 0].numel()
        count = min(self.parameters.fibers, len(rows))
        (order,) = self.plan.take(draw_order, len(rows), rng)
        losses = []
        for some in order[: len(rows) // count * count].split(count):
            likelihood, _ = flow.likelihood(rows[some], some % grid)  # type: ignore[operator]
            value = -F.logsigmoid(likelihood).mean()
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            losses.append(value.detach())
        return losses

    @torch.inference_mode()
    def finish(self) -> None:
        """Take the largest likelihood of the normal images at each stage."""
        features: Iterable[Sequence[Tensor]] = self._features(self.normal)
        if self.cached is not None:
            features = zip(*(level.split(CHUNK) for level in self.cached), strict=True)
        largest = [torch.stack([g.amax() for g in self.likelihoods(f)]) for f in features]
        self.largest = torch.stack(largest).amax(0)

    def likelihoods(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the log-likelihoods of all positions by stage, (B, h, w) each in float64."""
        grids = []
        for flow, level in zip(self.flows, features, strict=True):
            shape = level.shape
            where = torch.arange(shape[2] * shape[3], device=level.device).repeat(len(level))
            likelihood, _ = flow.likelihood(fibers_of(level), where)  # type: ignore[operator]
            grids.append(likelihood.double().view(len(level), *shape[2:]))
        return grids

    def maps(self, features: list[Tensor]) -> Tensor:
        """Return minus the summed relative likelihoods, (B, size, size)."""
        total = torch.zeros((), dtype=torch.float64, device=features[0].device)
        for grid, largest in zip(self.likelihoods(features), self.largest, strict=True):
            relative = (grid - largest).exp().unsqueeze(1)
            total = total - F.interpolate(relative, self.size, mode="bilinear", align_corners=True)
        return total.squeeze(1)

    def pooled(self, features: list[Tensor]) -> Tensor:
        """Return the mean of z over positions, (B, channels of all stages)."""
        means = []
        for flow, level in zip(self.flows, features, strict=True):
            where = torch.arange(level[0, 0].numel(), device=level.device).repeat(len(level))
            _, z = flow.likelihood(fibers_of(level), where)  # type: ignore[operator]
            means.append(z.unflatten(0, (len(level), -1)).mean(1))
        return torch.cat(means, 1)

    def rehearse(self, size: int, context: Context) -> None:
        """Train on one image of zeros; more of them make more steps, no larger ones."""
        features = self.rehearsed(size, dataclasses.replace(context, batch_size=1))
        self.step(lambda: features, generator(context, "batches"), 1)()

    def memory(self, normals: int, size: int, context: Context) -> int:
        """Return the bytes of stored features, of a training step and of scoring."""
        assert context.backbone is not None
        shapes = self.shapes(size, context.backbone)
        with torch.device("meta"):
            flows = self.built(size, context)
        learnt = sum(p.numel() for p in flows.parameters())
        fixed = sum(b.numel() for b in flows.buffers())
        values = [channels * side**2 for channels, side in shapes]
        batch = min(normals, context.batch_size)
        p = self.parameters
        held = 0 if p.rotation else 4 * sum(values) * normals
        step = p.fibers * max(channels for channels, _ in shapes) * p.blocks * KEPT
        scoring = CHUNK * max(values) * KEPT
        return held + 4 * (sum(values) * 2 * batch + max(step, scoring) + 4 * learnt + fixed)
