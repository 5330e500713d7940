"""Campaign: execution of the remaining runs of a plan."""

import collections
import contextlib
import shutil
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol

from bench.code import hash_sources, read_code
from bench.data.masks import Masks
from bench.errors import CorruptRun, DataError, RequestError, StoreError
from bench.execution.engines.engine import Ended, Engine, Order
from bench.execution.engines.here import ExecutionOptions, ThisMachine
from bench.execution.job import LOG_LIMIT
from bench.execution.messages import Failed, Message, Note, OutOfMemory, Progress, Stayed, Trouble
from bench.execution.pixel_metrics import measure_again
from bench.execution.room import Room
from bench.planning.plan import Folders, Run
from bench.planning.runtime import step_key
from bench.planning.slots import Slot
from bench.planning.state import State, missing_for, would_fail_again
from bench.source import method_code
from bench.store.agreement import agreement
from bench.store.artifacts import artifact_words, artifacts_in, settled_artifacts, stored_artifacts
from bench.store.folder import Store
from bench.store.groups import Provenance
from bench.store.receipt import Receipt

HEARTBEAT = 10.0
"""Seconds between two signs of life of the runs under way."""
LOOK_AGAIN = 0.1
"""Seconds until a run that cannot be read, and is not damaged, is read again."""
LOST_TRIES = 3
"""How often a run is started that is lost with its server of processes or its node."""


class Listener(Protocol):
    """Receiver of progress, such as `bench.cli.progress`."""

    def started(self, run: Run) -> None:
        """A run has begun."""

    def epoch(self, run: Run, epoch: int, epochs: int, loss: str) -> None:
        """A run has finished an epoch; 0 means its preparations."""

    def finished(self, run: Run, receipt: Receipt) -> None:
        """A run is published."""

    def failed(self, run: Run, reason: str) -> None:
        """A run has failed, and is recorded as failed."""

    def put_back(self, run: Run) -> None:
        """A run is over for now, and waits to be started again."""

    def note(self, text: str) -> None:
        """Something worth a line."""


@dataclass
class Outcome:
    """What became of a command's runs."""

    done: dict[str, Receipt]
    failed: dict[str, str] = field(default_factory=dict)
    """Reason by run id."""


def run_campaign(
    state: State,
    store: Store,
    folders: Folders,
    options: ExecutionOptions,
    listener: Listener,
    engine: Engine | None = None,
    *,
    compact: bool = True,
) -> Outcome:
    """Execute the runs left to do; return the outcome of all.

    They are made on this machine where no other `engine` is given.
    A run that fails is recorded and the others go on. An interrupt, or a disk that refuses
    (StoreError), ends the processes under way and is passed on; what was finished stays.
    The store's table is made anew at the end, unless `compact` leaves that to another command.
    """
    store.open_for_writing()
    campaign = _Campaign(state, store, folders, options, listener, engine)
    for run_id in state.damaged:
        campaign.quarantine_run(run_id, f"run {run_id} did not verify")
    try:
        campaign.measure_again()
        campaign.go()
    except BaseException:
        campaign.clean_up()
        if compact:
            with contextlib.suppress(StoreError):  # what stopped the command matters more
                store.compact()
        raise
    if compact:
        try:
            store.compact()
        except StoreError as error:  # the results are there; the table can be made at any time
            listener.note(f"{store.table} could not be updated: {error}")
    return campaign.outcome


@dataclass(frozen=True)
class _ActiveRun:
    """A run in a slot."""

    run: Run
    staged: Path
    provenance: Provenance

    @property
    def device(self) -> str:
        """Where it runs."""
        return str(self.provenance.device)


