"""Runs on this machine: images are prepared, jobs go to a local engine's processes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.code import file_digests
from bench.execution.engines.engine import Ended, Order
from bench.execution.engines.local import LocalEngine
from bench.execution.job import Job
from bench.execution.messages import Message
from bench.execution.preparation import Preparation
from bench.planning.plan import Folders, Run
from bench.planning.slots import Slot
from bench.source import method_code, source_hash
from bench.store.groups import Provenance
from bench.store.tuning import tuned_text
from bench.system.host import describe_host

TARGET = "bench.execution.worker:run_job"


@dataclass(frozen=True)
class ExecutionOptions:
    """Options of execution; none enters a run id."""

    slots: Sequence[Slot]
    timeout: float | None = None
    """Longest time of a run in seconds; None for no limit."""
    score_batch_size: int = 32
    keep: frozenset[str] = frozenset()
    """The abilities whose files are wanted beside the scores, see `bench.store.artifacts`."""
    shared: bool = False
    """Whether nodes of a cluster stage and publish runs themselves."""
    wanted: Callable[[], bool] = field(default=lambda: True, compare=False)
    """Asked now and then; once it says no, the command ends as by an interrupt."""


class ThisMachine:
    """Context manager that makes runs in local slots."""

    def __init__(
        self,
        options: ExecutionOptions,
        folders: Folders,
        runs: Sequence[Run],
        note: Callable[[str], None],
    ) -> None:
        self._options, self._folders = options, folders
        self._preparation = Preparation(folders, note)
        self._local = LocalEngine(options.slots, _preload(runs), options.timeout)

    def __enter__(self) -> "ThisMachine":
        self._local.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._local.__exit__(*raised)

    @property
    def free(self) -> list[Slot]:
        """Slots that wait for work."""
        return self._local.free

    @property
    def running(self) -> bool:
        """Whether any run is under way."""
        return self._local.running

    @property
    def pids(self) -> list[int]:
        """Ids of the processes under way."""
        return self._local.pids

    def about(self, run: Run, slot: Slot) -> Provenance:
        """Return the provenance known before a run begins."""
        return Provenance({
            **describe_host(),
            "source_sha256": source_hash(run.planned.method.module),
            "device": slot.device,
            "threads": slot.threads,
            "score_batch_size": self._options.score_batch_size,
            "weights_title": run.weights.title if run.weights else "",
            "strides": run.weights.source.strides if run.weights else "",
            **({"tuned": tuned_text(run.planned.tuned)} if run.planned.tuned else {}),
        })  # fmt: skip

    def start(self, order: Order, slot: Slot, meanwhile: Callable[[], None]) -> Provenance:
        """Start a run in a free slot, once its images are prepared; raises DataError."""
        images, unofficial = self._preparation.category(order.run, meanwhile)
        external = self._preparation.external(order.run, meanwhile)
        about = Provenance({**self.about(order.run, slot), "unofficial_copy": unofficial})
        job = self._job(order, images, external, slot, about)
        self._local.start(order.run.run_id, TARGET, job, slot)
        return about

    def events(self, timeout: float) -> Iterator[tuple[str, Message] | Ended]:
        """Yield messages and ends of runs within `timeout` seconds."""
        return self._local.events(timeout)

    def stop(self, key: str, why: str) -> Ended:
        """End a run that has gone wrong."""
        return self._local.stop(key, why)

    def _job(
        self, order: Order, images: Path, external: Path | None, slot: Slot, about: Provenance
    ) -> Job:
        run, weights = order.run, order.run.weights
        return Job(
            spec=run.spec,
            method_path=run.planned.method.path,
            files=run.listing.files,
            pictures=run.pictures,
            root=run.listing.root,
            images=images,
            external=external,
            weights_file=weights.source.file if weights else None,
            strides=weights.source.strides if weights else "",
            results=self._folders.results,
            staged=order.staged,
            device=slot.device,
            threads=slot.threads,
            score_batch_size=self._options.score_batch_size,
            replaces=order.replaces,
            provenance=about,
            code=file_digests(method_code(run.planned.method.module)),
            keep=order.keep,
        )


def _preload(runs: Sequence[Run]) -> list[str]:
    """Return modules that runs import, for the server of processes to have them."""
    methods = [r.planned.method for r in runs]
    outside = {m.module for m in methods if m.outside}
    modules = {m.module for m in methods} - outside
    # Of several from outside each run loads its own: so it is known what which of them loads.
    modules |= outside if len(outside) == 1 else set()
    preload = [
        "bench.execution.engines.local",
        "bench.execution.worker",
        "pandas",  # where it is installed, pyarrow imports it for the first table of a process
        *sorted(modules),
    ]
    specs = [r.spec for r in runs]
    if any(spec.backbone is not None or spec.kind == "timing" for spec in specs):
        preload.append("torchvision")  # half of all imports' time, and only a network needs it
    return preload
