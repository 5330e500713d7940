"""Wanted minus stored: what is left to do, in which order, and how it ends."""

import collections
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from bench.data.catalog import find_dataset
from bench.data.images import load, prepare, why_unofficial
from bench.engine import Ended, LocalEngine, Slot
from bench.environment import describe_host
from bench.errors import BenchError, DataError
from bench.job import Job
from bench.plan import Folders, Missing, Plan, Run
from bench.registry import source_hash
from bench.store import Receipt, Store, verified


@dataclass(frozen=True)
class State:
    """A plan beside a store."""

    plan: Plan
    done: dict[str, Receipt]
    damaged: tuple[str, ...]
    """Ids of stored runs whose digests do not agree."""
    failed: dict[str, dict[str, Any]]
    """Last recorded failure of runs that are not done."""

    @property
    def todo(self) -> list[Run]:
        """Runs that are wanted and not stored."""
        return [r for r in self.plan.runs if r.run_id not in self.done]

    @property
    def stale(self) -> list[Run]:
        """Runs that are done, but by other code than today's."""
        return [r for r in self.plan.runs if r.run_id in self.done and self._is_stale(r)]

    def _is_stale(self, run: Run) -> bool:
        stored = self.done[run.run_id]["provenance"]["source_sha256"]
        return bool(stored != source_hash(run.cell.method.module))


def look_up(plan: Plan, store: Store) -> State:
    """Ask the store what is there; every digest is checked."""
    done, damaged = verified(store, [r.run_id for r in plan.runs])
    failed = {
        r.run_id: failures[-1]
        for r in plan.runs
        if r.run_id not in done and (failures := store.failures(r.run_id))
    }
    return State(plan, done, tuple(damaged), failed)


class Listener(Protocol):
    """Who is told of progress: `bench.display` for people, tests for themselves."""

    def started(self, run: Run) -> None:
        """A run has begun."""

    def epoch(self, run: Run, epoch: int, epochs: int, loss: str) -> None:
        """A run has finished an epoch, or with epoch 0 its preparations."""

    def finished(self, run: Run, receipt: Receipt) -> None:
        """A run is published."""

    def failed(self, run: Run, reason: str) -> None:
        """A run has failed, and is recorded as failed."""

    def note(self, text: str) -> None:
        """Something worth a line."""


@dataclass
class Outcome:
    """What became of a command's runs."""

    done: dict[str, Receipt]
    failed: dict[str, str] = field(default_factory=dict)
    """Reason by run id."""


def carry_out(
    state: State,
    store: Store,
    folders: Folders,
    slots: Sequence[Slot],
    timeout: float | None,
    listener: Listener,
) -> Outcome:
    """Run what is left, each run in a process of its own; return what is there afterwards.

    A run that fails is recorded and the others go on. An interrupt ends the processes under way
    and is passed on; what was finished stays.
    """
    store.open_for_writing()
    for run_id in state.damaged:
        store.set_aside(run_id)
        listener.note(f"run {run_id} did not verify: moved to {store.quarantine}, runs again")
    outcome = Outcome(dict(state.done))
    waiting = collections.deque(state.todo)
    if waiting:
        active: dict[str, tuple[Run, Path]] = {}
        try:
            _drain(waiting, active, outcome, store, folders, slots, timeout, listener)
        finally:
            for _, staged in active.values():
                shutil.rmtree(staged, ignore_errors=True)
            store.compact()
    elif state.damaged or not store.table.is_file():
        store.compact()
    return outcome


def _drain(
    waiting: collections.deque[Run],
    active: dict[str, tuple[Run, Path]],
    outcome: Outcome,
    store: Store,
    folders: Folders,
    slots: Sequence[Slot],
    timeout: float | None,
    listener: Listener,
) -> None:
    prepared = _Prepared(folders, listener)
    for run in waiting:
        source_hash(run.cell.method.module)  # kept from now on: the server loads this source
    preload = [
        "bench.engine",
        "bench.worker",
        "torchvision",
        "pandas",  # where it is installed, pyarrow imports it for the first table of every process
        *sorted({r.cell.method.module for r in waiting}),
    ]
    with LocalEngine(slots, preload, timeout) as engine:
        while waiting or engine.running:
            while waiting and (slot := engine.free):
                run = waiting.popleft()
                try:
                    images, unofficial = prepared.category(run)
                except DataError as error:
                    _fail(run, store.stage(run.run_id), str(error), outcome, store, listener)
                    continue
                staged = store.stage(run.run_id)
                job = _job(run, images, unofficial, folders, staged, slot)
                active[run.run_id] = (run, staged)
                engine.start(run.run_id, "bench.worker:run", job)
                listener.started(run)
            for event in engine.events():
                if isinstance(event, Ended):
                    run, staged = active.pop(event.key)
                    _settle(event, run, staged, outcome, store, listener)
                else:
                    key, message = event
                    _pass_on(active[key][0], message, outcome, listener)


