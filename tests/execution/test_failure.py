"""A failure in one text."""

import errno
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.execution.failure import (
    OutOfMemoryError,
    memory_line,
    out_of_memory,
    reason,
    run_memory_line,
)


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError


def test_a_reason_is_type_and_text_and_no_error_of_its_own():
    assert reason(ValueError("too small")) == "ValueError: too small"
    assert reason(Unspeakable()) == "Unspeakable"


def raised(ask: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        ask()
    return caught.value


WANTS = {
    "python": (lambda: bytearray(1 << 62), "more memory"),
    "numpy": (lambda: np.empty(1 << 60, np.uint8), "1073741824.0 GiB more"),
    "torch": (lambda: torch.empty(1 << 60, dtype=torch.uint8), "1073741824.0 GiB more"),
}
TOLD = {
    "cuda": (
        torch.cuda.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 79 GiB"
        ),
        "20.5 GiB more",
    ),
    "cublas": (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "more memory"),
    "fork": (OSError(errno.ENOMEM, "Cannot allocate memory"), "more memory"),
}


@pytest.mark.parametrize("name", [*WANTS, *TOLD])
def test_every_want_of_memory_is_one_kind_and_one_line(name: str) -> None:
    error, asked = (raised(WANTS[name][0]), WANTS[name][1]) if name in WANTS else TOLD[name]
    assert out_of_memory(error)
    line = memory_line(error, "devnet on x", "cpu", "take less")
    free = r" where [\d.]+ GiB are free" if torch.__name__ and _tells_memory() else ""
    assert re.fullmatch(rf"MemoryError: devnet on x asked for {asked}{free}: take less", line)


def _tells_memory() -> bool:
    from bench.system.host import available_memory

    return available_memory() is not None


@pytest.mark.parametrize(
    "error", [ValueError("memory"), RuntimeError("shape"), OSError(28, "full")]
)
def test_other_errors_are_none_of_it(error: Exception) -> None:
    assert not out_of_memory(error)


def test_a_run_without_memory_says_which_and_what_would_help() -> None:
    class Spec(SimpleNamespace):
        def __str__(self) -> str:
            return "devnet mvtec_ad/pill one shot seed 0"

    spec = Spec(image_size=448, batch_size=48)
    job: Any = SimpleNamespace(spec=spec, device="cpu", keep=frozenset({"explain"}))
    line = run_memory_line(job, MemoryError())
    assert line.startswith("MemoryError: devnet mvtec_ad/pill one shot seed 0, 448 px, asked for")
    assert line.endswith(
        "take a smaller image_size or batch_size, fewer --slots, no --save-maps, or another machine"
    )
    job = SimpleNamespace(
        spec=Spec(image_size=448, batch_size=None), device="cpu", keep=frozenset()
    )
    assert "take a smaller image_size, fewer --slots, or another" in run_memory_line(
        job, MemoryError()
    )
    assert (
        run_memory_line(job, OutOfMemoryError("padim needs much", 5))
        == "MemoryError: padim needs much"
    )
