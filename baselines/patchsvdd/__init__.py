"""Patch-SVDD: patches embedded by a network that guesses how they lie to each other.

Reproduces: Patch-SVDD in ATAC-Net's Table 2, from "Patch SVDD: Patch-level SVDD for Anomaly
Detection and Segmentation" (Yi and Yoon, ACCV 2020). Written from a description of it and of its
authors' code (nuclearboy95/Anomaly-Detection-PatchSVDD-PyTorch).

- Input: the image minus the mean training image, pixel by pixel, over 255. No ImageNet weights.
- Encoders: one of 32 px patches, and one of 64 px patches that joins what the first says of their
  four quadrants. Both give 64 values in (-1, 1).
- Position task, of each size: two patches, the second displaced by 3K/4 + U{0 .. K/4 - 1} along one
  or both axes and clipped to the image; colours (one normal draw of deviation 0.02 for a channel)
  and pixels (0.02) jittered; which of 8 directions it was, from the difference of the embeddings.
- SVDD term, of each size: a patch and itself displaced by up to K/32 px, never by none; the mean
  L2 norm of the difference of the embeddings.
- Loss: position (64) + position (32) + lambda (SVDD (64) + SVDD (32)); Adam 1e-4. The last step
  counts; nothing is evaluated before or between, whereas the released script evaluates on the test
  set after every pass, and its users report the best one.
- The embeddings of all training patches are kept, of 64 px every 16 px, of 32 px every 4. A patch
  is as anomalous as its nearest one is far (L2), a pixel as the mean of the patches over it; the
  maps of the two sizes are multiplied; the image's score is the maximum.

The budget is part of the result: it is in the parameters, so in a run's identity. Published are 300
passes over the training set repeated 100 times, batch 64 (`epochs = 300`, `steps_per_epoch = 0`,
`batch_size = 64`): 98,000 steps on the 209 images of bottle, three days of a CPU core. The default
is 1,000 steps. A loss that stays at 2 log 8 = 4.16 says that no direction was learnt; then images
are scored by the embedding of a network as it began.

`svdd_weight` is lambda. The default 1 is the released code's; its README's example (bottle) and its
author's advice (grid) have 0.001, and the values behind the published table, tuned for each
category, are not published. Where it is too large all embeddings become one and the AUROC means
nothing: a run's `embedding_std` tells. In 1,000 steps 1 is too large (3e-7 on Head-CT), and
`table2-cpu` has 0.001.

Chosen here, where the description is silent: the 32 px encoder is one and the same in both tasks;
biases everywhere; torch's usual initial weights; the last layer of the direction classifier has
columns of norm 1 (the 8 weights of an input) and learns through that (that of the released code
lets no gradient through, and stays as it began); the SVDD displacement turns round at the border,
where clipping would leave none; a batch's images serve all four tasks, each
with patches of its own; jitter is of the position task alone; pixels under no patch count 0; exact
neighbours, not an approximate index. The input has the run's image_size; the paper had 256 px. All
is float32: the SVDD differences lie below the resolution of bfloat16. An image of
`train_images_per_s` is one of a batch, out of which eight patches are cut.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.blocks.batches import Stream, generator, joined
from baselines.blocks.loop import learning_rate, run_steps
from baselines.blocks.neighbours import COLUMNS, ROWS, Bank
from baselines.blocks.plan import Plan
from baselines.patchsvdd.patches import (
    DIRECTIONS,
    cut,
    draw_noise,
    near_pairs,
    position_pairs,
    spreading,
)
from bench.detector import Context, Explanation, MethodError, Samples, TrainingSet, parameter

SIDES = (64, 32)
"""Patch sizes in pixels; the first is twice the second."""
STRIDES = {64: 16, 32: 4}
"""Of the patches that are kept and scored, in pixels."""
DIMENSIONS = 64
CHANNELS = (3, 32, 64, 128, 128, 64, 32, 32, DIMENSIONS)
SLOPE = 0.1
JITTER = 0.02
"""Deviation of the noise, of images in 0 .. 1."""
REPEATS = 100
"""How often a pass of the published length goes over the training images."""
LEAST_SIZE = 67
"""Side of an image that lets every 64 px patch move by 2 px to one side at least."""
COARSE = 56
"""Side of the maps that explain."""
CHUNK = 8
"""Images embedded at once."""
STEP_BYTES = 5 << 20
"""Memory of a step for each image of its batch: activations of 20 patches of 32 px. Weights,
gradients and Adam's moments take as much as two more images."""
PIXEL_BYTES = 300
"""Memory of embedding for each pixel of an image: two maps of 128 channels at half its side."""


