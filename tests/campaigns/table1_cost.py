"""Estimates what the paper's Table 1 costs on a GPU: `python -m tests.campaigns.table1_cost`.

Time and GPU memory follow from the committed runs of `results/reference/nvidia-h200` that train
as the paper states, once over the normal images in each of 30 epochs, on five categories. A run's
time grows with its training steps; the catalogue says how many normal images each category has.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from bench.data.catalog import BRAIN_MRI, HEAD_CT, MVTEC_AD
from bench.planning.resources import BYTES_OF_A_RUN
from bench.planning.suite import read_suite
from bench.store.open import open_results
from bench.store.receipt import Receipt
from bench.store.results import receipts

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "results" / "reference" / "nvidia-h200"
AT_ONCE = 6
"""Runs that shared the GPU: `--slots 6`."""
DATASETS = (MVTEC_AD, BRAIN_MRI, HEAD_CT)
SIZE, EPOCHS, NORMALS_A_STEP = 224, 30, 8
REFERENCE = "shortcut"
"""It takes a second and no GPU."""


@dataclass(frozen=True)
class Cost:
    """What all runs of a method in Table 1 take."""

    measured: int
    """How many committed runs it follows from."""
    runs: int
    step_s: float
    hours: float
    """With `AT_ONCE` runs at once, summed over the runs."""
    gpu_bytes: int
    """The most that a run has taken."""


def costs(stored: Iterable[Receipt]) -> dict[str, Cost]:
    """Return the cost of each trained method of suite table1, by name."""
    (suite,) = read_suite("table1").blocks
    repeats = len(suite.shots) * suite.seeds
    normals = [facts.train for d in DATASETS for facts in d.categories.values()]
    steps = sum(EPOCHS * math.ceil(n / NORMALS_A_STEP) for n in normals)
    by_method = defaultdict(list)
    for receipt in stored:
        spec = receipt.spec
        if spec.kind == "accuracy" and spec.parameters.get("steps_per_epoch") == 0:
            by_method[spec.method].append(receipt)
    found = {}
    for method in suite.methods:
        if method == REFERENCE:
            continue
        timings = [r.timings for r in by_method[method]]
        made = [r.facts["optimiser_steps"] for r in by_method[method]]
        step = fmean(t.fit_s / n for t, n in zip(timings, made, strict=True))
        beside = fmean(t.setup_s + t.score_s for t in timings)
        found[method] = Cost(
            measured=len(timings),
            runs=repeats * len(normals),
            step_s=step,
            hours=repeats * (step * steps + beside * len(normals)) / 3600,
            gpu_bytes=max(r.provenance.peak_gpu_memory_bytes for r in by_method[method]),
        )
    return found


def hours_together(found: Mapping[str, Cost]) -> float:
    """Return how long all runs take with `AT_ONCE` at once."""
    return sum(cost.hours for cost in found.values()) / AT_ONCE


def disk() -> dict[str, int]:
    """Return the bytes on disk of suite table1: archive and images of MVTec AD, cache, results."""
    assert MVTEC_AD.archive is not None
    (suite,) = read_suite("table1").blocks
    facts = [facts for d in DATASETS for facts in d.categories.values()]
    runs = len(suite.methods) * len(facts) * len(suite.shots) * suite.seeds
    return {
        "archive": MVTEC_AD.archive.bytes,
        "images": MVTEC_AD.archive.unpacked,
        "cache": sum(f.images for f in facts) * 3 * SIZE * SIZE,
        "results": runs * BYTES_OF_A_RUN,
    }


def markdown(found: Mapping[str, Cost]) -> str:
    """Write the estimate: a row for each method, and the disk in a sentence."""
    lines = [
        "| method | measured runs | a step, ms | Table 1: runs | hours of runs | GPU memory, GiB |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {c.measured} | {1e3 * c.step_s:.0f} | {c.runs} | {c.hours:.1f} |"
        f" {c.gpu_bytes / 2**30:.1f} |"
        for name, c in found.items()
    ]
    gb = {name: f"{size / 1e9:.2g} GB" for name, size in disk().items()}
    return "\n".join(
        [
            *lines,
            "",
            f"With {AT_ONCE} runs at once: {hours_together(found):.1f} hours. Disk: MVTec AD"
            f" {gb['archive']} to download and {gb['images']} unpacked, decoded images"
            f" {gb['cache']}, results {gb['results']}.",
        ]
    )


if __name__ == "__main__":
    print(markdown(costs(receipts(open_results(ARCHIVE)))))
