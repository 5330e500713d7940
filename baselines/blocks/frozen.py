"""Frozen ImageNet features, and the methods that remember them of normal images.

PaDiM, PatchCore and SPADE learn no weights: they remember features of normal images and score an
image by its distance from them. A method adds what it remembers and its distance.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.blocks.backbone import Backbone
from baselines.blocks.batches import in_batches, joined
from bench.detector import BackboneSource, Context, Explanation, MethodError, Samples, TrainingSet

_BOTTLENECK = (256, 512, 1024, 2048)
_CHANNELS = {
    "resnet18": (64, 128, 256, 512),
    "resnet50": _BOTTLENECK,
    "wide_resnet50_2": _BOTTLENECK,
    "mobilenet_v2": (24, 32, 96, 1280),
}
"""Channels of the stages 1 to 4 of each backbone."""
_PROBE = 64
"""Side of the image that finds the ends of stages: stage s leaves 64 / 2 ** (s + 1) of it."""
CHUNK = 8
"""Images whose features of all stages are held at once."""
AT_ONCE = {"cpu": 2}
"""Images that pass the network at once, by device. A pass takes far more memory than the features
that it returns, and on a CPU more images are no quicker."""


def channels_of(backbone: str, stages: tuple[int, ...]) -> tuple[int, ...]:
    """Return the channels of stages of a backbone of torchvision."""
    return tuple(_CHANNELS[backbone][stage - 1] for stage in stages)


class Features(nn.Module):
    """A frozen backbone: (B, 3, H, W) normalised RGB -> the maps of the chosen stages.

    Always in evaluation mode, so that batch normalisation keeps ImageNet's statistics.
    """

    def __init__(self, source: BackboneSource, precision: str, stages: tuple[int, ...]) -> None:
        super().__init__()
        if max(stages) > source.stage:
            raise MethodError(
                f"it reads stage {max(stages)} of {source.name}, which is cut after stage"
                f" {source.stage}: --set stage={max(stages)}"
            )
        backbone = Backbone(dataclasses.replace(source, stage=max(stages)), precision)
        self.autocast = backbone.autocast
        layers = backbone.layers
        blocks = layers.features if hasattr(layers, "features") else layers.children()
        self.blocks = nn.ModuleList(blocks)  # type: ignore[arg-type]
        self.requires_grad_(False).eval()
        self.ends = self._ends(stages)

    def train(self, mode: bool = True) -> "Features":
        """Stay in evaluation mode whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def _ends(self, stages: tuple[int, ...]) -> tuple[int, ...]:
        """Return the last block of each stage, known by its stride."""
        last: dict[int, int] = {}
        x = torch.zeros(1, 3, _PROBE, _PROBE)
        for i, block in enumerate(self.blocks):
            x = block(x)
            last[_PROBE // x.shape[-1]] = i
        return tuple(last[2 ** (s + 1)] for s in stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return (B, channels, H / s, W / s) float32 of each chosen stage, s = 2 ** (stage + 1)."""
        maps = []
        with torch.autocast(
            images.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None
        ):
            for i, block in enumerate(self.blocks):
                images = block(images)
                if i in self.ends:
                    maps.append(images)
        return [m.float() for m in maps]


@dataclasses.dataclass(frozen=True)
class _Anew:
    """An iterable that computes its items anew each time."""

    begin: Callable[[], Iterator[list[Tensor]]]

    def __iter__(self) -> Iterator[list[Tensor]]:
        return self.begin()


class FrozenMethod:
    """A detector that fits a memory of normal images on frozen features."""

    supervision: ClassVar[str] = "unsupervised"
    settings: ClassVar[frozenset[str]] = frozenset({"precision", "backbone"})
    memory_of: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes, tensors all, that `fit` leaves for `score`."""

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters

    def stages(self, source: BackboneSource) -> tuple[int, ...]:
        """Return which stages of the backbone the method reads."""
        raise NotImplementedError

    def remember(self, features: Iterable[list[Tensor]], count: int) -> None:
        """Fit on the features of `count` normal images, which come in batches.

        Iterating again computes them again, so large features need not be held.
        """
        raise NotImplementedError

    def scores(self, features: list[Tensor]) -> Tensor:
        """Return the scores of a batch, (B,), higher = more anomalous."""
        raise NotImplementedError

    def maps(self, features: list[Tensor]) -> Tensor:
        """Return the maps of a batch, (B, size, size) at the size of the image."""
        raise NotImplementedError

    def begin(self, context: Context) -> None:
        """Build the feature extractor on the device."""
        if context.backbone is None:
            raise MethodError("this method needs a backbone")
        self.context = context
        source = context.backbone
        self.features = Features(source, context.precision, self.stages(source))
        self.features.to(context.device).to(memory_format=torch.channels_last)

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Remember the normal images."""
        self.begin(context)
        self.size = train.normal.images.shape[-1]
        context.progress(0, 1, float("nan"))
        with torch.inference_mode():
            self.remember(_Anew(lambda: self._features(train.normal)), len(train.normal))

    def _features(self, samples: Samples) -> Iterator[list[Tensor]]:
        few = dataclasses.replace(
            self.context, score_batch_size=min(CHUNK, self.context.score_batch_size)
        )
        at_once = AT_ONCE.get(torch.device(self.context.device).type, CHUNK)
        for images in in_batches(samples, few):
            parts = [self.features(part) for part in images.split(at_once)]
            yield [torch.cat(maps) for maps in zip(*parts, strict=True)]

    def score(self, samples: Samples) -> NDArray[np.float32]:
        """Return (N,) scores, higher = more anomalous."""
        self.size = samples.images.shape[-1]
        with torch.inference_mode():
            return joined([self.scores(f) for f in self._features(samples)])

    def explain(self, samples: Samples) -> Explanation:
        """Return the anomaly map of each image, on a grid of 4 pixels."""
        self.size = samples.images.shape[-1]
        grid = (-(-self.size // 4),) * 2
        with torch.inference_mode():
            maps = [F.adaptive_avg_pool2d(self.maps(f), grid) for f in self._features(samples)]
        return Explanation({"score": joined(maps)})

    def embed(self, samples: Samples) -> NDArray[np.float32]:
        """Return the pooled features of the deepest stage, (N, channels)."""
        with torch.inference_mode():
            return joined([f[-1].mean((2, 3)) for f in self._features(samples)])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the memory, and the network that reads images."""
        network = {f"features.{k}": v for k, v in self.features.state_dict().items()}
        memory = {name: getattr(self, name) for name in self.memory_of}
        return {k: v.detach().cpu().numpy() for k, v in (network | memory).items()}

    def load_state(self, arrays: Mapping[str, NDArray[Any]], context: Context) -> None:
        """Build the network and take over what `state` returned."""
        assert context.backbone is not None
        blank = dataclasses.replace(context.backbone, file=None)
        self.begin(dataclasses.replace(context, backbone=blank))
        tensors = {k: torch.from_numpy(v).to(context.device) for k, v in arrays.items()}
        prefix = "features."
        network = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        try:
            self.features.load_state_dict(network)
            for name in self.memory_of:
                setattr(self, name, tensors[name])
        except (RuntimeError, KeyError) as error:
            first = str(error).partition("\n")[0]
            raise MethodError(f"the saved model does not fit: {first}") from None


def smoothed(maps: Tensor, size: int, sigma: float = 4.0) -> Tensor:
    """Return maps (B, h, w) enlarged bilinearly and blurred by a Gaussian.

    The result is (B, size, size), `sigma` in its pixels. The kernel ends at 4 sigma; images are
    continued by reflection.
    """
    down, across = (_spread(maps.new_ones(n).diag(), size, sigma) for n in maps.shape[1:])
    # Both steps are linear and treat rows and columns alike: two small matrix products.
    return down.T @ maps @ across


def _spread(cells: Tensor, size: int, sigma: float) -> Tensor:
    """Return what `smoothed` makes of lines of cells, (lines, cells) -> (lines, size)."""
    lines = F.interpolate(cells.unsqueeze(1), size, mode="linear", align_corners=False)
    reach = min(int(4 * sigma + 0.5), size - 1)
    x = torch.arange(-reach, reach + 1, device=cells.device, dtype=cells.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    blurred: Tensor = F.conv1d(F.pad(lines, (reach, reach), mode="reflect"), kernel)
    return blurred.squeeze(1)
