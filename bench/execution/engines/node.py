"""A node's part: make one run of a command, in a Dask worker's thread.

The worker does not import torch: runs are processes of a local engine, as on one machine, and end
with the worker. The node looks up data, weights and cache by its own variables (`BENCH_DATA` and
the others), and makes a run only where everything is what the command has planned with.
"""

import functools
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.errors import BenchError
from bench.execution.campaign import Outcome, run_campaign
from bench.execution.engines.here import ExecutionOptions
from bench.execution.engines.request import Answer, Request, as_values, other_versions, versions
from bench.planning.matrix import PlannedRun
from bench.planning.plan import Folders, Plan, Run, plan_runs
from bench.planning.slots import Slot
from bench.planning.state import compare_with_store
from bench.registry import Registry
from bench.source import source_hash
from bench.store.folder import Store
from bench.store.receipt import Receipt
from bench.system.files import default_cache
from bench.system.host import cpu_count

DEVICE = "BENCH_DEVICE"
"""Variable of a worker: the device of its runs."""
SHIPPED = 256 << 20
"""Bytes of a run that are sent back at most; larger ones need results that all nodes see."""
LAST_WORDS = 2.0
"""Seconds until a refusing node ends, in which its answer arrives."""
QUIET = 1.0
"""Seconds between two messages of a run."""


def make_run(values: Mapping[str, Any]) -> dict[str, Any]:
    """Make a run in this Dask worker; return an `Answer` as plain values."""
    from distributed import get_worker

    request, worker = Request(**values), get_worker()
    task = worker.get_current_task()

    def wanted() -> bool:
        """Whether somebody still waits for the run."""
        state = worker.state.tasks.get(task)
        return request.shared or (state is not None and state.state == "executing")

    def tell(message: Mapping[str, Any]) -> None:
        worker.log_event(request.topic, {"run": request.run_id, **message})

    with TemporaryDirectory(prefix="bench-", dir=worker.local_directory) as scratch:
        try:
            given = answer(request, Path(scratch), wanted, tell)
            if given.refused:  # it is of no use to anyone with this code
                print(f"bench: this node ends: it {given.refused}", file=sys.stderr, flush=True)
                end = functools.partial(worker.loop.call_later, LAST_WORDS, worker.close)
                worker.loop.add_callback(end)
            return as_values(given)
        except KeyboardInterrupt:  # nobody waits for it; passed on, it would end the worker
            return as_values(Answer(platform.node()))


def answer(
    request: Request,
    scratch: Path,
    wanted: Callable[[], bool] = lambda: True,
    tell: Callable[[Mapping[str, Any]], None] = lambda message: None,
) -> Answer:
    """Make a run, with its results in `scratch` where they are not shared."""
    node = platform.node()
    if other := other_versions(request.versions, versions()):
        return Answer(node, refused=other)
    folders = folders_here(None if request.shared else scratch / "results")
    try:
        run = _planned(request, folders)
    except _Refused as error:
        return Answer(node, refused=str(error))
    except BenchError as error:
        return Answer(node, lacks=str(error))
    store = Store(folders.results)
    state = compare_with_store(
        Plan((run,), ()), store, retry_failed=True, redo_stale=request.redo,
        keep=frozenset(request.keep),
    )  # fmt: skip
    options = ExecutionOptions(
        [slot_here(request.threads)], request.timeout, request.score_batch_size,
        frozenset(request.keep), wanted=wanted,
    )  # fmt: skip
    outcome = run_campaign(state, store, folders, options, _Teller(tell), compact=False)
    return _outcome(request, node, store, outcome)


def folders_here(results: Path | None) -> Folders:
    """Return the folders that this node's variables name, with `results` for its own."""

    def named(variable: str, default: str) -> Path:
        return Path(os.path.expanduser(os.environ.get(variable) or default)).absolute()

    textures = os.environ.get("BENCH_TEXTURES")
    return Folders(
        named("BENCH_DATA", "data"),
        named("BENCH_WEIGHTS", "weights"),
        results or named("BENCH_RESULTS", "results"),
        named("BENCH_CACHE", str(default_cache())),
        Path(textures).absolute() if textures else None,
    )


