"""Nodes that a Dask scheduler knows: each makes one run at a time, and sends it back.

Dask places tasks, notices what dies and carries messages; what a run is, when it is made again and
what counts stays with the campaign. `distributed` is imported only here and on nodes.
"""

import collections
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.errors import CorruptRun, MethodError, RequestError, StoreError
from bench.execution.engines.engine import Ended, Order
from bench.execution.engines.here import ExecutionOptions
from bench.execution.engines.request import Answer, Request, as_values, versions
from bench.execution.messages import Failed, Message, Note, Progress, Stayed
from bench.planning.plan import Run
from bench.planning.slots import Slot
from bench.source import source_hash
from bench.store.failures import DISPUTED
from bench.store.folder import Store
from bench.store.groups import Provenance
from bench.store.receipt import read_run
from bench.system.untrusted import os_reason

RESOURCE = "bench"
"""What a worker offers one of, so that runs go to ours alone and one at a time."""
WORKER = (
    "--resources", f"{RESOURCE}=1", "--preload", "bench.execution.engines.preload",
    "--dashboard-address", "127.0.0.1:0",
)  # fmt: skip
"""Options of every worker that makes runs, however it is started."""
DEATH_TIMEOUT = 60
"""Seconds that a worker looks for its scheduler."""
NODE = "a node"
PATIENCE = 600.0
"""Seconds that a command waits for a first node, or for another one where all have gone."""
SILENCE = 5.0
"""Seconds without any node after which that is said, once."""
GONE = ("closed", "closing", "connecting")
CONNECT = 15.0
"""Seconds within which a scheduler answers."""
LOOK = 1.0
"""Seconds between two looks at the nodes."""


@dataclass(frozen=True)
class Cluster:
    """How nodes are reached."""

    address: str
    """Of the scheduler: `tls://host:port` or `tcp://127.0.0.1:port`."""
    security: Any = None
    """A `distributed.Security`; None without encryption."""
    shared: bool = False
    """Whether nodes publish runs themselves, in results that all of them see."""
    close: Callable[[], None] = lambda: None
    """Ends the nodes that were started for this command."""


def _connected(cluster: Cluster) -> Any:
    """Return a client of a cluster's scheduler; raises RequestError where none answers."""
    from distributed import Client

    try:
        return Client(
            cluster.address, security=cluster.security, timeout=CONNECT, set_as_default=False,
            name="bench",
        )  # fmt: skip
    except (OSError, TimeoutError, ValueError) as error:
        cluster.close()
        raise RequestError(
            f"no scheduler answers at {cluster.address} ({str(error).splitlines()[0]:.120}): is it"
            " running, and are --scheduler and --tls right?"
        ) from None


