"""Scores by epoch: kept beside a run, of which they change nothing."""

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.errors import MethodError
from bench.execution.epochs import EpochScorer
from bench.execution.parts import OwnDraws
from bench.execution.phases import PhaseTimer
from bench.store.artifacts import EPOCHS
from bench.store.receipt import Receipt
from bench.store.results import receipts
from bench.store.verify import problems
from tests.fixtures.command import Bench
from tests.fixtures.stores import kept

SHOWN = np.zeros((4, 3, 8, 8), np.uint8)


class Clock:
    """Stands still but where a test says that time passes."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("bench.execution.phases.time", clock)
    return clock


class Careless:
    """Draws, records, warns and spoils its images while it scores, for half a second."""

    def __init__(self, facts: dict[str, Any], clock: Clock | None = None) -> None:
        self.facts = facts
        self.clock = clock or Clock()
        self.own = np.random.RandomState(1)

    def draw(self) -> list[float]:
        return [torch.rand(1).item(), np.random.rand(), random.random(), self.own.rand()]

    def score(self, images: Any) -> Any:
        warnings.warn("only now", stacklevel=1)
        self.facts |= {"fallbacks": -1, "more": 1}
        self.scored = images.mean((1, 2, 3)).astype(np.float32) + np.float32(self.draw()[3])
        images += 1
        self.clock.seconds += 0.5
        return self.scored


def test_scoring_leaves_draws_facts_images_and_the_time_of_training_as_they_were(
    clock: Clock,
) -> None:
    facts: dict[str, Any] = {"steps": 3, "fallbacks": 0}
    detector, timer = Careless(facts, clock), PhaseTimer(clock.monotonic())
    scorer = EpochScorer(lambda: SHOWN.copy(), facts, timer, "cpu")  # type: ignore[arg-type]
    draws = OwnDraws(detector)
    expected = detector.draw()
    draws.restore()
    timer.pass_over()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for epoch in (1, 2):
            scorer(epoch, detector)
            detector.scored[:] = 9
        clock.seconds += 0.25
    timer.mark("fit_s")
    assert not caught
    assert list(facts.items()) == [("steps", 3), ("fallbacks", 0)]
    assert detector.draw() == expected
    made = scorer.made("abcd")
    assert (made.file, made.epochs) == (("a", "b", "c", "d"), (1, 2))
    assert (made.scores == np.float32(expected[3])).all()
    assert timer.marks == {"epochs_s": 1.0, "fit_s": 0.25}


@pytest.mark.parametrize("epochs", [(0,), (-1,), (1, 1), (2, 1), ("1",), (True,), (1.0,)])
def test_epochs_out_of_order_are_a_breach_of_the_contract(epochs: tuple[Any, ...]) -> None:
    facts: dict[str, Any] = {}
    scorer = EpochScorer(lambda: SHOWN.copy(), facts, PhaseTimer(0.0), "cpu")  # type: ignore[arg-type]
    *before, last = epochs
    for epoch in before:
        scorer(epoch, Careless(facts))
    with pytest.raises(MethodError, match="from 1 on, in order"):
        scorer(last, Careless(facts))


def test_a_method_that_never_calls_has_none() -> None:
    scorer = EpochScorer(lambda: SHOWN.copy(), {}, PhaseTimer(0.0), "cpu")  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="never calls"):
        scorer.made("abcd")


# Whole runs

NEVER_CALLS = "tests.fixtures.misbehaving:Good"
CROSSED = """
data = ["synthetic/washer"]
shots = [10]
[set]
image_size = 32
backbone = "resnet18"
stage = 1
weights = "none"
epochs = 2
steps_per_epoch = 2
[[block]]
methods = ["atacnet", "{outside}"]
draw_seeds = [1]
[[block]]
methods = ["shortcut"]
seeds = 2
draw_seeds = 2
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, warm_cache: Path) -> tuple[Bench, str]:
    """Runs of seeds crossed with draws, without scores by epoch."""
    command = Bench(tmp_path_factory.mktemp("epochs"), warm_cache)
    suite = command.folder / "crossed.toml"
    suite.write_text(CROSSED.format(outside=NEVER_CALLS))
    code, said = command("run", "--suite", str(suite), "--methods", "atacnet,shortcut")
    assert code == 0, said
    return command, str(suite)


def by_draw(command: Bench, method: str) -> dict[tuple[int, int], Receipt]:
    runs = (r for r in receipts(command.store) if r.spec.method == method)
    return {(r.spec.seeds.draw_seed, r.spec.seed): r for r in runs}


def test_a_draw_seed_draws_for_every_seed_and_method(plain: tuple[Bench, str]) -> None:
    shortcut, atacnet = (by_draw(plain[0], m) for m in ("shortcut", "atacnet"))
    assert {*shortcut} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert {*atacnet} == {(1, 0)}
    draws = {d: shortcut[d, d].draw for d in (0, 1)}
    assert draws[0] != draws[1]
    for runs in (shortcut, atacnet):
        assert all(run.draw == draws[d] for (d, _), run in runs.items())
    digests = {at: run.metrics.scores_sha256 for at, run in shortcut.items()}
    assert digests[0, 0] == digests[0, 1], "nothing but the draw is random"
    assert digests[1, 0] == digests[1, 1] != digests[0, 0]


def test_runs_with_scores_by_epoch_are_the_same_runs(
    plain: tuple[Bench, str], tmp_path: Path
) -> None:
    command, suite = plain
    other = Bench(tmp_path, command.cache)
    chosen = ("--suite", suite, "--methods", f"atacnet,{NEVER_CALLS}", "--keep-epochs")
    code, said = other("run", *chosen)
    assert code == 0, said
    assert "keeps no scores by epoch: NotImplementedError: it never calls" in said
    assert "0 to do" in other("run", *chosen, "--dry-run")[1]
    (before,), (run,) = (by_draw(c, "atacnet").values() for c in (command, other))
    assert run.run_id == before.run_id
    assert run.metrics == before.metrics, "with the digest of the scores"
    assert kept(other.store, run.run_id) == {EPOCHS}
    assert kept(command.store, run.run_id) == set()
    facts = [{k: v for k, v in r.facts.items() if not k.endswith("_per_s")} for r in (run, before)]
    assert facts[0] == facts[1]
    assert "crop_fallbacks_test" in facts[0]
    scores, made = other.store.scores(run.run_id), other.store.epoch_scores(run.run_id)
    assert made is not None
    assert made.epochs == (1, 2)
    assert np.array_equal(made.scores[-1], scores.score), "the last epoch is the run's"
    assert made.auroc(scores)[2] == run.metrics.auroc
    assert run.timings["epochs_s"]
    assert list(problems(other.store)) == []
    assert "scores by epoch          2 epochs" in other("show", run.run_id)[1]


def test_a_stored_run_is_made_again_for_them_where_its_method_may_have_some(
    plain: tuple[Bench, str],
) -> None:
    command, suite = plain
    code, said = command("run", "--suite", suite, "--keep-epochs", "--dry-run")
    assert code == 0, said
    assert "1 run stored without scores by epoch: again, to keep them" in said
    assert "no scores by epoch of shortcut: it takes a method with after_epoch()" in said


def test_time_is_never_measured_with_them(tmp_path: Path, warm_cache: Path) -> None:
    command = Bench(tmp_path, warm_cache)
    code, said = command("run", "--suite", "timing", "--keep-epochs", "--dry-run")
    assert code == 2
    assert "--keep-epochs scores between epochs, and suite timing measures time" in said
