"""Methods that learn a normalising flow of frozen features, one flow for each stage."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.blocks.batches import generator, joined
from baselines.blocks.coupling import initialise
from baselines.blocks.frozen import AT_ONCE, CHUNK, Features, FrozenMethod, channels_of
from baselines.blocks.plan import Plan
from bench.detector import BackboneSource, Context, MethodError, Samples

_FLOWS = "flows."


class FlowMethod(FrozenMethod):
    """A frozen backbone and a flow behind each of its stages."""

    settings: ClassVar[frozenset[str]] = frozenset({"precision", "batch_size", "backbone"})
    flows: nn.ModuleList

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self.plan = Plan()

    def flow(self, channels: int, side: int) -> nn.Module:
        """Return the flow of a stage whose maps have so many channels and a side."""
        raise NotImplementedError

    def pooled(self, features: list[Tensor]) -> Tensor:
        """Return what the flows make of features, averaged over positions, (B, D)."""
        raise NotImplementedError

    def shapes(self, size: int, source: BackboneSource) -> list[tuple[int, int]]:
        """Return channels and side of the maps of each stage, for images of a size."""
        stages = self.stages(source)
        sides = (side_of(size, stage) for stage in stages)
        return list(zip(channels_of(source.name, stages), sides, strict=True))

    def built(self, size: int, context: Context) -> nn.ModuleList:
        """Return the flow of each stage with arbitrary parameters."""
        assert context.backbone is not None
        return nn.ModuleList(self.flow(*shape) for shape in self.shapes(size, context.backbone))

    def untrained(self, size: int, context: Context) -> nn.ModuleList:
        """Return the flows as they are before training, on the CPU."""
        self.plan = Plan(context.device)
        flows = self.built(size, context)
        initialise(flows, generator(context, "init"))
        return flows

    def prepare(self, size: int, context: Context) -> None:
        """Build the feature extractor and the untrained flows on the device."""
        self.begin(context)
        self.size = size
        self.flows = self.untrained(size, context).to(context.device)

    def at_once(self) -> int:
        """Return how many images pass a network at once, a batch but on a CPU.

        There fewer are quicker, for what lies between two layers stays in the cache.
        """
        return AT_ONCE.get(torch.device(self.context.device).type, self.context.batch_size)

    def read(self, images: Tensor) -> list[Tensor]:
        """Return the features of normalised images, (B, channels, h, w) of each stage."""
        parts = [self.features(part) for part in images.split(min(CHUNK, self.at_once()))]
        return [torch.cat(maps) for maps in zip(*parts, strict=True)]

    def remembered(self, samples: Samples) -> list[Tensor]:
        """Return the features of all samples at once, (N, channels, h, w) of each stage."""
        held: list[Tensor] = []
        start = 0
        for maps in self._features(samples):
            held = held or [m.new_empty(len(samples), *m.shape[1:]) for m in maps]
            for level, m in zip(held, maps, strict=True):
                level[start : start + len(m)] = m
            start += len(maps[0])
        self.context.record("bank_vectors", len(samples))
        self.context.record("bank_bytes", sum(level.nbytes for level in held))
        return held

    def after_epoch(self, epoch: int) -> None:
        """Show the detector as it is after an epoch to whoever asked for it."""
        if self.context.after_epoch is not None:
            self.finish()
            self.context.after_epoch(epoch, self)

    def finish(self) -> None:
        """Prepare scoring, after the last step of training."""

    def scores(self, features: list[Tensor]) -> Tensor:
        """Return the largest value of each map."""
        return self.maps(features).amax((1, 2))

    def embed(self, samples: Samples) -> NDArray[np.float32]:
        """Return the mean latent values of each stage, (N, channels of all stages)."""
        with torch.inference_mode():
            return joined([self.pooled(f) for f in self._features(samples)])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return both networks and the size of the images."""
        flows = {_FLOWS + k: v.cpu().numpy() for k, v in self.flows.state_dict().items()}
        return super().state() | flows | {"size": np.array(self.size)}

    def load_state(self, arrays: Mapping[str, NDArray[Any]], context: Context) -> None:
        """Build both networks and take over what `state` returned."""
        try:
            super().load_state(arrays, context)
            self.size = int(arrays["size"])
            flows = self.built(self.size, context)
            own = {k: torch.from_numpy(v) for k, v in arrays.items() if k.startswith(_FLOWS)}
            flows.load_state_dict({k.removeprefix(_FLOWS): v for k, v in own.items()})
        except (RuntimeError, KeyError) as error:
            first = str(error).partition("\n")[0]
            raise MethodError(f"the saved model does not fit: {first}") from None
        self.flows = flows.to(context.device)

    def rehearsed(self, size: int, context: Context) -> list[Tensor]:
        """Build both networks on the CPU and return the features of a batch of zeros."""
        assert context.backbone is not None
        source = dataclasses.replace(context.backbone, file=None)
        self.context = context
        self.features = Features(source, context.precision, self.stages(source))
        self.flows = self.untrained(size, context)
        return self.read(torch.zeros(context.batch_size, 3, size, size))


def side_of(size: int, stage: int) -> int:
    """Return the side of a stage's maps: each stride of two rounds up."""
    return -(-size // 2 ** (stage + 1))
