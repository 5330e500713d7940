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
    """Return anomalib's model; PaDiM gets our side's channels."""
    import torch
    from anomalib.models.image.padim.torch_model import (  # type: ignore[import-not-found]
        PadimModel,
    )
    from anomalib.models.image.patchcore.torch_model import (  # type: ignore[import-not-found]
        PatchcoreModel,
    )

    given = {"backbone": network(job, folder), "layers": job["layers"], "pre_trained": False}
    if job["method"] == "patchcore":
        return PatchcoreModel(num_neighbors=job["neighbours"], **given)
    built = PadimModel(n_features=len(job["channels"]), **given)
    built.idx = torch.tensor(job["channels"])
    return built


def scored(job: dict[str, Any], folder: Path) -> Any:
    """Fit on the normal images; return raw scores (N,)."""
    import torch

    torch.manual_seed(job["seed"])
    np.random.seed(job["seed"])  # of scikit-learn, which draws the projection's places

    def batches(name: str) -> Any:
        images = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        for start in range(0, len(images), BATCH):
            part = torch.from_numpy(images[start : start + BATCH].copy()).float() / 255
            yield (part - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)

    peer = model(job, folder)
    with torch.inference_mode():
        peer.train()
        for images in batches("normal"):
            peer(images)
        if job["method"] == "patchcore":
            peer.subsample_embedding(job["coreset"])
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
