"""`bench show`: what is stored."""

from bench.cli.options import RESULTS, ResultsOption, say
from bench.errors import RequestError


def show(run_id: str, results: ResultsOption = RESULTS) -> None:
    """Show a stored run: spec, draw, metrics, timings and provenance. A beginning will do."""
    from bench.store import Store

    store = Store(results.absolute())
    if not store.ids():
        raise RequestError(f"there are no runs in {store.runs}; name the folder with --results")
    receipt = store.read(store.find(run_id))
    say(f"run {receipt['run_id']}")
    for group in ("spec", "metrics", "split", "facts", "timings", "provenance"):
        say(f"\n{group}")
        for key, value in receipt[group].items():
            if isinstance(value, dict):
                value = ", ".join(f"{k}={v}" for k, v in value.items())
            say(f"  {key:24} {value}")
    say("\ndraw")
    for i, drawn in enumerate(receipt["draw"], 1):
        used = "labelled" if i <= receipt["spec"]["shots"] else ""
        say(f"  {i:2} {drawn['file']:40} {drawn['defect']:20} {used}")
    for warning in receipt["warnings"]:
        say(f"\nwarning: {warning}")
