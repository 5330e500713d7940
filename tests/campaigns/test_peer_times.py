"""That the script which times us beside anomalib still runs, and what it writes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from tests.campaigns import peer_times
from tests.campaigns.peer_times import METHODS, compared, markdown, one_round, summary

SPEED = Path(__file__).parents[2] / "results" / "speed"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(peer_times, "SIZE", 32)
    monkeypatch.setattr(peer_times, "NORMALS", 8)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("method", METHODS)
def test_our_side_does_all_that_it_is_asked_for(method: str) -> None:
    actions = peer_times.ours(method)
    asked = {what for _, what in compared(method).values()}
    assert asked == set(actions)
    for action in actions.values():  # the fit is the first
        action()
    ((scores, maps),) = actions["both 8"]()
    if method == "cflow":
        assert scores.dtype == torch.float64
        scores = scores.float()
    torch.testing.assert_close(scores, torch.from_numpy(actions["score 8"]()))
    assert maps.shape == (8, 32, 32)


class Stub:
    """A side whose answers are known: anomalib takes twice as long and three times the memory."""

    order: ClassVar[list[str]] = []

    def __init__(self, side: str, method: str, python: str) -> None:
        self._side, self._factor = side, {"anomalib": 2.0, "ours": 1.0}[side]
        self._predicted = False

    def ask(self, what: str) -> dict[str, float]:
        self.order.append(f"{self._side} {what}")
        late = 1.0
        if " " in what and not self._predicted:  # the first prediction is not counted
            self._predicted, late = True, 10.0
        peak = (1 if what == "fit" else 2**20 * 100) * (3 if self._side == "anomalib" else 1)
        return {"thread_s": self._factor * late, "wall_s": 5.0, "peak": peak}

    def end(self) -> None:
        self.order.append(f"{self._side} ends")


def test_both_sides_take_turns_and_medians_are_compared() -> None:
    Stub.order.clear()
    rounds = [one_round("padim", "python", 3, Stub) for _ in range(2)]
    assert Stub.order[:6] == ["anomalib build", "anomalib fit", "ours fit", "anomalib both 1",
                              "ours score 1", "ours both 1"]  # fmt: skip
    assert Stub.order.count("anomalib both 8") == 2 * (peer_times.WARM_UP + 3)
    assert Stub.order[-2:] == ["anomalib ends", "ours ends"]
    found: dict[str, Any] = summary("padim", rounds)
    assert json.loads(json.dumps(found)) == found
    assert found["anomalib"]["fit_thread_s"] == 2.0
    assert found["anomalib"]["score_1_thread_ms"] == 2000
    assert found["ours"]["score_8_thread_ms"] == 125
    assert (found["ours"]["memory_mib"], found["anomalib"]["memory_mib"]) == (100, 300)
    assert found["ratio"]["fit_thread_s"] == found["ratio"]["score_and_map_8_thread_ms"] == 2.0
    assert found["ratio"]["memory_mib"] == 3.0
    assert found["ratio"]["fit_wall_s"] == 1.0
    table = markdown([found]).splitlines()
    assert table[2] == "| padim | fit, s | 2.0 | 1.0 | 2.0 |"
    assert table[-1] == "| padim | memory over imports, MiB | 300 | 100 | 3.0 |"


def test_flows_take_turns_at_training_steps_too() -> None:
    Stub.order.clear()
    found = summary("cflow", [one_round("cflow", "python", 6, Stub)])
    steps = [what for what in Stub.order if what.endswith("step")]
    assert steps == ["anomalib step", "ours step"] * (peer_times.WARM_UP + 2)
    assert (found["ours"]["step_thread_s"], found["ratio"]["step_thread_s"]) == (1.0, 2.0)
    assert markdown([found]).splitlines()[3] == "| cflow | training step, s | 2.0 | 1.0 | 2.0 |"


@pytest.mark.parametrize("file", sorted(SPEED.glob("anomalib-*.json")), ids=lambda f: f.stem)
def test_what_was_measured_is_of_all_methods_and_makes_a_table(file: Path) -> None:
    found = json.loads(file.read_text())
    assert [case["method"] for case in found] == list(METHODS)
    rows = sum(len(compared(method)) + 1 for method in METHODS)
    assert len(markdown(found).splitlines()) == 2 + rows
