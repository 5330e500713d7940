"""Renders the report of a made-up archive: `python -m tests.campaigns.big_report --runs 20000`.

Prints how long the page took, in a process of its own, the most memory it held and its size, and
fails where that is too much. The archive has all places of Table 1 at one and ten shots, six
methods, ten seeds, and as many other ways to run each method as make up the number of runs; every
run has the scores of 150 images, and one in twenty keeps embeddings and maps of them.
"""

import argparse
import functools
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.published.tables import published_tables
from bench.spec import RunSpec
from bench.store.archive import pack
from bench.store.embeddings import COMPONENTS, Embeddings
from bench.store.explanations import Explanations
from bench.store.receipt import Receipt
from bench.store.scores import Scores
from tests.fixtures.runs import SPEC, receipt_of

SEEDS = 10
KEEPS_ONE_IN = 20
LIMITS = (60.0, 1.5e9, 5e6)
"""What 20,000 runs may take: seconds of one core, bytes of memory, bytes of the page."""
METHODS = ("devnet", "dra", "saoe", "cutmix", "atacnet", "shortcut")
LABEL = np.arange(150) >= 50
RENDER = """
import json, re, resource, sys, time
from pathlib import Path
started = time.perf_counter()
from bench.cli import app
app(["report", "--results", sys.argv[1], "--out", sys.argv[2]], standalone_mode=False)
used = resource.getrusage(resource.RUSAGE_SELF)
# Not ru_maxrss, which an exec'd process takes over from the one that started it.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"seconds": time.perf_counter() - started, "peak_bytes": peak,
                  "cpu_seconds": used.ru_utime + used.ru_stime}))
"""


class MadeUp:
    """Results in memory, made when they are asked for: what `pack` reads of a `Store`."""

    root = Path("made-up")

    def __init__(self, runs: int, places: int | None = None) -> None:
        self._specs = {s.run_id: s for s in itertools.islice(specs(places), runs)}

    def ids(self) -> list[str]:
        return sorted(self._specs)

    @functools.lru_cache(maxsize=1)  # noqa: B019  asked for twice in a row
    def scores(self, run_id: str) -> Scores:
        rng = np.random.RandomState(int(run_id[:8], 16) % 2**32)
        category = self._specs[run_id].category
        names = tuple(f"{category}/test/{'hole' if y else 'good'}/{i:03}.png"
                      for i, y in enumerate(LABEL))  # fmt: skip
        return Scores(
            file=names,
            label=LABEL,
            defect=tuple("hole" if y else "good" for y in LABEL),
            role=("test",) * 140 + ("drawn",) * 10,
            score=rng.normal(1.5 * LABEL).astype(np.float32),
        )

    def read(self, run_id: str) -> Receipt:
        made: Receipt = receipt_of(self._specs[run_id], self.scores(run_id))
        return made

    def embeddings(self, run_id: str) -> Embeddings | None:
        rng = self._keeping(run_id)
        if rng is None:
            return None
        values = rng.normal(size=(len(LABEL), COMPONENTS)).astype(np.float32)
        return Embeddings(self.scores(run_id).file, values, 0.9)

    def epoch_scores(self, run_id: str) -> None:
        """Keep none."""

    def failed_ids(self) -> list[str]:
        return []

    def explanations(self, run_id: str) -> Explanations | None:
        rng = self._keeping(run_id)
        if rng is None:
            return None
        maps = {"score": rng.normal(size=(len(LABEL), 14, 14)).astype(np.float32)}
        return Explanations(self.scores(run_id).file, maps, None, {})

    def _keeping(self, run_id: str) -> np.random.RandomState | None:
        """Give the random numbers of a run that keeps something beside its scores."""
        number = int(run_id[:8], 16)
        return None if number % KEEPS_ONE_IN else np.random.RandomState(number)


def specs(most: int | None = None) -> Iterator[RunSpec]:
    """Give ever more ways to run all methods everywhere, or in so many places."""
    rows = published_tables()["atacnet_table1"].rows("atacnet", 10)
    places = list(dict.fromkeys((k.dataset, k.category) for k in rows))[:most]
    trained = replace(SPEC, precision="float32", batch_size=16, backbone="resnet50", stage=4,
                      image_size=224, weights="a" * 64)  # fmt: skip
    for way in itertools.count():
        for (dataset, category), shots, method, seed in itertools.product(
            places, (1, 10), METHODS, range(SEEDS)
        ):
            parameters = {"lr": 1e-3 / (way + 1), "epochs": 30, "steps_per_epoch": 0}
            yield replace(trained, method=method, parameters=parameters, dataset=dataset,
                          category=category, shots=shots, seed=seed)  # fmt: skip


def measured(archive: Path, page: Path) -> dict[str, float]:
    """Give the command in a process of its own; return seconds, cpu_seconds and peak_bytes."""
    command = [sys.executable, "-c", RENDER, str(archive), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Make the archive, write the page, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive, page = Path(folder, "archive"), Path(folder, "page.html")
        pack(MadeUp(options.runs), archive)
        size = sum(p.stat().st_size for p in archive.iterdir())
        found = measured(archive, page)
        print(f"{options.runs} runs, archive of {size / 1e6:.0f} MB: {found['seconds']:.1f} s "
              f"({found['cpu_seconds']:.1f} s of one core), {found['peak_bytes'] / 2**30:.2f} GiB, "
              f"page of {page.stat().st_size / 1e6:.2f} MB")  # fmt: skip
        taken = (found["cpu_seconds"], found["peak_bytes"], page.stat().st_size)
        if any(used > limit for used, limit in zip(taken, LIMITS, strict=True)):
            sys.exit(f"that is more than {LIMITS}: seconds of one core, bytes held, bytes of page")


if __name__ == "__main__":
    main()
