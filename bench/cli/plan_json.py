"""A plan and its state as JSON."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.planning.rough_times import TimeLeft
    from bench.planning.state import State


def plan_as_json(state: "State", expected: "TimeLeft | None") -> dict[str, Any]:
    """Return what is wanted, its counts and every run with its state."""
    from bench.planning.plan import missing_lines

    plan = state.plan
    todo = {run.run_id for run in state.todo}
    stale = {run.run_id for run in state.stale}
    runs = [
        {
            "run_id": run.run_id,
            "method": run.spec.method,
            "dataset": run.spec.dataset,
            "category": run.spec.category,
            "seen_defect": run.spec.seen_defect,
            "shots": run.spec.shots,
            "seed": run.spec.seed,
            "state": _state(state, run.run_id),
            "to_do": run.run_id in todo,
            "stale": run.run_id in stale,
        }
        for run in plan.runs
    ]
    return {
        "wanted": len(plan.runs) + len(plan.missing),
        "done": len(state.done),
        "to_do": len(todo),
        "failed": len(state.failed),
        "stale": len(stale),
        "damaged": len(state.damaged),
        "missing": len(plan.missing),
        "seconds_left": expected.seconds if expected and not expected.unknown else None,
        "seconds_left_are_rough": bool(expected and expected.rough),
        "missing_inputs": missing_lines(plan.missing),
        "notes": list(plan.notes),
        "runs": runs,
    }


def _state(state: "State", run_id: str) -> str:
    if run_id in state.done:
        return "done"
    if run_id in state.damaged:
        return "damaged"
    return "failed" if run_id in state.failed else "not run"
