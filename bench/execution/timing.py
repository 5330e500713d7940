"""Latency, throughput and memory of a fitted detector's `score`.

Everything is measured as runs are made: with deterministic algorithms, and on the threads of the
run. A repetition begins with decoded uint8 images of the input size in memory, or with their files,
which the system has cached, and ends with the scores on the host: conversion, the way to the device
and back, and whatever else the method does lie in between. A reference pass of ResNet-18, stored as
`yardstick`, alternates with single images, so that their ratio holds while the machine's speed
drifts.
"""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from bench.data.images import CategoryImages, read_samples
from bench.detector import Samples
from bench.execution.job import Job
from bench.store.parquet import packed
from bench.system.device import PeakMemory, synchronize
from bench.system.load import LoadMonitor

REPETITIONS = "repetitions.parquet"
"""The file of a run that holds every single repetition; archives leave it behind."""
IMAGES = 64
"""Test images, at most, that are measured with in turns: two batches."""
BATCH = 32
LEAST_TURNS = 5
"""Repetitions of the reference pass (`yardstick`), at least."""
BETWEEN_TURNS = 5
"""Repetitions between two reference passes beyond the least, at least."""


@dataclass(frozen=True)
class Budget:
    """Number of repetitions: for `seconds`, within these bounds."""

    least: int
    most: int
    seconds: float

    def used(self, done: Sequence[float]) -> float:
        """Return the used share, 1 when to stop."""
        share = max(len(done) / self.most, sum(done) / self.seconds)
        return min(share, 1.0 if len(done) >= self.least else 0.99 * len(done) / self.least)


WARM_UP = Budget(1, 10, 3.0)
SINGLE = Budget(10, 100, 10.0)
BATCHES = Budget(1, 30, 10.0)
EXPLAIN = Budget(3, 100, 3.0)


@dataclass(frozen=True)
class TimingResult:
    """What a timing run adds to its receipt and folder."""

    timings: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, int] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class Meter:
    """Watches memory and load from before a run starts."""

    def __init__(self, device: str) -> None:
        self.memory, self.watch = PeakMemory(device), LoadMonitor(device)
        self.fitted_bytes: int | None = None

    def fitted(self) -> None:
        """Take note of what training took."""
        self.fitted_bytes = self.memory.bytes()


def measure(
    detector: Any,
    job: Job,
    images: CategoryImages,
    tested: Sequence[int],
    facts: Mapping[str, Any],
    meter: Meter,
) -> TimingResult:
    """Measure a fitted detector on the `tested` images.

    `facts` are what the method recorded.
    Warnings are off: the method has given them when it scored.
    """
    with warnings.catch_warnings(), threadpool_limits(job.threads):
        warnings.simplefilter("ignore")
        subjects = TimingImages.of(job, images, tested)
        meter.watch.lap()
        score_bytes = _score_memory(detector, subjects, meter.memory)
        seconds = _measured(detector, job, subjects, meter.watch)
        meter.watch.lap()
    memory = {"fit_memory_bytes": meter.fitted_bytes, "score_memory_bytes": score_bytes}
    return TimingResult(
        timings=_timings(seconds) | _step(job, facts),
        facts={"parameters": parameter_count(detector)},
        provenance={k: v for k, v in memory.items() if v is not None} | meter.watch.provenance(),
        files={REPETITIONS: _parquet(seconds)},
    )


@dataclass(frozen=True)
class TimingImages:
    """Test images to time with: single, in batches, as files."""

    singles: tuple[Samples, ...]
    batches: tuple[Samples, ...]
    files: tuple[Path, ...]
    """Of all images of the batches, in their order."""

    @classmethod
    def of(cls, job: Job, images: CategoryImages, tested: Sequence[int]) -> "TimingImages":
        """Choose test images at random, alike for all methods."""
        order = np.random.RandomState(0).permutation(len(tested))[:IMAGES]
        chosen = [int(tested[i]) for i in order]
        numbers = round_about(chosen)
        held = images.samples(numbers)
        return cls(
            tuple(part(held, i, i + 1) for i in range(len(chosen))),
            tuple(part(held, i, i + BATCH) for i in range(0, len(numbers), BATCH)),
            tuple(job.root / job.files[i].path for i in numbers),
        )


def round_about(numbers: Sequence[int]) -> list[int]:
    """Return the numbers, repeated to fill whole batches."""
    length = BATCH * math.ceil(len(numbers) / BATCH)
    return [numbers[i % len(numbers)] for i in range(length)]


def part(samples: Samples, start: int, stop: int) -> Samples:
    """Return some of the samples, their images not copied."""
    values = {f.name: getattr(samples, f.name) for f in dataclasses.fields(Samples)}
    cut: dict[str, Any] = {n: v if v is None else v[start:stop] for n, v in values.items()}
    return Samples(**cut)


def _score_memory(detector: Any, subjects: TimingImages, memory: PeakMemory) -> int | None:
    """Return peak bytes of scoring a batch, None if unknown.

    The gradients of the last training step, which a saved model has not, are let go.
    """
    for network in networks(detector):
        network.zero_grad(set_to_none=True)
    if not memory.restart():
        return None
    detector.score(subjects.batches[0])
    return memory.bytes()


