"""Times a training step of every trained method against a ResNet-18 pass measured beside it.

`python -m tests.step_times` on an otherwise idle machine: each step is timed in turns with one
inference pass of ResNet-18 over 16x3x224x224 in float32, so that the ratio of the medians holds
where the machine's speed does not. A step is all of it: drawing the batch, augmentation, both
passes, clipping, Adam.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision

from atacnet.detector import ATACNet
from baselines.blocks.weak_training import TrainingImages, adam, descend
from baselines.cutmix import CutMix
from baselines.devnet import DevNet
from baselines.dra import DRA
from baselines.saoe import SAOE
from bench.detector import BackboneSource, Context, Seeds
from bench.worker import make_deterministic

CASES: tuple[tuple[Any, str, int, dict[str, Any]], ...] = (
    (DevNet, "resnet50", 4, {}),
    (DevNet, "resnet50", 4, {"scales": 2}),
    (DevNet, "resnet18", 4, {"scales": 2}),
    (DRA, "resnet50", 4, {}),
    (DRA, "resnet50", 4, {"scales": 2}),
    (DRA, "resnet18", 4, {"scales": 2}),
    (SAOE, "resnet50", 4, {}),
    (CutMix, "resnet50", 4, {}),
    (ATACNet, "resnet50", 4, {}),
)
SIZE, BATCH = 224, 16


def seconds(action: Callable[[], Any]) -> float:
    """Time one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def calibration() -> Callable[[], Any]:
    """Return the yardstick: one ResNet-18 inference pass, NCHW float32."""
    network = torchvision.models.resnet18().eval()
    images = torch.randn(16, 3, 224, 224)

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def training_step(method: Any, precision: str, backbone: str, stage: int, given: Any) -> Any:
    """Return one training step of a method on random images."""
    images = np.random.RandomState(0).randint(0, 256, (72, 3, SIZE, SIZE), np.uint8)
    context = Context(
        device="cpu",
        seeds=Seeds(0, "speed", "speed"),
        precision=precision,
        batch_size=BATCH,
        backbone=BackboneSource(backbone, stage, None),
        external=images[:16],
    )
    detector = method(method.Parameters(**given))
    detector.begin(context)
    training = TrainingImages(images[:62], images[62:], context, detector.parameters)
    detector.prepare(training)
    batch = detector.batches(training)
    detector.network.train()
    optimiser = adam(detector.network, detector.parameters)
    return lambda: descend(detector.loss(*batch()), optimiser, detector.parameters)


def main() -> None:
    """Print one line a case, and with --json the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    make_deterministic(options.threads, 0)
    yardstick = calibration()
    found = []
    for method, backbone, stage, given in CASES:
        step = training_step(method, options.precision, backbone, stage, given)
        step(), yardstick()  # kernels are chosen
        pairs = [(seconds(step), seconds(yardstick)) for _ in range(options.repeats)]
        took, unit = (statistics.median(column) for column in zip(*pairs, strict=True))
        case = {
            "method": method.name, "backbone": backbone, "stage": stage, **given,
            "precision": options.precision, "threads": options.threads,
            "step_s": round(took, 4), "resnet18_pass_s": round(unit, 4),
            "ratio": round(took / unit, 2),
        }  # fmt: skip
        found.append(case)
        if not options.json:
            print(" ".join(f"{key}={value}" for key, value in case.items()), flush=True)
    if options.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
