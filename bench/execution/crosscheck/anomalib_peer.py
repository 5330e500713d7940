"""anomalib's side of the cross-check, run by another interpreter.

`python -I anomalib_peer.py FOLDER` fits and scores what FOLDER/request.json asks for and writes the
raw scores beside it. It imports nothing of this project, and this project never imports it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 8
CLAMP = 1.9
"""CFlow's; FastFlow's 2 is the default there."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, in RGB."""


def network(job: dict[str, Any], folder: Path) -> Any:
    """Return torchvision's network with our side's weights."""
    import torch
    import torchvision

    built = torchvision.models.get_model(job["backbone"], weights=None)
    with np.load(folder / f"{job['name']}.weights.npz", allow_pickle=False) as stored:
        state = {name: torch.from_numpy(stored[name]) for name in stored}
    unknown = built.load_state_dict(state, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"{job['backbone']} has no {unknown[0]}")
    if job["strides"] == "v1":
        for stage in (built.layer2, built.layer3, built.layer4):
            first = stage[0]
            first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
    return built


def model(job: dict[str, Any], folder: Path) -> Any:
    """Return anomalib's model; PaDiM gets our side's channels, flows get their parameters."""
    import torch
    from anomalib.models.image.padim.torch_model import (  # type: ignore[import-not-found]
        PadimModel,
    )
    from anomalib.models.image.patchcore.torch_model import (  # type: ignore[import-not-found]
        PatchcoreModel,
    )

    if job["method"] in ("fastflow", "cflow"):
        return flow_model(job, folder)
    given = {"backbone": network(job, folder), "layers": job["layers"], "pre_trained": False}
    if job["method"] == "patchcore":
        return PatchcoreModel(num_neighbors=job["parameters"]["neighbours"], **given)
    built = PadimModel(n_features=len(job["channels"]), **given)
    built.idx = torch.tensor(job["channels"])
    return built


def flow_model(job: dict[str, Any], folder: Path) -> Any:
    """Return anomalib's FastFlow or CFlow with our side's network and flows."""
    import torch
    from torch import nn

    with np.load(folder / f"{job['name']}.flows.npz", allow_pickle=False) as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored}
    first = np.load(folder / "tested.npy", mmap_mode="r", allow_pickle=False)[:1]
    features = reader(job, folder)
    shapes = [list(maps.shape[1:]) for maps in features(normalised(first)).values()]
    build = fastflow if job["method"] == "fastflow" else cflow
    built, flows = build(job, shapes, features)
    for name, values in flows.named_parameters():
        values.data = arrays.pop(name).reshape(values.shape)
    for level in range(len(shapes)):
        norms = {k: arrays.pop(f"norm.{level}.{k}", None) for k in ("weight", "bias")}
        if job["method"] == "fastflow" and job["parameters"]["layer_norm"] == "none":
            built.norms[level] = nn.Identity()
        elif norms["weight"] is not None:
            built.norms[level].load_state_dict(norms)
    if arrays:
        raise ValueError(f"anomalib's {job['method']} has no {next(iter(arrays))}")
    return built


def reader(job: dict[str, Any], folder: Path) -> Any:
    """Return a module that reads the layers' maps by name, a few images at a time."""
    import torch
    from torchvision.models.feature_extraction import create_feature_extractor

    extractor = create_feature_extractor(network(job, folder).eval(), job["layers"])

    class Reader(torch.nn.Module):
        def forward(self, images: Any) -> Any:
            with torch.no_grad():
                parts = [extractor.eval()(part) for part in images.split(BATCH)]
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    return Reader()


def fastflow(job: dict[str, Any], shapes: list[list[int]], features: Any) -> tuple[Any, Any]:
    """Return anomalib's FastFlow of these shapes of maps, and its flows."""
    from anomalib.models.image.fastflow.torch_model import (  # type: ignore[import-not-found]
        FastflowModel,
        create_fast_flow_block,
    )
    from torch import nn

    given = job["parameters"]
    size = (job["size"], job["size"])
    built = FastflowModel(size, "resnet18", pre_trained=False, flow_steps=1)
    built.norms = nn.ModuleList(nn.LayerNorm(shape) for shape in shapes)
    built.fast_flow_blocks = nn.ModuleList(
        create_fast_flow_block(
            shape, given["conv3x3_only"], given["hidden_ratio"], given["flow_steps"]
        )
        for shape in shapes
    )
    built.feature_extractor = features
    built._get_cnn_features = lambda images: [
        norm(maps) for norm, maps in zip(built.norms, features(images).values(), strict=True)
    ]
    return built, built.fast_flow_blocks


def cflow(job: dict[str, Any], shapes: list[list[int]], features: Any) -> tuple[Any, Any]:
    """Return anomalib's CFlow of these shapes of maps, and its flows."""
    from anomalib.models.image.cflow.torch_model import (  # type: ignore[import-not-found]
        CflowModel,
    )
    from anomalib.models.image.cflow.utils import (  # type: ignore[import-not-found]
        cflow_head,
    )
    from torch import nn

    given = job["parameters"]
    built = CflowModel("resnet18", ["layer1"], pre_trained=False, coupling_blocks=1)
    built.pool_layers = built.anomaly_map_generator.pool_layers = job["layers"]
    # A hard permutation is drawn quicker, and replaced by our side's in any case.
    built.decoders = nn.ModuleList(
        cflow_head(built.condition_vector, given["blocks"], CLAMP, shape[0]) for shape in shapes
    )
    built.encoder = features
    return built, built.decoders


def normalised(images: Any) -> Any:
    """Return images (N, 3, H, W) uint8 as normalised tensors."""
    import torch

    part = torch.from_numpy(images.copy()).float() / 255
    return (part - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def scored(job: dict[str, Any], folder: Path) -> Any:
    """Fit on the normal images; return raw scores (N,)."""
    import torch

    torch.manual_seed(job["seed"])
    np.random.seed(job["seed"])  # of scikit-learn, which draws the projection's places

    def batches(name: str) -> Any:
        images = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        # CFlow's scores are relative to the largest likelihoods of a batch.
        size = len(images) if job["method"] == "cflow" else BATCH
        for start in range(0, len(images), size):
            yield normalised(images[start : start + size])

    peer = model(job, folder)
    with torch.inference_mode():
        if job["method"] in ("fastflow", "cflow"):
            peer.eval()
            scores = [peer(images).pred_score.flatten() for images in batches("tested")]
            return torch.cat(scores).float().numpy()
        peer.train()
        for images in batches("normal"):
            peer(images)
        if job["method"] == "patchcore":
            peer.subsample_embedding(job["parameters"]["coreset"])
        else:
            peer.fit()
        peer.eval()
        scores = [peer(images).pred_score.flatten() for images in batches("tested")]
    return torch.cat(scores).float().numpy()


def answer_request(folder: Path) -> None:
    """Do what is asked, one job after the other."""
    import torch

    # Its batched inverses are silently wrong on some CPUs where threads share them.
    torch.set_num_threads(1)
    for job in json.loads((folder / "request.json").read_text(encoding="utf-8")):
        np.save(folder / f"{job['name']}.scores.npy", scored(job, folder))


if __name__ == "__main__":
    answer_request(Path(sys.argv[1]))