def _measured(
    detector: Any, job: Job, subjects: TimingImages, watch: LoadMonitor
) -> dict[str, list[float]]:
    """Return seconds of all repetitions by what was repeated."""
    size, resize = job.spec.image_size, job.spec.resize
    singles, batches, files = subjects.singles, subjects.batches, subjects.files

    def file(i: int) -> None:
        detector.score(read_samples([files[i % len(singles)]], size, resize))

    def file_batch(i: int) -> None:
        start = BATCH * (i % len(batches))
        paths = files[start : start + BATCH]
        detector.score(read_samples(paths, size, resize, pool.map))

    stopwatch = Stopwatch(job.device)
    stopwatch.repeat("latency", lambda i: detector.score(singles[i % len(singles)]), SINGLE,
                 turn=reference_pass(job.device), ready=watch.look_at_clock)  # fmt: skip
    for path in files:
        path.read_bytes()
    stopwatch.repeat("latency_file", file, SINGLE)
    stopwatch.repeat("batch", lambda i: detector.score(batches[i % len(batches)]), BATCHES)
    with ThreadPoolExecutor(job.threads) as pool:
        stopwatch.repeat("batch_file", file_batch, BATCHES)
    watch.look_at_clock()
    if hasattr(detector, "explain"):
        stopwatch.try_to_repeat("explain", lambda i: detector.explain(singles[i % len(singles)]))
    return stopwatch.seconds


class Stopwatch:
    """Times repetitions; waits for the device around each."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.seconds: dict[str, list[float]] = {}

    def once(self, action: Callable[[], Any]) -> float:
        """Return the seconds of one call."""
        synchronize(self._device)
        started = time.perf_counter()
        action()
        synchronize(self._device)
        return time.perf_counter() - started

    def repeat(
        self,
        what: str,
        action: Callable[[int], Any],
        budget: Budget,
        *,
        turn: Callable[[], Any] | None = None,
        ready: Callable[[], Any] = lambda: None,
    ) -> None:
        """Time `action(i)` within a budget, after warming up.

        What alone takes all the seconds of the budget needs no warming up and counts at once.
        `turn` is timed in turns with it as `yardstick`: a few times in any case, spread over the
        budget, and more often while it takes no longer than the action. After a turn the action
        is called once untimed, since its caches are cold. `ready` is called before the first.
        """
        warm: list[float] = []
        while WARM_UP.used(warm) < 1:
            warm.append(self.once(lambda: action(len(warm))))
        if turn:
            turn()
        ready()
        done = self.seconds[what] = [took for took in warm if took > budget.seconds]
        turns, last = self.seconds.setdefault("yardstick", []) if turn else [], 0
        while (used := budget.used(done)) < 1:
            often = len(done) - last >= BETWEEN_TURNS and sum(turns) < sum(done)
            if turn and (often or len(turns) <= used * (LEAST_TURNS - 1)):
                turns.append(self.once(turn))
                last = len(done)
                action(len(done) - 1)
            done.append(self.once(lambda: action(len(done))))
        while turn and len(turns) < LEAST_TURNS:
            turns.append(self.once(turn))

    def try_to_repeat(self, what: str, action: Callable[[int], Any]) -> None:
        """Time an action unless it raises NotImplementedError."""
        try:
            action(0)
        except NotImplementedError:
            return
        self.repeat(what, action, EXPLAIN)


def reference_pass(device: str) -> Callable[[], None]:
    """Return an inference pass of ResNet-18, 16x3x224x224 float32."""
    from torchvision.models import resnet18

    network = resnet18().eval().to(device)
    images = torch.randn(16, 3, 224, 224).to(device)

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def _timings(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the receipt's values, seconds or images per second."""
    values: dict[str, float] = {}
    for what in ("latency", "latency_file"):
        low, high = median_interval(seconds[what])
        values |= {
            f"{what}_s": float(np.median(seconds[what])),
            f"{what}_low_s": low,
            f"{what}_high_s": high,
            f"{what}_p95_s": float(np.quantile(seconds[what], 0.95)),
            f"{what}_repeats": float(len(seconds[what])),
        }
    for name, what in (("throughput", "batch"), ("throughput_file", "batch_file")):
        values[f"{name}_per_s"] = BATCH / float(np.median(seconds[what]))
        values[f"{name}_repeats"] = float(len(seconds[what]))
    if "explain" in seconds:
        values["explain_latency_s"] = float(np.median(seconds["explain"]))
    values["yardstick_s"] = float(np.median(seconds["yardstick"]))
    values["yardstick_repeats"] = float(len(seconds["yardstick"]))
    return values


def _step(job: Job, facts: Mapping[str, Any]) -> dict[str, float]:
    """Return a training step's seconds, if the method recorded them."""
    rate, batch = facts.get("train_images_per_s"), job.spec.batch_size
    return {"step_s": batch / rate} if rate and batch else {}


def median_interval(values: Sequence[float], repeats: int = 2000) -> tuple[float, float]:
    """Return a median's 95 % bootstrap interval, deterministic.

    It takes repetitions as independent; that speed drifts over minutes, only other rounds show.
    """
    drawn = np.random.RandomState(0).choice(np.asarray(values), (repeats, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def parameter_count(detector: Any) -> int:
    """Return the number of parameters of a detector's networks."""
    return sum({id(p): p.numel() for n in networks(detector) for p in n.parameters()}.values())


def networks(detector: Any) -> list[torch.nn.Module]:
    """Return the networks that are a detector's attributes."""
    return [value for value in vars(detector).values() if isinstance(value, torch.nn.Module)]


def _parquet(seconds: Mapping[str, Sequence[float]]) -> bytes:
    """Return repetitions.parquet, one row a repetition."""
    rows = [(what, i, s) for what, column in seconds.items() for i, s in enumerate(column)]
    what, number, took = zip(*rows, strict=True)
    return packed(pa.table({
        "what": pa.array(what, pa.string()),
        "repetition": pa.array(number, pa.int32()),
        "seconds": pa.array(took, pa.float64()),
    }))  # fmt: skip
