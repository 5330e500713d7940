"""Times PaDiM, PatchCore, FastFlow and CFlow beside anomalib's on the same images.

`python -m tests.campaigns.peer_times --python VENV/bin/python`, an environment with anomalib 2.7.0:
both sides live in processes of their own, one thread each, and are asked for every fit and every
prediction in turns, so that their ratio holds where the machine's speed does not. What counts are
the seconds of the thread, which other work on the machine does not lengthen; the seconds that went
by are kept beside them. ResNet-18 with random weights; 40 training images of 256 px of noise, on
which PatchCore's search for the farthest patch can leave out the least; a coreset of 10 % of the
patches, chosen in as many dimensions on both sides. Flows are trained for two epochs in batches of
8, with hard permutations, CFlow's on layers 2 and 3 by 256 positions a step of the optimiser.

anomalib is timed at its models in torch, which is less than its users wait for: without its
trainer, its network built before, its images normalised before. Ours is timed at `score`, from
uint8 images on. Where score and map are wanted, both are made of one pass of the network. A
training step of ours begins with the features that its fit has kept, one of anomalib's with images.
"""

import argparse
import json
import os
import re
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

METHODS = ("padim", "patchcore", "fastflow", "cflow")
FLOWS = ("fastflow", "cflow")
NORMALS, SIZE, BATCH, CORESET = 40, 256, 8, 0.1
EPOCHS, FIBERS = 2, 256
LOOK = 0.002
"""Seconds between two looks at the memory of a side."""
WARM_UP = 2
"""Predictions that choose kernels and fill caches."""
ASKED = {
    "fit": ("fit", "fit"),
    "step": ("step", "step"),
    "score_1": ("both 1", "score 1"),
    "score_8": (f"both {BATCH}", f"score {BATCH}"),
    "score_and_map_1": ("both 1", "both 1"),
    "score_and_map_8": (f"both {BATCH}", f"both {BATCH}"),
}
"""What is compared, and what anomalib and ours are asked for it; anomalib has no score alone.
Flows alone have training steps."""
TITLES = {
    "fit": "fit, s", "step": "training step, s",
    "score_1": "score of an image, ms", "score_8": "score of one of 8, ms",
    "score_and_map_1": "score and map of an image, ms",
    "score_and_map_8": "score and map of one of 8, ms", "memory_mib": "memory over imports, MiB",
}  # fmt: skip

Action = Callable[[], Any]


def pictures(count: int) -> Any:
    """Return uint8 images (count, 3, SIZE, SIZE) of noise."""
    return np.random.RandomState(0).randint(0, 256, (count, 3, SIZE, SIZE), np.uint8)


def compared(method: str) -> Mapping[str, tuple[str, str]]:
    """Return what of `ASKED` a method can do."""
    return {k: v for k, v in ASKED.items() if k != "step" or method in FLOWS}


# In the process of a side; of anomalib's nothing of this project can be imported


