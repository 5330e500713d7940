"""The loop over the steps of a training, for methods that make a step of their own."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from bench.detector import Context


def run_steps(step: Callable[[], Tensor], epochs: int, steps: int, context: Context) -> None:
    """Make `steps` steps in each of so many epochs; say how far it is, record what it came to.

    `step()` makes one on a batch of `context.batch_size` images and returns its loss, a scalar that
    holds no graph. Recorded are `optimiser_steps`, `final_loss`, the mean of the last epoch, and
    `train_images_per_s`, without the first step, which also chooses kernels.
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
        context.progress(epoch, epochs, mean)
    context.record("optimiser_steps", count)
    context.record("final_loss", mean)
    if count > 1:
        context.record("train_images_per_s", (count - 1) * context.batch_size / seconds)
