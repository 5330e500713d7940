"""The training loop of every method that trains: epochs of steps, progress, facts of the run."""

import contextlib
import time
from collections.abc import Callable

import torch
from torch import Tensor

from baselines.blocks.capture import WARM_UP, CapturedStep
from baselines.blocks.plan import Plan
from bench.detector import Context


def run_steps(
    step: Callable[[], Tensor],
    epochs: int,
    steps: int,
    context: Context,
    after_epoch: Callable[[int], None] | None = None,
    plan: Plan | None = None,
) -> None:
    """Make `steps` steps in each epoch, report progress, record facts.

    `step()` makes one step on a batch of `context.batch_size` images and returns its loss, a scalar
    without a graph; `after_epoch(epoch)` is called after the steps of each epoch, from 1 on. With a
    `plan`, from which a step takes all that it draws, steps are captured where there is CUDA.
    Recorded are `optimiser_steps`, `final_loss` (the mean of the last epoch), `graphed` where there
    is CUDA (whether steps were captured) and `train_images_per_s`, which leaves out the first step,
    for it also chooses kernels, or those up to the capture, and what is done between epochs.
    """
    total = torch.zeros((), device=context.device)

    def run() -> None:
        with contextlib.nullcontext() if plan is None else plan.step():
            total.add_(step())

    captured = None
    if plan is not None and context.device.startswith("cuda"):
        captured = CapturedStep(run, context.device)
    untimed = 1 if captured is None else WARM_UP + 1
    seconds, count = 0.0, 0
    context.progress(0, epochs, float("nan"))
    for epoch in range(1, epochs + 1):
        total.zero_()
        started = time.perf_counter()
        for left in range(steps, 0, -1):
            if plan is not None:
                plan.prepare(left)
            (captured or run)()
            count += 1
            if count == untimed:
                seconds, started = 0.0, time.perf_counter()
        mean = total.item() / steps  # waits for the device
        seconds += time.perf_counter() - started
        if after_epoch:
            after_epoch(epoch)
        context.progress(epoch, epochs, mean)
    context.record("optimiser_steps", count)
    context.record("final_loss", mean)
    if captured is not None:
        context.record("graphed", captured.succeeded)
    if count > untimed:
        context.record("train_images_per_s", (count - untimed) * context.batch_size / seconds)


def learning_rate(rate: float, device: torch.device) -> Tensor:
    """Return a rate as a tensor, which a captured step reads anew each time.

    As float64 it moves weights on a CPU by the bits that a number would; the fused optimisers of
    CUDA read float32 alone.
    """
    dtype = torch.float32 if device.type == "cuda" else torch.float64
    return torch.tensor(rate, dtype=dtype, device=device)