def slot_here(threads: int | None) -> Slot:
    """Return the slot of this worker: its variable's device, else the first GPU, else the CPU."""
    # Without torch, which the worker never imports: the driver's files and what may be seen of it.
    gpu = any(Path("/dev").glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
    return Slot(os.environ.get(DEVICE) or ("cuda:0" if gpu else "cpu"), threads or cpu_count())


def facts(marker: str = "") -> dict[str, Any]:
    """Return what this node is and has, as plain values; `marker` is a file in its results."""
    folders = folders_here(None)
    named = {"BENCH_DATA": folders.data, "BENCH_WEIGHTS": folders.weights}
    return {
        "node": platform.node(),
        "versions": versions(),
        "device": slot_here(None).device,
        "cores": cpu_count(),
        "folders": {name: (str(path), path.is_dir()) for name, path in named.items()},
        "results": str(folders.results),
        "sees_marker": bool(marker)
        and folders.results.is_dir()
        and marker in os.listdir(folders.results),
        "time": time.time(),
    }


class _Refused(Exception):
    """This node's code is not the command's."""


def _planned(request: Request, folders: Folders) -> Run:
    """Plan a run with what is here.

    Raises _Refused for other code, and BenchError, with the remedy, for other inputs.
    """
    try:
        method = Registry(folders.cache).find(request.method)
    except BenchError as error:
        raise _Refused(str(error)) from None
    if source_hash(method.module) != request.source_sha256:
        raise _Refused(f"has other code of {method.name}")
    plan = plan_runs([PlannedRun(method=method, **request.wanted)], folders)
    for run in plan.runs:
        if run.run_id == request.run_id:
            return run
    if plan.missing:
        raise BenchError(plan.missing[0].remedy)
    place = f"{request.wanted['dataset']}/{request.wanted['category']}"
    raise BenchError(
        f"its images of {place}, or its weights, are not those of the command: copy them there"
    )


class _Teller:
    """Listener that tells the command how far a run is."""

    def __init__(self, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._tell, self._last = tell, 0.0

    def started(self, run: Run) -> None:
        """The command says so itself."""

    def epoch(self, run: Run, epoch: int, epochs: int, loss: str) -> None:
        """Tell an epoch, at most one a second."""
        if time.monotonic() - self._last > QUIET:
            self._last = time.monotonic()
            self._tell({"epoch": epoch, "epochs": epochs, "loss": loss})

    def finished(self, run: Run, receipt: Receipt) -> None:
        """The command sees what comes back."""

    def failed(self, run: Run, reason: str) -> None:
        """The command sees what comes back."""

    def put_back(self, run: Run) -> None:
        """It is started again here."""

    def note(self, text: str) -> None:
        """Tell a line."""
        self._tell({"note": text})


def _outcome(request: Request, node: str, store: Store, outcome: Outcome) -> Answer:
    """Return what became of a run, with its files where they are sent back."""
    run_id = request.run_id
    if run_id in outcome.done and run_id not in outcome.failed:
        if request.shared:
            return Answer(node)
        files = _contents(store.runs / run_id)
        size = sum(map(len, files.values()))
        if size > SHIPPED:
            reason = (
                f"its files are {size >> 20} MiB: those of over {SHIPPED >> 20} MiB are not sent;"
                " use --shared-results, or keep less"
            )
            provenance = dict(outcome.done[run_id].provenance)
            return Answer(node, failure=_failure("method", reason, "", provenance))
        return Answer(node, files)
    if request.shared:  # it is recorded, where all see it
        return Answer(node, failure=_failure("", outcome.failed[run_id], "", {}))
    record = store.failures(run_id)[-1]
    return Answer(
        node,
        {name: data for name, data in _contents(record.folder).items() if name == "log.txt"},
        _failure(record.kind, record.reason, record.traceback, dict(record.provenance)),
    )


def _failure(
    kind: str, reason: str, traceback: str, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    return {"kind": kind, "reason": reason, "traceback": traceback, "provenance": dict(provenance)}


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
