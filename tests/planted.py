"""A made-up category with a planted defect, and how a method does on it."""

from typing import Any

import numpy as np
import torch

from bench.detector import BackboneSource, Context, Samples, Seeds, TrainingSet
from bench.metrics import auroc
from bench.worker import make_deterministic

SIZE = 32


def pictures(n: int, defective: bool, seed: int) -> Samples:
    """Grey noise, with a bright cross at a random place where defective."""
    random = np.random.RandomState(seed)
    images = random.normal(110, 14, (n, 3, SIZE, SIZE))
    if defective:
        for image in images:
            y, x = random.randint(6, SIZE - 6, 2)
            image[0, y - 5 : y + 6, x - 1 : x + 2] = 240
            image[0, y - 1 : y + 2, x - 5 : x + 6] = 240
    size = np.full(n, SIZE, np.int64)
    return Samples(
        images.clip(0, 255).astype(np.uint8),
        tuple(f"{defective}{i}" for i in range(n)),
        size, size, ("RGB",) * n, size,
    )  # fmt: skip


def fitted(
    method: Any,
    seed: int = 0,
    facts: dict[str, Any] | None = None,
    missing: bool = False,
    **given: Any,
) -> Any:
    """Fit a method on 40 normals and 8 labelled anomalies with a ResNet-18 from scratch.

    With `missing` a cross is normal, and that there is none is the defect.
    """
    seeds = Seeds(seed, "planted", "planted")
    make_deterministic(torch.get_num_threads(), seeds["init"])
    detector = method(method.Parameters(**given))
    context = Context(
        device="cpu",
        seeds=seeds,
        backbone=BackboneSource("resnet18", 1, None),
        record=(facts if facts is not None else {}).__setitem__,
    )
    normal, anomalous = pictures(40, missing, 1), pictures(8, not missing, 2)
    detector.fit(TrainingSet(normal, anomalous), context)
    return detector


def separation(detector: Any, missing: bool = False) -> float:
    """Return the AUROC on 60 unseen pictures."""
    normal, anomalous = pictures(30, missing, 3), pictures(30, not missing, 4)
    scores = np.concatenate([detector.score(normal), detector.score(anomalous)])
    return auroc(scores, [0] * 30 + [1] * 30)