def _nodes(client: Any) -> list[str]:
    """Return the addresses of the workers that take runs."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return [a for a, about in workers.items() if about.get("resources", {}).get(RESOURCE)]


def ask_nodes(cluster: Cluster, patience: float, marker: str = "") -> list[Mapping[str, Any]]:
    """Return what each node says of itself, once there is one or `patience` seconds are over.

    `marker` names a file in the results, which they look for; `ahead_s` is how many seconds a
    node's clock is ahead of this one.
    """
    from bench.execution.engines.node import facts

    client, begun = _connected(cluster), time.monotonic()
    try:
        while not (addresses := _nodes(client)) and time.monotonic() - begun < patience:
            time.sleep(LOOK)
        if not addresses:
            return []
        asked = time.time()
        nodes = client.run(facts, marker, workers=addresses).values()
        now = (asked + time.time()) / 2
        return [{**node, "ahead_s": node["time"] - now} for node in nodes]
    finally:
        client.close(timeout=5)
        cluster.close()


@dataclass
class _Sent:
    """A run that is on its way."""

    order: Order
    since: float
    future: Any = None
    """None while it waits for a node."""
    node: str = ""
    lacking: dict[str, str] = field(default_factory=dict)
    """Nodes that cannot make it, with what they lack."""


class DaskEngine:
    """Context manager that makes runs on the nodes of a cluster."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        options: ExecutionOptions,
        threads: int | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._cluster, self._store, self._options = cluster, store, options
        self._threads, self._patience = threads, patience
        self._sent: dict[str, _Sent] = {}
        self._inbox: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._refused: set[str] = set()
        self._nodes: list[str] = []
        """Addresses of the nodes that take runs."""
        self._versions = versions()
        self._looked, self._seen, self._said = 0.0, time.monotonic(), False
        self._tries: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> "DaskEngine":
        """Connect to the scheduler; raises RequestError where none answers."""
        self._client = _connected(self._cluster)
        self._topic = f"bench-{self._client.id}"
        self._client.subscribe_topic(self._topic, lambda event: self._inbox.put(("", event[1])))
        self._look()
        return self

    def __exit__(self, *_: object) -> None:
        for sent in self._sent.values():
            if sent.future is not None:
                sent.future.cancel()
        self._client.close(timeout=5)
        self._cluster.close()

    @property
    def free(self) -> Sequence[Slot]:
        """A slot for each node without a run."""
        self._look()
        free = max(0, len(self._nodes) - len(self._sent))
        return [Slot(NODE, self._threads or 1)] * free

    @property
    def running(self) -> bool:
        """Whether any run is under way."""
        return bool(self._sent)

    @property
    def pids(self) -> Sequence[int]:
        """None on this machine."""
        return ()

    def about(self, run: Run, slot: Slot) -> Provenance:
        """Return what is known before a node has begun."""
        return Provenance({
            "source_sha256": source_hash(run.planned.method.module), "device": NODE,
        })  # fmt: skip

    def start(self, order: Order, slot: Slot, meanwhile: Callable[[], None]) -> Provenance:
        """Send a run to a node."""
        self._sent[order.run.run_id] = _Sent(order, time.monotonic())
        self._place(order.run.run_id)
        return self.about(order.run, slot)

    def _request(self, order: Order) -> Request:
        run, options = order.run, self._options
        planned = run.planned
        wanted = {k: v for k, v in vars(planned).items() if k != "method"}
        return Request(
            run_id=run.run_id,
            method=planned.method.path if planned.method.outside else planned.method.name,
            source_sha256=source_hash(planned.method.module),
            wanted={**wanted, "tuned": {}},
            versions=self._versions,
            keep=tuple(sorted(order.keep)),
            redo=bool(order.replaces),
            timeout=options.timeout,
            score_batch_size=options.score_batch_size,
            threads=self._threads,
            shared=self._cluster.shared,
            topic=self._topic,
        )

    def events(self, timeout: float) -> Iterator[tuple[str, Message] | Ended]:
        """Yield messages and ends of runs; raises RequestError once the scheduler is gone."""
        try:
            news = [self._inbox.get(timeout=timeout)] if timeout else [self._inbox.get_nowait()]
        except queue.Empty:
            news = []
        while not self._inbox.empty():
            news.append(self._inbox.get_nowait())
        self._check_scheduler()
        for key, content in news:
            if not key:
                yield from _told(content, self._sent)
            elif key in self._sent and self._sent[key].future is content:
                yield from self._settled(key, content)
        self._look()
        if not self._nodes and not self._said and time.monotonic() - self._seen > SILENCE:
            self._said = True
            yield "", Note(f"no node yet: `bench worker --scheduler {self._cluster.address}`")
        for key in [k for k, sent in self._sent.items() if sent.future is None]:
            yield from self._place_or_give_up(key)

    def stop(self, key: str, why: str) -> Ended:
        """Call a run back."""
        sent = self._sent.pop(key)
        if sent.future is not None:
            sent.future.cancel()
        return Ended(key, None, time.monotonic() - sent.since, stopped=why)

    # Nodes

    def _look(self) -> None:
        """Note which nodes take runs, once a second at most; raises RequestError without any."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        self._check_scheduler()
        self._nodes = [a for a in _nodes(self._client) if a not in self._refused]
        if self._nodes:
            self._seen = now
        elif now - self._seen > self._patience:
            raise RequestError(
                f"no node has taken a run for {self._patience:.0f} s: start one with `bench worker"
                f" --scheduler {self._cluster.address}`, and give the same command again"
            )

    def _check_scheduler(self) -> None:
        if self._client.status in GONE:
            raise RequestError(
                f"the scheduler at {self._cluster.address} is gone; once it runs again, the same"
                " command continues"
            )

    def _forget(self, node: str) -> None:
        self._nodes = [address for address in self._nodes if address != node]

    def _place(self, key: str) -> None:
        """Send a run to a node that is free and may make it, if there is one."""
        from bench.execution.engines.node import make_run

        sent = self._sent[key]
        busy = {other.node for other in self._sent.values() if other.future is not None}
        node = next((a for a in self._nodes if a not in busy and a not in sent.lacking), None)
        if node is None:
            return
        self._tries[key] += 1
        sent.node = node
        name = f"bench-{key}-{self._tries[key]}-{self._topic}"
        sent.future = self._client.submit(
            make_run, as_values(self._request(sent.order)), key=name,
            workers=[node], allow_other_workers=False, resources={RESOURCE: 1}, retries=0,
            pure=False,
        )  # fmt: skip
        sent.future.add_done_callback(lambda future: self._inbox.put((key, future)))

    def _place_or_give_up(self, key: str) -> Iterator[tuple[str, Message] | Ended]:
        """Place a run, or end it where each of the nodes lacks something."""
        sent = self._sent[key]
        if self._nodes and sent.lacking.keys() >= {*self._nodes}:
            del self._sent[key]
            remedies = dict.fromkeys(sent.lacking[address] for address in self._nodes)
            missing = f"no node can make it: {'; '.join(remedies)}"
            yield Ended(key, None, time.monotonic() - sent.since, missing=missing)
        else:
            self._place(key)

    # Answers

    def _settled(self, key: str, future: Any) -> Iterator[tuple[str, Message] | Ended]:
        """Read a node's answer, or why there is none."""
        sent = self._sent[key]
        seconds = time.monotonic() - sent.since
        if future.status != "finished":
            self._check_scheduler()
            error = future.exception(timeout=5) if future.status == "error" else None
            self._forget(sent.node)  # until the next look
            del self._sent[key]
            name = type(error).__name__
            gone = error is None or name == "KilledWorker"
            yield Ended(key, None, seconds, lost="its node" if gone else f"{NODE}: {name}: {error}")
            return
        answer = Answer(**future.result(timeout=30))
        if answer.refused:
            yield key, Note(f"node {answer.node} is not used: it {answer.refused}")
            self._refused.add(sent.node)
            self._forget(sent.node)
            sent.future = None
        elif answer.lacks:
            yield key, Note(f"node {answer.node} cannot make run {key}: {answer.lacks}")
            sent.lacking[sent.node] = answer.lacks
            sent.future = None
        else:
            del self._sent[key]
            yield from self._received(key, sent.order, answer)
            yield Ended(key, 1 if answer.failure else 0, seconds)

    def _received(self, key: str, order: Order, answer: Answer) -> Iterator[tuple[str, Message]]:
        """Publish or record what a node has sent."""
        try:
            for name, content in answer.files.items():  # flushed to disk as the run is sealed
                (order.staged / Path(name).name).write_bytes(content)
        except OSError as error:
            raise StoreError(f"cannot keep run {key}: {os_reason(error)}") from error
        if answer.failure is not None:
            yield from self._failed(key, order, answer.failure)
        elif answer.files:
            try:
                receipt = _with_tuning(read_run(order.staged, key), order)
                (order.staged / "run.json").unlink()  # it is sealed anew
                stays = self._store.publish(order.staged, receipt, replaces=order.replaces)
            except CorruptRun as error:
                yield key, Note(f"what node {answer.node} has sent does not verify: {error}")
            except MethodError as error:
                about = dict(receipt.provenance)
                failure = {"kind": DISPUTED, "reason": str(error), "provenance": about}
                yield from self._failed(key, order, failure)
            else:
                if stays:
                    yield key, Stayed(f"run {key} was there already, and stays: {stays}")

    def _failed(
        self, key: str, order: Order, failure: Mapping[str, Any]
    ) -> Iterator[tuple[str, Message]]:
        if failure["kind"]:  # else the node has recorded it, where all see it
            self._store.record_failure(
                order.staged,
                order.run.spec,
                kind=failure["kind"],
                reason=failure["reason"],
                provenance=Provenance.readable(failure["provenance"]),
                traceback=failure.get("traceback", ""),
            )
        yield key, Failed(failure["reason"])


def _with_tuning(receipt: Any, order: Order) -> Any:
    """Return a node's receipt with the settings that seeds have chosen, which stay here."""
    from bench.store.tuning import tuned_text

    if not order.run.planned.tuned:
        return receipt
    tuned = {"tuned": tuned_text(order.run.planned.tuned)}
    return replace(receipt, provenance=Provenance({**receipt.provenance, **tuned}))


def _told(content: Any, sent: Mapping[str, _Sent]) -> Iterator[tuple[str, Message]]:
    """Read what a node tells of a run under way."""
    if not isinstance(content, Mapping) or content.get("run") not in sent:
        return
    key = str(content["run"])
    if "note" in content:
        yield key, Note(f"run {key}: {content['note']}")
    elif "epoch" in content:
        epoch, epochs = int(content["epoch"]), int(content["epochs"])
        yield key, Progress(epoch, epochs, str(content.get("loss", "")))
