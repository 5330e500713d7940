"""Cross-check of PaDiM, PatchCore, FastFlow and CFlow with anomalib: same images and weights.

anomalib has an environment of its own, for it is no dependency: its side is a script that another
interpreter runs (`anomalib_peer`). It is handed decoded images and a state dict as plain arrays,
and hands back raw scores, never its own metrics: its AUROC passes raw scores through a sigmoid
first. Its settings are taken over; what is drawn at random is not the same in PatchCore. Flows are
trained by our side alone and handed over; CFlow's scores are relative to the likeliest position of
the tested images, as anomalib's are to those of a batch.
"""

import json
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.images import CategoryImages, load
from bench.data.splits import Split, split_category
from bench.detector import Context, TrainingSet
from bench.errors import BenchError, MethodError, RequestError
from bench.execution.crosscheck.state import flows_of, network_of
from bench.execution.preparation import Preparation
from bench.metrics import auroc
from bench.planning.matrix import PlannedRun, Selection, expand
from bench.planning.plan import Folders, Plan, Run, plan_runs
from bench.planning.suite import Suite, SuiteBlock
from bench.registry import Registry, load_class
from bench.system.host import cpu_count
from bench.system.untrusted import one_line, os_reason
from bench.text import joined
from bench.weights import plain_weights

VERSION = "2.7.0"
"""Of anomalib; what another one does is not known here."""
METHODS = ("padim", "patchcore", "fastflow", "cflow")
FLOWS = ("fastflow", "cflow")
DATA = ("synthetic",)
FIXED: Mapping[str, Mapping[str, Any]] = {
    "padim": {"epsilon": 0.01 + 1e-5, "sigma": 4.0},
    "patchcore": {"embedding": "joined", "sigma": 4.0},
    "fastflow": {},
    "cflow": {},
}
"""What anomalib has no setting for, as it is there."""
SETTINGS: Mapping[str, Any] = {
    "image_size": 256, "backbone": "resnet18", "stage": 3, "precision": "float32", **FIXED,
    "fastflow": {"epochs": 1, "flow_steps": 2},
    "cflow": {"epochs": 1, "passes": 1, "blocks": 2, "fibers": 1024, "rotation": 0.0},
}  # fmt: skip
"""By default; the flows are as good a check after a short training."""
_MOBILENET_STAGES = ("features.3", "features.6", "features.13")
_INSTALL = (
    "python -m venv anomalib-venv && anomalib-venv/bin/pip install"
    f" anomalib=={VERSION} torch torchvision"
)
_ASK = """
import importlib.metadata, importlib.util
print(importlib.metadata.version("anomalib"))
for needed in ("torch", "torchvision"):
    if importlib.util.find_spec(needed) is None:
        raise ModuleNotFoundError(needed)
"""


@dataclass(frozen=True)
class Compared:
    """Both sides' results on one category, drawn anomalies included."""

    method: str
    place: str
    """Dataset, or dataset/category."""
    ours: tuple[float, ...]
    """AUROC by seed."""
    theirs: tuple[float, ...]
    correlation: tuple[float, ...]
    """Of the ranks of the scores (Spearman's), by seed; NaN where one side's are all equal."""

    @property
    def difference(self) -> float:
        """Ours minus theirs, over the seeds."""
        return fmean(self.ours) - fmean(self.theirs)


def check_interpreter(python: Path) -> None:
    """Check an interpreter's anomalib; raises RequestError."""
    option = f"--python {one_line(python)}"
    try:
        done = _run([str(python), "-I", "-c", _ASK], timeout=120)
    except OSError as error:
        raise RequestError(f"{option}: {os_reason(error)}") from None
    except subprocess.TimeoutExpired:
        raise RequestError(f"{option} does not answer: is it a Python interpreter?") from None
    last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    version = done.stdout.strip()
    if "PackageNotFoundError" in last:
        raise RequestError(f"{option} has no anomalib; an environment with it: {_INSTALL}")
    if "ModuleNotFoundError" in last:
        needed = one_line(last.rpartition(" ")[2])
        raise RequestError(f"{option} has anomalib, but no {needed}: install it there")
    if done.returncode or not re.fullmatch(r"\d+(\.\w+)*", version):
        raise RequestError(
            f"{option} is no Python interpreter that answers: {one_line(last)[:200]}"
        )
    if version != VERSION:
        raise RequestError(
            f"{option} has anomalib {version}; only {VERSION} is compared with: pip install"
            f" anomalib=={VERSION} there"
        )


