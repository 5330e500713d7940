"""One run in one process: load, fit, score, measure, publish.

The process is forked from a server that has imported this module, so torch is already there.
It speaks to the command only by lines of progress; its result is what it publishes in the store.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import random
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from bench import metrics
from bench.data.files import File
from bench.data.images import load
from bench.data.splits import Split, draw_manifest, split_category
from bench.detector import BackboneSource, Context, Seeds, TrainingSet
from bench.environment import load_average
from bench.errors import MethodError, StoreError
from bench.job import Job
from bench.registry import load_class
from bench.store import Store


def run(job: Job, lifeline: Connection, progress: Connection, started: float) -> None:
    """Carry out a job and end the process: 0 published, 1 failed (and recorded).

    `lifeline` is the reading end of a pipe whose writing end only the command holds; `started` is
    the command's time.monotonic() when it asked for the process.
    """
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command decides what an interrupt means
    threading.Thread(target=_die_with, args=(lifeline,), daemon=True).start()
    _log_to(job.staged / "log.txt")
    tell = _teller(progress)
    try:
        _carry_out(job, tell, started)
    except BaseException as error:
        traceback.print_exc()
        _record_failure(job, error)
        tell({"failed": f"{type(error).__name__}: {error}"})
        _leave(1)
    _leave(0)


def _leave(code: int) -> None:
    """End without the interpreter's shutdown, which a method's own threads could hang."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_with(lifeline: Connection) -> None:
    """End this process and its children as soon as the command is gone."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os.killpg(0, signal.SIGKILL)


def _log_to(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _teller(progress: Connection) -> Callable[[dict[str, Any]], None]:
    def tell(message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the command is gone; the lifeline ends this process
            progress.send_bytes(json.dumps(message).encode())

    return tell


def _record_failure(job: Job, error: BaseException) -> None:
    trace = traceback.format_exception(error)
    failure = {
        "reason": f"{type(error).__name__}: {error}",
        "traceback": "".join(trace),
        "provenance": job.provenance,
    }
    try:
        Store(job.results).record_failure(job.staged, job.spec, failure)
    except StoreError:
        traceback.print_exc()


def _carry_out(job: Job, tell: Callable[[dict[str, Any]], None], started: float) -> None:
    clock = _Clock(started)
    spec = job.spec
    seeds = Seeds(spec.seed, spec.dataset, spec.category)
    make_deterministic(job.threads, seeds["init"])
    method = load_class(job.method_path)
    images = load(job.images)
    split = split_category(
        job.files,
        [f.pixels for f in images.facts],
        seed=spec.seed,
        dataset=spec.dataset,
        category=spec.category,
        setting=spec.setting,
        seen_defect=spec.seen_defect,
    )
    train = TrainingSet(
        images.samples(split.train_normal), images.samples(split.drawn[: spec.shots])
    )
    tested = images.samples(split.tested)
    facts: dict[str, Any] = {}
    context = make_context(job, seeds, facts, clock, tell)
    detector = method(method.Parameters(**spec.parameters))
    clock.mark("setup_s")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        detector.fit(train, context)
        _wait(job.device)
        clock.mark("fit_s")
        if facts.get("optimiser_steps") == 0:
            raise MethodError("training made no step: epochs and steps must be positive")
        scores = check_scores(detector.score(tested), len(tested))
        _wait(job.device)
        clock.mark("score_s")

    labels = np.array([job.files[i].anomalous for i in split.tested])
    measured, notes = measure(scores, labels, split, method.supervision)
    notes += [f"{w.category.__name__}: {w.message}" for w in caught]
    _write_scores(job.staged / "scores.parquet", job.files, split, scores)
    print(f"auroc {measured['auroc']:.4f}", flush=True)
    receipt = {
        "metrics": {**measured, "scores_sha256": scores_digest(tested.names, scores)},
        "draw": draw_manifest(split, job.files, [f.pixels for f in images.facts]),
        "split": _split_facts(split, labels),
        "facts": facts,
        "timings": clock.marks | {"first_step_s": clock.first_step},
        "warnings": sorted(set(notes)),
        "provenance": {
            **job.provenance,
            "device": job.device,
            **_accelerator(job.device),
            "threads": job.threads,
            "score_batch_size": context.score_batch_size,
            "load_average": load_average(),
            "peak_memory_bytes": _peak_memory(),
            "weights_title": job.weights_title,
            "unofficial_copy": job.unofficial,
        },
    }
    Store(job.results).publish(job.staged, spec, receipt)


class _Clock:
    """Seconds between the stations of a run, counted from the command's request."""

    def __init__(self, started: float) -> None:
        self._started = self._last = started
        self.marks: dict[str, float] = {}
        self.first_step: float | None = None

    def mark(self, name: str) -> None:
        now = time.monotonic()
        self.marks[name] = round(now - self._last, 4)
        self._last = now

    def step(self) -> None:
        if self.first_step is None:
            self.first_step = round(time.monotonic() - self._started, 4)


