"""Threads, seeds and switches."""

import random

import numpy as np
import torch
import torch._inductor.config  # as `use_deterministic_algorithms` does: once, not in each run


def make_deterministic(threads: int, seed: int, device: str = "cpu") -> None:
    """Make a spec give the same bits on this machine.

    CUBLAS_WORKSPACE_CONFIG is in the environment already (`bench.execution.engines.local`).
    """
    torch.set_num_threads(threads)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)  # also for a method that says no more than "cuda"
    torch.use_deterministic_algorithms(True)
    # Filling every new tensor costs a kernel each and changes no number of a sound method.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
