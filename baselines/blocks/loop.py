"""The training loop of every method that trains: epochs of steps, progress, facts of the run."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from bench.detector import Context


def run_steps(
    step: Callable[[], Tensor],
    epochs: int,
    steps: int,
    context: Context,
    after_epoch: Callable[[int], None] | None = None,
) -> None:
    """Make `steps` steps in each epoch, report progress, record facts.

    `step()` makes one step on a batch of `context.batch_size` images and returns its loss, a scalar
    without a graph; `after_epoch(epoch)` is called after the steps of each epoch, from 1 on.
    Recorded are `optimiser_steps`, `final_loss` (the mean of the last epoch) and
    `train_images_per_s`, which leaves out the first step, for it also chooses kernels, and what is
    done between epochs.
    """
    seconds, count = 0.0, 0
    context.progress(0, epochs, float("nan"))
    for epoch in range(1, epochs + 1):
        total = torch.zeros((), device=context.device)
        started = time.perf_counter()
        for _ in range(steps):
            total += step()
            count += 1
            if count == 1:
                started = time.perf_counter()
        mean = total.item() / steps  # waits for the device
        seconds += time.perf_counter() - started
        if after_epoch:
            after_epoch(epoch)
        context.progress(epoch, epochs, mean)
    context.record("optimiser_steps", count)
    context.record("final_loss", mean)
    if count > 1:
        context.record("train_images_per_s", (count - 1) * context.batch_size / seconds)