def make_deterministic(threads: int, seed: int) -> None:
    """Set threads, seeds and switches so that the same spec gives the same bits on this machine.

    CUBLAS_WORKSPACE_CONFIG is in the environment already (`bench.engine`).
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Filling every new tensor costs a kernel each and changes no number of a sound method.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def make_context(
    job: Job,
    seeds: Seeds,
    facts: dict[str, Any],
    clock: _Clock,
    tell: Callable[[dict[str, Any]], None],
) -> Context:
    """Build what `fit` is given."""
    spec = job.spec

    def progress(epoch: int, epochs: int, loss: float) -> None:
        if epoch:
            print(f"epoch {epoch}/{epochs} loss {loss:.6g}", flush=True)
        else:
            clock.step()
        tell({"epoch": int(epoch), "epochs": int(epochs), "loss": f"{loss:.4g}"})

    def record(name: str, value: Any) -> None:
        if isinstance(value, np.generic):
            value = value.item()
        if type(value) not in (bool, int, float, str):
            raise MethodError(f"record({name!r}) takes a bool, int, float or str, not {value!r}")
        if type(value) is float and not math.isfinite(value):
            warnings.warn(f"{name} is {value}", stacklevel=2)
            value = None  # neither JSON nor a mean has a place for it
        facts[name] = value

    context = Context(device=job.device, seeds=seeds, progress=progress, record=record)
    changes: dict[str, Any] = {}
    if spec.precision is not None:
        changes["precision"] = spec.precision
    if spec.batch_size is not None:
        changes["batch_size"] = spec.batch_size
    if spec.backbone is not None and spec.stage is not None:
        changes["backbone"] = BackboneSource(
            spec.backbone, spec.stage, job.weights_file, job.strides
        )
    return dataclasses.replace(context, **changes)


def check_scores(scores: Any, expected: int) -> NDArray[np.float32]:
    """Return a method's scores as float32 (N,); raises MethodError for anything else."""
    if not isinstance(scores, np.ndarray) or scores.dtype != np.float32:
        found = getattr(scores, "dtype", type(scores).__name__)
        raise MethodError(f"score() must return a float32 array, not {found}")
    if scores.shape != (expected,):
        raise MethodError(f"score() must return shape ({expected},), not {scores.shape}")
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise MethodError(f"score() returned {bad} of {expected} values that are not finite")
    return scores


def measure(
    scores: NDArray[np.float32], labels: NDArray[np.bool_], split: Split, supervision: str
) -> tuple[dict[str, Any], list[str]]:
    """Return AUROC and AP without the drawn anomalies, and warnings.

    A method that trains on no anomaly also gets both on the whole test set (Table 2's print).
    """
    counted = split.counted()
    kept_scores, kept_labels = scores[counted], labels[counted]
    measured = {
        "auroc": metrics.auroc(kept_scores, kept_labels),
        "ap": metrics.average_precision(kept_scores, kept_labels),
    }
    if supervision == "unsupervised":
        measured["auroc_full"] = metrics.auroc(scores, labels)
        measured["ap_full"] = metrics.average_precision(scores, labels)
    notes = ["all scores are equal"] if np.ptp(kept_scores) == 0 else []
    return measured, notes


def scores_digest(names: tuple[str, ...], scores: NDArray[np.float32]) -> str:
    """Return the sha256 over names and little-endian float32 scores: equal for equal results."""
    digest = hashlib.sha256("\n".join(names).encode())
    digest.update(scores.astype("<f4").tobytes())
    return digest.hexdigest()


def _write_scores(
    path: Path, files: tuple[File, ...], split: Split, scores: NDArray[np.float32]
) -> None:
    chosen = [files[i] for i in split.tested]
    table = pa.table({
        "file": pa.array([f.path for f in chosen]),
        "label": pa.array([int(f.anomalous) for f in chosen], pa.int8()),
        "defect": pa.array([f.defect for f in chosen]),
        "role": pa.array(split.role),
        "score": pa.array(scores, pa.float32()),
    })  # fmt: skip
    pq.write_table(table, path)


def _split_facts(split: Split, labels: NDArray[np.bool_]) -> dict[str, int]:
    counted = split.counted()
    return {
        "train_normal": len(split.train_normal),
        "train_left_out": len(split.left_out),
        "test_normal": int((counted & ~labels).sum()),
        "test_anomalous": int((counted & labels).sum()),
        "test_duplicates_left_out": split.role.count("duplicate"),
        "scored": len(split.tested),
    }


def _accelerator(device: str) -> dict[str, Any]:
    """Return the GPU's name, its software and the most memory the run held there."""
    if not device.startswith("cuda"):
        return {"device_name": "cpu"}
    return {
        "device_name": torch.cuda.get_device_name(device),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(device),
    }


def _peak_memory() -> int:
    """Return the process's largest resident size; macOS counts bytes, Linux kibibytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _wait(device: str) -> None:
    """Wait for the device, so that a station's time is its own."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
