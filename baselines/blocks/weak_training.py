"""The training loop of weakly supervised methods: images in memory, batches, augmentation, steps.

All images of a run lie on the device as uint8; a batch is an index, and its augmentation a few
tensor operations. Every random number comes from a CPU generator of a named seed, so the batches
do not depend on the device.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.blocks.backbone import Backbone, normalise
from baselines.blocks.pseudo_anomaly import paste, rotate
from bench.detector import Context, MethodError, Samples, parameter

PATCH_SOURCES = ("same", "normal", "anomaly")
"""Where the patch of a pseudo anomaly is cut: the image itself (DRA's "CutMix"), any normal
(CutMix proper), or a labelled anomaly (AHL)."""

NORMAL, SEEN, PSEUDO, EXTERNAL = range(4)
"""Kinds of training images: normal, labelled anomaly, pseudo anomaly, from another dataset."""

Batch = tuple[Tensor, Tensor]
"""(B, 3, H, W) float32, normalised, channels last; (B,) long kinds."""


@dataclass(frozen=True, kw_only=True)
class TrainingParameters:
    """What all weakly supervised methods can be told.

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


def generator(context: Context, purpose: str) -> torch.Generator:
    """Return the CPU generator of one named seed."""
    return torch.Generator().manual_seed(context.seeds[purpose])


class Stream:
    """Endless indices of n items: permutations, one after the other, each shuffled anew."""

    def __init__(self, n: int, rng: torch.Generator) -> None:
        self._n, self._rng = n, rng
        self._left = torch.empty(0, dtype=torch.long)

    def take(self, k: int) -> Tensor:
        """Return the next k indices, (k,) long on the CPU."""
        while len(self._left) < k:
            self._left = torch.cat([self._left, torch.randperm(self._n, generator=self._rng)])
        taken, self._left = self._left[:k], self._left[k:]
        return taken


class TrainingImages:
    """The training images on the device, and what happens to them on their way into a batch."""

    def __init__(
        self,
        normal: NDArray[np.uint8],
        anomalous: NDArray[np.uint8],
        context: Context,
        parameters: TrainingParameters,
    ) -> None:
        if not len(anomalous):
            raise MethodError("a weakly supervised method needs at least one labelled anomaly")
        self.images = torch.from_numpy(np.concatenate([normal, anomalous])).to(context.device)
        self.normals, self.anomalies = len(normal), len(anomalous)
        self._parameters = parameters
        self._augment = generator(context, "augment")

    def pick(self, indices: Tensor) -> Tensor:
        """Return images by index, anomalies after the normals: (B, 3, H, W) float in [0, 1]."""
        return self.images[indices.to(self.images.device)].float() / 255

    def pseudo(self, images: Tensor) -> Tensor:
        """Turn normal images into pseudo anomalies."""
        low, high = {
            "same": (0, 0),
            "normal": (0, self.normals),
            "anomaly": (self.normals, self.normals + self.anomalies),
        }[self._parameters.patch_source]
        sources = images
        if high:
            sources = self.pick(torch.randint(low, high, (len(images),), generator=self._augment))
        return paste(images, sources, self._augment)

    def finish(self, images: Tensor) -> Tensor:
        """Rotate and normalise a batch; channels last."""
        if self._parameters.rotation:
            images = rotate(images, self._parameters.rotation, self._augment)
        return normalise(images).contiguous(memory_format=torch.channels_last)


def balanced_batches(
    images: TrainingImages, batch_size: int, pseudo: bool, rng: torch.Generator
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
    kinds = torch.full((batch_size,), PSEUDO)
    kinds[:half], kinds[half : half + seen] = NORMAL, SEEN
    kinds = kinds.to(images.images.device)

    def batch() -> Batch:
        taken = [normal.take(half), images.normals + anomalous.take(seen)]
        if pseudo:
            taken.append(sources.take(half - seen))
        picked = images.pick(torch.cat(taken))
        if pseudo:
            picked[half + seen :] = images.pseudo(picked[half + seen :])
        return images.finish(picked), kinds

    return batch


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

    def batch() -> Batch:
        picked = images.pick(
            torch.cat([normal.take(batch_size - seen), images.normals + anomalous.take(seen)])
        )
        kinds = torch.full((batch_size,), SEEN)
        turned = torch.rand(batch_size - seen, generator=rng) < 0.5
        kinds[:-seen] = torch.where(turned, PSEUDO, NORMAL)
        pseudo = torch.nonzero(kinds == PSEUDO).flatten().to(picked.device)
        if len(pseudo):
            picked[pseudo] = images.pseudo(picked[pseudo])
        return images.finish(picked), kinds.to(picked.device)

    return batch


def train(
    model: nn.Module,
    batch: Callable[[], Batch],
    loss: Callable[[Tensor, Tensor], Tensor],
    images: TrainingImages,
    parameters: TrainingParameters,
    context: Context,
) -> None:
    """Train `model` in place: Adam, clipped gradients, steps of the learning rate, last epoch kept.

    `loss(images, kinds)` runs the model on one batch and returns the scalar to minimise.
    """
    optimiser = adam(model, parameters)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, parameters.lr_step, parameters.lr_gamma)
    steps = parameters.steps_per_epoch or math.ceil(images.normals / (context.batch_size / 2))
    model.train()
    seconds, count = 0.0, 0
    context.progress(0, parameters.epochs, float("nan"))
    for epoch in range(1, parameters.epochs + 1):
        total = torch.zeros((), device=images.images.device)
        for _ in range(steps):
            started = time.perf_counter()
            value = loss(*batch())
            descend(value, optimiser, parameters)
            total += value.detach()
            if count:  # the first step also chooses kernels
                seconds += time.perf_counter() - started
            count += 1
        schedule.step()
        waiting = time.perf_counter()
        mean = total.item() / steps  # waits for the device
        seconds += time.perf_counter() - waiting
        context.progress(epoch, parameters.epochs, mean)
    context.record("optimiser_steps", count)
    context.record("final_loss", mean)
    if count > 1:
        context.record("train_images_per_s", (count - 1) * context.batch_size / seconds)


def adam(model: nn.Module, parameters: TrainingParameters) -> torch.optim.Optimizer:
    """Return Adam over a model, its backbone at a rate of its own."""
    inside = [p for m in model.modules() if isinstance(m, Backbone) for p in m.parameters()]
    ids = {id(p) for p in inside}
    groups: list[dict[str, Any]] = [
        {"params": inside, "lr": parameters.lr * parameters.backbone_multiplier},
        {"params": [p for p in model.parameters() if id(p) not in ids]},
    ]
    return torch.optim.Adam(
        groups, lr=parameters.lr, weight_decay=parameters.weight_decay, fused=True
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


def in_batches(samples: Samples, context: Context) -> Iterator[Tensor]:
    """Yield normalised images (B, 3, H, W) of samples, without augmentation, in their order."""
    for start in range(0, len(samples), context.score_batch_size):
        chunk = torch.from_numpy(samples.images[start : start + context.score_batch_size])
        images = normalise(chunk.to(context.device).float() / 255)
        yield images.contiguous(memory_format=torch.channels_last)
