"""PRN: segments anomalies by residuals to normal prototypes, taught by masks of labelled ones.

Reproduces: "Prototypical Residual Networks for Anomaly Detection and Localization" (Zhang et al.,
CVPR 2023). Its authors released nothing and the paper was read second-hand; this is written from a
description of a port by others (xcyao00/PRNet), whose constants may or may not be the paper's.

- A frozen backbone, always in evaluation, gives stages 1 to 3, and stage 4 where it has one.
- Prototypes of each stage: the centres of k-means over its whole maps of the normal images, one for
  ten images. A stage's residual is its squared difference to the nearest.
- Fusion, shared by features and residuals: each stage plus all deeper ones (1x1, enlarged) and all
  shallower ones (depthwise, strided). Features and residuals of a stage are then joined.
- Attention, three times a stage: between patches of a side, a half, a quarter and an eighth of the
  map, every value of a patch with its own weights; a residual block brings the four back to one.
- A second fusion, and a decoder from the deepest stage over the three to one logit a pixel.
- Half of the training images are normal, 30 % of them turned by up to 90 degrees. A quarter are
  simulated anomalies: Perlin noise masks textures into them, see `baselines.blocks.synthesis`. A
  quarter are extended ones: each labelled anomaly five times as it is, the rest pasted onto normal
  images after three of ten changes, in its place where two thirds of it meet the object, else each
  piece at a random point of the object.
- Loss: smooth L1 of the sigmoid map and 5 times focal (gamma 4, alpha 0.5). Adam 1e-4, weight decay
  1e-2, 700 epochs in batches of 48; the last step counts.
- Score: the mean of the map's 100 largest values. ResNet-18 at 256 px.

With `anomalies = "simulated"` no labelled anomaly and no mask is used: another method, near MemSeg.

The port's faults are not here: it trains on images that it tests on, chooses the epoch on the test
set, switches the frozen batch normalisation to batch statistics, and blends textures of [0, 1] into
images of [0, 255], so that its simulated anomalies are shadows.

Departures: simulated anomalies are MemSeg's. So half of the sources are the image itself, changed
and shuffled, the others a run's `external`, unchanged; their share is from U(0.15, 1). Published
are textures of DTD, changed, at U(0.2, 1). Foregrounds are Otsu's; the port has them as files.

Chosen here: ResNet-50, 224 px and batches of 16 by default as for all (`backbone`, `image_size`,
`batch_size`). `width` is that of the first stage, twice and four times it those behind; 1x1
convolutions bring other backbones to it, since a ResNet-50's own (256) makes it sixteen times as
costly. Where the backbone ends with stage 3, the decoder starts from it. A side is cut into 1, 2, 4
and 8 patches, or what divides it: at 224 px the last stage into 1, 2, 7 and 14. Everything is
enlarged bilinearly with aligned corners. Batches hold the kinds of images in fixed shares, where an
epoch shuffles 2 N; of 60 normal images or fewer, ten labelled ones leave nothing to be pasted. What
is turned are normal images and the sources of simulated anomalies; changes are those of
`synthesis.CHANGES`; a piece moves by its middle. k-means begins once, by k-means++. Weights of the
attention start from U(-1, 1), as those of a depthwise convolution.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from baselines.blocks.batches import generator, in_batches
from baselines.blocks.frozen import channels_of
from baselines.blocks.loop import learning_rate, run_steps
from baselines.blocks.plan import Plan
from baselines.blocks.segmentation import focal_loss
from baselines.blocks.synthesis import FOREGROUNDS
from baselines.blocks.weak import WeakMethod
from baselines.prn.anomalies import Batch, Batches
from baselines.prn.network import LEVELS, SCALES, Head, Network, sides_of
from bench.detector import BackboneSource, Context, MethodError, Samples, TrainingSet, parameter

ANOMALIES = {"extended": "weak", "simulated": "unsupervised"}
"""What is trained on beside normal images, by what that takes."""
CHUNK = 8
"""Images that are remembered or scored at once, so that neither takes more room than a step."""
REHEARSED = 40
"""Prototypes of a rehearsal: those of MVTec AD's largest category."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The defaults are the reading above."""

    anomalies: str = parameter("extended", choices=tuple(ANOMALIES))
    """`extended` ones and simulated ones, or only the latter, without labelled anomalies."""
    epochs: int = parameter(700, least=1)
    steps_per_epoch: int = parameter(0, least=0)
    """0: ceil(2 normals / batch_size), once over the normal images."""
    lr: float = parameter(1e-4, above=0)
    weight_decay: float = parameter(1e-2, least=0)
    focal_weight: float = parameter(5.0, least=0)
    gamma: float = parameter(4.0, least=0)
    prototypes: float = parameter(0.1, above=0, most=1)
    """By normal images."""
    width: int = parameter(64, least=2)
    attentions: int = parameter(3, least=0)
    scale: str = parameter("dim", choices=SCALES)
    """Products of tokens are divided by their number of values, or by its square root."""
    copies: int = parameter(5, least=0)
    """Times that a labelled anomaly is shown as it is, of N / 2 extended ones."""
    turned: float = parameter(0.3, least=0, most=1)
    """Share of the normal images that are turned."""
    foreground: str = parameter("otsu", choices=FOREGROUNDS)

    @property
    def weak(self) -> bool:
        """Whether labelled anomalies train."""
        return ANOMALIES[self.anomalies] == "weak"

    def count(self, normals: int) -> int:
        """Return the number of prototypes of a stage."""
        return max(1, int(self.prototypes * normals))


