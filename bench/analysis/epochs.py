"""What an epoch chosen on the test images would give over the last one."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.analysis.configurations import Configuration, StoredRuns
from bench.analysis.labels import name_of
from bench.analysis.sections import TableSection
from bench.analysis.selection import groups_in_order
from bench.analysis.statistics import Estimate, mean_interval
from bench.store.artifacts import EPOCHS
from bench.text import counted, signed

ByEpoch = Mapping[int, float]
"""AUROC by epoch of one run."""
TITLE = "What a choice of epoch on the test images gives"
READING = (
    "AUROC of the best epoch on the test images minus that of the last epoch, mean over seeds with"
    " its 95 % t-interval. It is never negative: the best of many noisy values lies above the last,"
    " however little the epochs differ. Every result of this page is of the last epoch; a published"
    " number may hold such a gain, and a reader cannot tell. Runs made with --keep-epochs."
)


@dataclass(frozen=True)
class SelectionGain:
    """Best epoch on the test against the last, over seeds."""

    gain: Estimate
    """Best minus last, 0 or more."""
    best: Estimate
    last: Estimate
    best_epochs: Mapping[int, int]
    """The best epoch by seed, the earliest of equal ones."""
    epochs: int
    """How many epochs there were to choose from, the fewest of the runs."""


def selection_gain(runs: Mapping[int, ByEpoch]) -> SelectionGain | None:
    """Compare the best epoch with the last, by seed.

    None where no run has two epochs to choose from.
    """
    chosen = {seed: by_epoch for seed, by_epoch in sorted(runs.items()) if len(by_epoch) > 1}
    if not chosen:
        return None
    last = [by_epoch[max(by_epoch)] for by_epoch in chosen.values()]
    best = [max(by_epoch.values()) for by_epoch in chosen.values()]
    return SelectionGain(
        mean_interval([b - e for b, e in zip(best, last, strict=True)]),
        mean_interval(best),
        mean_interval(last),
        {s: min(e for e in by if by[e] == max(by.values())) for s, by in chosen.items()},
        min(map(len, chosen.values())),
    )


def gain_of(configuration: Configuration, stored: StoredRuns) -> SelectionGain | None:
    """Return the gain over the runs that keep scores by epoch; None for none.

    Raises CorruptRun for a damaged run.
    """
    by_epoch = configuration.with_artifact(EPOCHS)
    receipts = by_epoch.receipts if by_epoch else ()
    runs = {r.spec.seed: stored.auroc_by_epoch(r) for r in receipts}
    return selection_gain(runs)


def written_gain(gain: SelectionGain) -> str:
    """Write a gain with its interval, seeds and epochs."""
    span = ""
    if gain.gain.interval is not None:
        low, high = gain.gain.interval
        span = f" ({signed(max(0.0, low))} to {signed(high)})"
    seeds, epochs = counted(gain.gain.n, "seed"), counted(gain.epochs, "epoch")
    return f"{signed(gain.gain.mean)}{span}, {seeds}, best of {epochs}"


def epochs_table(stored: StoredRuns) -> TableSection | None:
    """Return the gains of all configurations; None without scores by epoch."""
    rows = []
    for place, shots, method in groups_in_order(stored):
        for configuration in stored.groups[place, shots, method]:
            gain = gain_of(configuration, stored)
            if gain is None:
                continue
            rows.append((
                name_of(place), str(shots), configuration.label, f"{gain.last.mean:.3f}",
                f"{gain.best.mean:.3f}", written_gain(gain),
                ", ".join(map(str, gain.best_epochs.values())),
            ))  # fmt: skip
    columns = ("data", "shots", "configuration", "last epoch", "best epoch on the test",
               "best minus last", "best epochs, by seed")  # fmt: skip
    return TableSection("epochs", TITLE, READING, columns, tuple(rows)) if rows else None