class Encoders(nn.Module):
    """The encoder of 32 px patches, and the one of 64 px patches on top of it."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(CHANNELS[:-1]):
            layers += [nn.Conv2d(before, after, 3, 1 if layers else 2), nn.LeakyReLU(SLOPE, True)]
        self.small = nn.Sequential(*layers)
        self.small_last = nn.Conv2d(CHANNELS[-2], DIMENSIONS, 3)
        self.join = nn.Conv2d(DIMENSIONS, 128, 2)
        self.large_last = nn.Conv2d(128, DIMENSIONS, 1)

    def _large(self, stitched: Tensor) -> Tensor:
        return torch.tanh(self.large_last(F.leaky_relu(stitched, SLOPE)))

    def forward(self, patches: Tensor) -> Tensor:
        """Embed patches (B, 3, K, K), K = 64 or 32 -> (B, 64)."""
        if patches.shape[-1] == 32:
            return torch.tanh(self.small_last(self.small(patches))).flatten(1)
        quadrants = patches.unflatten(2, (2, -1)).unflatten(4, (2, -1)).permute(0, 2, 4, 1, 3, 5)
        embedded = self(quadrants.flatten(0, 2)).view(-1, 2, 2, DIMENSIONS)
        return self._large(self.join(embedded.permute(0, 3, 1, 2))).flatten(1)

    def grids(self, images: Tensor) -> dict[int, Tensor]:
        """Embed all patches of images (B, 3, S, S) at their strides -> (B, 64, n, n) by size.

        As patch by patch, but neighbours share what they have in common. The first convolution
        halves the grid and the last is asked for at every other place: stride 4. A quadrant of a
        64 px patch lies 32 px from the next: 8 places of that grid.
        """
        last, join = self.small_last, self.join
        stride, dilation = STRIDES[32] // 2, 32 // STRIDES[32]
        small = torch.tanh(F.conv2d(self.small(images), last.weight, last.bias, stride))
        n = (images.shape[-1] - 32) // STRIDES[32] + 1
        small = small[:, :, :n, :n]  # one more may fit: of 32 px the last is never read
        stride = STRIDES[64] // STRIDES[32]
        stitched = F.conv2d(small, join.weight, join.bias, stride, dilation=dilation)
        return {64: self._large(stitched), 32: small}


class Directions(nn.Module):
    """Which of the 8 directions leads from one patch to another, by their embeddings."""

    def __init__(self) -> None:
        super().__init__()
        slope = nn.LeakyReLU(SLOPE)
        layers = nn.Linear(DIMENSIONS, 128), slope, nn.Linear(128, 128), slope
        self.hidden = nn.Sequential(*layers)
        self.last = nn.Linear(128, len(DIRECTIONS))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return (B, 8) logits for embeddings (B, 64) each."""
        weight = F.normalize(self.last.weight, dim=0)
        return F.linear(self.hidden(first - second), weight, self.last.bias)


class Network(nn.Module):
    """Both encoders, and a direction classifier for each patch size."""

    def __init__(self, rng: torch.Generator) -> None:
        super().__init__()
        self.encoders = Encoders()
        self.directions = nn.ModuleDict({str(side): Directions() for side in SIDES})
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                bound = layer.weight[0].numel() ** -0.5
                for values in layer.parameters():
                    nn.init.uniform_(values, -bound, bound, generator=rng)


