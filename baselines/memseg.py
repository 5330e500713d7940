"""MemSeg: a network that segments made-up anomalies, beside the nearest of a few stored normals.

Reproduces: MemSeg in ATAC-Net's Table 2, from "MemSeg: A semi-supervised method for image surface
defect detection using differences and commonalities" (Yang, Wu, Liu and Feng, arXiv 2205.00908).
Its authors released the inference alone (areylng/MemSeg); training is usually taken from a port
(TooTouch/MemSeg). This is written from descriptions of the three.

- A frozen backbone gives stages 1 to 3. Those of 30 random normal training images are stored.
- The memory read: of the stored images the one whose mean squared difference to the image, summed
  over the stages, is the least; each stage is joined with its squared difference to that one.
- Fusion: at each stage a 3x3 convolution weighted by coordinate attention (Hou et al., CVPR 2021)
  and two 3x3 convolutions to half the channels; deeper stages are added to shallower ones. Each is
  then weighted by the channel mean of its difference, times that of all deeper ones.
- A U-Net decoder goes from stage 4 up, meets the fused stages and the stem, and ends in two
  channels at the input's resolution; their softmax is the anomaly map.
- Half of a batch is normal, half holds made-up anomalies: `baselines.blocks.synthesis`.
- Loss 0.6 L1 + 0.4 focal (gamma 4) of the map; AdamW 3e-3, weight decay 5e-4, over 5000 steps: the
  first tenth rises from 1e-4, the rest falls back to it by a cosine. The last step counts.
- Score: the mean of the map's 100 largest values.

Defaults: the above, and what ATAC-Net's Table 2 states for all, ResNet-50 at 224 px. As published
it is ResNet-18 at 256 px, and the optimiser, its rates and steps are the port's, with a batch of 8:
a suite sets `backbone = "resnet18"`, `image_size = 256`, `batch_size = 8`. The port's table shows
the best step on the test set, and the port switches the frozen stages to training too, so that
their batch statistics leave those that the memory was made with; here they stay in evaluation.

Chosen here, where the descriptions are silent, differ, or know only ResNet-18:
- The stored images do not train (the authors' script; `memory_trains` is the port's way), and are
  at most half of the normal images.
- The stem is frozen like the stages behind it, for they would change with it and the memory would
  not; the port trains it. Stage 4 is trained, as in the port.
- Where the backbone ends with stage 3, the decoder starts from stage 3 as it is.
- Inside, `widths = "published"` keeps ResNet-18's 64, 128 and 256 channels, a 1x1 convolution
  bringing a wider stage to them; `backbone` takes as many as each stage has, which with ResNet-50
  makes the fusion sixteen times as costly, 40 GMAC an image.
- Coordinate attention weighs what the first 3x3 convolution gives; the port multiplies that by what
  the attention makes of the convolution's input.
- Batch normalisation and ReLU after the 3x3 convolutions, two in each step of the decoder;
  everything is enlarged by nearest neighbour but for the weights, which are bilinear.
- Foregrounds and kinds of anomalies: see `baselines.blocks.synthesis`. Half of them take images
  from a run's `external`: `textures`, the default, tiles of three that come with scikit-image,
  or those in a folder; `mvtec_ad`; or `none`, and the image itself serves for all. As published
  they are those of DTD.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.blocks.backbone import normalise
from baselines.blocks.batches import Stream, generator, in_batches
from baselines.blocks.frozen import Features
from baselines.blocks.loop import learning_rate, run_steps
from baselines.blocks.plan import Plan
from baselines.blocks.segmentation import (
    Decoder,
    Fusion,
    anomaly_maps,
    focal_loss,
    l1_loss,
    spatial_gates,
)
from baselines.blocks.synthesis import FOREGROUNDS, Synthesis, foregrounds
from baselines.blocks.weak import Seen, WeakMethod, WeakNetwork
from bench.detector import BackboneSource, Context, MethodError, Samples, TrainingSet, parameter

WIDTHS = (64, 128, 256)
"""Channels of ResNet-18's stages 1 to 3."""
TOP = 100
COARSE = 56
"""Largest side of the maps that explain."""
CHUNK = 8
"""Images that are remembered or scored at once, so that neither takes more room than a step."""

Batch = tuple[Tensor, Tensor]
"""(B, 3, H, W) float32, normalised, channels last; (B, H, W) bool, where anomalies are."""