def ours(method: str) -> dict[str, Action]:
    """Return what our side can be asked for."""
    import torch

    from baselines.blocks.batches import Stream, generator
    from baselines.cflow import CFlow
    from baselines.fastflow import FastFlow
    from baselines.padim import PaDiM
    from baselines.patchcore import PatchCore
    from bench.detector import BackboneSource, Context, Samples, Seeds, TrainingSet
    from bench.execution.crosscheck import projected
    from bench.execution.determinism import make_deterministic

    make_deterministic(1, 0)
    images, number, mode = pictures(NORMALS), np.full(NORMALS, SIZE), ("RGB",) * NORMALS

    def samples(n: int) -> Samples:
        return Samples(images[:n], mode[:n], number[:n], number[:n], mode[:n], number[:n])

    backbone = BackboneSource("resnet18", 3, None)
    context = Context("cpu", Seeds(0, "", ""), batch_size=BATCH, backbone=backbone)
    detectors: dict[str, Callable[[], Any]] = {
        "padim": lambda: PaDiM(PaDiM.Parameters()),
        "patchcore": lambda: PatchCore(
            PatchCore.Parameters(
                coreset=CORESET, embedding="joined",
                projection=projected(NORMALS * (SIZE // 8) ** 2),
            )
        ),
        "fastflow": lambda: FastFlow(FastFlow.Parameters(epochs=EPOCHS)),
        "cflow": lambda: CFlow(
            CFlow.Parameters(
                epochs=EPOCHS, passes=1, fibers=FIBERS, rotation=0.0, permutation="hard"
            )
        ),
    }  # fmt: skip
    detector = detectors[method]()
    steps: list[Action] = []

    def step() -> None:
        if not steps:
            features = detector.remembered(samples(NORMALS))
            rng = generator(context, "batches")
            stream = Stream(NORMALS, rng)
            steps.append(
                detector.step(features)
                if method == "fastflow"
                else detector.step(
                    lambda: [level[stream.take(BATCH)] for level in features], rng, NORMALS
                )
            )
        steps[0]()

    def scores_and_maps(features: Any) -> tuple[Any, Any]:
        maps = detector.maps(features)
        return maps.amax((1, 2)) if method in FLOWS else detector.scores(features), maps

    def both(n: int) -> Any:
        with torch.inference_mode():
            return [scores_and_maps(features) for features in detector._features(samples(n))]

    return {
        "fit": lambda: detector.fit(TrainingSet(samples(NORMALS), samples(0)), context),
        **({"step": step} if method in FLOWS else {}),
        "score 1": lambda: detector.score(samples(1)),
        f"score {BATCH}": lambda: detector.score(samples(BATCH)),
        "both 1": lambda: both(1),
        f"both {BATCH}": lambda: both(BATCH),
    }


def anomalib(method: str) -> dict[str, Action]:
    """Return what anomalib's side can be asked for."""
    import torch
    from anomalib.models.image.padim.torch_model import PadimModel
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, given = pictures(NORMALS), {"backbone": "resnet18", "pre_trained": False}
    models: list[Any] = []
    steps: list[Callable[[Any], None]] = []

    def build() -> None:
        if method in FLOWS:
            model, trained = (fastflow if method == "fastflow" else cflow)(given)
            models.append(model)
            steps.append(trained)
        elif method == "padim":
            models.append(PadimModel(layers=["layer1", "layer2", "layer3"], **given))
        else:
            models.append(PatchcoreModel(layers=["layer2", "layer3"], **given))

    def train() -> None:
        models[0].train()
        for _ in range(EPOCHS):
            for start in range(0, NORMALS, BATCH):
                steps[0](batch(start, start + BATCH))
        models[0].eval()

    def batch(start: int, stop: int) -> Any:
        return torch.from_numpy(images[start:stop]).float() / 255 * 4 - 2

    def fit() -> None:
        (model,) = models
        model.train()
        with torch.inference_mode():
            for start in range(0, NORMALS, BATCH):
                model(batch(start, start + BATCH))
            model.fit() if method == "padim" else model.subsample_embedding(CORESET)
        model.eval()

    def predict(shown: Any) -> None:
        with torch.inference_mode():
            models[0](shown)

    def step() -> None:
        models[0].train()
        steps[0](few)
        models[0].eval()

    one, few = batch(0, 1), batch(0, BATCH)
    return {
        "build": build,
        "fit": train if method in FLOWS else fit,
        "step": step,
        "both 1": lambda: predict(one),
        f"both {BATCH}": lambda: predict(few),
    }


def fastflow(given: Mapping[str, Any]) -> tuple[Any, Callable[[Any], None]]:
    """Return anomalib's model, and what trains it on normalised images."""
    import torch
    from anomalib.models.image.fastflow.loss import FastflowLoss
    from anomalib.models.image.fastflow.torch_model import FastflowModel

    model, loss = FastflowModel((SIZE, SIZE), **given), FastflowLoss()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)

    def step(images: Any) -> None:
        optimiser.zero_grad()
        loss(*model(images)).backward()
        optimiser.step()

    return model, step


def cflow(given: Mapping[str, Any]) -> tuple[Any, Callable[[Any], None]]:
    """Return anomalib's model, and what trains it on normalised images, by its own step."""
    from types import SimpleNamespace

    from anomalib.models.image.cflow.lightning_model import Cflow

    module = Cflow(layers=["layer2", "layer3"], fiber_batch_size=FIBERS, **given)
    optimiser = module.configure_optimizers()
    module.optimizers = lambda: optimiser
    module.manual_backward = lambda loss: loss.backward()
    module.log = lambda *_, **__: None
    return module.model, lambda images: module.training_step(SimpleNamespace(image=images))


def serve(side: str, method: str) -> None:
    """Do what is asked on stdin and answer in a line of JSON; first say that all is imported."""
    answers, sys.stdout = sys.stdout, sys.stderr  # lest a library speaks where only answers go
    actions = {"ours": ours, "anomalib": anomalib}[side](method)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        started, thread = time.perf_counter(), time.process_time()
        actions[line.strip()]()
        found = {"thread_s": time.process_time() - thread, "wall_s": time.perf_counter() - started}
        print(json.dumps(found), file=answers, flush=True)


# In the process that asks


class Side:
    """A process that does what it is asked for.

    Its memory is watched from outside: what is its own above what it held when all was imported,
    images and no network among it. Pages of files, such as the code of libraries, do not count:
    they come with their first use, and the system may take them back.
    """

    def __init__(self, side: str, method: str, python: str) -> None:
        self._name = f"{side}'s {method}"
        script = [__file__] if side == "anomalib" else ["-m", "tests.campaigns.peer_times"]
        # Isolated: of this checkout the other environment sees nothing.
        command = [python, *(["-I"] if side == "anomalib" else []), *script]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [*command, "--serve", side, method], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env={**os.environ, **threads},
        )  # fmt: skip
        self._answer()
        self._base = self._peak = self._held()

    def _held(self) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return sum(int(size) * 1024 for size in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+)", status))

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._name} has ended")
        return dict(json.loads(line))

    def ask(self, what: str) -> dict[str, float]:
        """Have something done; return seconds and the peak of memory so far, in bytes."""
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        while not select.select([self._process.stdout], [], [], LOOK)[0]:
            self._peak = max(self._peak, self._held())
        return {**self._answer(), "peak": self._peak - self._base}

    def end(self) -> None:
        """Let the process end."""
        self._process.communicate()