def _run(
    command: Sequence[str], timeout: float | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run another interpreter without our packages and without network."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout,
        env=environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def make_crosscheck(selection: Selection, folders: Folders, *, download: bool) -> Plan:
    """Return the plan of a cross-check; raises RequestError."""
    data = selection.datasets or DATA
    methods = selection.methods or METHODS
    for name in methods:
        if name not in METHODS:
            raise RequestError(f"{name} is not compared with anomalib: {joined(METHODS)} are")
    settings = {k: v for k, v in SETTINGS.items() if k not in METHODS or k in methods}
    suite = Suite("crosscheck", "", (SuiteBlock(methods=methods, data=data, set=settings),))
    planned = expand(suite, selection, Registry(folders.cache), folders.data)
    for run in planned:
        _check_settings(run)
    return plan_runs(planned, folders, download=download)


def _check_settings(planned: PlannedRun) -> None:
    name = planned.method.name
    given = {**planned.parameters, "precision": planned.settings["precision"]}
    for key, value in {**FIXED[name], "precision": "float32"}.items():
        if given[key] != value:
            raise RequestError(
                f"{name}.{key} is {value} here, as in anomalib: leave it out of --set"
            )
    if given.get("projection") != planned.method.defaults.get("projection"):
        raise RequestError(f"{name}.projection is anomalib's here: leave it out of --set")


def compare_sides(
    plan: Plan, python: Path, folders: Folders, threads: int | None, note: Callable[[str], None]
) -> Iterable[list[Compared] | str]:
    """Yield comparisons by category, or why there are none."""
    preparation = Preparation(folders, note)
    by_place: dict[str, list[Run]] = {}
    for run in plan.runs:
        by_place.setdefault(run.spec.place, []).append(run)
    for category, runs in by_place.items():
        try:
            images = load(preparation.category(runs[0], lambda: None)[0])
            yield _compare_category(runs, images, python, threads or cpu_count(), note)
        except (BenchError, MemoryError) as error:
            yield f"{category}: {one_line(error) or type(error).__name__}"


def _compare_category(
    runs: Sequence[Run], images: CategoryImages, python: Path, threads: int,
    note: Callable[[str], None],
) -> list[Compared]:  # fmt: skip
    spec = runs[0].spec
    files = runs[0].listing.files
    split = split_category(
        files, runs[0].pictures, seed=spec.seeds.draw_seed, dataset=spec.dataset,
        category=spec.category,
    )  # fmt: skip
    note(f"{spec.place}: {len(split.train_normal)} normal and {len(split.tested)} test images")
    labels = [files[i].anomalous for i in split.tested]
    compared: dict[str, Compared] = {}
    with tempfile.TemporaryDirectory(prefix="bench-crosscheck-") as name:
        folder = Path(name)
        np.save(folder / "normal.npy", images.pixels[list(split.train_normal)])
        np.save(folder / "tested.npy", images.pixels[list(split.tested)])
        sides = [_our_side(run, images, split, folder, threads) for run in runs]
        theirs = _their_side([job for _, job in sides], folder, python, len(labels))
    for (scores, job), other in zip(sides, theirs, strict=True):
        method = job["method"]
        before = compared.get(method, Compared(method, spec.place, (), (), ()))
        compared[method] = replace(
            before,
            ours=(*before.ours, auroc(scores, labels)),
            theirs=(*before.theirs, auroc(other, labels)),
            correlation=(*before.correlation, _correlation(scores, other)),
        )
    return list(compared.values())


def _our_side(
    run: Run, images: CategoryImages, split: Split, folder: Path, threads: int
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Fit and score ours; return scores and anomalib's job."""
    from bench.execution.contract import check_scores, spec_settings
    from bench.execution.determinism import make_deterministic

    spec = run.spec
    assert run.weights is not None
    source = run.weights.source
    make_deterministic(threads, spec.seeds["init"])
    file = plain_weights(source.file, folder) if source.file else None
    settings = spec_settings(spec, file, source.strides)
    context = Context("cpu", spec.seeds, score_batch_size=8, **settings)
    parameters = dict(spec.parameters)
    if spec.method == "patchcore":
        positions = math.ceil(spec.image_size / 8) ** 2
        parameters["projection"] = projected(len(split.train_normal) * positions)
    cls = load_class(run.planned.method.path)
    detector = cls(cls.Parameters(**parameters))
    train = TrainingSet(images.samples(split.train_normal), images.samples(()))
    detector.fit(train, context)
    tested = images.samples(split.tested)
    if spec.method == "cflow":
        detector.normal, detector.cached = tested, None
        detector.finish()
    scores = check_scores(detector.score(tested), len(split.tested))
    name = f"{spec.method}-{spec.seed}"
    state = detector.state()
    weights: dict[str, Any] = network_of(state, source.name)
    np.savez(folder / f"{name}.weights.npz", **weights)
    if spec.method in FLOWS:
        flows: dict[str, Any] = flows_of(state)
        np.savez(folder / f"{name}.flows.npz", **flows)
    mobile = source.name.startswith("mobilenet")
    job = {
        "name": name, "method": spec.method, "backbone": source.name, "strides": source.strides,
        "seed": spec.seed, "size": spec.image_size, "parameters": parameters,
        "channels": state["chosen"].tolist() if "chosen" in state else None,
        "layers": [_MOBILENET_STAGES[s - 1] if mobile else f"layer{s}"
                   for s in detector.stages(context.backbone)],
    }  # fmt: skip
    return scores, job


def projected(patches: int) -> int:
    """Return anomalib's coreset dimensions: Johnson-Lindenstrauss, eps 0.9.

    Where they are not fewer than there are, ours does not project; anomalib does all the same.
    """
    return int(4 * math.log(patches) / (0.9**2 / 2 - 0.9**3 / 3))


def _their_side(
    jobs: Sequence[Mapping[str, Any]], folder: Path, python: Path, expected: int
) -> list[NDArray[np.float32]]:
    """Return anomalib's scores; raises MethodError with its last line."""
    (folder / "request.json").write_text(json.dumps(jobs), encoding="utf-8")
    with resources.as_file(resources.files(__name__) / "anomalib_peer.py") as script:
        done = _run([str(python), "-I", str(script), str(folder)])
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise MethodError(f"anomalib's side ended with {done.returncode}: {one_line(last)[:300]}")
    results = []
    for job in jobs:
        try:
            scores = np.load(folder / f"{job['name']}.scores.npy", allow_pickle=False)
        except (OSError, ValueError):
            scores = np.empty(0, np.float32)
        if scores.shape != (expected,) or not np.isfinite(scores).all():
            raise MethodError(f"anomalib's {job['method']} gave no {expected} finite scores")
        results.append(scores)
    return results


def _correlation(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    from scipy.stats import spearmanr

    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return math.nan
    return float(spearmanr(ours, theirs).statistic)
