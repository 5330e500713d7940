"""Strike the nodes of a cluster at random while a command runs, and see whether anything is lost.

    python -m tests.campaigns.kill_nodes [--engine dask|slurm] [--strikes 20] [--seeds 10]

Three nodes on loopback, of a Dask scheduler or of a SLURM of fake nodes, make four times `--seeds`
small runs. At random moments something is struck: a node, a run's process, a server of processes,
a node's answer (stopped, then continued), the command, and the scheduler or, of SLURM, a node that
is set down and a node's daemon. What is gone is started again, the command is given again. At the
end all runs are there, they are those of one machine, bit for bit, and no process is left.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from unittest import mock

from tests.fixtures import slurm
from tests.fixtures.command import Bench
from tests.fixtures.nodes import SLOW, Nodes, alive, check_alike, descendants, nodes_of, until

CONTINUED = 3.0
"""Seconds that a hanging node hangs."""
PORT = 17957


class Cluster(Protocol):
    """Nodes that can be struck."""

    targets: tuple[str, ...]

    def start(self) -> tuple[str, ...]:
        """Start what is gone; return the command's options."""

    def strike(self, target: str, chance: random.Random) -> bool:
        """Strike something; return whether it was there."""

    def processes(self) -> list[int]:
        """Return the ids of all processes that make runs."""


class DaskNodes:
    """Nodes of a scheduler that stands by itself."""

    names = ("one", "two", "three")
    targets = ("node", "run", "server", "hang", "scheduler")

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes

    def start(self) -> tuple[str, ...]:
        if self.nodes.gone("scheduler"):
            for name in self.nodes.processes:
                self.nodes.strike(name)
            self.nodes.scheduler()
        for name in self.names:
            if self.nodes.gone(name):
                self.nodes.node(name)
        return ("--engine", "dask", "--scheduler", str(self.nodes.file))

    def strike(self, target: str, chance: random.Random) -> bool:
        name = chance.choice(self.names)
        if target in ("scheduler", "node"):
            self.nodes.strike(name if target == "node" else target)
            return True
        worker = descendants(self.nodes.processes[name].pid)[:1]
        return bool(worker) and strike_worker(worker[0], target)

    def processes(self) -> list[int]:
        return [p for name in self.names for p in descendants(self.nodes.processes[name].pid)]


class SlurmNodes:
    """Jobs of a SLURM, whose scheduler is the command's own."""

    targets = ("node", "run", "server", "hang", "set down", "cut off")

    def __init__(self, cluster: slurm.Slurm) -> None:
        self.cluster = cluster

    def start(self) -> tuple[str, ...]:
        job = ("--cpus", "1", "--memory", "1GB", "--interface", "lo")
        return ("--engine", "slurm", "--nodes", str(len(slurm.NODES)), *job)

    def strike(self, target: str, chance: random.Random) -> bool:
        if target == "set down":
            self.cluster.set_down(chance.choice(slurm.NODES))
        elif target == "cut off":
            self.cluster.cut_off(chance.choice(slurm.NODES))
        else:
            workers = sorted(self.cluster.workers())
            return bool(workers) and strike_worker(chance.choice(workers), target)
        return True

    def processes(self) -> list[int]:
        return [*self.cluster.processes()]


def strike_worker(worker: int, target: str) -> bool:
    """Strike a worker or a process below it; return whether that was there."""
    below = descendants(worker)
    struck = {"server": below[:1], "run": below[1:][-1:]}.get(target, [worker])
    with contextlib.suppress(ProcessLookupError):
        for pid in struck:
            if target == "hang":
                os.kill(pid, signal.SIGSTOP)
                time.sleep(CONTINUED)
            os.kill(pid, signal.SIGCONT if target == "hang" else signal.SIGKILL)
        return bool(struck)
    return False


class Campaign:
    """One command's runs under strikes."""

    def __init__(self, cluster: Cluster, bench: Bench, seeds: int, chance: random.Random) -> None:
        self.cluster, self.bench, self.chance = cluster, bench, chance
        self.strikes: Counter[str] = Counter()
        self.commands = 0
        self.given = ("run", bench.suite(*SLOW), "--seeds", str(seeds))
        self.command: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start what is not there: nodes, command."""
        options = self.cluster.start()
        if self.command is None or self.command.poll() is not None:
            self.commands += 1
            self.command = self.bench.start(*self.given, *options)

    def strike(self) -> None:
        """Strike one thing; one that is not there yet is no strike."""
        target = self.chance.choice([*self.cluster.targets, "command"])
        if target == "command" and self.command is not None:
            self.command.kill()
        elif not self.cluster.strike(target, self.chance):
            return
        self.strikes[target] += 1

    def go(self, strikes: int, pause: float) -> None:
        """Strike until enough is struck, then let the command end."""
        while sum(self.strikes.values()) < strikes and not self.done():
            self.start()
            time.sleep(self.chance.uniform(pause / 4, pause))
            self.strike()
        while not self.done():
            self.start()
            assert self.command is not None
            self.command.communicate(timeout=1800)

    def done(self) -> bool:
        """Whether a command has ended well."""
        return self.command is not None and self.command.poll() == 0


@contextlib.contextmanager
def cluster_of(engine: str, bench: Bench) -> Iterator[Cluster]:
    """Yield nodes of an engine, and end them."""
    if engine == "dask":
        with nodes_of(bench) as nodes:
            yield DaskNodes(nodes)
        return
    folder = bench.folder / "slurm"
    with slurm.slurm_of(folder, PORT) as cluster, mock.patch.dict(os.environ, cluster.environment):
        yield SlurmNodes(cluster)


def run(engine: str, strikes: int, pause: float, seeds: int, seed: int) -> Campaign:
    """Run a campaign; raises AssertionError where anything was lost, invented or left."""
    with tempfile.TemporaryDirectory() as folder:
        far, near = Path(folder, "far"), Path(folder, "near")
        far.mkdir()
        near.mkdir()
        cache = Path(folder, "cache")
        with cluster_of(engine, Bench(far, cache)) as cluster:
            campaign = Campaign(cluster, Bench(far, cache), seeds, random.Random(seed))
            campaign.go(strikes, pause)
            pids = cluster.processes()
        until(lambda: not any(map(alive, pids)))
        bench = Bench(near, cache)
        code, said = bench.apart("run", bench.suite(*SLOW), "--seeds", str(seeds))
        assert code == 0, said
        check_alike(bench, far / "results", len(SLOW) * seeds)
        assert not [*(far / "results" / "staging").iterdir()]
    return campaign


def main() -> None:
    """Run a campaign and say what was struck."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", choices=("dask", "slurm"), default="dask")
    parser.add_argument("--strikes", type=int, default=20)
    parser.add_argument("--pause", type=float, default=8.0, help="most seconds between two strikes")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    begun = time.monotonic()
    campaign = run(given.engine, given.strikes, given.pause, given.seeds, given.seed)
    struck = ", ".join(f"{n} x {target}" for target, n in sorted(campaign.strikes.items()))
    print(
        f"{given.engine}: {4 * given.seeds} runs identical after"
        f" {sum(campaign.strikes.values())} strikes ({struck}), {campaign.commands} commands,"
        f" {time.monotonic() - begun:.0f} s"
    )


if __name__ == "__main__":
    main()
