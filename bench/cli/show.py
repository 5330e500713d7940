"""`bench show`: one run's record, or how it failed."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.formats import print_json
from bench.cli.options import RESULTS, JsonOption, ResultsOption, say
from bench.text import counted

if TYPE_CHECKING:
    from bench.spec import RunSpec
    from bench.store.failures import Failure
    from bench.store.receipt import Receipt
    from bench.store.results import Results
    from bench.store.scores import Scores


def show_command(
    run_id: Annotated[str, typer.Argument(help="Run id, or its first characters.")],
    results: ResultsOption = RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Show a stored run's record, or how it failed."""
    from bench.store.open import open_results
    from bench.store.results import find

    stored = open_results(results.absolute())
    failed = [] if any(i.startswith(run_id) for i in stored.ids()) else _failures(stored, run_id)
    if failed and as_json:
        print_json([_failure_as_dict(failure) for failure in failed])
    elif failed:
        _show_failure(failed[-1], len(failed))
    elif as_json:
        receipt = stored.read(find(stored, run_id))
        scores = stored.scores(receipt.run_id)
        extra = {"auroc_by_defect": _by_defect(receipt, scores), "scored": _roles(scores)}
        print_json({**receipt.as_dict(), **extra})
    else:
        _show_run(stored, find(stored, run_id))


def _failures(stored: "Results", beginning: str) -> "list[Failure]":
    folder = stored.root / "failures"
    if not beginning or not folder.is_dir():
        return []
    matches = sorted(p.name for p in folder.iterdir() if p.name.startswith(beginning))
    return stored.failures(matches[0]) if len(matches) == 1 else []


def _show_group(name: str, values: Mapping[str, Any]) -> None:
    """Print what has a value; a number of a method with six digits."""
    say(f"\n{name}")
    for key, value in values.items():
        if value is None or value == "":
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{k}={v}" for k, v in value.items())
        say(f"  {key:24} {f'{value:.6g}' if isinstance(value, float) else value}")


def _show_run(stored: "Results", run_id: str) -> None:
    receipt = stored.read(run_id)
    scores = stored.scores(run_id)
    say(f"run {receipt.run_id}")
    say(str(receipt.spec))
    if receipt.started_at and receipt.finished_at:
        say(f"started {_moment(receipt.started_at)}, finished {_moment(receipt.finished_at)}")
    cut_short = receipt.spec.kind == "timing"
    _show_group("metrics" + ", no result: training was cut short" * cut_short, receipt.metrics)
    if defects := _by_defect(receipt, scores):
        say("\nAUROC by defect, against all normal test images")
        for defect, (auroc, images) in defects.items():
            say(f"  {defect:24} {auroc:.3f} ({counted(images, 'image')})")
    _show_group("spec", receipt.spec.as_dict())
    _show_group("split", {**receipt.split, "scored": _scored(scores)})
    _show_group("facts", receipt.facts)
    _show_group("timings", receipt.timings)
    _show_group("provenance", _provenance(receipt.spec, receipt.provenance))
    _show_group("keeps", dict(_artifacts(stored, receipt)) or {"nothing": "beside its scores"})
    say("\ndraw")
    for i, drawn in enumerate(receipt.draw, 1):
        used = "labelled" if i <= receipt.spec.shots else ""
        say(f"  {i:2} {drawn.file:40} {drawn.defect:20} {used}".rstrip())
    _show_repetition(receipt)
    for warning in receipt.warnings:
        say(f"\nwarning: {warning}")


def _show_repetition(receipt: "Receipt") -> None:
    from bench.planning.repeat import suite_of

    seed, threads = receipt.spec.seed, receipt.provenance.threads
    say(
        f"\nrepeat it: save these lines as again.toml, then `bench run again.toml"
        f" --seeds {seed}-{seed} --threads {threads} --results again`\n"
    )
    for line in suite_of(receipt.spec).splitlines():
        say(f"  {line}" if line else "")


def _by_defect(receipt: "Receipt", scores: "Scores") -> dict[str, tuple[float, int]]:
    """Return AUROC and number of images by defect type; none of a timing run."""
    from bench.metrics import auroc

    counted_images, defects = scores.counted(), [*scores.defect]
    if receipt.spec.kind == "timing":
        return {}
    values = {}
    for defect in sorted({d for d, label in zip(defects, scores.label, strict=True) if label}):
        is_defect = [d == defect for d in defects] & scores.label & counted_images
        chosen = is_defect | (~scores.label & counted_images)
        if is_defect.any() and not is_defect[chosen].all():
            value = auroc(scores.score[chosen], scores.label[chosen])
            values[defect] = (value, int(is_defect.sum()))
    return values


def _roles(scores: "Scores") -> dict[str, int]:
    return dict(Counter(scores.role))


def _scored(scores: "Scores") -> str:
    """Say of the scored images how many count, and why the others do not."""
    words = {"test": "count", "drawn": "drawn", "duplicate": "show a drawn one", "seen": "seen"}
    roles = ", ".join(f"{n} {words.get(role, role)}" for role, n in _roles(scores).items())
    return f"{len(scores.role)}: {roles}"


def _failure_as_dict(failure: "Failure") -> dict[str, Any]:
    return {
        "run_id": failure.run_id, "failed": failure.time, "kind": failure.kind,
        "reason": failure.reason, "traceback": failure.traceback, "folder": str(failure.folder),
        "spec": failure.spec.as_dict() if failure.spec else None,
        "provenance": dict(failure.provenance),
    }  # fmt: skip


def _provenance(spec: "RunSpec | None", provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's provenance; an own dataset is nobody's copy."""
    from bench.data.catalog import is_own

    about = dict(provenance)
    if spec is not None and is_own(spec.dataset) and "unofficial_copy" in about:
        del about["unofficial_copy"]
        about["copy"] = "own dataset"
    return about


def _moment(moment: datetime) -> str:
    return moment.isoformat(" ", "seconds").replace("+00:00", " UTC")


def _artifacts(stored: "Results", receipt: "Receipt") -> Iterator[tuple[str, str]]:
    """Yield a run's artifacts beside its scores, with a summary."""
    from bench.store.artifacts import MODEL

    if MODEL in receipt.files:
        yield "model", f"runs/{receipt.run_id}/{MODEL}"
    if embeddings := stored.embeddings(receipt.run_id):
        components, share = embeddings.values.shape[1], embeddings.kept
        yield "embeddings", f"{counted(components, 'component')}, {share:.1%} of the variance"
    if explanations := stored.explanations(receipt.run_id):
        yield "maps", ", ".join(explanations.maps)
        yield "boxes", "none" if explanations.boxes is None else "of the zoomed view"
        yield "parts of the score", ", ".join(explanations.parts) or "none"
    if by_epoch := stored.epoch_scores(receipt.run_id):
        yield "scores by epoch", counted(len(by_epoch.epochs), "epoch")


def _show_failure(failure: "Failure", times: int) -> None:
    when = f"{times} times, last" if times > 1 else "once,"
    say(f"run {failure.run_id} has no result: it failed {when} {failure.time}")
    _show_group("spec", failure.spec.as_dict() if failure.spec else {})
    _show_group("provenance", _provenance(failure.spec, failure.provenance))
    say(f"\n{failure.traceback or failure.reason}")
    say(f"log: {failure.folder}/log.txt")
