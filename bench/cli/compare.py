"""`bench compare`: shared runs of two results, one by one."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.formats import print_json
from bench.cli.options import JsonOption, say
from bench.errors import RequestError
from bench.text import counted

if TYPE_CHECKING:
    from bench.analysis.slower import Night, Slower
    from bench.store.agreement import Agreement
    from bench.store.receipt import Receipt
    from bench.store.results import Results

KINDS = ("identical", "close", "different")


@dataclass(frozen=True)
class Pair:
    """Two results of one run."""

    first: "Receipt"
    second: "Receipt"
    match: "Agreement"
    scores_gap: float | None
    """Largest difference of a score; None for other images, and where all are identical."""

    @property
    def aurocs(self) -> tuple[float, float] | None:
        """Both AUROC; None of timing runs, whose training is cut short."""
        if self.match.timing:
            return None
        return self.first.metrics.auroc, self.second.metrics.auroc

    @property
    def line(self) -> str:
        """The run, and how far its results agree."""
        match = self.match
        gap = "scores differ" if self.aurocs is None else f"AUROC differs by {match.auroc_gap:+.6f}"
        both = ", {:.4f} and {:.4f}".format(*self.aurocs) if self.aurocs else ""
        return f"{self.first.run_id} {self.first.spec}: {match.kind}: {gap}{both}"

    @property
    def scores(self) -> str:
        """How far the scores of images differ."""
        gap = self.scores_gap
        return "other images" if gap is None else f"scores by up to {gap:.2g}"

    def as_dict(self) -> dict[str, Any]:
        """Return the pair as JSON types."""
        first, second = self.aurocs or (None, None)
        spec = self.first.spec
        return {
            "run_id": self.first.run_id, "method": spec.method, "dataset": spec.dataset,
            "category": spec.category, "shots": spec.shots, "seed": spec.seed,
            "kind": self.match.kind, "auroc_first": first, "auroc_second": second,
            "scores_gap": self.scores_gap, "environment": list(self.match.environment),
        }  # fmt: skip


def compare_command(
    first: Annotated[Path, typer.Argument(help="Results folder, or archive.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
    margin: Annotated[
        float,
        typer.Option(help="Largest difference in AUROC that is close.", metavar="AUROC", min=0),
    ] = 0.010,
    as_json: JsonOption = False,
) -> None:
    """Compare the runs of two results folders or archives.

    Each shared one is identical, close (within the margin, and the environment explains it) or
    different, the largest difference first. What the second lacks is missing, or has failed there.
    Times are compared where both were taken on one machine.

    Exit code: 0 all runs of the first are identical or close in the second, and none slower; 1 not.
    """
    from bench.analysis.slower import night
    from bench.store.open import open_results
    from bench.store.results import verified

    one, other = open_results(first.absolute()), open_results(second.absolute())
    ids = (set(one.ids()), set(other.ids()))
    if not ids[0] & ids[1]:
        raise RequestError(f"{first} and {second} share no run")
    (firsts, bad), (seconds, also_bad) = verified(one, ids[0]), verified(other, ids[1])
    damaged = sorted({*bad, *also_bad})
    pairs = [
        _pair(one, other, firsts[run_id], seconds[run_id], margin)
        for run_id in sorted(firsts.keys() & seconds.keys())
    ]
    counts = Counter(pair.match.kind for pair in pairs)
    alone = (sorted(ids[0] - ids[1]), sorted(ids[1] - ids[0]))
    failed = [run_id for run_id in alone[0] if other.failures(run_id)]
    slow = _slower(night(one, firsts.values()), night(other, seconds.values()))
    if as_json:
        print_json({
            "first": str(first), "second": str(second), "margin": margin,
            "counts": {kind: counts[kind] for kind in KINDS}, "only_in_first": alone[0],
            "only_in_second": alone[1], "failed_in_second": failed, "damaged": damaged,
            "slower": [str(s) for s in slow], "runs": [pair.as_dict() for pair in pairs],
        })  # fmt: skip
    else:
        for line in (*_lines(pairs), *_by_method(pairs), *map(str, slow)):
            say(line)
        for run_id in damaged:
            say(f"{run_id} is damaged: `bench verify` says where")
        failures = f" ({len(failed)} failed in {second})" * bool(failed)
        say(
            f"{_counted(counts)}; {len(alone[0])} only in {first}{failures},"
            f" {len(alone[1])} only in {second}"
        )
    if counts["different"] or alone[0] or damaged or slow:
        raise typer.Exit(1)


def _slower(before: "Night | None", after: "Night | None") -> "list[Slower]":
    """Return what has grown since, of times of one machine."""
    from bench.analysis.slower import slower

    if before is None or after is None or before.machine != after.machine:
        return []
    return slower(after.times, [before.times])


def _pair(
    one: "Results", other: "Results", first: "Receipt", second: "Receipt", margin: float
) -> Pair:
    from bench.store.agreement import agreement

    match = agreement(first, second, margin)
    if match.kind == "identical":
        return Pair(first, second, match, 0.0)
    gap = one.scores(first.run_id).gap(other.scores(first.run_id))
    return Pair(first, second, match, gap)


def _lines(pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield what is not identical, by environment, the largest difference first."""
    for pair in pairs:
        if pair.match.kind == "identical" and pair.match.masks:
            yield f"{pair.first.run_id} {pair.first.spec}: {pair.match}"
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: -abs(pair.match.auroc_gap)):
        if pair.match.kind != "identical":
            groups[", ".join(pair.match.environment)].append(pair)
    for environment, group in groups.items():
        cause = environment or "the environment is the same"
        if len(group) > 1:
            yield f"{counted(len(group), 'run')}: {cause}"
        alone = f" ({cause})" * (len(group) == 1)
        for pair in group:
            masks = " and ".join(pair.match.masks)
            other_masks = f"; pixel metrics of other masks ({masks})" if masks else ""
            yield f"{pair.line}{alone}{other_masks}; {pair.scores}"


def _by_method(pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield the counts of each method, of several."""
    methods: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in pairs:
        methods[pair.first.spec.method][pair.match.kind] += 1
    if len(methods) > 1:
        for method, counts in sorted(methods.items()):
            yield f"{method}: {_counted(counts)}"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS)
