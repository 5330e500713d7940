"""Weakly supervised methods: their batches, training, scoring, saving and explaining.

A method adds its network, its batches where they are its own, and its loss. All images of a run lie
on the device as uint8; a batch is an index, and its augmentation a few tensor operations.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.blocks.backbone import Backbone, normalise
from baselines.blocks.batches import Stream, generator, in_batches, joined
from baselines.blocks.loop import learning_rate, run_steps
from baselines.blocks.plan import Plan
from baselines.blocks.pseudo_anomaly import draw_angles, draw_pastes, paste, spread, turn
from bench.detector import Context, Explanation, MethodError, Samples, TrainingSet, parameter

PATCH_SOURCES = ("same", "normal", "anomaly")
"""Where the patch of a pseudo anomaly is cut: the image itself (DRA's "CutMix"), any normal
(CutMix proper), or a labelled anomaly (AHL)."""

NORMAL, SEEN, PSEUDO, EXTERNAL = range(4)
"""Kinds of training images: normal, labelled anomaly, pseudo anomaly, from another dataset."""

Batch = tuple[Tensor, Tensor]
"""(B, 3, H, W) float32, normalised, channels last; (B,) long kinds. Where a method takes several
augmentations of an image, (A * B, 3, H, W): the batch augmented once, then anew."""


class BatchLoss(NamedTuple):
    """What a network makes of a training batch."""

    value: Tensor
    """The scalar to minimise."""
    scores: Tensor
    """(B,) anomaly scores in training mode."""
    pushed: Tensor | None = None
    """(B,), what the loss pushes above its margin for labelled anomalies; None without margin."""


@dataclass(frozen=True, kw_only=True)
class TrainingParameters:
    """The parameters that all weakly supervised methods share.

    Rate, epochs and decay are as the ATAC-Net paper states, the rest is our reading of it.
    """

    lr: float = parameter(1e-3, above=0)
    backbone_multiplier: float = parameter(1.0, least=0)
    """The backbone learns at `lr` times this."""
    weight_decay: float = parameter(1e-5, least=0)
    clip: float = parameter(1.0, above=0)
    """Largest norm of the gradient."""
    epochs: int = parameter(30, least=1)
    steps_per_epoch: int = parameter(0, least=0)
    """0: ceil(normals / (batch_size / 2)), once over the normals."""
    lr_step: int = parameter(10, least=1)
    lr_gamma: float = parameter(0.1, above=0, most=1)
    """The learning rate falls by this factor every `lr_step` epochs."""
    rotation: float = parameter(180.0, least=0, most=180)
    """Training images turn by a uniform angle in +- this many degrees."""
    patch_source: str = parameter("same", choices=PATCH_SOURCES)


class TrainingImages:
    """The training images on the device, picked and augmented for batches."""

    def __init__(
        self,
        normal: NDArray[np.uint8],
        anomalous: NDArray[np.uint8],
        context: Context,
        parameters: TrainingParameters,
        plan: Plan | None = None,
    ) -> None:
        if not len(anomalous):
            raise MethodError("a weakly supervised method needs at least one labelled anomaly")
        self.images = torch.from_numpy(np.concatenate([normal, anomalous])).to(context.device)
        self.normals, self.anomalies = len(normal), len(anomalous)
        self.plan = plan or Plan(context.device)
        self._parameters = parameters
        self._augment = generator(context, "augment")

    def pick(self, indices: Tensor) -> Tensor:
        """Return images by index, anomalies after the normals: (B, 3, H, W) float in [0, 1]."""
        return self.images[indices.to(self.images.device)].float() / 255

    def draw_pseudo(self, chosen: Tensor) -> tuple[Tensor, ...]:
        """Draw what turns the chosen of B images, (B,) bool, into pseudo anomalies, on the CPU.

        It is what `draw_pastes` gives for B images; before it, unless patches come from the images
        themselves, the indices of their sources, (B,) long.
        """
        low, high = {
            "same": (0, 0),
            "normal": (0, self.normals),
            "anomaly": (self.normals, self.normals + self.anomalies),
        }[self._parameters.patch_source]
        n, (height, width) = int(chosen.sum()), self.images.shape[2:]
        sources = [torch.randint(low, high, (n,), generator=self._augment)] if high else []
        return spread((*sources, *draw_pastes(n, height, width, self._augment)), chosen)

    def pseudo(self, images: Tensor, drawn: Sequence[Tensor] = ()) -> Tensor:
        """Turn normal images into pseudo anomalies: those that were drawn, or else all."""
        drawn = drawn or self.draw_pseudo(torch.ones(len(images), dtype=torch.bool))
        drawn = [tensor.to(images.device) for tensor in drawn]
        if images.is_cpu and not (chosen := drawn[-3][:, 0] > 0).all():
            # Shapes may vary here: no time goes into images that nothing is pasted into.
            images = images.clone()
            images[chosen] = self._pasted(images[chosen], [tensor[chosen] for tensor in drawn])
            return images
        return self._pasted(images, drawn)

    def _pasted(self, images: Tensor, drawn: Sequence[Tensor]) -> Tensor:
        *sources, patches, factors, hue = drawn
        return paste(images, self.pick(*sources) if sources else images, (patches, factors, hue))

    def finish(self, images: Tensor) -> Tensor:
        """Rotate and normalise a batch; channels last."""
        if self._parameters.rotation:
            angle = self._parameters.rotation
            (angles,) = self.plan.take(draw_angles, len(images), angle, self._augment)
            images = turn(images, angles)
        return normalise(images).contiguous(memory_format=torch.channels_last)


def batches_of(
    images: TrainingImages,
    draw: Callable[[], tuple[Tensor, Tensor]],
    pseudo: slice | None,
    augmentations: int = 1,
) -> Callable[[], Batch]:
    """Batches of the images that `draw` names.

    `draw()` gives indices and kinds, (B,) long each on the CPU. Those of the kind PSEUDO, all in
    the slice `pseudo` of a batch, are turned into pseudo anomalies.
    """

    def draw_all() -> tuple[Tensor, ...]:
        indices, kinds = draw()
        made = () if pseudo is None else images.draw_pseudo(kinds[pseudo] == PSEUDO)
        return indices, kinds, *made

    def batch() -> Batch:
        indices, kinds, *drawn = images.plan.take(draw_all)
        picked = images.pick(indices)
        if pseudo is not None:
            picked[pseudo] = images.pseudo(picked[pseudo], drawn)
        return images.finish(picked.repeat(augmentations, 1, 1, 1)), kinds

    return batch


def balanced_batches(
    images: TrainingImages,
    batch_size: int,
    pseudo: bool,
    rng: torch.Generator,
    augmentations: int = 1,
) -> Callable[[], Batch]:
    """Batches of half normals, a quarter labelled and a quarter pseudo anomalies.

    Without pseudo anomalies the second half is all labelled ones. Normals, labelled anomalies and
    the sources of pseudo anomalies come from streams of their own, which share one generator: with
    other numbers of images they come in another order.
    """
    if batch_size % 4:
        raise MethodError(f"batch_size must be a multiple of 4, not {batch_size}")
    half = batch_size // 2
    seen = half // 2 if pseudo else half
    normal = Stream(images.normals, rng)
    anomalous = Stream(images.anomalies, rng)
    sources = Stream(images.normals, rng)
    kinds = torch.tensor([NORMAL] * half + [SEEN] * seen + [PSEUDO] * (half - seen))

    def draw() -> tuple[Tensor, Tensor]:
        taken = [normal.take(half), images.normals + anomalous.take(seen)]
        return torch.cat([*taken, sources.take(half - seen)]), kinds

    return batches_of(images, draw, slice(half + seen, None) if pseudo else None, augmentations)


def thirds_batches(
    images: TrainingImages, batch_size: int, rng: torch.Generator
) -> Callable[[], Batch]:
    """Batches of a third labelled anomalies; each of the normals turns pseudo with probability 1/2.

    So normals, labelled and pseudo anomalies are a third each on average (DRA's released code).
    """
    seen = batch_size // 3
    if not seen:
        raise MethodError(f"batch_size must be at least 3, not {batch_size}")
    normal = Stream(images.normals, rng)
    anomalous = Stream(images.anomalies, rng)

    def draw() -> tuple[Tensor, Tensor]:
        taken = [normal.take(batch_size - seen), images.normals + anomalous.take(seen)]
        kinds = torch.full((batch_size,), SEEN)
        turned = torch.rand(batch_size - seen, generator=rng) < 0.5
        kinds[:-seen] = torch.where(turned, PSEUDO, NORMAL)
        return torch.cat(taken), kinds

    return batches_of(images, draw, slice(-seen))


def train(
    model: nn.Module,
    batch: Callable[[], Batch],
    loss: Callable[[Tensor, Tensor], BatchLoss],
    images: TrainingImages,
    parameters: TrainingParameters,
    context: Context,
    after_epoch: Callable[[int], None] | None = None,
    planned: bool = False,
) -> None:
    """Train `model` in place to the last epoch.

    Adam with clipped gradients; the learning rate falls in steps. `loss(images, kinds)` runs the
    model on one batch. Recorded are the mean training scores of the last epoch, see `EpochScores`.
    `planned` says that steps take all that they draw from `images.plan`, see `WeakMethod`.
    """
    optimiser = adam(model, parameters)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, parameters.lr_step, parameters.lr_gamma)
    steps = parameters.steps_per_epoch or math.ceil(images.normals / (context.batch_size / 2))

    seen = EpochScores(getattr(parameters, "margin", 0.0), context.device)

    def step() -> Tensor:
        taken, kinds = batch()
        result = loss(taken, kinds)
        descend(result.value, optimiser, parameters)
        seen.add(result, kinds)
        return result.value.detach()

    def finish_epoch(epoch: int) -> None:
        schedule.step()
        if after_epoch:
            after_epoch(epoch)
        if epoch < parameters.epochs:
            seen.clear()

    model.train()
    plan = images.plan if planned else None
    run_steps(step, parameters.epochs, steps, context, finish_epoch, plan)
    seen.record(context)


class EpochScores:
    """Mean scores of an epoch's training batches by kind of image, summed on the device."""

    def __init__(self, margin: float, device: str) -> None:
        self._margin = margin
        self._kinds = torch.arange(EXTERNAL, device=device).unsqueeze(1)
        self._scores = torch.zeros(EXTERNAL, device=device)
        self._counts = torch.zeros_like(self._scores)
        self._hinge = torch.zeros((), device=device)
        self._has_margin = False

    def clear(self) -> None:
        """Begin an epoch."""
        for total in (self._scores, self._counts, self._hinge):
            total.zero_()

    def add(self, result: BatchLoss, kinds: Tensor) -> None:
        """Add a batch of kinds (B,)."""
        members = (self._kinds == kinds).float()
        self._counts += members.sum(1)
        self._scores += members @ result.scores.detach()
        if result.pushed is not None:
            self._hinge += members[SEEN] @ (self._margin - result.pushed.detach()).clamp(min=0)
            self._has_margin = True

    def record(self, context: Context) -> None:
        """Record `train_score_normal`, `_labelled`, `_pseudo` and `labelled_hinge_train`.

        The last is the mean distance of labelled images below the margin, where there is one.
        """
        counts, scores = self._counts.tolist(), self._scores.tolist()
        for kind, name in ((NORMAL, "normal"), (SEEN, "labelled"), (PSEUDO, "pseudo")):
            if counts[kind]:
                context.record(f"train_score_{name}", scores[kind] / counts[kind])
        if self._has_margin and counts[SEEN]:
            context.record("labelled_hinge_train", self._hinge.item() / counts[SEEN])


def adam(model: nn.Module, parameters: TrainingParameters) -> torch.optim.Optimizer:
    """Return Adam over a model, its backbone at a rate of its own."""
    inside = [p for m in model.modules() if isinstance(m, Backbone) for p in m.parameters()]
    ids, device = {id(p) for p in inside}, next(model.parameters()).device
    slower = learning_rate(parameters.lr * parameters.backbone_multiplier, device)
    groups: list[dict[str, Any]] = [
        {"params": inside, "lr": slower},
        {"params": [p for p in model.parameters() if id(p) not in ids]},
    ]
    return torch.optim.Adam(
        groups,
        lr=learning_rate(parameters.lr, device),
        weight_decay=parameters.weight_decay,
        fused=True,
        capturable=device.type == "cuda",
    )


def descend(
    value: Tensor, optimiser: torch.optim.Optimizer, parameters: TrainingParameters
) -> None:
    """Make one step down the clipped gradient of a loss."""
    optimiser.zero_grad()
    value.backward()
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(trained, parameters.clip)
    optimiser.step()


class Seen(NamedTuple):
    """What a network makes of B images, all on its device."""

    maps: Mapping[str, Tensor]
    """(B, h, w) each."""
    parts: Mapping[str, Tensor]
    """(B,) each."""
    boxes: Tensor | None = None
    """(B, 4), see `bench.detector.Explanation`."""


class WeakNetwork(nn.Module):
    """A method's network in evaluation, on (B, 3, H, W) normalised images.

    `scores` is required; a network without `embed` or `explain` gives its method none.
    """

    def scores(self, images: Tensor) -> Tensor:
        """Return (B,) anomaly scores."""
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        """Return (B, D) features."""
        raise NotImplementedError

    def explain(self, images: Tensor) -> Seen:
        """Return maps, parts of the score and boxes; called without gradients."""
        raise NotImplementedError


class WeakMethod:
    """A detector that trains one network on normal images and labelled anomalies."""

    supervision: ClassVar[str] = "weak"
    settings: ClassVar[frozenset[str]] = frozenset({"precision", "batch_size", "backbone"})
    planned: ClassVar[bool] = False
    """Whether all that `batches` and `loss` draw is taken from `self.plan`, the same every step,
    and nothing else passes between host and device: then CUDA captures the steps. It is not
    inherited, since a subclass may draw otherwise."""
    network: Any

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters
        self.plan = Plan()

    def build(self, backbone: Backbone) -> WeakNetwork:
        """Return the untrained network; `self.context` is set."""
        raise NotImplementedError

    def loss(self, images: Tensor, kinds: Tensor) -> BatchLoss:
        """Run the network on one batch."""
        raise NotImplementedError

    def batches(self, images: TrainingImages) -> Callable[[], Batch]:
        """Return the source of batches: half normals, a quarter labelled, a quarter pseudo."""
        rng = generator(self.context, "batches")
        return balanced_batches(images, self.context.batch_size, True, rng)

    def batch_images(self) -> int:
        """Return how many images a batch holds."""
        return self.context.batch_size

    def augmentations(self) -> int:
        """Return how many augmentations of each image a batch holds."""
        return 1

    def untrained(self, context: Context) -> WeakNetwork:
        """Return the network as it is before training, on the CPU, and keep the context."""
        self.context, self.plan = context, Plan(context.device)
        if context.backbone is None:
            raise MethodError("this method needs a backbone")
        return self.build(Backbone(context.backbone, context.precision))

    def begin(self, context: Context) -> None:
        """Build the network on the device."""
        network = self.untrained(context)
        self.network = network.to(context.device).to(memory_format=torch.channels_last)
        if context.device.startswith("cuda"):
            context.record("layout", "channels_last")

    def fit(self, train_set: TrainingSet, context: Context) -> None:
        """Train the network to the last epoch."""
        self.begin(context)
        normal, anomalous = train_set.normal.images, train_set.anomalous.images
        images = TrainingImages(normal, anomalous, context, self.parameters, self.plan)
        self.prepare(images)
        batches, p = self.batches(images), self.parameters
        planned = vars(type(self)).get("planned", False)
        train(self.network, batches, self.loss, images, p, context, self.after_epoch, planned)
        self.network.eval()
        self.finish()
        self._record_labelled(train_set.anomalous)

    def after_epoch(self, epoch: int) -> None:
        """Show the detector as it is after an epoch to whoever asked for it."""
        if self.context.after_epoch is not None:
            self.network.eval()
            self.finish()
            self.context.after_epoch(epoch, self)
            self.network.train()

    def _record_labelled(self, labelled: Samples) -> None:
        """Record how far labelled images stay below the margin, in evaluation and as they are."""
        pushed = self.pushed(labelled)
        if pushed is not None:
            margin = self.parameters.margin
            below = int((pushed < margin / 2).sum())
            self.context.record("labelled_below_half_margin", below)
            hinge = np.maximum(margin - pushed, 0).mean(dtype=np.float64)
            self.context.record("labelled_hinge_evaluation", float(hinge))

    def pushed(self, samples: Samples) -> NDArray[np.float32] | None:
        """Return (N,), what the loss pushes above its margin; None without one.

        It leaves the state of all generators as it was.
        """
        return None

    def prepare(self, images: TrainingImages) -> None:
        """Store what the network needs of the training images, before the first step."""

    def finish(self) -> None:
        """Prepare scoring, after the last step."""

    def evaluation(self, samples: Samples) -> Iterator[Tensor]:
        """Yield samples as the network takes them, in batches."""
        return in_batches(samples, self.context)

    def score(self, samples: Samples) -> NDArray[np.float32]:
        """Return (N,) scores, higher = more anomalous."""
        with torch.inference_mode():
            return joined([self.network.scores(images) for images in self.evaluation(samples)])

    def embed(self, samples: Samples) -> NDArray[np.float32]:
        """Return (N, D) features of the trained network."""
        with torch.inference_mode():
            return joined([self.network.embed(images) for images in self.evaluation(samples)])

    def explain(self, samples: Samples) -> Explanation:
        """Return what the network sees in each image."""
        with torch.no_grad():
            seen = [self.network.explain(images) for images in self.evaluation(samples)]
        return Explanation(
            {name: joined([s.maps[name] for s in seen]) for name in seen[0].maps},
            None if seen[0].boxes is None else joined([s.boxes for s in seen]),
            {name: joined([s.parts[name] for s in seen]) for name in seen[0].parts},
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all parameters and buffers of the network."""
        return {k: v.detach().cpu().numpy() for k, v in self.network.state_dict().items()}

    def load_state(self, arrays: Mapping[str, NDArray[Any]], context: Context) -> None:
        """Build the network and fill it with what `state` returned."""
        self.begin(_from_scratch(context))
        tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
        try:
            self.network.load_state_dict(tensors)
        except RuntimeError as error:
            first = str(error).partition("\n")[0]
            raise MethodError(f"the saved model does not fit: {first}") from None
        self.network.eval()

    def rehearse(self, size: int, context: Context) -> None:
        """Make one training step on images of zeros."""
        self.network = self.untrained(_from_scratch(context)).train()
        blank = np.zeros((context.batch_size, 3, size, size), np.uint8)
        images = TrainingImages(blank, blank, context, self.parameters)
        self.prepare(images)
        count = self.batch_images()
        batch = torch.zeros(count * self.augmentations(), 3, size, size)
        value = self.loss(batch, torch.arange(count) % (EXTERNAL + 1)).value
        descend(value, adam(self.network, self.parameters), self.parameters)


def _from_scratch(context: Context) -> Context:
    """Return the context without a weights file."""
    assert context.backbone is not None
    return dataclasses.replace(context, backbone=dataclasses.replace(context.backbone, file=None))
