"""The tensors of each backbone, by torchvision's names, without torch."""

from collections.abc import Iterator, Mapping

from bench.system.checkpoint import StoredTensor

Shapes = dict[str, tuple[int, ...]]
_RESNETS = {
    "resnet18": ((2, 2, 2, 2), None),
    "resnet50": ((3, 4, 6, 3), 1),
    "wide_resnet50_2": ((3, 4, 6, 3), 2),
}
"""Blocks of the stages, and the width of a bottleneck's inside, None for basic blocks."""
_MOBILENET = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
"""Expansion, channels and number of each group of blocks."""
_MOBILENET_ENDS = {1: 4, 2: 7, 3: 14, 4: 19}
"""Blocks up to the end of each stage."""
_FLOATS = frozenset({"float32", "float64", "float16", "bfloat16"})


def tensor_shapes(backbone: str, stages: int = 4) -> Shapes:
    """Return the shapes of a backbone's tensors up to a stage.

    The counters of batch normalisation are left out: no forward pass reads them.
    """
    mobile = backbone == "mobilenet_v2"
    shapes = dict(_mobilenet() if mobile else _resnet(*_RESNETS[backbone]))
    return {n: s for n, s in shapes.items() if _stage(n) <= stages}


def misfit(tensors: Mapping[str, StoredTensor], backbone: str, stages: int) -> str:
    """Return why tensors are not those of a backbone up to a stage; empty if they are."""
    expected, network = tensor_shapes(backbone, stages), tensor_shapes(backbone)
    absent = [name for name in expected if name not in tensors]
    others = [
        name
        for name in tensors
        if _stage(name) and name not in network and not name.endswith("num_batches_tracked")
    ]
    for name, shape in expected.items():
        tensor = tensors.get(name)
        if tensor and tensor.shape != shape:
            return f"{name} has the shape {tensor.shape}, {backbone}'s has {shape}"
        if tensor and tensor.type not in _FLOATS:
            return f"{name} is of type {tensor.type}, not a float"
    if others:
        return f"{backbone} has no {others[0]}: it is another, perhaps deeper network"
    if absent:
        first = next(iter(tensors), "")
        return (
            f"it lacks {len(absent)} tensors of {backbone} to stage {stages}, {absent[0]} the first"
            + (f"; its own first is {first}" if len(absent) == len(expected) else "")
        )
    return ""


def _stage(name: str) -> int:
    """Return the stage that needs a tensor, 0 for none (as of a classifier)."""
    first, _, rest = name.partition(".")
    if first in ("conv1", "bn1"):
        return 1
    if first.startswith("layer") and first[5:].isdecimal():
        return int(first[5:])
    number = rest.partition(".")[0]
    if first == "features" and number.isdecimal():
        return next((s for s, end in _MOBILENET_ENDS.items() if int(number) < end), 5)
    return 0


def _norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)


def _resnet(blocks: tuple[int, ...], width: int | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "conv1.weight", (64, 3, 7, 7)
    yield from _norm("bn1", 64)
    before = 64
    for stage, count in enumerate(blocks, 1):
        planes = 64 * 2 ** (stage - 1)
        after = planes if width is None else 4 * planes
        inside = planes * (width or 1)
        for i in range(count):
            block = f"layer{stage}.{i}"
            convolutions = [(inside, before, 1), (inside, inside, 3), (after, inside, 1)]
            if width is None:
                convolutions = [(planes, before, 3), (planes, planes, 3)]
            for n, (out, into, side) in enumerate(convolutions, 1):
                yield f"{block}.conv{n}.weight", (out, into, side, side)
                yield from _norm(f"{block}.bn{n}", out)
            if before != after:
                yield f"{block}.downsample.0.weight", (after, before, 1, 1)
                yield from _norm(f"{block}.downsample.1", after)
            before = after


def _mobilenet() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "features.0.0.weight", (32, 3, 3, 3)
    yield from _norm("features.0.1", 32)
    before, number = 32, 1
    for expansion, channels, count in _MOBILENET:
        for _ in range(count):
            block, hidden = f"features.{number}.conv", before * expansion
            depth = 0
            if expansion != 1:
                yield f"{block}.0.0.weight", (hidden, before, 1, 1)
                yield from _norm(f"{block}.0.1", hidden)
                depth = 1
            yield f"{block}.{depth}.0.weight", (hidden, 1, 3, 3)
            yield from _norm(f"{block}.{depth}.1", hidden)
            yield f"{block}.{depth + 1}.weight", (channels, hidden, 1, 1)
            yield from _norm(f"{block}.{depth + 2}", channels)
            before, number = channels, number + 1
    yield "features.18.0.weight", (1280, before, 1, 1)
    yield from _norm("features.18.1", 1280)
