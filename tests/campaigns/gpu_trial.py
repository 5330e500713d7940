"""What only a GPU can tell of training steps, in one call of about five minutes, without network.

    python -m tests.campaigns.gpu_trial --out FOLDER [--device cuda:0]

In this order, a JSON file written anew after each part, so that a call that is cut short leaves
what it had by then: a float32 step of ResNet-50 with contiguous and with channels-last tensors; the
losses and weights of 50 steps captured and eager, bit for bit, for every planned method; their step
times in float32 and bfloat16. Random images and weights: no number here says anything of AUROC.
"""

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines.blocks import capture
from bench.detector import BackboneSource, Context, Samples, Seeds, TrainingSet
from bench.execution.determinism import make_deterministic
from bench.registry import METHODS, load_class
from bench.system.files import write_atomically

PLANNED = ("devnet", "dra", "saoe", "cutmix", "atacnet", "patchsvdd")
EAGER = 1 << 30
"""Warm-up steps of a fit that is never captured."""


def main() -> None:
    """Measure part by part; write results after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--backbone", default="resnet50")
    given = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(given.device), "sizes": vars(given) | {"out": ""}}
    parts: tuple[Callable[..., Iterator[tuple[str, Any]]], ...] = (layouts, agreements, times)
    for part in parts:
        for name, value in part(given):
            results.setdefault(part.__name__, {})[name] = value
            print(f"{part.__name__} {name}: {value}", flush=True)
            text = json.dumps(results, indent=1, default=str)
            write_atomically(given.out / "gpu_trial.json", text.encode())


def machine(device: str) -> dict[str, str]:
    """Return what numbers depend on."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor()
    return {"device": gpu, "torch": torch.__version__, "cuda": str(torch.version.cuda),
            "python": platform.python_version()}  # fmt: skip


def wait(device: str) -> None:
    """Wait for what the device has been given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def layouts(given: Any) -> Iterator[tuple[str, Any]]:
    """Yield milliseconds of a float32 training step of ResNet-50 by the layout of its tensors."""
    from torchvision.models import resnet50

    make_deterministic(1, 0, given.device)
    for name, layout in (("contiguous", torch.contiguous_format),
                         ("channels_last", torch.channels_last)):  # fmt: skip
        network: nn.Module = resnet50().to(given.device, memory_format=layout)
        images = torch.randn(given.batch, 3, given.side, given.side, device=given.device)
        images = images.to(memory_format=layout)

        def step(network: nn.Module = network, images: Tensor = images) -> None:
            network.zero_grad()
            network(images).square().mean().backward()

        yield name, round(1e3 * seconds(step, given.device), 2)


def seconds(step: Callable[[], None], device: str, turns: int = 10) -> float:
    """Return the median time of a call, after three that choose kernels."""
    taken = []
    for turn in range(turns + 3):
        wait(device)
        begun = time.perf_counter()
        step()
        wait(device)
        if turn >= 3:
            taken.append(time.perf_counter() - begun)
    return median(taken)


def fit(given: Any, method: str, precision: str, *, eager: bool) -> tuple[Any, dict[str, Any]]:
    """Fit a method on random images; return it with its facts."""
    pixels = np.random.RandomState(0).randint(0, 256, (40, 3, given.side, given.side), np.uint8)

    def samples(images: Any) -> Samples:
        ones = np.ones(len(images), np.int64)
        return Samples(images, ("",) * len(images), ones, ones, ("RGB",) * len(images), ones)

    seeds, facts = Seeds(0, "gpu", "trial"), dict[str, Any]()
    make_deterministic(1, seeds["init"], given.device)
    cls = load_class(METHODS[method].path)
    context = Context(
        given.device, seeds, precision=precision, batch_size=given.batch, external=pixels[:8],
        backbone=BackboneSource(given.backbone, 3, None), record=facts.__setitem__,
    )  # fmt: skip
    detector = cls(cls.Parameters(epochs=1, steps_per_epoch=given.steps))
    warm_up, capture.WARM_UP = capture.WARM_UP, EAGER if eager else capture.WARM_UP
    try:
        detector.fit(TrainingSet(samples(pixels[:30]), samples(pixels[30:])), context)
    finally:
        capture.WARM_UP = warm_up
    return detector, facts


def weights(detector: Any) -> list[Tensor]:
    """Return all parameters and buffers that a detector holds, in order."""
    modules = [m for _, m in sorted(vars(detector).items()) if isinstance(m, nn.Module)]
    return [tensor for module in modules for tensor in module.state_dict().values()]


def agreements(given: Any) -> Iterator[tuple[str, Any]]:
    """Yield whether captured steps gave the bits of eager ones, and whether they were captured."""
    for method in PLANNED:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            (first, one), (second, two) = (
                fit(given, method, "float32", eager=eager) for eager in (True, False)
            )
        pairs = list(zip(weights(first), weights(second), strict=True))
        yield (
            method,
            {
                "graphed": two.get("graphed"),
                "loss_equal": one["final_loss"] == two["final_loss"],
                "weights": len(pairs),
                "weights_equal": all(torch.equal(a, b) for a, b in pairs),
                "warnings": sorted({str(w.message) for w in caught}),
            },
        )


def times(given: Any) -> Iterator[tuple[str, Any]]:
    """Yield milliseconds of a step, eager and captured, by method and precision."""
    for method in PLANNED:
        for precision in ("float32", "bfloat16"):
            if precision == "bfloat16" and "precision" not in METHODS[method].settings:
                continue
            facts = [fit(given, method, precision, eager=eager)[1] for eager in (True, False)]
            eager, captured = (round(1e3 * given.batch / f["train_images_per_s"], 2) for f in facts)
            yield f"{method} {precision}", {"eager_ms": eager, "captured_ms": captured}


if __name__ == "__main__":
    main()