class PRN(WeakMethod):
    """Segments anomalies; scores, saves and explains as the weakly supervised methods do."""

    name = "prn"
    version = 1
    planned = True
    supervision: ClassVar[Any] = {"anomalies": ANOMALIES}
    settings = frozenset({"precision", "batch_size", "backbone", "external", "masks"})
    Parameters = Parameters
    side: int
    """Of the images, which the attention is made for."""

    def untrained(self, context: Context) -> Network:
        """Return the network as it is before training, on the CPU, and keep the context."""
        self.context, self.plan = context, Plan(context.device)
        if context.backbone is None:
            raise MethodError("this method needs a backbone")
        if context.batch_size < 4:
            raise MethodError("batch_size must be at least 4: two normal images, two anomalies")
        return Network(context.backbone, context.precision, self.head(context.backbone))

    def head(self, source: BackboneSource) -> Head:
        """Return the untrained part that is trained, for images of `self.side`."""
        if source.stage < LEVELS:
            raise MethodError(f"it reads stage 3, not only {source.stage}: --set stage=3")
        p, channels = self.parameters, channels_of(source.name, (1, 2, 3, source.stage))
        return Head(channels, self.side, p.width, p.attentions, p.scale)

    def fit(self, train_set: TrainingSet, context: Context) -> None:
        """Make the prototypes of the normal images and train to the last step."""
        p, normal = self.parameters, train_set.normal.images
        labelled = train_set.anomalous if p.weak else None
        if labelled is not None and not len(labelled):
            raise MethodError("anomalies = extended needs at least one labelled anomaly")
        if labelled is not None and labelled.masks is None:
            raise MethodError("anomalies = extended needs masks of the labelled anomalies")
        self.side = normal.shape[-1]
        self.begin(context)
        count = p.count(len(normal))
        images = self.evaluation(train_set.normal)
        self.network.remember(images, len(normal), count, generator(context, "references"))
        context.record("bank_vectors", count)
        context.record("bank_bytes", sum(level.nbytes for level in self.network.prototypes))
        kinds = {"foreground": p.foreground, "copies": p.copies, "turned": p.turned}
        steps = p.steps_per_epoch or -(-2 * len(normal) // context.batch_size)
        self.train(Batches(normal, labelled, context, **kinds, plan=self.plan), steps)
        self.network.eval()

    def evaluation(self, samples: Samples) -> Iterator[Tensor]:
        """Yield samples as the network takes them, few at a time."""
        few = min(CHUNK, self.context.score_batch_size)
        return in_batches(samples, dataclasses.replace(self.context, score_batch_size=few))

    def segmentation_loss(self, images: Tensor, anomalous: Tensor) -> Tensor:
        """Return the weighted sum of both losses of a batch."""
        logits, p = self.network(images).logits, self.parameters
        smooth = F.smooth_l1_loss(logits.sigmoid(), anomalous.float())
        both = torch.stack([torch.zeros_like(logits), logits], 1)
        return smooth + p.focal_weight * focal_loss(both, anomalous, p.gamma) / 2

    def train(self, batch: Callable[[], Batch], steps: int) -> None:
        """Train the network in place to the last step."""
        optimiser = self.optimiser()
        self.network.train()
        run_steps(
            lambda: self.step(batch(), optimiser),
            self.parameters.epochs,
            steps,
            self.context,
            self.after_epoch,
            self.plan if vars(type(self)).get("planned") else None,
        )

    def step(self, batch: Batch, optimiser: torch.optim.Optimizer) -> Tensor:
        """Make one step on a batch and return its loss."""
        value = self.segmentation_loss(*batch)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        return value.detach()

    def optimiser(self) -> torch.optim.Optimizer:
        """Return Adam over what is trained."""
        p, trained = self.parameters, [q for q in self.network.parameters() if q.requires_grad]
        rate = learning_rate(p.lr, trained[0].device)
        return torch.optim.Adam(
            trained, rate, weight_decay=p.weight_decay, fused=True, capturable=rate.is_cuda
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the network, its prototypes, and the side of the images."""
        stored = {f"prototypes.{i}": p.cpu() for i, p in enumerate(self.network.prototypes)}
        others = {k: v.numpy() for k, v in {**stored, "side": torch.tensor(self.side)}.items()}
        return super().state() | others

    def load_state(self, arrays: Mapping[str, NDArray[Any]], context: Context) -> None:
        """Build the network and fill it with what `state` returned."""
        names = [f"prototypes.{i}" for i in range(LEVELS)]
        absent = [name for name in ("side", *names) if name not in arrays]
        if absent:
            raise MethodError(f"the saved model does not fit: it lacks {absent[0]}")
        self.side = int(arrays["side"])
        rest = {k: v for k, v in arrays.items() if k not in ("side", *names)}
        super().load_state(rest, context)
        self.network.prototypes = [torch.from_numpy(arrays[n]).to(context.device) for n in names]
        self.network.remembered()

    def rehearse(self, size: int, context: Context) -> None:
        """Make one training step on images of zeros."""
        assert context.backbone is not None
        self.side = size
        source = dataclasses.replace(context.backbone, file=None)
        self.network = self.untrained(dataclasses.replace(context, backbone=source)).train()
        images = torch.zeros(context.batch_size, 3, size, size)
        stages = self.network.frozen(images[:1])[:LEVELS]
        self.network.prototypes = [
            stage.permute(0, 2, 3, 1).repeat(REHEARSED, 1, 1, 1) for stage in stages
        ]
        self.network.remembered()
        anomalous = torch.zeros(context.batch_size, size, size, dtype=torch.bool)
        self.step((images, anomalous), self.optimiser())

    def memory(self, normals: int, size: int, context: Context) -> int:
        """Return the bytes of the features that prototypes are made of, and of the head."""
        assert context.backbone is not None
        self.side = size
        with torch.device("meta"):
            learnt = sum(p.numel() for p in self.head(context.backbone).parameters())
        channels = channels_of(context.backbone.name, (1, 2, 3))
        values = sum(c * s**2 for c, s in zip(channels, sides_of(size), strict=True))
        return 4 * (values * (normals + self.parameters.count(normals)) + learnt)
