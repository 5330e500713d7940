"""Carries out what is left of a plan: each run in a process of its own, failures apart."""

import collections
import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.agreement import agreement
from bench.data.catalog import find_dataset
from bench.data.images import load, prepare, why_unofficial
from bench.engine import Ended, LocalEngine, Slot
from bench.environment import describe_host
from bench.errors import BenchError, DataError, StoreError
from bench.job import LOG_LIMIT, Job
from bench.plan import Folders, Run
from bench.receipt import Receipt
from bench.registry import source_hash
from bench.schedule import State
from bench.store import Store

HEARTBEAT = 10.0
"""Seconds between two signs of life of the runs under way."""
LOST_TRIES = 3
"""How often a run is started that is lost with the server of processes."""


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


@dataclass(frozen=True)
class Order:
    """How a command wants its runs carried out; none of it enters an identity."""

    slots: Sequence[Slot]
    timeout: float | None = None
    """Longest time of a run in seconds."""
    score_batch_size: int = 32


@dataclass
class Outcome:
    """What became of a command's runs."""

    done: dict[str, Receipt]
    failed: dict[str, str] = field(default_factory=dict)
    """Reason by run id."""


def carry_out(
    state: State, store: Store, folders: Folders, order: Order, listener: Listener
) -> Outcome:
    """Run what is left; return what is there afterwards.

    A run that fails is recorded and the others go on. An interrupt, or a disk that refuses
    (StoreError), ends the processes under way and is passed on; what was finished stays.
    """
    store.open_for_writing()
    for run_id in state.damaged:
        store.set_aside(run_id)
        listener.note(f"run {run_id} did not verify: moved to {store.quarantine}, runs again")
    campaign = _Campaign(state, store, folders, order, listener)
    try:
        campaign.go()
    except BaseException:
        campaign.clean_up()
        with contextlib.suppress(StoreError):  # what stopped the command matters more
            store.compact()
        raise
    store.compact()
    return campaign.outcome


@dataclass(frozen=True)
class _UnderWay:
    """A run in a slot."""

    run: Run
    staged: Path
    provenance: dict[str, Any]


