"""Wanted minus stored: what is done, what is left, how long that takes."""

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from bench.plan import Missing, Plan, Run
from bench.receipt import Receipt
from bench.registry import source_hash
from bench.results import Results, verified


@dataclass(frozen=True)
class State:
    """A plan beside what is stored."""

    plan: Plan
    done: dict[str, Receipt]
    damaged: tuple[str, ...]
    """Ids of stored runs whose digests do not agree."""
    failed: dict[str, dict[str, Any]]
    """Last recorded failure of runs that are not done."""
    retry_failed: bool = False
    redo_stale: bool = False

    @cached_property
    def stale(self) -> list[Run]:
        """Runs that are done, but by other code than today's."""
        done = [r for r in self.plan.runs if r.run_id in self.done]
        return [r for r in done if _other_code(r, self.done[r.run_id])]

    @cached_property
    def given_up(self) -> list[Run]:
        """Runs that failed by themselves, under today's code: they would only fail again."""
        failed = [r for r in self.plan.runs if r.run_id in self.failed]
        return [r for r in failed if would_fail_again(r, self.failed[r.run_id])]

    @cached_property
    def todo(self) -> list[Run]:
        """Runs that are wanted and not stored, in the order of the plan.

        Those that were given up come with `retry_failed`, those that are stale with `redo_stale`.
        """
        left_out = set() if self.retry_failed else {r.run_id for r in self.given_up}
        again = {r.run_id for r in self.stale} if self.redo_stale else set()
        return [
            r
            for r in self.plan.runs
            if r.run_id in again or (r.run_id not in self.done and r.run_id not in left_out)
        ]


def would_fail_again(run: Run, failure: Mapping[str, Any]) -> bool:
    """Whether a run failed by itself, and under today's code.

    What was killed from outside, found no memory or met bad data is no such failure.
    """
    return failure["kind"] in ("method", "time limit") and not _other_code(run, failure)


def _other_code(run: Run, stored: Mapping[str, Any]) -> bool:
    """Whether a receipt or a failure comes from other code than today's."""
    then = stored["provenance"].get("source_sha256")
    return bool(then != source_hash(run.cell.method.module))


def look_up(
    plan: Plan, results: Results, *, retry_failed: bool = False, redo_stale: bool = False
) -> State:
    """Ask the results what is there; every digest is checked."""
    done, damaged = verified(results, [r.run_id for r in plan.runs])
    failed = {
        r.run_id: failures[-1]
        for r in plan.runs
        if r.run_id not in done and (failures := results.failures(r.run_id))
    }
    return State(plan, done, tuple(damaged), failed, retry_failed, redo_stale)


def time_left(runs: Iterable[Run], receipts: Iterable[Receipt], slots: int) -> float | None:
    """Estimate the seconds that `runs` will take from stored runs of the same method and size.

    None where there is nothing to go by for one of them.
    """
    paces: dict[tuple[Any, ...], list[float]] = collections.defaultdict(list)
    for receipt in receipts:
        seconds = sum(receipt["timings"].get(k) or 0 for k in ("setup_s", "fit_s", "score_s"))
        paces[_kind(receipt["spec"])].append(seconds / _length(receipt["spec"]["parameters"]))
    total = 0.0
    for run in runs:
        known = paces.get(_kind(vars(run.spec)))
        if known is None:
            return None
        total += fmean(known) * _length(run.spec.parameters)
    return total / slots


def _kind(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what two runs must share for the time of one to say something of the other's."""
    same = ("method", "image_size", "precision", "batch_size", "backbone", "stage")
    # Without a fixed number of steps the length of an epoch depends on the category.
    fixed = bool(spec["parameters"].get("steps_per_epoch", 1))
    return (*(spec[k] for k in same), fixed)


def _length(parameters: Mapping[str, Any]) -> float:
    """Return how long a training is, in any unit: epochs times steps where they are fixed.

    A method from outside may mean anything by these names.
    """
    length = 1.0
    for name in ("epochs", "steps_per_epoch"):
        value = parameters.get(name)
        if isinstance(value, int | float) and value > 0:
            length *= value
    return length


def missing_lines(missing: Iterable[Missing]) -> list[str]:
    """Return one line for each different remedy, with how many runs wait for it.

    What is said of several categories of a dataset in the same words is said of the first.
    """
    alike: dict[str, list[Missing]] = collections.defaultdict(list)
    for m in missing:
        alike[m.remedy.replace(f"{m.cell.dataset}/{m.cell.category}", m.cell.dataset)].append(m)
    lines = []
    for same in alike.values():
        categories = len({(m.cell.dataset, m.cell.category) for m in same})
        others = f" of {categories} categories" if categories > 1 else ""
        lines.append(f"{same[0].remedy}  [{len(same)} run{'s' if len(same) > 1 else ''}{others}]")
    return lines
