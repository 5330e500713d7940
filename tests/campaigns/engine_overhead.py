"""What an engine costs a run: `python -m tests.campaigns.engine_overhead [--runs 100]`.

Runs that do nothing are made in two slots of this machine by each engine in turn: by the command
itself, and by two workers of a Dask scheduler on loopback that send runs back, or publish them in
shared results. A rate is the difference of two commands, one of few runs and one of many, so that
what every command costs at its start is not in it. Prints medians of `--repeats`, with the CPU
time that the command and the scheduler spend on a run.
"""

import argparse
import itertools
import os
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import astuple, dataclass
from pathlib import Path

from tests.fixtures.command import Bench
from tests.fixtures.nodes import Nodes, nodes_of

NO_OP = "tests.fixtures.misbehaving:Good"
FEW = 10
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What a command took, in seconds."""

    wall: float
    command: float
    """CPU time of the command, and of what it has begun."""
    scheduler: float
    """CPU time of the scheduler."""

    def over(self, other: "Cost", runs: int) -> "Cost":
        """Return what one of `runs` further runs took."""
        both = zip(astuple(self), astuple(other), strict=True)
        return Cost(*((more - less) / runs for more, less in both))


def cost_of(bench: Bench, nodes: Nodes, arguments: tuple[str, ...]) -> Cost:
    """Give a command whose results are empty; return what it took."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    spent = cpu_seconds(nodes.processes["scheduler"].pid)
    code, said = bench.apart(*arguments)
    assert code == 0, said
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    command = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, command, cpu_seconds(nodes.processes["scheduler"].pid) - spent)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measured(bench: Bench, nodes: Nodes, runs: int, repeats: int) -> dict[str, list[Cost]]:
    """Return the costs of a run by each engine, in turns."""
    engines = {
        "local": ("--slots", "2"),
        "shared": (*dask(nodes), "--shared-results"),
        "shipped": dask(nodes),
    }
    costs = defaultdict(list)
    seed = itertools.count(FEW)
    for _, (engine, options) in itertools.product(range(repeats), engines.items()):
        less, more = (
            cost_of(bench, nodes, no_ops(bench, f"{seeds[0]}-{seeds[-1]}", *options))
            for seeds in ([next(seed) for _ in range(n)] for n in (FEW, FEW + runs))
        )
        costs[engine].append(more.over(less, runs))
    return costs


def dask(nodes: Nodes) -> tuple[str, ...]:
    """Return the options that send runs to nodes."""
    return ("--engine", "dask", "--scheduler", str(nodes.file))


def no_ops(bench: Bench, seeds: str, *options: str) -> tuple[str, ...]:
    """Return the command that makes runs that do nothing."""
    return ("run", bench.suite(NO_OP), "--seeds", seeds, "--threads", "1", *options)


def main() -> None:
    """Measure, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), Path(folder, "cache"))
        with nodes_of(bench) as nodes:
            nodes.scheduler()
            nodes.node("two", "--slots", "2")
            cost_of(bench, nodes, no_ops(bench, "8-9", *dask(nodes)))  # what is first costs more
            costs = measured(bench, nodes, given.runs, given.repeats)

    local = statistics.median(cost.wall for cost in costs["local"])
    for engine, of_engine in costs.items():
        wall, command, scheduler = map(
            statistics.median, zip(*map(astuple, of_engine), strict=True)
        )
        print(
            f"{engine}: {1 / wall:.1f} runs/s, {local / wall:.2f} of local;"
            f" CPU a run: command {1000 * command:.0f} ms, scheduler {1000 * scheduler:.1f} ms"
        )


if __name__ == "__main__":
    main()