def _job(
    run: Run, images: Path, unofficial: str, folders: Folders, staged: Path, slot: Slot
) -> Job:
    weights = run.weights
    return Job(
        spec=run.spec,
        method_path=run.cell.method.path,
        files=run.listing.files,
        images=images,
        weights_file=weights.source.file if weights else None,
        strides=weights.source.strides if weights else "",
        weights_title=weights.title if weights else "",
        unofficial=unofficial,
        results=folders.results,
        staged=staged,
        device=slot.device,
        threads=slot.threads,
        provenance={
            **describe_host(),
            "source_sha256": source_hash(run.cell.method.module),
        },
    )


def _pass_on(run: Run, message: dict[str, Any], outcome: Outcome, listener: Listener) -> None:
    if "failed" in message:
        outcome.failed[run.run_id] = message["failed"]
    else:
        listener.epoch(run, message["epoch"], message["epochs"], message["loss"])


def _settle(
    ended: Ended, run: Run, staged: Path, outcome: Outcome, store: Store, listener: Listener
) -> None:
    """Believe the store: a run is done if it is there and verifies, and recorded no failure."""
    reason = outcome.failed.get(run.run_id)
    try:
        if reason is None and store.has(run.run_id):
            receipt = store.read(run.run_id)
            outcome.done[run.run_id] = receipt
            shutil.rmtree(staged, ignore_errors=True)
            listener.finished(run, receipt)
            return
    except BenchError as error:
        _fail(run, staged, str(error), outcome, store, listener)
        return
    if reason is None or ended.timed_out:
        _fail(run, staged, ended.reason, outcome, store, listener)
    else:  # the run has recorded it itself
        listener.failed(run, reason)


def _fail(
    run: Run, staged: Path, reason: str, outcome: Outcome, store: Store, listener: Listener
) -> None:
    """Record a failure that the run could not record itself."""
    failure = {"reason": reason, "traceback": "", "provenance": dict(describe_host())}
    store.record_failure(staged, run.spec, failure)
    outcome.failed[run.run_id] = reason
    listener.failed(run, reason)


class _Prepared:
    """Categories whose images are in the cache, each decoded once a command at most."""

    def __init__(self, folders: Folders, listener: Listener) -> None:
        self._folders, self._listener = folders, listener
        self._known: dict[tuple[str, int, str], tuple[Path, str] | DataError] = {}

    def category(self, run: Run) -> tuple[Path, str]:
        """Return the folder of the images and why the copy is unofficial (or nothing)."""
        key = (run.spec.fingerprint, run.spec.image_size, run.spec.resize)
        if key not in self._known:
            try:
                self._known[key] = self._prepare(run)
            except DataError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, DataError):
            raise found
        return found

    def _prepare(self, run: Run) -> tuple[Path, str]:
        spec = run.spec

        def progress(done: int, total: int) -> None:
            if done == 1:
                self._listener.note(
                    f"decoding {spec.place}: {total} images to {spec.image_size} px"
                )

        folder = prepare(run.listing, spec.fingerprint, self._folders.cache, spec.image_size,
                         spec.resize, progress)  # fmt: skip
        dataset = find_dataset(spec.dataset, self._folders.data)
        reason = why_unofficial(dataset, spec.category, spec.fingerprint, load(folder))
        if reason:
            self._listener.note(f"{spec.place} is an unofficial copy: {reason}")
        return folder, reason


def time_left(runs: Iterable[Run], receipts: Iterable[Receipt], slots: int) -> float | None:
    """Estimate the seconds that `runs` will take from stored runs of the same method and size.

    None where there is nothing to go by for one of them.
    """
    paces: dict[tuple[Any, ...], list[float]] = collections.defaultdict(list)
    for receipt in receipts:
        seconds = sum(receipt["timings"][k] for k in ("setup_s", "fit_s", "score_s"))
        paces[_kind(receipt["spec"])].append(seconds / _length(receipt["spec"]["parameters"]))
    total = 0.0
    for run in runs:
        known = paces.get(_kind(vars(run.spec)))
        if known is None:
            return None
        total += fmean(known) * _length(run.spec.parameters)
    return total / slots


def _kind(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what two runs must share for the time of one to say something of the other's."""
    same = ("method", "image_size", "precision", "batch_size", "backbone", "stage")
    # Without a fixed number of steps the length of an epoch depends on the category.
    fixed = bool(spec["parameters"].get("steps_per_epoch", 1))
    return (*(spec[k] for k in same), fixed)


def _length(parameters: Mapping[str, Any]) -> float:
    """Return how long a training is, in any unit: epochs times steps where they are fixed."""
    return float(parameters.get("epochs", 1) * (parameters.get("steps_per_epoch", 1) or 1))


def missing_lines(missing: Iterable[Missing]) -> list[str]:
    """Return one line for each different remedy, with how many runs wait for it."""
    counts = collections.Counter(m.remedy for m in missing)
    return [f"{remedy}  [{n} run{'s' if n > 1 else ''}]" for remedy, n in counts.items()]
