"""Worker: one run from loading to publishing.

The process is forked from a server that has imported this module, so torch is already there.
It speaks to the command only by lines of progress; its result is what it publishes in the store.
"""

import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.images import CategoryImages, load
from bench.data.listing import File
from bench.data.masks import Size, find_masks, first_of, load_masks, masks_digest
from bench.data.preconditions import check_preconditions
from bench.data.splits import Split, draw_manifest, near_copies_left_out, split_category
from bench.detector import Context, TrainingSet
from bench.errors import DataError, MethodError, WeightsError
from bench.execution.artifacts import collect_artifacts
from bench.execution.contract import check_scores, make_context
from bench.execution.determinism import make_deterministic
from bench.execution.epochs import EpochScorer
from bench.execution.failure import (
    OutOfMemoryError,
    disk_trouble,
    out_of_memory,
    reason,
    record_failure,
    run_memory_line,
    trace_of,
)
from bench.execution.job import LOG_LIMIT, Job
from bench.execution.loading import also_loaded, check_loaded
from bench.execution.messages import (
    Failed,
    Message,
    Note,
    OutOfMemory,
    Stayed,
    Trouble,
    encode_message,
)
from bench.execution.phases import PhaseTimer
from bench.execution.pixel_metrics import pixel_metrics
from bench.execution.process import die_with_parent, exit_process, limit_memory, redirect_output
from bench.execution.timing import Meter, TimingResult, measure
from bench.registry import load_class
from bench.store.agreement import recorded_environment
from bench.store.artifacts import EXPLANATIONS, WORDS
from bench.store.explanations import read_explanations
from bench.store.folder import Store
from bench.store.groups import Drawn, Metrics, Provenance, SplitCounts, Timings, Values
from bench.store.receipt import Receipt
from bench.store.scores import Scores, write_scores
from bench.system.device import accelerator, free_memory, peak_memory, synchronize
from bench.system.digests import file_digest
from bench.system.files import write_synced
from bench.system.host import load_average
from bench.weights import plain_weights


def run_job(job: Job, lifeline: Connection, progress: Connection, started: float) -> None:
    """Execute a job and end the process.

    The exit code is 0 if published, 1 if failed and recorded, 2 for disk trouble.
    `lifeline` is the reading end of a pipe whose writing end only the command holds; `started` is
    the command's time.monotonic() when it asked for the process.
    """
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command decides what an interrupt means
    die_with_parent(lifeline)
    redirect_output(job.staged / "log.txt")
    send = _sender(progress)
    this_process = os.getpid()
    try:
        limit_memory(job.device)
        _run(job, send, started)
    except BaseException as error:
        if os.getpid() != this_process:  # a method has forked, and this is the copy
            os._exit(1)
        short = out_of_memory(error)
        trace = trace_of(error)
        if short:
            traceback.clear_frames(error.__traceback__)  # gives back what they hold
        with contextlib.suppress(OSError, MemoryError):  # the log may be what the disk cannot hold
            print(trace, file=sys.stderr, flush=True)
        trouble = disk_trouble(job, error)
        if trouble is None and short:  # the command may start it again
            send(OutOfMemory(run_memory_line(job, error), trace, getattr(error, "needed", None)))
            exit_process(1)
        trouble = trouble or record_failure(job, error)
        send(Trouble(trouble) if trouble else Failed(reason(error)))
        exit_process(2 if trouble else 1)
    exit_process(0)


def _sender(progress: Connection) -> Callable[[Message], None]:
    def send(message: Message) -> None:
        with contextlib.suppress(OSError):  # the command is gone; the lifeline ends this process
            progress.send_bytes(encode_message(message))

    return send


