"""What only a GPU can tell of training steps, for a machine that is lent for a few minutes.

There is neither network nor nox there, so all is prepared before. Here, in the repository:

    pip download --no-deps -d .gpu/wheels NAME ...  # what the machine lacks; for its Python
    python -m tests.campaigns.gpu_pack --data DATA --weights WEIGHTS --out .gpu

The second says how large all of it is. There, in two calls, $OUT being what comes back:

    pip install --no-index --no-deps --target /tmp/site .gpu/wheels/*.whl
    export PYTHONPATH=$PWD:/tmp/site
    timeout 330 python -m tests.campaigns.gpu_trial --out $OUT

    timeout 360 python -m bench run --suite nightly --set stage=3 --seeds 1 --slots 4 \
        --data .gpu/data --weights .gpu/weights --results /tmp/results --cache /tmp/cache
    python -m bench archive --results /tmp/results --out $OUT/nightly

The first call, in this order: a float32 step of ResNet-50 with contiguous and with channels-last
tensors; for every planned method the losses and weights of 50 steps captured and eager, bit for
bit, with the times of a step, in float32 and then in bfloat16; ATAC-Net in 1, 2, 3 and 6 processes
at once. A JSON file is written anew after each measurement, so that a call that is cut short leaves
what it had by then. After `--seconds` no more is begun; what fails says so and the rest goes on.
Random images and weights: no number here says anything of AUROC.

The second makes the runs that fit into six minutes, and again continues them. Its images are JPEG
copies at 224 px: a trial of the nightly check, not its reference.
"""

import argparse
import functools
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from baselines.blocks import capture
from bench.execution.determinism import make_deterministic
from bench.registry import METHODS, load_class
from bench.system.files import write_atomically
from tests.campaigns.same_numbers import ROOT
from tests.campaigns.step_ratio import answer, ask, started
from tests.fixtures.random_fit import fit

PLANNED = (
    "devnet", "dra", "saoe", "cutmix", "atacnet",
    "memseg", "patchsvdd", "fastflow", "prn", "cavga", "cflow",
)  # fmt: skip
FEWER = {"cflow": 10}
"""Most steps of methods whose steps are long: CFlow's has some sixty of its optimisers."""
TOGETHER = "atacnet", "bfloat16"
PROCESSES = (1, 2, 3, 6)
EAGER = 1 << 30
"""Warm-up steps of a fit that is never captured."""

Measurement = tuple[str, Callable[[], Any]]
"""Its name, and what takes it."""


def main() -> None:
    """Measure part by part; write results after each."""
    given = options()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as in runs
    results: dict[str, Any] = {"machine": machine(given.device), "sizes": vars(given) | {"out": ""}}
    begun = time.perf_counter()
    for part in (layouts, steps, processes):
        for name, measure in part(given):
            value: Any = "not begun: out of time"
            if time.perf_counter() - begun < given.seconds:
                value = measured(measure)
            results.setdefault(part.__name__, {})[name] = value
            passed = time.perf_counter() - begun
            print(f"{passed:.0f} s, {part.__name__} {name}: {value}", flush=True)
            text = json.dumps(results, indent=1, default=str)
            write_atomically(given.out / "gpu_trial.json", text.encode())


def options() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--methods", default=",".join(PLANNED))
    parser.add_argument("--seconds", type=float, default=270)
    return parser.parse_args()


def measured(measure: Callable[[], Any]) -> Any:
    """Return what a measurement gives, or how it failed."""
    try:
        return measure()
    except Exception as error:  # the machine is lent: the other measurements go on
        return {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}


def machine(device: str) -> dict[str, str]:
    """Return what numbers depend on."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor()
    return {"device": gpu, "torch": torch.__version__, "cuda": str(torch.version.cuda),
            "python": platform.python_version()}  # fmt: skip


def layouts(given: Any) -> Iterator[Measurement]:
    """Yield milliseconds of a float32 training step of ResNet-50 by the layout of its tensors."""
    for layout in (torch.contiguous_format, torch.channels_last):
        name = str(layout).removeprefix("torch.")
        yield name, functools.partial(layout_milliseconds, given, layout)


def layout_milliseconds(given: Any, layout: torch.memory_format) -> float:
    """Return the time of a step with tensors of a layout."""
    from torchvision.models import resnet50

    make_deterministic(1, 0, given.device)
    network: nn.Module = resnet50().to(given.device, memory_format=layout)
    images = torch.randn(given.batch, 3, given.side, given.side, device=given.device)
    images = images.to(memory_format=layout)

    def step() -> None:
        network.zero_grad()
        network(images).square().mean().backward()

    return round(1e3 * seconds(step, given.device), 2)


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


def wait(device: str) -> None:
    """Wait for what the device has been given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def steps(given: Any) -> Iterator[Measurement]:
    """Yield bits and times of captured and eager steps, by method and precision."""
    for precision in ("float32", "bfloat16"):
        for method in given.methods.split(","):
            if precision == "float32" or "precision" in load_class(METHODS[method].path).settings:
                yield f"{method} {precision}", functools.partial(compare, given, method, precision)


def compare(given: Any, method: str, precision: str) -> dict[str, Any]:
    """Return whether captured steps gave the bits of eager ones, and what either takes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (first, one), (second, two) = (
            fit_steps(given, method, precision, eager=eager) for eager in (True, False)
        )
    pairs = list(zip(weights(first), weights(second), strict=True))
    eager, captured = (round(1e3 * given.batch / f["train_images_per_s"], 2) for f in (one, two))
    return {
        "graphed": two.get("graphed"),
        "loss_equal": one["final_loss"] == two["final_loss"],
        "weights": len(pairs),
        "weights_equal": all(torch.equal(a, b) for a, b in pairs),
        "eager_ms": eager,
        "captured_ms": captured,
        "warnings": sorted({str(w.message) for w in caught}),
    }


def fit_steps(
    given: Any, method: str, precision: str, *, eager: bool
) -> tuple[Any, dict[str, Any]]:
    """Fit a method with steps that are captured, or never; return it with its facts."""
    warm_up, capture.WARM_UP = capture.WARM_UP, EAGER if eager else capture.WARM_UP
    try:
        return fit(
            method, min(given.steps, FEWER.get(method, given.steps)), side=given.side,
            batch=given.batch, backbone=given.backbone, device=given.device, precision=precision,
        )  # fmt: skip
    finally:
        capture.WARM_UP = warm_up


def weights(detector: Any) -> list[Tensor]:
    """Return all parameters and buffers that a detector holds, in order."""
    modules = [m for _, m in sorted(vars(detector).items()) if isinstance(m, nn.Module)]
    return [tensor for module in modules for tensor in module.state_dict().values()]


def processes(given: Any) -> Iterator[Measurement]:
    """Yield what steps take in some processes at once."""
    for count in PROCESSES:
        yield str(count), functools.partial(together, given, count)


def together(given: Any, count: int) -> dict[str, float]:
    """Return the time of a step in so many processes at once, and steps a second of all."""
    settings = "perf_counter", given.device, given.side, given.batch, given.backbone
    running = [started(ROOT, *settings) for _ in range(count)]
    try:
        for number in (6, 4 * given.steps):  # the first starts the device
            for process in running:
                ask(process, *TOGETHER, number)
            taken = [answer(process) for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    rate = sum(1 / one for one in taken)
    return {"step_ms": round(1e3 * median(taken), 2), "steps_per_s": round(rate, 2)}


if __name__ == "__main__":
    main()
