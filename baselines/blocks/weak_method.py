"""What weakly supervised networks share as methods: training, scoring, saving, explaining.

A method adds its network, its batches and its loss.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.blocks.backbone import Backbone
from baselines.blocks.weak_training import (
    EXTERNAL,
    Batch,
    TrainingImages,
    adam,
    balanced_batches,
    descend,
    generator,
    in_batches,
    train,
)
from bench.detector import Context, Explanation, MethodError, Samples, TrainingSet


class Seen(NamedTuple):
    """What a network makes of B images, all on its device."""

    maps: Mapping[str, Tensor]
    """(B, h, w) each."""
    parts: Mapping[str, Tensor]
    """(B,) each."""
    boxes: Tensor | None = None
    """(B, 4), see `bench.detector.Explanation`."""


class WeakNetwork(nn.Module):
    """What a method's network can be asked in evaluation, on (B, 3, H, W) normalised images.

    `scores` is a must; without `embed` or `explain` the method has none.
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
    network: Any

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters

    def build(self, backbone: Backbone) -> WeakNetwork:
        """Return the untrained network; `self.context` is there."""
        raise NotImplementedError

    def loss(self, images: Tensor, kinds: Tensor) -> Tensor:
        """Run the network on one batch and return the scalar to minimise."""
        raise NotImplementedError

    def batches(self, images: TrainingImages) -> Callable[[], Batch]:
        """Return the source of batches: half normals, a quarter labelled, a quarter pseudo."""
        rng = generator(self.context, "batches")
        return balanced_batches(images, self.context.batch_size, True, rng)

    def batch_images(self) -> int:
        """Return how many images a batch holds."""
        return self.context.batch_size

    def untrained(self, context: Context) -> WeakNetwork:
        """Return the network as it is before training, on the CPU, and keep the context."""
        self.context = context
        if context.backbone is None:
            raise MethodError("this method needs a backbone")
        return self.build(Backbone(context.backbone, context.precision))

    def begin(self, context: Context) -> None:
        """Build the network on the device."""
        network = self.untrained(context)
        self.network = network.to(context.device).to(memory_format=torch.channels_last)

    def fit(self, train_set: TrainingSet, context: Context) -> None:
        """Train the network to the last epoch."""
        self.begin(context)
        images = TrainingImages(
            train_set.normal.images, train_set.anomalous.images, context, self.parameters
        )
        self.prepare(images)
        train(self.network, self.batches(images), self.loss, images, self.parameters, context)
        self.network.eval()
        self.finish()

    def prepare(self, images: TrainingImages) -> None:
        """Take from the training images what the network keeps of them, before the first step."""

    def finish(self) -> None:
        """Settle what scoring needs, after the last step."""

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
        value = self.loss(torch.zeros(count, 3, size, size), torch.arange(count) % (EXTERNAL + 1))
        descend(value, adam(self.network, self.parameters), self.parameters)


def _from_scratch(context: Context) -> Context:
    """Return the context without a weights file."""
    assert context.backbone is not None
    return dataclasses.replace(context, backbone=dataclasses.replace(context.backbone, file=None))


def joined(tensors: list[Tensor]) -> NDArray[np.float32]:
    """Return what batches gave as one float32 array."""
    return torch.cat(tensors).float().cpu().numpy()