class Output(NamedTuple):
    """What the network makes of B images."""

    logits: Tensor
    """(B, 2, H, W): normal, anomalous."""
    fused: list[Tensor]
    """(B, C, h, w) each, C being the stage's inner width."""
    gate: Tensor
    """(B, h, w): the weights of stage 1."""
    distance: Tensor
    """(B,): to the nearest stored image, the mean squared differences of the stages summed."""


class Network(WeakNetwork):
    """The frozen stages, what is remembered of them, and the trained rest."""

    bank: list[Tensor]
    """What the M stored images are at each stage: (M, h, w, C)."""

    def __init__(self, source: BackboneSource, precision: str, widths: str) -> None:
        super().__init__()
        if source.stage < 3:
            raise MethodError(f"it reads stage 3, not only {source.stage}: --set stage=3")
        self.frozen = Features(source, precision, tuple(range(source.stage + 1)))
        ends = self.frozen.ends
        stem, *channels = (_channels(self.frozen.blocks[: end + 1]) for end in ends)
        self.deepest = nn.Sequential(*self.frozen.blocks[ends[3] + 1 :]).requires_grad_(True)
        self.frozen.blocks, self.frozen.ends = self.frozen.blocks[: ends[3] + 1], ends[:4]
        inner = tuple(map(min, channels[:3], WIDTHS)) if widths == "published" else channels[:3]
        self.fusion = Fusion(tuple(channels[:3]), tuple(inner))
        self.decoder = Decoder(channels[-1], (stem, *inner))

    def remember(self, images: Iterable[Tensor]) -> None:
        """Store the stages of normalised images, which come in batches."""
        with torch.no_grad():
            read = [self.frozen(batch)[1:] for batch in images]
        rows = [torch.cat([r[level] for r in read]) for level in range(3)]
        self.bank = [r.permute(0, 2, 3, 1).contiguous() for r in rows]
        self.recalled()

    def recalled(self) -> None:
        """Take the squared norms of what is stored."""
        self.norms = [torch.linalg.vector_norm(b.flatten(1), dim=1).square() for b in self.bank]

    def recall(self, stages: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the stages (B, C, h, w) of the nearest stored image, and its distance (B,)."""
        distances = torch.zeros((), device=stages[0].device)
        for stage, bank, norms in zip(stages, self.bank, self.norms, strict=True):
            x, stored = stage.permute(0, 2, 3, 1).flatten(1), bank.flatten(1)
            squares = (x * x).sum(1, keepdim=True) + norms
            distances = distances + (squares - 2 * x @ stored.T) / x.shape[1]
        distance, nearest = distances.min(1)
        return [b[nearest].permute(0, 3, 1, 2) for b in self.bank], distance

    def forward(self, images: Tensor) -> Output:
        """Return what the network makes of normalised images (B, 3, H, W)."""
        with torch.no_grad():
            stem, *stages = self.frozen(images)
            stored, distance = self.recall(stages)
            differences = [(a - b) ** 2 for a, b in zip(stages, stored, strict=True)]
            gates = spatial_gates(differences)
        joined = [torch.cat(pair, 1) for pair in zip(stages, differences, strict=True)]
        fused = self.fusion(joined, gates)
        logits = self.decoder(self._deepest(stages[-1]), [stem, *fused], images.shape[2:])
        return Output(logits, fused, gates[0].squeeze(1), distance)

    def _deepest(self, stage: Tensor) -> Tensor:
        kind = self.frozen.autocast
        with torch.autocast(stage.device.type, kind or torch.bfloat16, enabled=kind is not None):
            return self.deepest(stage).float()

    def scores(self, images: Tensor) -> Tensor:
        """Return (B,) scores in [0, 1]."""
        return top_mean(anomaly_maps(self(images).logits))

    def embed(self, images: Tensor) -> Tensor:
        """Return the pooled fused stages, (B, sum of their widths)."""
        return torch.cat([stage.mean((2, 3)) for stage in self(images).fused], 1)

    def explain(self, images: Tensor) -> Seen:
        """Return the map, the weights of stage 1, and the distance to the nearest stored image."""
        output = self(images)
        maps = anomaly_maps(output.logits)
        height, width = (min(COARSE, side) for side in maps.shape[1:])
        coarse = F.adaptive_avg_pool2d(maps.unsqueeze(1), (height, width)).squeeze(1)
        return Seen({"score": coarse, "difference": output.gate}, {"distance": output.distance})


def _channels(blocks: nn.Module) -> int:
    """Return the width of the last batch normalisation, which closes every stage."""
    return [m for m in blocks.modules() if isinstance(m, nn.BatchNorm2d)][-1].num_features


def top_mean(maps: Tensor) -> Tensor:
    """Return the mean of the 100 largest values of each map, or of all where they are fewer."""
    flat = maps.flatten(1)
    return flat.topk(min(TOP, flat.shape[1]), dim=1).values.mean(1)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The defaults are the reading above."""

    epochs: int = parameter(50, least=1)
    steps_per_epoch: int = parameter(100, least=1)
    lr: float = parameter(3e-3, above=0)
    lr_end: float = parameter(1e-4, least=0)
    """Where the rate begins and ends."""
    warmup: float = parameter(0.1, least=0, most=1)
    """Share of the steps in which the rate rises."""
    weight_decay: float = parameter(5e-4, least=0)
    l1_weight: float = parameter(0.6, least=0)
    focal_weight: float = parameter(0.4, least=0)
    gamma: float = parameter(4.0, least=0)
    memory: int = parameter(30, least=1)
    """Normal images that are stored."""
    memory_trains: bool = False
    """Whether they are trained on as well."""
    foreground: str = parameter("otsu", choices=FOREGROUNDS)
    widths: str = parameter("published", choices=("published", "backbone"))

    @property
    def steps(self) -> int:
        """How many steps there are in all."""
        return self.epochs * self.steps_per_epoch

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rising = round(self.warmup * self.steps)
        if step < rising:
            return self.lr_end + (self.lr - self.lr_end) * (step + 1) / rising
        share = (step - rising) / max(1, self.steps - rising)
        return self.lr_end + (self.lr - self.lr_end) * (1 + math.cos(math.pi * share)) / 2


class Batches:
    """Holds the normal images that train, on the device, and makes batches of them."""

    def __init__(
        self, images: NDArray[np.uint8], foreground: str, context: Context, plan: Plan | None = None
    ) -> None:
        self._plan = plan or Plan(context.device)
        self._images = torch.from_numpy(images).to(context.device)
        self._foregrounds = torch.from_numpy(foregrounds(images, foreground)).to(context.device)
        external, rng = context.external, generator(context, "augment")
        outside = None if external is None else torch.from_numpy(external).to(context.device)
        self._synthesis = Synthesis(rng, outside, generator(context, "external"), self._plan)
        batches = generator(context, "batches")
        self._first, self._sources = Stream(len(images), batches), Stream(len(images), batches)
        self._normals = (context.batch_size + 1) // 2
        self._made = context.batch_size // 2

    def __call__(self) -> Batch:
        """Return a batch, its first half (or one more) normal."""
        normal, sources = self._plan.take(self._draw)
        picked = self._images[torch.cat([normal, sources])].float() / 255
        made, anomalous = self._synthesis(picked[self._normals :], self._foregrounds[sources])
        nothing = anomalous.new_zeros(self._normals, *anomalous.shape[1:])
        return ready(torch.cat([picked[: self._normals], made])), torch.cat([nothing, anomalous])

    def _draw(self) -> tuple[Tensor, Tensor]:
        return self._first.take(self._normals), self._sources.take(self._made)


def ready(images: Tensor) -> Tensor:
    """Return images (B, 3, H, W) in [0, 1] as the network takes them."""
    return normalise(images).contiguous(memory_format=torch.channels_last)


class MemSeg(WeakMethod):
    """Segments anomalies; scores, saves and explains as the weakly supervised methods do."""

    name = "memseg"
    version = 1
    planned = True
    supervision = "unsupervised"
    settings = frozenset({"precision", "batch_size", "backbone", "external"})
    Parameters = Parameters

    def untrained(self, context: Context) -> Network:
        """Return the network as it is before training, on the CPU, and keep the context."""
        self.context, self.plan = context, Plan(context.device)
        if context.backbone is None:
            raise MethodError("this method needs a backbone")
        if context.batch_size < 2:
            raise MethodError("batch_size must be at least 2: a normal and an anomalous image")
        return Network(context.backbone, context.precision, self.parameters.widths)

    def fit(self, train_set: TrainingSet, context: Context) -> None:
        """Store some of the normal images and train on the others to the last step."""
        self.begin(context)
        normal = train_set.normal.images
        stored, rest = self.parted(len(normal))
        few = torch.from_numpy(normal[stored]).split(CHUNK)
        self.network.remember(ready(i.to(context.device).float() / 255) for i in few)
        context.record("bank_vectors", len(stored))
        context.record("bank_bytes", sum(b.nbytes for b in self.network.bank))
        self.train(Batches(normal[rest], self.parameters.foreground, context, self.plan))
        self.network.eval()

    def evaluation(self, samples: Samples) -> Iterator[Tensor]:
        """Yield samples as the network takes them, few at a time."""
        few = min(CHUNK, self.context.score_batch_size)
        return in_batches(samples, dataclasses.replace(self.context, score_batch_size=few))

    def parted(self, normals: int) -> tuple[list[int], list[int]]:
        """Draw which of so many normal images are stored, and which train."""
        order = torch.randperm(normals, generator=generator(self.context, "references")).tolist()
        if self.parameters.memory_trains:
            return sorted(order[: self.parameters.memory]), list(range(normals))
        stored = min(self.parameters.memory, max(1, normals // 2))
        return sorted(order[:stored]), sorted(order[stored:] or order)

    def segmentation_loss(self, images: Tensor, anomalous: Tensor) -> Tensor:
        """Return the weighted sum of both losses of a batch."""
        logits, p = self.network(images).logits, self.parameters
        focal = focal_loss(logits, anomalous, p.gamma)
        return p.l1_weight * l1_loss(logits, anomalous) + p.focal_weight * focal

    def train(self, batch: Callable[[], Batch]) -> None:
        """Train the network in place to the last step."""
        p = self.parameters
        optimiser, steps = adamw(self.network, p), itertools.count()

        def draw_rate() -> tuple[Tensor, ...]:
            return (torch.tensor(p.rate(next(steps)), dtype=torch.float64),)

        def step() -> Tensor:
            value = self.segmentation_loss(*batch())
            (rate,) = self.plan.take(draw_rate)
            descend(value, optimiser, rate)
            return value.detach()

        self.network.train()
        plan = self.plan if vars(type(self)).get("planned") else None
        run_steps(step, p.epochs, p.steps_per_epoch, self.context, self.after_epoch, plan)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the network and what it remembers."""
        bank = {f"bank.{i}": b.cpu().numpy() for i, b in enumerate(self.network.bank)}
        return super().state() | bank

    def load_state(self, arrays: Mapping[str, NDArray[Any]], context: Context) -> None:
        """Build the network and fill it with what `state` returned."""
        bank = {k: v for k, v in arrays.items() if k.startswith("bank.")}
        super().load_state({k: v for k, v in arrays.items() if k not in bank}, context)
        self.network.bank = [torch.from_numpy(bank[k]).to(context.device) for k in sorted(bank)]
        self.network.recalled()

    def rehearse(self, size: int, context: Context) -> None:
        """Make one training step on images of zeros."""
        self.network = self.untrained(context).train()
        self.network.remember(torch.zeros(self.parameters.memory, 3, size, size).split(CHUNK))
        images = torch.zeros(context.batch_size, 3, size, size)
        anomalous = torch.zeros(context.batch_size, size, size, dtype=torch.bool)
        value = self.segmentation_loss(images, anomalous)
        descend(value, adamw(self.network, self.parameters), torch.zeros(()))


def adamw(network: nn.Module, parameters: Parameters) -> torch.optim.Optimizer:
    """Return AdamW over what is trained."""
    trained = [p for p in network.parameters() if p.requires_grad]
    rate, decay = learning_rate(parameters.lr, trained[0].device), parameters.weight_decay
    return torch.optim.AdamW(trained, rate, weight_decay=decay, fused=True, capturable=rate.is_cuda)


def descend(value: Tensor, optimiser: torch.optim.Optimizer, rate: Tensor) -> None:
    """Make one step of a rate, (), down the gradient of a loss."""
    optimiser.zero_grad()
    value.backward()
    for group in optimiser.param_groups:
        group["lr"].copy_(rate)
    optimiser.step()