def _run(job: Job, send: Callable[[Message], None], started: float) -> None:
    timer = PhaseTimer(started)
    this_process = os.getpid()
    seeds = job.spec.seeds
    make_deterministic(job.threads, seeds["init"], job.device)
    method = load_class(job.method_path)
    check_loaded(_module(job), job.code)
    meter = Meter(job.device) if job.spec.kind == "timing" else None
    images, split = _data(job)
    job, copied = _with_plain_weights(job)
    facts: dict[str, Any] = {}
    context = make_context(job, seeds, facts, timer, send)
    by_epoch = None
    if "epochs" in job.keep and meter is None:
        by_epoch = EpochScorer(lambda: images.samples(split.tested), facts, timer, job.device)
        context = replace(context, after_epoch=by_epoch)
    detector = method(method.Parameters(**job.spec.parameters))
    scored, caught = _fit_and_score(detector, job, images, split, context, timer, meter)
    _exit_if_forked(this_process)
    if facts.get("optimiser_steps") == 0:
        raise MethodError("training made no step: epochs and steps must be positive")
    scores = _scores(job.files, split, scored)
    threshold = facts.get("normal_threshold")
    measured: dict[str, Any] = scores.metrics(full=not job.spec.shots, threshold=threshold)
    measured["scores_sha256"] = scores.digest()
    usage = {"load_average": load_average(), "peak_memory_bytes": peak_memory()}
    taken = {**accelerator(job.device), **usage, **recorded_environment(facts, job.device)}
    random_backbone = job.spec.backbone is not None and job.weights_file is None
    if getattr(method, "seedless", False) and not random_backbone:
        taken["seedless"] = True
    notes = {f"{w.category.__name__}: {w.message}" for w in caught}
    if np.ptp(scored[split.counted()]) == 0:
        notes.add("all scores are equal")
    write_scores(job.staged / "scores.parquet", scores)
    if meter is None:
        print(f"auroc {measured['auroc']:.4f}", flush=True)
    artifacts, unsupported = collect_artifacts(
        detector, job, scores.file, lambda span: images.samples(split.tested[span]), timer, by_epoch
    )
    if EXPLANATIONS in artifacts:
        counted = scores.counted() | (not job.spec.shots)
        values, warning = _pixel_metrics(artifacts[EXPLANATIONS], job, images, split, counted)
        measured |= values
        notes |= {warning} - {""}
    if artifacts:
        peaks = {**accelerator(job.device), "peak_memory_bytes": peak_memory()}
        taken |= {f"artifacts_{k}": v for k, v in peaks.items() if k.startswith("peak_")}
    timed = TimingResult()
    if meter:
        timer.pass_over()
        timed = measure(detector, job, images, split.tested, facts, meter)
        timer.mark("measure_s")
    _exit_if_forked(this_process)
    for path in copied:
        path.unlink()
    for name, content in {**artifacts, **timed.files}.items():
        write_synced(job.staged / name, content)
    if os.fstat(1).st_size > LOG_LIMIT:
        raise MethodError(f"it printed more than {LOG_LIMIT >> 20} MiB")
    check_loaded(_module(job), job.code)
    if job.spec.method_source is not None and (more := also_loaded(_module(job), job.code)):
        taken["also_loaded"] = more
        notes.add(
            "the method loads code that no import statement names: it is no part of the run's id"
        )
    pixels = [f.pixels for f in images.facts]
    draw = draw_manifest(split, job.files, pixels)
    receipt = Receipt(
        run_id=job.spec.run_id,
        spec=job.spec,
        metrics=Metrics(measured),
        draw=tuple(Drawn(**entry) for entry in draw),
        split=_split_counts(split, scores.label, job.pictures, pixels),
        facts=Values({**facts, **timed.facts}),
        timings=Timings({**timer.marks, "first_step_s": timer.first_step, **timed.timings}),
        warnings=tuple(sorted(notes)),
        provenance=Provenance({**job.provenance, **taken, **timed.provenance}),
        unsupported=tuple(sorted(unsupported)),
        started_at=timer.started_at,
        finished_at=datetime.now(UTC),
    )
    for ability, why in unsupported.items():
        send(Note(f"run {receipt.run_id} keeps no {WORDS[ability]}: {why}"))
    stayed = Store(job.results).publish(job.staged, receipt, replaces=job.replaces)
    if stayed:
        send(Stayed(f"run {receipt.run_id} was there already, and stays: {stayed}"))


def _data(job: Job) -> tuple[CategoryImages, Split]:
    spec = job.spec
    images = load(job.images)
    # Once more: an endless stream of batches, of no image, would not end.
    check_preconditions(
        job.files, job.pictures, spec.place, setting=spec.setting, seen_defect=spec.seen_defect,
        draw=spec.drawn,
    )  # fmt: skip
    split = split_category(
        job.files,
        job.pictures,
        seed=spec.seeds.draw_seed,
        dataset=spec.dataset,
        category=spec.category,
        setting=spec.setting,
        seen_defect=spec.seen_defect,
        draw=spec.drawn,
    )
    return images, split


