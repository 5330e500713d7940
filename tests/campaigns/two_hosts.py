"""Two hosts on one file system that remembers for a minute what it has seen.

    python -m tests.campaigns.two_hosts [--seeds 5]

Needs root and Debian's `bindfs`. Each host is a name and a process space of its own, and its mount
of the one folder of results caches attributes, names and the absence of names for 60 s, with locks
of its own, as NFS and Lustre may be mounted. Four times `--seeds` runs are made (1) by a command on
each host at once, (2) by a command that sends them to a node on each host, (3) by two commands one
of which is killed in its first run. Prints for each how many runs were made twice; raises
AssertionError where a run is missing, damaged or other than on one machine.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.store.folder import Store
from tests.fixtures.command import Bench
from tests.fixtures.nodes import SLOW, Nodes, check_alike, descendants, nodes_of, until

CACHED = ",".join(f"{kind}_timeout=60" for kind in ("attr", "entry", "negative"))
HOSTS = ("left", "right")
TWICE = "was there already, and stays"


@dataclass
class Host:
    """A host name, a process space and a mount."""

    name: str
    mount: Path
    bench: Bench

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `bench` on this host."""
        prefix = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
        shell = f'hostname {self.name}; exec "$0" -m bench "$@"'
        results = {"BENCH_RESULTS": str(self.mount / "results")}
        return subprocess.Popen(
            [*prefix, "sh", "-c", shell, sys.executable, *arguments],
            cwd=self.bench.folder, text=True, env={**self.bench.environment(), **results},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


@contextlib.contextmanager
def hosts_of(folder: Path, cache: Path) -> Iterator[list[Host]]:
    """Mount a new folder once for each host."""
    shared = folder / "shared"
    shared.mkdir()
    hosts = []
    with contextlib.ExitStack() as stack:
        for name in HOSTS:
            mount, own = folder / name, folder / f"{name}-own"
            mount.mkdir()
            own.mkdir()
            subprocess.run(["bindfs", "-o", CACHED, str(shared), str(mount)], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", str(mount)], check=True)
            hosts.append(Host(name, mount, Bench(own, cache)))
        yield hosts


def wanted(host: Host, seeds: int) -> tuple[str, ...]:
    """Return the command that makes the runs."""
    return ("run", host.bench.suite(*SLOW), "--seeds", str(seeds), "--slots", "1")


def two_commands(hosts: list[Host], nodes: Nodes, seeds: int) -> str:
    """Give the same command on both hosts at once."""
    commands = [host.start(*wanted(host, seeds)) for host in hosts]
    return "".join(ended(command) for command in commands)


def two_nodes(hosts: list[Host], nodes: Nodes, seeds: int) -> str:
    """Give one command whose nodes, one on each host, publish in the shared results."""
    nodes.scheduler()
    workers = [
        host.start("worker", "--scheduler", nodes.address, "--device", "cpu") for host in hosts
    ]
    to_nodes = ("--engine", "dask", "--scheduler", str(nodes.file), "--shared-results")
    asked = wanted(hosts[0], seeds)[:-2]
    try:
        return ended(hosts[0].start(*asked, *to_nodes))
    finally:
        for worker in workers:
            worker.kill()  # `unshare` passes nothing gentler on
            worker.communicate()


def one_killed(hosts: list[Host], nodes: Nodes, seeds: int) -> str:
    """Kill one of two commands in its first run."""
    killed = hosts[0].start(*wanted(hosts[0], seeds))
    until(lambda: any((hosts[0].mount / "results" / "staging").glob("*")))
    other = hosts[1].start(*wanted(hosts[1], seeds))
    for pid in reversed(descendants(killed.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    killed.communicate()
    return ended(other)


def ended(command: subprocess.Popen[str]) -> str:
    """Return what a command says that ends well."""
    said, _ = command.communicate(timeout=900)
    assert command.returncode == 0, said
    return said


def main() -> None:
    """Make the runs three times, and print what was made twice."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    runs = len(SLOW) * seeds
    with tempfile.TemporaryDirectory() as temporary:
        alone = Bench(Path(temporary), Path(temporary, "cache"))
        code, said = alone.apart("run", alone.suite(*SLOW), "--seeds", str(seeds))
        assert code == 0, said
        for way in (two_commands, two_nodes, one_killed):
            folder = Path(temporary, way.__name__)
            folder.mkdir()
            begun = time.monotonic()
            with hosts_of(folder, alone.cache) as hosts, nodes_of(hosts[0].bench) as nodes:
                said = way(hosts, nodes, seeds)
            seconds, results = time.monotonic() - begun, folder / "shared" / "results"
            assert len(Store(results).ids()) == runs
            check_alike(alone, results, runs)
            print(
                f"{way.__name__}: {runs} runs, none lost, {said.count(TWICE)} made twice,"
                f" {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
