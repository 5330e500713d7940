"""ImageNet backbones by torchvision's names, cut after a stage, from a file of known strides."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.detector import BackboneSource, MethodError

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_MOBILENET_ENDS = {1: 4, 2: 7, 3: 14, 4: 19}
"""Blocks of mobilenet_v2.features up to the last one of stride 2 ** (stage + 1)."""


class Backbone(nn.Module):
    """A feature extractor: (B, 3, H, W) normalised RGB -> (B, channels, H / s, W / s) float32.

    s = 2 ** (stage + 1), so a 224 px input gives 14 x 14 at stage 3 and 7 x 7 at stage 4. Only
    this part of a network runs under autocast; what follows it sees float32.
    """

    def __init__(self, source: BackboneSource, precision: str) -> None:
        super().__init__()
        # Parameters that a file will replace are never initialised.
        with torch.device("meta" if source.file else "cpu"):
            self.layers = _layers(source)
        if source.file:
            _load(self.layers, source)
        self.channels = _channels(self.layers)
        self.autocast = {"float32": None, "bfloat16": torch.bfloat16}[precision]

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of normalised images."""
        if self.autocast is None:
            return self.layers(images)
        with torch.autocast(images.device.type, self.autocast):
            features = self.layers(images)
        return features.float()


def _layers(source: BackboneSource) -> nn.Sequential:
    import torchvision  # half of all import time, and only a run needs it

    network: Any = torchvision.models.get_model(source.name, weights=None)
    if source.name.startswith("mobilenet"):
        blocks = network.features[: _MOBILENET_ENDS[source.stage]]
        return nn.Sequential(OrderedDict(features=blocks))
    names = ["conv1", "bn1", "relu", "maxpool"]
    names += [f"layer{i}" for i in range(1, source.stage + 1)]
    layers = nn.Sequential(OrderedDict((name, getattr(network, name)) for name in names))
    if source.strides == "v1":
        for stage in range(2, source.stage + 1):
            first = getattr(layers, f"layer{stage}")[0]
            first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
    return layers


def _load(layers: nn.Sequential, source: BackboneSource) -> None:
    assert source.file is not None
    if source.file.suffix == ".safetensors":
        from safetensors.torch import load_file

        stored = load_file(source.file)
    else:
        stored = torch.load(source.file, map_location="cpu", weights_only=True)
    # A counter that no forward pass reads while momentum is set; some exports leave it out.
    wanted = {k: stored.get(k, torch.tensor(0) if k.endswith("num_batches_tracked") else None)
              for k in layers.state_dict()}  # fmt: skip
    absent = [k for k, v in wanted.items() if v is None]
    if absent:
        raise MethodError(
            f"{source.file} lacks {len(absent)} tensors of {source.name} to stage {source.stage},"
            f" {absent[0]} the first"
        )
    layers.load_state_dict(wanted, assign=True)


def _channels(layers: nn.Module) -> int:
    """Return the width of the last batch normalisation, which closes every stage."""
    return [m for m in layers.modules() if isinstance(m, nn.BatchNorm2d)][-1].num_features


def normalise(images: Tensor) -> Tensor:
    """Normalise (B, 3, H, W) RGB in [0, 1] by ImageNet's mean and standard deviation."""
    return (images - by_channel(images, MEAN)) / by_channel(images, STD)


def by_channel(images: Tensor, values: tuple[float, ...]) -> Tensor:
    """Return a constant of each channel, (1, C, 1, 1), beside images.

    Filled where they are: what `new_tensor` copies from the host makes a GPU wait.
    """
    return torch.cat([images.new_full((1, 1, 1, 1), value) for value in values], 1)


def pyramid(images: Tensor, scales: int) -> list[Tensor]:
    """Return images (B, 3, H, W) at full size, then at half of it, and so on, `scales` in all.

    By nearest-neighbour interpolation, as DevNet and DRA do for their second scale.
    """
    sizes = [images]
    while len(sizes) < scales:
        half = F.interpolate(sizes[-1], scale_factor=0.5, mode="nearest")
        sizes.append(half.contiguous(memory_format=torch.channels_last))
    return sizes