Times = dict[str, dict[str, list[dict[str, float]]]]
"""By side and what it was asked for, every answer."""


def one_round(method: str, python: str, repeats: int, start: Callable[..., Any] = Side) -> Times:
    """Start both sides, let them fit one after the other and predict in turns."""
    sides = {"anomalib": start("anomalib", method, python),
             "ours": start("ours", method, sys.executable)}  # fmt: skip
    sides["anomalib"].ask("build")  # ours builds its network in `fit`
    found: Times = {name: {"fit": [side.ask("fit")]} for name, side in sides.items()}
    rounds = [[("anomalib", f"both {n}"), ("ours", f"score {n}"), ("ours", f"both {n}")]
              for n in (1, BATCH)]  # fmt: skip
    if method in FLOWS:
        rounds.append([("anomalib", "step"), ("ours", "step")])
    for turns in rounds:
        for i in range(WARM_UP + (repeats if turns[0][1] != "step" else repeats // 3)):
            for name, what in turns:
                answer = sides[name].ask(what)
                if i >= WARM_UP:
                    found[name].setdefault(what, []).append(answer)
    for side in sides.values():
        side.end()
    return found


def summary(method: str, rounds: Sequence[Times]) -> dict[str, Any]:
    """Return medians over all rounds; fits in seconds, predictions in ms an image, ratios."""
    told: dict[str, Any] = {
        "method": method, "backbone": "resnet18", "image_size": SIZE, "normals": NORMALS,
        "threads": 1, "rounds": len(rounds), "anomalib": {}, "ours": {}, "ratio": {},
    }  # fmt: skip
    for what, asked in compared(method).items():
        seconds = what in ("fit", "step")
        scale = 1 if seconds else 1000 / int(what.rpartition("_")[2])
        for name, one in zip(("anomalib", "ours"), asked, strict=True):
            answers = [answer for r in rounds for answer in r[name][one]]
            for kind in ("thread_s", "wall_s"):
                unit = kind if seconds else kind.replace("_s", "_ms")
                median = statistics.median(answer[kind] for answer in answers)
                told[name][f"{what}_{unit}"] = round(scale * median, 2)
    for name in ("anomalib", "ours"):
        peaks = [max(a["peak"] for answers in r[name].values() for a in answers) for r in rounds]
        told[name]["memory_mib"] = round(statistics.median(peaks) / 2**20)
    told["ratio"] = {k: round(v / told["ours"][k], 2) for k, v in told["anomalib"].items()}
    return told


def markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """Write what was measured as a table."""
    lines = ["| method | | anomalib | ours | ratio |", "|---|---|--:|--:|--:|"]
    for case in found:
        for what in (*compared(case["method"]), "memory_mib"):
            title, names = TITLES[what], (what, f"{what}_thread_s", f"{what}_thread_ms")
            key = next(k for k in case["ours"] if k in names)
            theirs, own, ratio = (case[k][key] for k in ("anomalib", "ours", "ratio"))
            digits = 0 if what == "memory_mib" else 1
            lines.append(
                f"| {case['method']} | {title} | {theirs:.{digits}f} | {own:.{digits}f} |"
                f" {ratio:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print a table; with --json what it is made of."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", help="the interpreter that has anomalib 2.7.0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=15, help="predictions of a round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--methods", default=",".join(METHODS), help="only these")
    parser.add_argument("--serve", nargs=2, metavar=("SIDE", "METHOD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    if not options.python:
        parser.error("--python is needed")
    from bench.execution.crosscheck import check_interpreter

    check_interpreter(Path(options.python))
    found = []
    for method in options.methods.split(","):
        rounds = []
        for _ in range(options.rounds):
            rounds.append(one_round(method, options.python, options.repeats))
            print(json.dumps(summary(method, rounds)), file=sys.stderr, flush=True)
        found.append(summary(method, rounds))
    print(json.dumps(found, indent=1) if options.json else markdown(found))


if __name__ == "__main__":
    main()
