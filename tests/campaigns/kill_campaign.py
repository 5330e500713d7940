"""Kills processes of `bench run` at random moments and looks at what is left.

    python -m tests.campaigns.kill_campaign --kills 200 --seed 0

Kills workers, the server of processes, the command alone and its whole group. After every kill all
that is visible verifies; after the death of a command no process of it is left; the same command
then completes, and its table equals an undisturbed one in every column that is not a time, a date
or another measurement of the moment. `tests/whole/test_kills.py` runs a short one.
"""

import argparse
import collections
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench.store.folder import Store
from bench.store.verify import problems
from tests.fixtures.command import Bench

ROOT = Path(__file__).parents[2]
SUITE = """
methods = ["shortcut", "cutmix"]
data = ["synthetic/washer", "synthetic/weave"]
shots = [1, 10]
[set]
image_size = 32
backbone = "resnet18"
stage = 1
weights = "none"
epochs = 12
steps_per_epoch = 4
"""
TARGETS = ("worker", "server", "command", "group")
MEASURED = {
    "prov.load_average", "prov.peak_memory_bytes",
    "prov.artifacts_peak_memory_bytes", "fact.train_images_per_s", "started_at",
    "finished_at",
}  # fmt: skip


@dataclass
class Campaign:
    """A folder in which a command is killed again and again."""

    folder: Path
    random: random.Random
    seeds: int = 2
    """Each of them means eight runs."""
    marker: str = field(default_factory=lambda: uuid.uuid4().hex)
    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    rounds: int = 0

    def __post_init__(self) -> None:
        (self.folder / "suite.toml").write_text(SUITE)

    @property
    def command(self) -> tuple[str, ...]:
        return "run", "--suite", "suite.toml", "--seeds", str(self.seeds), "--threads", "1"

    @property
    def store(self) -> Store:
        return Store(self.folder / "results")

    def start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "BENCH_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1", "KILL_CAMPAIGN": self.marker,
        }  # fmt: skip
        log = (self.folder / "said.txt").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "bench", *self.command, "--results", "results"],
                cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def processes(self) -> dict[int, str]:
        """Return the living processes of this campaign, with their command lines."""
        wanted = f"KILL_CAMPAIGN={self.marker}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
                    if not dead and wanted in (entry / "environ").read_bytes():
                        found[int(entry.name)] = (entry / "cmdline").read_text()
        return found

    def victims(self, command: int) -> dict[str, list[int]]:
        """Return the processes that can be killed now, by target."""
        there = self.processes()
        servers = [p for p, line in there.items() if "forkserver" in line and _leads(p) != p]
        workers = [p for p, line in there.items() if "forkserver" in line and _leads(p) == p]
        return {"worker": workers, "server": servers, "command": [command], "group": [command]}

    def strike(self, process: subprocess.Popen[bytes]) -> None:
        """Kill one of the targets killed least so far, at a moment when it is there."""
        least = min(self.kills[t] for t in TARGETS)
        target = self.random.choice([t for t in TARGETS if self.kills[t] == least])
        while not self.victims(process.pid)[target]:
            if process.poll() is not None:
                return
            time.sleep(0.02)
        time.sleep(self.random.choice([0, self.random.uniform(0, 1), self.random.uniform(0, 8)]))
        possible = self.victims(process.pid)[target]
        if process.poll() is not None or not possible:
            return
        victim = self.random.choice(possible)
        with contextlib.suppress(ProcessLookupError):
            if target == "group":
                os.killpg(victim, signal.SIGKILL)
            else:
                os.kill(victim, signal.SIGKILL)
            self.kills[target] += 1
        if target in ("command", "group"):
            process.wait()
            self.check_nobody_left()
        self.check_runs()

    def check_nobody_left(self) -> None:
        """Raise unless all processes of a dead command end within seconds."""
        until = time.monotonic() + 10
        while left := self.processes():
            if time.monotonic() > until:
                raise AssertionError(f"left behind: {left}")
            time.sleep(0.05)

    def check_runs(self) -> None:
        """Raise unless all that is visible verifies; the table may be behind after a kill."""
        wrong = [p for p in problems(self.store) if "runs.parquet" not in p]
        assert not wrong, wrong

    def go(self, kills: int) -> None:
        """Strike so often, and let the command complete whenever it can."""
        undisturbed = self.undisturbed()
        while sum(self.kills.values()) < kills:
            process = self.start()
            while sum(self.kills.values()) < kills and process.poll() is None:
                self.strike(process)
            if process.wait(600) == 0:
                self.complete(undisturbed)
        self.finish(undisturbed)

    def finish(self, undisturbed: list[dict[str, Any]]) -> None:
        """Give the same command until it has nothing left: twice at most."""
        assert any(self.start().wait(600) == 0 for _ in range(2)), self.said()
        self.complete(undisturbed)

    def complete(self, undisturbed: list[dict[str, Any]]) -> None:
        """Compare a finished table with the undisturbed one, and begin anew."""
        self.check_nobody_left()
        assert list(problems(self.store)) == []
        assert_equal(rows(self.store), undisturbed)
        assert not list(self.store.staging.iterdir())
        assert not self.store.quarantine.exists()
        self.rounds += 1
        shutil.rmtree(self.store.root)
        shutil.rmtree(self.folder / "cache" / "images")

    def undisturbed(self) -> list[dict[str, Any]]:
        """Return the table of the same command when nobody is killed."""
        bench = Bench(self.folder, self.folder / "cache")
        code, said = bench(*self.command, "--results", "undisturbed")
        assert code == 0, said
        return rows(Store(self.folder / "undisturbed"))

    def said(self) -> str:
        return (self.folder / "said.txt").read_text()[-2000:]


def _leads(pid: int) -> int:
    """Return the session of a process: a worker leads its own."""
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid)
    return -1


def rows(store: Store) -> list[dict[str, Any]]:
    """Return the table without what is measured anew every time."""
    table = pq.read_table(store.table)
    kept = [n for n in table.column_names if not n.startswith("time.") and n not in MEASURED]
    found: list[dict[str, Any]] = table.select(kept).to_pylist()
    return found


def assert_equal(rows: list[dict[str, Any]], undisturbed: list[dict[str, Any]]) -> None:
    """Raise with the first columns that differ."""
    assert [r["run_id"] for r in rows] == [r["run_id"] for r in undisturbed]
    for row, expected in zip(rows, undisturbed, strict=True):
        differs = {k: (row.get(k), v) for k, v in expected.items() if row.get(k) != v}
        assert row.keys() == expected.keys(), row.keys() ^ expected.keys()
        assert not differs, f"run {row['run_id']}: {differs}"


@contextlib.contextmanager
def campaign(seed: int, seeds: int = 2) -> Iterator[Campaign]:
    """Yield a campaign in a folder of its own, and clear up."""
    with tempfile.TemporaryDirectory() as folder:
        made = Campaign(Path(folder), random.Random(seed), seeds)
        try:
            yield made
        finally:
            for pid in made.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Run a campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    began = time.monotonic()
    with campaign(chosen.seed) as made:
        made.go(chosen.kills)
        killed = ", ".join(f"{n} {target}" for target, n in sorted(made.kills.items()))
        print(
            f"{sum(made.kills.values())} kills ({killed}) in {time.monotonic() - began:.0f} s; the"
            f" same command completed {made.rounds} times, its table equal to an undisturbed one"
        )


if __name__ == "__main__":
    main()
