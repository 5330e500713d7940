"""That the script which times training steps still runs, and what it writes."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from baselines.saoe import SAOE
from tests.campaigns import step_times


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_times, "SIZE", 32)
    monkeypatch.setattr(step_times, "BATCH", 8)
    monkeypatch.setattr(step_times, "calibration", lambda: lambda: None)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", dict.fromkeys(case[0] for case in step_times.CASES))
def test_a_timed_step_is_one_step_of_training(
    monkeypatch: pytest.MonkeyPatch, method: Any, precision: str
) -> None:
    batches, losses = [], []
    loss = method.loss

    def recorded(self: Any, images: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        networks[:] = [self.network]
        batches.append(len(images))
        losses.append(loss(self, images, kinds))
        return losses[-1]

    networks: list[Any] = []
    monkeypatch.setattr(method, "loss", recorded)
    step = step_times.training_step(method, precision, "resnet18", 1, {})
    step()
    (network,) = networks
    before = [p.detach().clone() for p in network.parameters()]
    step()
    moved = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert all(moved)
    assert network.training
    assert batches == [10 if method is SAOE else 8] * 2
    assert np.isfinite([loss.value.item() for loss in losses]).all()


def test_a_case_says_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    case = (step_times.CASES[1][0], "resnet18", 1, {"scales": 2})
    monkeypatch.setattr(step_times, "CASES", (case,))
    monkeypatch.setattr(step_times, "seconds", lambda action: 0.5 if action() is None else 1.0)
    found = step_times.measured(0, "float32", torch.get_num_threads(), 3)
    assert json.loads(json.dumps(found)) == found
    assert (found["method"], found["scales"], found["ratio"]) == ("devnet", 2, 1.0)
    assert found["memory_mib"] >= 0
    table = step_times.markdown([found, {**found, "threads": 7, "ratio": 2.54}])
    assert table.splitlines()[2].startswith("| devnet | resnet18 | 2 | 1.0 | 2.5 |")


@pytest.mark.parametrize("case", step_times.CASES)
def test_every_case_names_parameters_that_its_method_has(case: Any) -> None:
    method, backbone, stage, given = case
    method.Parameters(**given)
    assert backbone in ("resnet18", "resnet50")
    assert stage == 4
