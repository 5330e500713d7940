"""The time that is left of a plan."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from baselines.patchcore import MOST
from bench.data.listing import File
from bench.planning.plan import Plan, Run
from bench.planning.runtime import CORESET, RuntimeModel, time_left
from tests.fixtures.plans import receipt
from tests.fixtures.runs import receipt_of


def test_time_is_known_only_where_a_run_of_the_kind_is_stored(plan: Plan) -> None:
    by_method = {run.spec.method: run for run in plan.runs}
    stored = [receipt(by_method["atacnet"], 30.0), receipt(by_method["atacnet"], 50.0)]
    assert time_left([by_method["atacnet"]] * 3, stored, 2) == pytest.approx(60.0)
    assert time_left([by_method["atacnet"], by_method["cutmix"]], stored, 1) is None
    assert time_left([], stored, 1) == 0


@pytest.mark.parametrize("epochs", [0, -3, "auto", True, 1e9])
def test_the_time_left_copes_with_what_other_methods_mean_by_epochs(three: Plan, epochs) -> None:
    run = replace(three.runs[0], spec=replace(three.runs[0].spec, parameters={"epochs": epochs}))
    timings = {"setup_s": 1.0, "fit_s": 2.0, "score_s": 1}
    stored = receipt_of(run.spec, timings=timings, split={"scored": 0})
    assert time_left([run], [stored], 1) == pytest.approx(4.0)


def test_the_time_left_follows_steps_and_images(three: Plan) -> None:
    run = three.runs[0]
    normals = sum(f.fold == "train" for f in run.listing.files)
    tested = len(run.listing.files) - normals
    split = {"train_normal": 2 * normals, "scored": 4 * tested}  # of a larger category
    timings = {"setup_s": 1.0, "fit_s": 40.0, "score_s": 8.0}

    def guess(ran: dict[str, Any], wanted: dict[str, Any]) -> float | None:
        there = replace(run, spec=replace(run.spec, parameters=ran))
        stored = receipt_of(there.spec, timings=timings, split=split)
        return time_left(
            [replace(run, spec=replace(run.spec, parameters=wanted))], [stored], slots=1
        )

    fixed = {"epochs": 4, "steps_per_epoch": 10}
    assert guess(fixed, {"epochs": 8, "steps_per_epoch": 5}) == pytest.approx(1 + 40 + 2)
    assert guess(fixed, {"epochs": 6, "steps_per_epoch": 20}) == pytest.approx(1 + 120 + 2)
    once = {"epochs": 4, "steps_per_epoch": 0}  # an epoch goes once over half as many normals
    assert guess(once, {"epochs": 8, "steps_per_epoch": 0}) == pytest.approx(1 + 40 + 2)
    assert guess(once, fixed) is None


def seconds_of(run: Run, method: str, stored: dict[int, float], normals: int) -> float:
    """Estimate a fit on so many normals from stored ones, by their numbers of normals."""
    spec = replace(run.spec, method=method, parameters={})
    split = {"scored": 1}
    timings = {"setup_s": 0.0, "score_s": 0.0}
    known = [
        receipt_of(spec, timings={**timings, "fit_s": s}, split={**split, "train_normal": n})
        for n, s in stored.items()
    ]
    files = tuple(File(str(i), "train", "good") for i in range(normals))
    wanted = replace(run, spec=spec, listing=replace(run.listing, files=files))
    guess = RuntimeModel(known).estimate(wanted)
    assert guess is not None
    return guess.seconds


def test_without_steps_the_time_follows_the_normal_images(three: Plan) -> None:
    guess = partial(seconds_of, three.runs[0], "padim")
    assert guess({100: 10.0}, 300) == pytest.approx(30)
    assert guess({100: 10.0, 200: 20.0}, 50) == pytest.approx(5)


def test_the_choice_of_a_coreset_takes_more_than_its_share(three: Plan) -> None:
    run = replace(three.runs[0], spec=replace(three.runs[0].spec, image_size=224))
    assert CORESET["patchcore"][1] == MOST
    patches = 28**2

    def took(normals: int) -> float:
        return 0.1 * normals + 1e-9 * min(normals * patches, MOST) ** 1.85

    stored = {n: took(n) for n in (60, 150, 267)}
    for normals in (20, 100, 391, 660, 2000):
        guess = seconds_of(run, "patchcore", stored, normals)
        assert guess == pytest.approx(took(normals), rel=0.01)
    # One number of images: half of the time for each of the two.
    assert seconds_of(run, "patchcore", {100: 10.0}, 200) == pytest.approx(5 * 2 + 5 * 2**1.85)
    # What cannot be told from noise is not turned into a negative share.
    assert seconds_of(run, "patchcore", {100: 10.0, 200: 15.0}, 400) > 20
