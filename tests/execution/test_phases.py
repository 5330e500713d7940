"""Seconds between the phases of a run."""

import time

from bench.execution.phases import PhaseTimer


def test_stations_and_the_first_step_are_counted(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = PhaseTimer(100.0)
    for seconds, take_note in (
        (1, lambda: clock.mark("setup")), (2, clock.step), (3, clock.step),
        (4, lambda: clock.mark("fit")), (5, clock.pass_over), (6, lambda: clock.mark("score")),
    ):  # fmt: skip
        now[0] += seconds
        take_note()
    assert clock.marks == {"setup": 1, "fit": 9, "score": 6}
    assert clock.first_step == 3