def _fit_and_score(
    detector: Any, job: Job, images: CategoryImages, split: Split, context: Context,
    timer: PhaseTimer, meter: Meter | None,
) -> tuple[NDArray[np.float32], list[warnings.WarningMessage]]:  # fmt: skip
    """Train and score; return scores and warnings."""
    labelled = images.samples(split.drawn[: job.spec.shots])
    train = TrainingSet(
        images.samples(split.train_normal), replace(labelled, masks=_masks(job, images, split))
    )
    tested = images.samples(split.tested)
    _check_memory(detector, job, len(train.normal), context)
    timer.mark("setup_s")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        detector.fit(train, context)
        synchronize(job.device)
        timer.mark("fit_s")
        if meter:
            meter.fitted()
        scored = check_scores(detector.score(tested), len(tested))
        synchronize(job.device)
        timer.mark("score_s")
    return scored, caught


def _masks(job: Job, images: CategoryImages, split: Split) -> NDArray[np.bool_] | None:
    """Return the labelled anomalies' masks, if trained on.

    Raises DataError where they are not what the id says.
    """
    if job.spec.masks is None:
        return None
    labelled = [job.files[i] for i in split.drawn[: job.spec.shots]]
    masks = load_masks(job.root, labelled, job.spec.image_size, _sizes(images))
    if masks.problems:
        raise DataError(first_of(masks.problems))
    if masks_digest(find_masks(job.root, job.files), job.root) != job.spec.masks:
        raise DataError(
            f"masks in {job.root} are not what they were when the run was planned: give the same"
            " command again"
        )
    return masks.pixels


def _sizes(images: CategoryImages) -> Callable[[File], Size]:
    """Return what gives an image's own width and height."""
    sizes = {facts.path: (facts.width, facts.height) for facts in images.facts}
    return lambda file: sizes[file.path]


def _check_memory(detector: Any, job: Job, normals: int, context: Context) -> None:
    """Raise OutOfMemoryError if a method needs more than is free."""
    if not hasattr(detector, "memory"):
        return
    needed, free = detector.memory(normals, job.spec.image_size, context), free_memory(job.device)
    if free is not None and needed > free:
        raise OutOfMemoryError(
            f"{job.spec.method} needs about {needed / 2**30:.1f} GiB for {normals} normal images of"
            f" {job.spec.image_size} px, and {free / 2**30:.1f} GiB are free: take a smaller"
            " image_size or backbone, fewer --slots, or another machine",
            needed,
        )


def _pixel_metrics(
    explanations: bytes,
    job: Job,
    images: CategoryImages,
    split: Split,
    counted: NDArray[np.bool_],
) -> tuple[dict[str, Any], str]:
    """Return pixel metrics, or a warning that says why none."""
    tested = [job.files[i] for i in split.tested]
    made, side = read_explanations(explanations), job.spec.image_size
    return pixel_metrics(made, job.root, tested, counted, side, _sizes(images))


def _exit_if_forked(this_process: int) -> None:
    """End a forked copy, since only the original publishes."""
    if os.getpid() != this_process:
        os._exit(1)


def _module(job: Job) -> str:
    return job.method_path.partition(":")[0]


def _with_plain_weights(job: Job) -> tuple[Job, list[Path]]:
    """Check the weights; return a job with plain ones.

    A copy that this takes lies in the staged folder until the method is done.
    """
    if job.weights_file is None:
        return job, []
    if file_digest(job.weights_file) != job.spec.weights:
        raise WeightsError(
            f"{job.weights_file} is not what it was when the run was planned: put the right file"
            " there and give the same command again"
        )
    plain = plain_weights(job.weights_file, job.staged, job.spec.weights)
    return replace(job, weights_file=plain), [plain] * (plain != job.weights_file)


def _scores(files: tuple[File, ...], split: Split, scored: NDArray[np.float32]) -> Scores:
    chosen = [files[i] for i in split.tested]
    return Scores(
        file=tuple(f.path for f in chosen),
        label=np.array([f.anomalous for f in chosen]),
        defect=tuple(f.defect for f in chosen),
        role=split.role,
        score=scored,
    )


def _split_counts(
    split: Split, labels: NDArray[np.bool_], pictures: Sequence[str], pixels: Sequence[str]
) -> SplitCounts:
    counted = split.counted()
    in_training, in_test = near_copies_left_out(split, pixels)
    return SplitCounts({
        "train_normal": len(split.train_normal),
        "train_left_out": len(split.left_out),
        "train_near_copies": in_training,
        "test_normal": int((counted & ~labels).sum()),
        "test_anomalous": int((counted & labels).sum()),
        "test_duplicates_left_out": split.role.count("duplicate"),
        "test_near_copies": in_test,
        "pictures": len(set(pictures)),
        "scored": len(split.tested),
    })  # fmt: skip
