"""Times a training step of every trained method against a ResNet-18 pass measured beside it.

`python -m tests.campaigns.step_times` on an otherwise idle machine: each step is timed in turns
with one inference pass of ResNet-18 over 16x3x224x224 in float32, so that the ratio of the
medians holds where the machine's speed does not. A step is all of it: drawing the batch,
augmentation, both passes, clipping, Adam. Its memory is the growth of the process over the imports.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from atacnet.detector import ATACNet
from baselines.blocks.weak import TrainingImages, adam, descend
from baselines.cutmix import CutMix
from baselines.devnet import DevNet
from baselines.dra import DRA
from baselines.saoe import SAOE
from bench.detector import BackboneSource, Context, Seeds
from bench.execution.determinism import make_deterministic

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
    return lambda: descend(detector.loss(*batch()).value, optimiser, detector.parameters)


def measured(case: int, precision: str, threads: int, repeats: int) -> dict[str, Any]:
    """Measure one case in this process, which has not made a step before."""
    method, backbone, stage, given = CASES[case]
    make_deterministic(threads, 0)
    base = resident("VmRSS")
    step, yardstick = training_step(method, precision, backbone, stage, given), calibration()
    step()  # kernels are chosen
    peak = resident("VmHWM") - base
    yardstick()
    pairs = [(seconds(step), seconds(yardstick)) for _ in range(repeats)]
    took, unit = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "method": method.name, "backbone": backbone, "stage": stage, **given,
        "precision": precision, "threads": threads, "step_s": round(took, 4),
        "resnet18_pass_s": round(unit, 4), "ratio": round(took / unit, 2),
        "memory_mib": round(peak / 2**20),
    }  # fmt: skip


def resident(what: str) -> int:
    """Return the bytes of this process in memory now (VmRSS) or at most (VmHWM), on Linux."""
    found = re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """Write measured cases as a table: a row a method and backbone, columns by precision."""
    kinds = list(dict.fromkeys((c["precision"], c["threads"]) for c in found))
    heads = [f"{p}, {t} thread{'s' * (t > 1)}" for p, t in kinds]
    by_row: dict[tuple[Any, ...], dict[tuple[str, int], Mapping[str, Any]]] = {}
    for case in found:
        row = (case["method"], case["backbone"], case.get("scales", 1))
        by_row.setdefault(row, {})[case["precision"], case["threads"]] = case
    lines = ["| method | backbone | scales | " + " | ".join(heads) + " | memory of a step, MiB |"]
    lines.append("|---|---|--:|" + "--:|" * (len(kinds) + 1))
    for row, cases in by_row.items():
        ratios = [f"{cases[k]['ratio']:.1f}" if k in cases else "" for k in kinds]
        memory = ", ".join(str(cases[k]["memory_mib"]) for k in kinds if k in cases)
        lines.append(f"| {' | '.join(map(str, row))} | {' | '.join(ratios)} | {memory} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all cases, each in a process of its own, and print them; with --json as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", type=int, help="only this one, as JSON")
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measured(options.case, options.precision, options.threads,
                                  options.repeats)))  # fmt: skip
        return
    found = []
    for case in range(len(CASES)):
        command = [sys.executable, "-m", "tests.campaigns.step_times", "--case", str(case),
                   "--threads", str(options.threads), "--precision", options.precision,
                   "--repeats", str(options.repeats)]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout))
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1) if options.json else markdown(found))


if __name__ == "__main__":
    main()
