"""State of a plan: runs done, failed and left."""

from dataclasses import dataclass
from functools import cache, cached_property

from bench.data.masks import listed_masks_digest
from bench.planning.plan import Plan, Run
from bench.source import Standing
from bench.store.artifacts import EXPLANATIONS, missing_artifacts
from bench.store.failures import Failure
from bench.store.receipt import Receipt
from bench.store.results import Results, verified


@dataclass(frozen=True)
class State:
    """A plan beside what is stored."""

    plan: Plan
    done: dict[str, Receipt]
    damaged: tuple[str, ...]
    """Ids of stored runs whose digests do not agree."""
    failed: dict[str, Failure]
    """Last recorded failure of runs that are not done."""
    retry_failed: bool = False
    redo_stale: bool = False
    keep: frozenset[str] = frozenset()
    """The abilities whose files are wanted beside the scores, see `bench.store.artifacts`."""

    @cached_property
    def standings(self) -> dict[str, Standing]:
        """How the code of done runs stands to today's, by id."""
        done = (r for r in self.plan.runs if r.run_id in self.done)
        return {r.run_id: standing_of(r, self.done[r.run_id]) for r in done}

    @cached_property
    def stale(self) -> list[Run]:
        """Runs done by other code than today's."""
        standings = self.standings
        return [r for r in self.plan.runs if r.run_id in standings and standings[r.run_id].stale]

    @cached_property
    def known_failures(self) -> list[Run]:
        """Runs that failed under today's code and would again."""
        failed = [r for r in self.plan.runs if r.run_id in self.failed]
        return [r for r in failed if would_fail_again(r, self.failed[r.run_id])]

    @cached_property
    def missing_artifacts(self) -> dict[str, frozenset[str]]:
        """Supported abilities of `keep` that done runs lack, by id."""
        done = [r for r in self.plan.runs if r.run_id in self.done]
        missing = {r.run_id: missing_for(r, self.done[r.run_id], self.keep) for r in done}
        return {run_id: abilities for run_id, abilities in missing.items() if abilities}

    @cached_property
    def other_masks(self) -> list[Run]:
        """Runs done whose maps were measured with other masks than today's.

        Where maps are wanted, a run that does not say with which counts too, as does one from
        before a pixel metric was measured.
        """
        todo = {r.run_id for r in self.todo}
        outdated: list[Run] = []
        masks_now = cache(lambda *place: listed_masks_digest(listings[place]))
        listings = {(r.spec.dataset, r.spec.category): r.listing for r in self.plan.runs}
        for run in self.plan.runs:
            receipt = self.done.get(run.run_id)
            if receipt is None or run.run_id in todo or EXPLANATIONS not in receipt.files:
                continue
            stated = receipt.metrics.masks_sha256
            if stated is None and "explain" not in self.keep:
                continue
            metrics = receipt.metrics
            older = metrics.pixel_auroc is not None and metrics.pointing is None
            known = None if older and "explain" in self.keep else stated
            if masks_now(run.spec.dataset, run.spec.category) not in (None, known):
                outdated.append(run)
        return outdated

    @cached_property
    def todo(self) -> list[Run]:
        """Runs left to do, in the plan's order.

        Known failures come with `retry_failed`, stale runs with `redo_stale`, and runs without a
        wanted artifact with `keep`.
        """
        left_out = set() if self.retry_failed else {r.run_id for r in self.known_failures}
        again = {r.run_id for r in self.stale} if self.redo_stale else set()
        again |= self.missing_artifacts.keys()
        return [
            r
            for r in self.plan.runs
            if r.run_id in again or (r.run_id not in self.done and r.run_id not in left_out)
        ]


def would_fail_again(run: Run, failure: Failure) -> bool:
    """Whether a run's own failure is of today's code.

    What was killed from outside, found no memory, met bad data or loaded other code than that
    planned is no such failure.
    """
    return failure.kind in ("method", "time limit") and not standing_of(run, failure).stale


def standing_of(run: Run, stored: Receipt | Failure) -> Standing:
    """Compare a result's or failure's code with today's."""
    return stored.provenance.standing(run.planned.method.path)


def missing_for(run: Run, receipt: Receipt, keep: frozenset[str]) -> frozenset[str]:
    """Return supported abilities of `keep` missing in a stored run."""
    return missing_artifacts(receipt, keep, run.planned.method.abilities)


def compare_with_store(
    plan: Plan,
    results: Results,
    *,
    retry_failed: bool = False,
    redo_stale: bool = False,
    keep: frozenset[str] = frozenset(),
) -> State:
    """Return a plan's state in the results, digests checked.

    `keep` names the abilities whose files are wanted beside the scores.
    """
    done, damaged = verified(results, [r.run_id for r in plan.runs])
    failed = {
        r.run_id: failures[-1]
        for r in plan.runs
        if r.run_id not in done and (failures := results.failures(r.run_id))
    }
    return State(plan, done, tuple(damaged), failed, retry_failed, redo_stale, keep)