class _Campaign:
    """State of one command while its runs execute."""

    def __init__(
        self,
        state: State,
        store: Store,
        folders: Folders,
        options: ExecutionOptions,
        listener: Listener,
        engine: Engine | None = None,
    ) -> None:
        self.engine = engine
        self.store, self.folders, self.options, self.listener = store, folders, options, listener
        self.outcome = Outcome(dict(state.done))
        self.waiting = collections.deque(state.todo)
        self.other_masks = state.other_masks
        self.active: dict[str, _ActiveRun] = {}
        self.room = Room(options.keep)
        self.out_of_memory: dict[str, OutOfMemory] = {}
        self.announced: set[tuple[str, int]] = set()
        """Runs that have been said to wait, and how often they had failed by then."""
        self.lost: collections.Counter[str] = collections.Counter()
        self.claimed_elsewhere: set[str] = set()
        self.dropped: set[str] = set()
        self.damaged_artifacts: dict[str, frozenset[str]] = {}
        """Artifacts of quarantined runs, to be made again."""
        self.to_supersede = {r.run_id for r in state.stale} if state.redo_stale else set()
        self.failed_before = {run_id: failure.folder for run_id, failure in state.failed.items()}
        self.last_heartbeat = 0.0

    def go(self) -> None:
        """Keep the slots busy until nothing is left."""
        if not self.waiting:
            return
        if self.engine is not None:
            self._keep_busy(self.engine)
            return
        with ThisMachine(
            self.options, self.folders, self.waiting, self.listener.note
        ) as this_machine:
            self._keep_busy(this_machine)

    def _keep_busy(self, engine: Engine) -> None:
        while self.waiting or engine.running:
            self.fill(engine)
            self._poll(engine, 0.5)

    def fill(self, engine: Engine) -> None:
        """Start runs in the free slots."""
        for slot in engine.free:
            while slot in engine.free and (run := self._next(engine, slot)):
                self._start(engine, run, slot)

    def measure_again(self) -> None:
        """Make pixel metrics again where masks have changed."""
        loaded: dict[object, Masks] = {}
        for run in sorted(self.other_masks, key=lambda r: (r.spec.place, r.spec.image_size)):
            before = self.outcome.done[run.run_id]
            try:
                receipt = measure_again(self.store, run, before, loaded)
            except MemoryError as error:
                what = f"run {run.run_id} keeps its pixel metrics of other masks"
                self.listener.note(f"{what}: out of memory: {error}")
                continue
            except CorruptRun as error:
                self.quarantine_run(run.run_id, str(error))
                del self.outcome.done[run.run_id]
                if self.engine is not None or self.options.slots:
                    self.waiting.append(run)
                else:  # nothing was to be run: the command has none
                    self.outcome.failed[run.run_id] = f"{error}; give the same command again"
                    self.listener.failed(run, self.outcome.failed[run.run_id])
                continue
            self.outcome.done[run.run_id] = self._stored(run.run_id) or receipt
            self.listener.note(f"run {run.run_id}: {_change(before, receipt)}")

    def clean_up(self) -> None:
        """Remove the staging folders of active runs."""
        for active in self.active.values():
            shutil.rmtree(active.staged, ignore_errors=True)

    def _next(self, engine: Engine, slot: Slot) -> Run | None:
        """Return the next run that can start in a slot."""
        short: list[Run] = []
        steps = set()  # others of a step wait for what the first waits for
        try:
            for _ in range(len(self.waiting)):
                run = self.waiting.popleft()
                if (step := step_key(run.spec)) in steps:
                    short.append(run)
                    continue
                if self._done_elsewhere(run) or self._failed_elsewhere(run):
                    continue
                if self.store.claimed(run.run_id):
                    self.waiting.append(run)
                    self._note_claimed(run)
                    continue
                if not self._waits(run, engine, slot, announce=not short):
                    return run
                short.append(run)
                if self.room.holds(run, slot.device):
                    return None
                if not self.room.failures[run.run_id]:
                    steps.add(step)
            return None
        finally:
            self.waiting.extendleft(reversed(short))

    def _note_claimed(self, run: Run) -> None:
        """Say once that another command has a run."""
        if run.run_id not in self.claimed_elsewhere:
            self.claimed_elsewhere.add(run.run_id)
            self.listener.note(
                f"run {run.run_id} is under way in another command: not started here"
            )

    def _waits(self, run: Run, engine: Engine, slot: Slot, *, announce: bool) -> bool:
        """Whether a run has to wait for memory; say why, once."""
        stored = self.outcome.done.values()
        why = self.room.reason_to_wait(run, slot.device, stored, engine.pids)
        once = (run.run_id, self.room.failures[run.run_id])
        if why and announce and once not in self.announced:
            self.announced.add(once)
            self.listener.note(f"run {run.run_id} ({run.spec}) is not started yet: {why}")
        return bool(why)

    def _done_elsewhere(self, run: Run) -> bool:
        """Take over a result that another command has published."""
        before = self.outcome.done.get(run.run_id)  # a result that is to be run again
        receipt = self._stored(run.run_id)
        if receipt is None or receipt == before or missing_for(run, receipt, self.options.keep):
            return False
        self.outcome.done[run.run_id] = receipt
        self.listener.finished(run, receipt)
        return True

    def _failed_elsewhere(self, run: Run) -> bool:
        """Take over a failure that another command has recorded."""
        failures = self.store.failures(run.run_id) if run.run_id in self.claimed_elsewhere else []
        if not failures or failures[-1].folder == self.failed_before.get(run.run_id):
            return False
        if not would_fail_again(run, failures[-1]):
            return False
        self.outcome.failed[run.run_id] = failures[-1].reason
        self.listener.failed(run, failures[-1].reason)
        return True

    def _stored(self, run_id: str) -> Receipt | None:
        """Return a stored run's receipt; quarantine a damaged run."""
        while self.store.has(run_id):
            try:
                return self.store.read(run_id)
            except CorruptRun as error:
                if not self.quarantine_run(run_id, str(error)):  # replaced, or not to be seen yet
                    time.sleep(LOOK_AGAIN)
        return None

    def quarantine_run(self, run_id: str, why: str) -> bool:
        """Quarantine a damaged run, so that it runs again; return whether there was one."""
        moved = self.store.quarantine_run(run_id)
        if moved:
            self.damaged_artifacts[run_id] = artifacts_in(moved)
            self.listener.note(f"{why}: moved to {self.store.quarantine}, runs again")
        return moved is not None

    def _start(self, engine: Engine, run: Run, slot: Slot) -> None:
        # A run that is staged here is claimed, and nodes that see the results would wait for it.
        staged = Path(mkdtemp()) if self.options.shared else self.store.stage(run.run_id)
        order = Order(run, staged, self._keep(run), self._replaces(run))
        active = _ActiveRun(run, order.staged, engine.about(run, slot))
        self.active[run.run_id] = active
        self.room.started(run, slot.device)
        try:
            about = engine.start(order, slot, lambda: self._poll(engine, 0))
        except DataError as error:
            del self.active[run.run_id]
            self.room.ended(run)
            self._fail(active, "data", str(error))
            return
        self.active[run.run_id] = replace(active, provenance=about)
        self.listener.started(run)

    def _replaces(self, run: Run) -> str:
        """Return the digest of the stale receipt that a run supersedes."""
        stale = self.outcome.done.get(run.run_id) if run.run_id in self.to_supersede else None
        return stale.digest() if stale else ""

    def _keep(self, run: Run) -> frozenset[str]:
        """Return artifacts to keep: wanted ones and those stored before."""
        stored = self._stored(run.run_id)
        before = stored_artifacts(stored) if stored else frozenset()
        before |= self.damaged_artifacts.get(run.run_id, frozenset())
        return (self.options.keep | before) & run.planned.method.abilities

    def _pass_on(self, key: str, message: Message) -> None:
        match message:
            case Progress(epoch, epochs, loss):
                self.listener.epoch(self.active[key].run, epoch, epochs, loss)
            case Failed(reason):
                self.outcome.failed[key] = reason
            case OutOfMemory():
                self.out_of_memory[key] = message
            case Trouble(reason):
                raise StoreError(reason)
            case Note(text):
                self.listener.note(text)
            case Stayed(text):
                self.dropped.add(key)
                self.listener.note(text)

    def _poll(self, engine: Engine, timeout: float) -> None:
        """Handle messages and ends of active runs; send heartbeats."""
        for event in engine.events(timeout):
            if isinstance(event, Ended):
                self._finish(engine, event)
            else:
                self._pass_on(*event)
        if not self.options.wanted():
            raise KeyboardInterrupt
        heartbeat = time.monotonic() - self.last_heartbeat > HEARTBEAT
        if heartbeat:
            self.last_heartbeat = time.monotonic()
        for key, active in list(self.active.items()):
            if heartbeat:
                self.store.keep_alive(active.staged)
            if _size(active.staged / "log.txt") > LOG_LIMIT:
                why = f"printed more than {LOG_LIMIT >> 20} MiB"
                self._finish(engine, engine.stop(key, why))

    def _finish(self, engine: Engine, ended: Ended) -> None:
        """Settle a run whose process has ended."""
        # Why not believe the exit code or a message? Either can be lost or lie: a method may exit
        # with 0 on its own, the process may be killed right after publishing, another command may
        # have published first. What verifies in the store is the same whoever looks.
        active = self.active.pop(ended.key)
        run = active.run
        memory = self._memory_failure(active, ended)
        self.room.ended(run)
        reason = self.outcome.failed.get(run.run_id)
        if reason is not None and not ended.stopped:  # the run has recorded it itself
            shutil.rmtree(active.staged, ignore_errors=True)
            self.listener.failed(run, reason)
            return
        if ended.missing:  # that is no failure of the run
            shutil.rmtree(active.staged, ignore_errors=True)
            self.outcome.failed[run.run_id] = ended.missing
            self.listener.failed(run, ended.missing)
            return
        receipt = self._stored(run.run_id)
        before = self.outcome.done.get(run.run_id)
        if receipt is not None and (
            run.run_id in self.dropped
            or (receipt != before and not missing_for(run, receipt, self.options.keep))
        ):
            shutil.rmtree(active.staged, ignore_errors=True)
            self.outcome.done[run.run_id] = receipt
            self.listener.finished(run, receipt)
            if before and receipt != before:
                self._note_rerun(run, before, receipt)
        elif ended.lost and self.lost[run.run_id] < LOST_TRIES - 1:
            shutil.rmtree(active.staged, ignore_errors=True)
            self.lost[run.run_id] += 1
            self.waiting.appendleft(run)
            self.listener.note(f"run {run.run_id} {ended.reason}: starting it again")
            self._check_code()
        elif memory is None:
            self._fail(active, ended.kind, ended.reason)
        elif self.room.should_retry(run, active.device, memory.needed, self.outcome.done.values()):
            shutil.rmtree(active.staged, ignore_errors=True)
            self.waiting.appendleft(run)
            self.listener.put_back(run)
            self.listener.note(
                f"run {run.run_id} ran out of memory and will be tried again alone: {memory.reason}"
            )
        else:
            self._fail(active, "memory", memory.reason, memory.traceback)

    def _memory_failure(self, active: _ActiveRun, ended: Ended) -> OutOfMemory | None:
        """Return the run's memory failure, if any."""
        message = self.out_of_memory.pop(ended.key, None)
        if ended.stopped:
            return None
        killed = ended.exit_code == -signal.SIGKILL and self.room.killed_for_memory(active.run)
        if message is None and killed:
            return OutOfMemory(
                f"MemoryError: {active.run.spec} was ended by the system, out of memory:"
                " take a smaller image_size or batch_size, fewer --slots, or another machine",
                traceback="",
                needed=None,
            )
        return message

    def _check_code(self) -> None:
        """Refuse to continue if a new server would load other code."""
        for module in {r.planned.method.module for r in self.waiting}:
            if hash_sources(read_code(module)) != hash_sources(method_code(module)):
                raise RequestError(
                    f"the code of {module} has changed while the command ran: give the same command"
                    " again to continue with the new code"
                )

    def _note_rerun(self, run: Run, before: Receipt, receipt: Receipt) -> None:
        """Note how a repeated run agrees with the earlier one."""
        match = agreement(before, receipt)
        if run.run_id not in self.to_supersede:
            gained = artifact_words(stored_artifacts(receipt) - settled_artifacts(before))
            self.listener.note(f"  run again{gained and f' for its {gained}'}: {match}")
            return
        advice = "" if match.kind == "identical" else "; where that is meant, raise its version"
        self.listener.note(f"  run again under today's code of the method: {match}{advice}")

    def _fail(self, active: _ActiveRun, kind: str, reason: str, traceback: str = "") -> None:
        """Record a failure that the run has not recorded."""
        self.store.record_failure(
            active.staged,
            active.run.spec,
            kind=kind,
            reason=reason,
            provenance=active.provenance,
            traceback=traceback,
        )
        self.outcome.failed[active.run.run_id] = reason
        self.listener.failed(active.run, reason)


def _change(before: Receipt, receipt: Receipt) -> str:
    """Write what today's masks make of a run's pixel AUROC."""
    values = (before.metrics.pixel_auroc, receipt.metrics.pixel_auroc)
    was, now = ("none" if value is None else f"{value:.4f}" for value in values)
    return f"pixel AUROC by today's masks {now}, before {was}; nothing was trained"


def _size(path: Path) -> int:
    """Return a file's size, 0 if it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