class PatchSVDD:
    """Scores patches by their distance to normal patches, in a learnt embedding."""

    name = "patchsvdd"
    version = 1
    supervision = "unsupervised"
    settings = frozenset({"batch_size"})

    @dataclass(frozen=True, kw_only=True)
    class Parameters:
        """As published, save for the budget."""

        epochs: int = parameter(20, least=1)
        steps_per_epoch: int = parameter(50, least=0)
        """0: ceil(100 normals / batch_size), a pass as published."""
        lr: float = parameter(1e-4, above=0)
        svdd_weight: float = parameter(1.0, least=0)

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.plan = Plan()

    def untrained(self, size: int, context: Context) -> Network:
        """Return the network before training, on the CPU, for images of a size; keep both."""
        if size < LEAST_SIZE:
            raise MethodError(
                f"its patches of 64 px need images of {LEAST_SIZE} px at least, not {size}:"
                f" --set image_size={LEAST_SIZE} or more"
            )
        self.context, self.plan = context, Plan(context.device)
        self.weights = {k: spreading(size, k, STRIDES[k]).to(context.device) for k in SIDES}
        return Network(generator(context, "init"))

    def begin(self, size: int, context: Context) -> None:
        """Build the network on the device."""
        network = self.untrained(size, context)
        self.network = network.to(context.device).to(memory_format=torch.channels_last)

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Train the encoders, then embed all patches of the normal images."""
        self.begin(train.normal.images.shape[-1], context)
        images = train.normal.images
        mean = images.sum(0, dtype=np.int64) / len(images)
        self.mean = torch.from_numpy(mean.astype(np.float32)).to(context.device)
        self._train(self._centred(train.normal.images))
        self._remember(train.normal)

    def _centred(self, images: NDArray[np.uint8]) -> Tensor:
        raw = torch.from_numpy(images).to(self.context.device).float()
        return raw.sub_(self.mean).div_(255)

    def _train(self, images: Tensor) -> None:
        context, parameters = self.context, self.parameters
        step = self.step(images)
        steps = parameters.steps_per_epoch or math.ceil(REPEATS * len(images) / context.batch_size)
        self.network.train()
        run_steps(step, parameters.epochs, steps, context, plan=self.plan)
        self.network.eval()

    def step(self, images: Tensor) -> Callable[[], Tensor]:
        """Return a function that makes one training step on images and returns its loss."""
        draws, noise = generator(self.context, "batches"), generator(self.context, "augment")
        stream = Stream(len(images), draws)
        weights, device = self.network.parameters(), images.device
        rate = learning_rate(self.parameters.lr, device)
        optimiser = torch.optim.Adam(weights, rate, fused=True, capturable=device.type == "cuda")

        def draw() -> tuple[Tensor, ...]:
            return (stream.take(self.context.batch_size),)

        def step() -> Tensor:
            (which,) = self.plan.take(draw)
            value = self.loss(images, which, draws, noise)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            return value.detach()

        return step

    def loss(
        self, images: Tensor, which: Tensor, draws: torch.Generator, noise: torch.Generator
    ) -> Tensor:
        """Return the loss of patches out of the centred images of a batch."""
        value, count, size = images.new_zeros(()), len(which), images.shape[-1]
        for side in SIDES:
            *far, direction = self.plan.take(position_pairs, count, side, size, draws)
            near = self.plan.take(near_pairs, count, side, size, draws)
            pairs = [cut(images, which, at, side) for at in (*far, *near)]
            for i in range(len(far)):
                (jitter,) = self.plan.take(draw_noise, count, side, JITTER, noise)
                pairs[i] = pairs[i] + jitter
            patches = torch.cat(pairs).contiguous(memory_format=torch.channels_last)
            one, other, still, moved = self.network.encoders(patches).chunk(4)
            logits = self.network.directions[str(side)](one, other)
            position = F.cross_entropy(logits, direction)
            svdd = torch.linalg.vector_norm(still - moved, dim=1).mean()
            value = value + position + self.parameters.svdd_weight * svdd
        return value

    def _grids(self, samples: Samples) -> Iterator[dict[int, Tensor]]:
        """Yield the embeddings of all patches of a few images after the other."""
        few = min(CHUNK, self.context.score_batch_size)
        for start in range(0, len(samples), few):
            images = self._centred(samples.images[start : start + few])
            yield self.network.encoders.grids(images)

    @torch.inference_mode()
    def _remember(self, normal: Samples) -> None:
        patches = {k: len(w) ** 2 for k, w in self.weights.items()}
        banks = {k: self.mean.new_empty(n * len(normal), DIMENSIONS) for k, n in patches.items()}
        filled = dict.fromkeys(SIDES, 0)
        for grids in self._grids(normal):
            for side, grid in grids.items():
                embedded = vectors(grid)
                banks[side][filled[side] : filled[side] + len(embedded)] = embedded
                filled[side] += len(embedded)
        self.context.record("bank_vectors", sum(map(len, banks.values())))
        self.context.record("bank_bytes", sum(b.nbytes for b in banks.values()))
        self.context.record("embedding_std", min(float(b.std(0).mean()) for b in banks.values()))
        self.banks = {k: Bank(b) for k, b in banks.items()}

    def _maps(self, samples: Samples) -> Iterator[Tensor]:
        """Yield anomaly maps (B, S, S) of a few images after the other."""
        for grids in self._grids(samples):
            maps = []
            for side, grid in grids.items():
                distances = self.banks[side].nearest(vectors(grid), 1)[0]
                weights = self.weights[side]
                maps.append(weights.T @ distances.view(-1, *grid.shape[2:]) @ weights)
            yield maps[0] * maps[1]

    @torch.inference_mode()
    def score(self, samples: Samples) -> NDArray[np.float32]:
        """Return (N,) scores, the maxima of the maps."""
        return joined([maps.amax((1, 2)) for maps in self._maps(samples)])

    @torch.inference_mode()
    def explain(self, samples: Samples) -> Explanation:
        """Return the anomaly map of each image, averaged to a coarse grid."""
        coarse = [F.adaptive_avg_pool2d(maps, COARSE) for maps in self._maps(samples)]
        return Explanation({"score": joined(coarse)})

    @torch.inference_mode()
    def embed(self, samples: Samples) -> NDArray[np.float32]:
        """Return the mean embedding of the patches of either size, (N, 128)."""
        means = [[g.mean((2, 3)) for g in grids.values()] for grids in self._grids(samples)]
        return joined([torch.cat(m, 1) for m in means])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the network, the mean image and the embeddings of the normal patches."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {"mean": self.mean, **{f"bank.{k}": b.vectors for k, b in self.banks.items()}}
        return {k: v.detach().cpu().numpy() for k, v in tensors.items()}

    def load_state(self, arrays: Mapping[str, NDArray[Any]], context: Context) -> None:
        """Build the network and take over what `state` returned."""
        tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
        network = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith("network.")}
        try:
            self.begin(tensors["mean"].shape[-1], context)
            self.network.load_state_dict(network)
            self.mean = tensors["mean"].to(context.device)
            self.banks = {k: Bank(tensors[f"bank.{k}"].to(context.device)) for k in SIDES}
        except (RuntimeError, KeyError) as error:
            first = str(error).partition("\n")[0]
            raise MethodError(f"the saved model does not fit: {first}") from None
        self.network.eval()

    def rehearse(self, size: int, context: Context) -> None:
        """Make one training step on images of zeros."""
        self.network = self.untrained(size, context).train()
        self.step(torch.zeros(context.batch_size, 3, size, size))()

    def memory(self, normals: int, size: int, context: Context) -> int:
        """Return the bytes of training, or of the embeddings and what is done beside them."""
        patches = sum(((size - k) // STRIDES[k] + 1) ** 2 for k in SIDES)
        training = normals * 3 * size * size * 4 + (context.batch_size + 2) * STEP_BYTES
        embedding = min(CHUNK, context.score_batch_size) * size * size * PIXEL_BYTES
        search = ROWS * COLUMNS[torch.device(context.device).type] * 8
        return max(training, 2 * normals * patches * DIMENSIONS * 4 + embedding + search)


def vectors(grid: Tensor) -> Tensor:
    """Return embeddings (B, 64, n, n) as (B n n, 64), row by row."""
    return grid.permute(0, 2, 3, 1).flatten(0, 2).contiguous()
