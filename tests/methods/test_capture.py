"""Steps that are captured on CUDA, with a CUDA that only takes note of what it is asked."""

import contextlib
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from baselines.blocks.capture import WARM_UP
from baselines.blocks.loop import run_steps
from baselines.blocks.plan import Plan
from bench.detector import Context, Seeds


class Cuda:
    """What `CapturedStep` asks of CUDA; a graph replays what was called while it was captured."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses, self.events = refuses, list[str]()
        self.capturing: Any = None

    def install(self, patch: pytest.MonkeyPatch) -> None:
        def stream(device: str) -> Any:
            return SimpleNamespace(wait_stream=lambda other: self.events.append("wait"))

        patch.setattr(torch.cuda, "Stream", stream)
        patch.setattr(torch.cuda, "current_stream", stream)
        patch.setattr(torch.cuda, "stream", lambda s: contextlib.nullcontext())
        patch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(calls=[], replay=None))
        patch.setattr(torch.cuda, "graph", self.graph)
        zeros = torch.zeros
        patch.setattr(torch, "zeros", lambda *shape, device, **given: zeros(*shape, **given))

    @contextlib.contextmanager
    def graph(self, graph: Any, stream: Any) -> Iterator[None]:
        self.capturing = graph
        graph.replay = lambda: [call() for call in graph.calls]
        yield
        self.capturing = None
        if self.refuses:
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")


def trained(patch: pytest.MonkeyPatch, cuda: Cuda, epochs: int = 2, steps: int = 5) -> Any:
    """Return the facts of a training, what its steps did, and its warnings."""
    cuda.install(patch)
    facts: dict[str, Any] = {}
    done: list[str] = []
    context = Context("cuda:0", Seeds(0, "d", "c"), record=facts.__setitem__)

    def step() -> torch.Tensor:
        if cuda.capturing is None:
            done.append("eager")
        else:
            cuda.capturing.calls.append(lambda: done.append("replayed"))
        return torch.ones(())

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_steps(step, epochs, steps, context, plan=Plan())
    return facts, done, [str(w.message) for w in caught]


def test_three_steps_run_as_they_are_and_the_fourth_is_captured_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts, done, said = trained(monkeypatch, Cuda())
    assert done == ["eager"] * WARM_UP + ["replayed"] * (10 - WARM_UP)
    assert (facts["graphed"], facts["optimiser_steps"], said) == (True, 10, [])
    assert "train_images_per_s" in facts


def test_a_step_that_cannot_be_captured_runs_as_it_is_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts, done, said = trained(monkeypatch, Cuda(refuses=True))
    assert done == ["eager"] * 10
    assert (facts["graphed"], facts["final_loss"]) == (False, 1.0)
    (line,) = said
    assert line.endswith("cannot be captured: operation not permitted when stream is capturing")


def test_the_steps_up_to_the_capture_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    facts, _, _ = trained(monkeypatch, Cuda(), epochs=1, steps=WARM_UP + 1)
    assert facts["graphed"]
    assert "train_images_per_s" not in facts


def test_without_a_plan_nothing_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda().install(monkeypatch)
    facts: dict[str, Any] = {}
    context = Context("cuda:0", Seeds(0, "d", "c"), record=facts.__setitem__)
    run_steps(lambda: torch.ones(()), 1, 9, context)
    assert "graphed" not in facts
