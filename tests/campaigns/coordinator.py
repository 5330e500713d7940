"""How many runs a second one command can direct: `python -m tests.campaigns.coordinator`.

The real campaign, engine and results direct made-up nodes that answer at once with the files of
finished runs, so that the rate is what the command itself can do: place a run, read and check what
comes back, publish it. What 500 nodes with runs of five minutes ask for is 1.7 runs a second.
Not in it: the Dask scheduler, which is another process, and the network.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

from bench.cli.options import plan_suite
from bench.execution.campaign import Outcome, run_campaign
from bench.execution.engines import dask
from bench.execution.engines.here import ExecutionOptions
from bench.execution.engines.request import Answer
from bench.planning.matrix import Selection
from bench.planning.plan import Folders, Plan, Run
from bench.planning.state import compare_with_store
from bench.planning.suite import read_suites
from bench.store.folder import Store
from bench.store.receipt import Receipt, seal_run
from tests.fixtures.command import Bench

NO_OP = "tests.fixtures.misbehaving:Good"
SHOTS = ", ".join(map(str, range(1, 11)))
RUN_SECONDS = 300.0


class Done:
    """A future that is over."""

    status = "finished"

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self._answer = answer

    def result(self, timeout: float) -> Mapping[str, Any]:
        return self._answer

    def add_done_callback(self, call: Callable[["Done"], None]) -> None:
        call(self)

    def cancel(self) -> None:
        """It is over."""


class MadeUpClient:
    """A client whose nodes have finished every run before they are asked."""

    id, status = "made-up", "running"

    def __init__(self, nodes: int, answers: Mapping[str, Mapping[str, Any]]) -> None:
        about = {"resources": {dask.RESOURCE: 1}}
        self._workers = {f"tcp://10.0.{n >> 8}.{n & 255}:1": about for n in range(nodes)}
        self._answers = answers

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": self._workers}

    def submit(self, call: object, request: Mapping[str, Any], **_: object) -> Done:
        return Done(self._answers[request["run_id"]])

    def subscribe_topic(self, topic: str, call: object) -> None:
        """Nodes tell nothing."""

    def close(self, timeout: float) -> None:
        """Nothing is open."""


class Silent:
    """A listener that only counts."""

    done = 0

    def started(self, run: Run) -> None: ...

    def epoch(self, run: Run, epoch: int, epochs: int, loss: str) -> None: ...

    def finished(self, run: Run, receipt: Receipt) -> None:
        self.done += 1

    def failed(self, run: Run, reason: str) -> None:
        raise AssertionError(reason)

    def put_back(self, run: Run) -> None: ...

    def note(self, text: str) -> None:
        raise AssertionError(text)


def planned(folders: Folders, suite: str, seeds: int) -> Plan:
    """Plan ten runs a seed."""
    selection = Selection(seeds=tuple(range(seeds)))
    return plan_suite(read_suites([suite]), selection, folders, tell=lambda text: None)


def answers_of(plan: Plan, store: Store, folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return what a node would send for each run: those of the one in `store`, renamed."""
    stored = store.ids()[0]
    template, files = store.read(stored), store.runs / stored
    scores = {n: (files / n).read_bytes() for n in template.files}
    answers = {}
    for number, run in enumerate(plan.runs):
        staged = folder / str(number)
        staged.mkdir(parents=True)
        for name, content in scores.items():
            (staged / name).write_bytes(content)
        seal_run(staged, replace(template, run_id=run.run_id, spec=run.spec))
        sent = {path.name: path.read_bytes() for path in staged.iterdir()}
        answers[run.run_id] = asdict(Answer("made-up", sent))
    return answers


def directed(plan: Plan, folders: Folders, client: MadeUpClient) -> tuple[Outcome, float, float]:
    """Make all runs of a plan; return what became of them, seconds and CPU seconds."""
    store = Store(folders.results)
    options = ExecutionOptions([], None, 32, frozenset())
    cluster = dask.Cluster("tcp://127.0.0.1:1")
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with mock.patch.object(dask, "_connected", return_value=client):  # noqa: SIM117
        with dask.DaskEngine(cluster, store, options) as engine:
            state = compare_with_store(plan, store)
            outcome = run_campaign(state, store, folders, options, Silent(), engine)
    spent, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    return outcome, spent, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, and print the rate beside what the nodes ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1000, help="ten runs each; 1000 at most")
    parser.add_argument("--nodes", type=int, default=500)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bench = Bench(folder, folder / "cache")
        suite = bench.suite(NO_OP, shots=SHOTS)
        code, said = bench.apart("run", suite, "--seeds", "1", "--shots", "1")
        assert code == 0, said
        folders = Folders(folder, folder, folder / "all", folder / "cache")
        plan = planned(folders, suite, given.seeds)
        client = MadeUpClient(given.nodes, answers_of(plan, bench.store, folder / "sent"))
        outcome, wall, cpu = directed(plan, folders, client)
        runs = len(plan.runs)
        assert len(outcome.done) == len(Store(folders.results).ids()) == runs
    rate, asked = runs / wall, given.nodes / RUN_SECONDS
    print(
        f"{runs} runs of {given.nodes} nodes: {wall:.0f} s, {rate:.0f} runs/s"
        f" ({1000 * cpu / runs:.1f} ms of CPU a run), {rate / asked:.0f} times what these"
        f" nodes ask for where a run takes {RUN_SECONDS / 60:.0f} minutes"
    )


if __name__ == "__main__":
    main()