class _Campaign:
    """The state of one command while its runs go on."""

    def __init__(
        self, state: State, store: Store, folders: Folders, order: Order, listener: Listener
    ) -> None:
        self.store, self.folders, self.order, self.listener = store, folders, order, listener
        self.outcome = Outcome(dict(state.done))
        self.waiting = collections.deque(state.todo)
        self.active: dict[str, _UnderWay] = {}
        self.prepared = _Prepared(folders, listener)
        self.lost: collections.Counter[str] = collections.Counter()
        self.yielded: set[str] = set()
        self.beaten = 0.0

    def go(self) -> None:
        """Keep the slots busy until nothing is left."""
        if not self.waiting:
            return
        modules = {r.cell.method.module for r in self.waiting}
        for module in modules:
            source_hash(module)  # kept from now on: the server loads this source
        preload = [
            "bench.engine",
            "bench.worker",
            "torchvision",
            "pandas",  # where it is installed, pyarrow imports it for the first table of a process
            *sorted(modules),
        ]
        with LocalEngine(self.order.slots, preload, self.order.timeout) as engine:
            while self.waiting or engine.running:
                while (slot := engine.free) and (run := self._next()):
                    self._start(engine, run, slot)
                for event in engine.events():
                    if isinstance(event, Ended):
                        self._settle(event)
                    else:
                        self._pass_on(*event)
                self._look_after(engine)

    def clean_up(self) -> None:
        """Drop what is under way; nothing of it is visible."""
        for under_way in self.active.values():
            shutil.rmtree(under_way.staged, ignore_errors=True)

    def _next(self) -> Run | None:
        """Return the next run that no other command has finished or has under way."""
        for _ in range(len(self.waiting)):
            run = self.waiting.popleft()
            if self._done_elsewhere(run):
                continue
            if not self.store.claimed(run.run_id):
                return run
            self.waiting.append(run)
            if run.run_id not in self.yielded:
                self.yielded.add(run.run_id)
                self.listener.note(f"run {run.run_id} is under way in another command: it goes on")
        return None

    def _done_elsewhere(self, run: Run) -> bool:
        """Take over what another command has published since this one looked."""
        before = self.outcome.done.get(run.run_id)  # a stale result, to be run again
        if not self.store.has(run.run_id):
            return False
        receipt = self.store.read(run.run_id)
        if before == receipt:
            return False
        self.outcome.done[run.run_id] = receipt
        self.listener.finished(run, receipt)
        return True

    def _start(self, engine: LocalEngine, run: Run, slot: Slot) -> None:
        try:
            images, unofficial = self.prepared.category(run)
        except DataError as error:
            here = _UnderWay(run, self.store.stage(run.run_id), self._about(run, slot))
            self._fail(here, "data", str(error))
            return
        about = {**self._about(run, slot), "unofficial_copy": unofficial}
        here = _UnderWay(run, self.store.stage(run.run_id), about)
        self.active[run.run_id] = here
        job = self._job(here, images, slot)
        engine.start(run.run_id, "bench.worker:run", job)
        self.listener.started(run)

    def _about(self, run: Run, slot: Slot) -> dict[str, Any]:
        """Return the provenance that is known before a run begins."""
        return {
            **describe_host(),
            "source_sha256": source_hash(run.cell.method.module),
            "device": slot.device,
            "threads": slot.threads,
            "score_batch_size": self.order.score_batch_size,
            "weights_title": run.weights.title if run.weights else "",
        }

    def _job(self, here: _UnderWay, images: Path, slot: Slot) -> Job:
        run, weights = here.run, here.run.weights
        return Job(
            spec=run.spec,
            method_path=run.cell.method.path,
            files=run.listing.files,
            images=images,
            weights_file=weights.source.file if weights else None,
            strides=weights.source.strides if weights else "",
            results=self.folders.results,
            staged=here.staged,
            device=slot.device,
            threads=slot.threads,
            score_batch_size=self.order.score_batch_size,
            replace=run.run_id in self.outcome.done,
            provenance=here.provenance,
        )

    def _pass_on(self, key: str, message: dict[str, Any]) -> None:
        run = self.active[key].run
        if "failed" in message:
            self.outcome.failed[key] = message["failed"]
        elif "trouble" in message:
            raise StoreError(message["trouble"])
        elif "note" in message:
            self.listener.note(message["note"])
        else:
            self.listener.epoch(run, message["epoch"], message["epochs"], message["loss"])

    def _look_after(self, engine: LocalEngine) -> None:
        """Give signs of life; end a run that fills the disk with what it prints."""
        now = time.monotonic()
        for key, here in list(self.active.items()):
            if now - self.beaten > HEARTBEAT:
                self.store.keep_alive(here.staged)
            log = here.staged / "log.txt"
            if log.is_file() and log.stat().st_size > LOG_LIMIT:
                why = f"printed more than {LOG_LIMIT >> 20} MiB"
                self._settle(engine.stop(key, why))
        if now - self.beaten > HEARTBEAT:
            self.beaten = now

    def _settle(self, ended: Ended) -> None:
        """Believe the store: a run is done if it is there and verifies, and recorded no failure."""
        here = self.active.pop(ended.key)
        run = here.run
        reason = self.outcome.failed.get(run.run_id)
        if reason is not None and not ended.stopped:  # the run has recorded it itself
            self.listener.failed(run, reason)
            return
        try:
            receipt = self.store.read(run.run_id) if self.store.has(run.run_id) else None
        except BenchError as error:
            self._fail(here, "killed", str(error))
            return
        before = self.outcome.done.get(run.run_id)
        if receipt is not None and receipt != before:
            shutil.rmtree(here.staged, ignore_errors=True)
            self.outcome.done[run.run_id] = receipt
            self.listener.finished(run, receipt)
            if before:
                self._tell_again(before, receipt)
        elif ended.lost and self.lost[run.run_id] < LOST_TRIES - 1:
            shutil.rmtree(here.staged, ignore_errors=True)
            self.lost[run.run_id] += 1
            self.waiting.appendleft(run)
            self.listener.note(f"run {run.run_id} {ended.reason}: it starts again")
        else:
            self._fail(here, ended.kind, ended.reason)

    def _tell_again(self, before: Receipt, receipt: Receipt) -> None:
        """Say what today's code makes of a run that older code has made."""
        found = agreement(before, receipt)
        advice = "" if found.kind == "identical" else "; where that is meant, raise its version"
        self.listener.note(f"  run again under today's code of the method: {found}{advice}")

    def _fail(self, here: _UnderWay, kind: str, reason: str) -> None:
        """Record a failure that the run could not record itself."""
        failure = {"kind": kind, "reason": reason, "traceback": "", "provenance": here.provenance}
        self.store.record_failure(here.staged, here.run.spec, failure)
        self.outcome.failed[here.run.run_id] = reason
        self.listener.failed(here.run, reason)


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
