"""The loop over training steps."""

from typing import Any

import pytest
import torch

from baselines.blocks.loop import run_steps
from bench.detector import Context, Seeds


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 4), (3, 2)])
def test_it_makes_all_steps_and_says_what_they_came_to(epochs: int, steps: int) -> None:
    told: list[tuple[int, int, float]] = []
    facts: dict[str, Any] = {}
    context = Context(
        "cpu",
        Seeds(0, "d", "c"),
        batch_size=8,
        progress=lambda *said: told.append(said),
        record=facts.__setitem__,
    )
    losses = torch.arange(float(epochs * steps))
    given = iter(losses)
    run_steps(lambda: next(given), epochs, steps, context)
    assert next(given, None) is None
    means = losses.view(epochs, steps).mean(1).tolist()
    assert told[0][:2] == (0, epochs)
    assert told[1:] == [(n + 1, epochs, mean) for n, mean in enumerate(means)]
    assert (facts["optimiser_steps"], facts["final_loss"]) == (epochs * steps, means[-1])
    assert ("train_images_per_s" in facts) == (epochs * steps > 1)


def test_the_first_step_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, facts = [0.0], dict[str, Any]()
    monkeypatch.setattr("baselines.blocks.loop.time.perf_counter", lambda: now[0])
    took = iter([100.0, 2.0, 2.0, 3.0])

    def step() -> torch.Tensor:
        now[0] += next(took)
        return torch.zeros(())

    run_steps(step, 2, 2, Context("cpu", Seeds(0, "d", "c"), batch_size=7,
                                  record=facts.__setitem__))  # fmt: skip
    assert facts["train_images_per_s"] == 3 * 7 / 7.0


def test_each_epoch_is_closed_before_the_next_begins() -> None:
    calls: list[str] = []

    def step() -> torch.Tensor:
        calls.append("step")
        return torch.zeros(())

    context = Context("cpu", Seeds(0, "d", "c"))
    run_steps(step, 2, 3, context, after_epoch=lambda _: calls.append("epoch"))
    assert calls == [*["step"] * 3, "epoch"] * 2
