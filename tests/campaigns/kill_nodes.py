"""Strike the nodes of a cluster at random while a command runs, and see whether anything is lost.

    python -m tests.campaigns.kill_nodes [--strikes 20] [--seeds 10] [--seed 0]

Three nodes and a scheduler on loopback make four times `--seeds` small runs. At random moments one
of these is struck: a node, a run's process, a server of processes, a node's answer (stopped, then
continued), the scheduler, the command. What is gone is started again, the command is given again.
At the end all runs are there, they are those of one machine, bit for bit, and no process is left.
"""

import argparse
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fixtures.command import Bench
from tests.fixtures.nodes import Nodes, alive, descendants, nodes_of, until

SLOW = tuple(f"tests.fixtures.misbehaving:{name}" for name in ("SlowA", "SlowB", "SlowC", "SlowD"))
NAMES = ("one", "two", "three")
TARGETS = ("node", "run", "server", "hang", "scheduler", "command")
LEAST, MOST = 2.0, 8.0
"""Seconds between two strikes."""
CONTINUED = 3.0
"""Seconds that a hanging node hangs."""


class Campaign:
    """One command's runs under strikes."""

    def __init__(self, nodes: Nodes, seeds: int, chance: random.Random) -> None:
        self.nodes, self.chance = nodes, chance
        self.strikes: Counter[str] = Counter()
        self.commands = 0
        suite = nodes.bench.suite(*SLOW)
        self.given = ("run", suite, "--seeds", str(seeds), "--engine", "dask")
        self.command: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start what is not there: scheduler, nodes, command."""
        if self.nodes.gone("scheduler"):
            for name in self.nodes.processes:
                self.nodes.strike(name)
            self.nodes.scheduler()
        for name in NAMES:
            if self.nodes.gone(name):
                self.nodes.node(name)
        if self.command is None or self.command.poll() is not None:
            self.commands += 1
            there = ("--scheduler", str(self.nodes.file))
            self.command = self.nodes.bench.start(*self.given, *there)

    def strike(self, target: str) -> None:
        """Strike one thing; one that is not there yet is no strike."""
        node = self.chance.choice(NAMES)
        worker, *deeper = descendants(self.nodes.processes[node].pid) or [0]
        if target == "command" and self.command is not None:
            self.command.kill()
        elif target == "scheduler":
            self.nodes.strike("scheduler")
        elif target == "node":
            self.nodes.strike(node)
        elif target == "hang" and worker:
            self.nodes.strike(node, signal.SIGSTOP)
            time.sleep(CONTINUED)
            self.nodes.strike(node, signal.SIGCONT)
        elif deeper:
            struck = deeper[-1] if target == "run" else deeper[0]
            subprocess.run(["kill", "-9", str(struck)], check=False)
        else:
            return
        self.strikes[target] += 1

    def go(self, strikes: int) -> None:
        """Strike until enough is struck, then let the command end."""
        while sum(self.strikes.values()) < strikes and not self.done():
            self.start()
            time.sleep(self.chance.uniform(LEAST, MOST))
            self.strike(self.chance.choice(TARGETS))
        while not self.done():
            self.start()
            assert self.command is not None
            self.command.communicate(timeout=1800)

    def done(self) -> bool:
        """Whether a command has ended well."""
        return self.command is not None and self.command.poll() == 0


def run(strikes: int, seeds: int, seed: int) -> Campaign:
    """Run a campaign; raises AssertionError where anything was lost, invented or left."""
    with tempfile.TemporaryDirectory() as folder:
        far, near = Path(folder, "far"), Path(folder, "near")
        far.mkdir()
        near.mkdir()
        cache = Path(folder, "cache")
        with nodes_of(Bench(far, cache)) as nodes:
            campaign = Campaign(nodes, seeds, random.Random(seed))
            campaign.go(strikes)
            pids = [p for name in NAMES for p in descendants(nodes.processes[name].pid)]
        until(lambda: not any(map(alive, pids)))
        bench = Bench(near, cache)
        code, said = bench.apart("run", bench.suite(*SLOW), "--seeds", str(seeds))
        assert code == 0, said
        code, said = bench.apart("compare", str(far / "results"), str(near / "results"))
        assert code == 0, said
        assert f"{4 * seeds} identical, 0 close, 0 different" in said, said
        assert bench.apart("verify", "--results", str(far / "results"))[0] == 0
        assert not [*(far / "results" / "staging").iterdir()]
    return campaign


def main() -> None:
    """Run a campaign and say what was struck."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--strikes", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    begun = time.monotonic()
    campaign = run(given.strikes, given.seeds, given.seed)
    struck = ", ".join(f"{n} x {target}" for target, n in sorted(campaign.strikes.items()))
    print(
        f"{4 * given.seeds} runs identical after {sum(campaign.strikes.values())} strikes"
        f" ({struck}), {campaign.commands} commands, {time.monotonic() - begun:.0f} s"
    )


if __name__ == "__main__":
    main()
