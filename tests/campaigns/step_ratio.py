"""The time of a training step in this tree, over that in an earlier commit.

`python -m tests.campaigns.step_ratio REV`: two processes of one thread, one a tree, fit each method
in turns on random images. A step is what `train_images_per_s` says of a fit: drawing, augmenting,
both passes, clipping, Adam; in seconds of the processor, so that other work counts little. Printed
is the median of the ratios of the turns, and their range.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.campaigns.same_numbers import check_out, copy_tree

METHODS = ("devnet", "dra", "saoe", "cutmix", "atacnet")
CHILD = """
import sys, time
time.perf_counter = time.process_time
import numpy as np
from bench.detector import BackboneSource, Context, Samples, Seeds, TrainingSet
from bench.execution.determinism import make_deterministic
from bench.registry import METHODS, load_class

size, batch, steps = map(int, sys.argv[1:])
pixels = np.random.RandomState(0).randint(0, 256, (40, 3, size, size)).astype(np.uint8)

def samples(images):
    ones = np.ones(len(images), np.int64)
    return Samples(images, ("",) * len(images), ones, ones, ("RGB",) * len(images), ones)

for line in sys.stdin:
    seeds, facts = Seeds(0, "d", "c"), {}
    make_deterministic(1, seeds["init"])
    cls = load_class(METHODS[line.strip()].path)
    context = Context("cpu", seeds, batch_size=batch, external=pixels[:8],
                      backbone=BackboneSource("resnet18", 3, None), record=facts.__setitem__)
    detector = cls(cls.Parameters(epochs=1, steps_per_epoch=steps))
    detector.fit(TrainingSet(samples(pixels[:30]), samples(pixels[30:])), context)
    print(batch / facts["train_images_per_s"], flush=True)
"""


def started(tree: Path, *sizes: int) -> "subprocess.Popen[str]":
    """Start the process that fits methods by the code of a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", CHILD, *map(str, sizes)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)


def seconds(process: "subprocess.Popen[str]", method: str) -> float:
    """Return the time of a step of one fit."""
    assert process.stdin
    assert process.stdout
    print(method, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def ratios(old: Path, new: Path, method: str, turns: int, *sizes: int) -> list[float]:
    """Return new over old of each turn; the first comes second in every other."""
    processes = [started(tree, *sizes) for tree in (old, new)]
    measured = []
    for turn in range(turns + 1):
        order = (0, 1) if turn % 2 else (1, 0)
        took = {number: seconds(processes[number], method) for number in order}
        measured.append(took[1] / took[0])
    for process in processes:
        process.communicate()
    return measured[1:]  # without the one that chose kernels


def main() -> None:
    """Measure the methods one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, prog="step_ratio")
    parser.add_argument("revision", help="the earlier commit")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--sizes", type=int, nargs=3, default=(224, 16, 5),
                        help="side of images, images in a batch, steps of a fit")  # fmt: skip
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="step-ratio-") as scratch:
        old, new = Path(scratch, "old"), Path(scratch, "new")
        check_out(options.revision, old)
        copy_tree(new)
        for method in options.methods.split(","):
            values = ratios(old, new, method, options.turns, *options.sizes)
            low, middle, high = min(values), statistics.median(values), max(values)
            print(f"{method}: {middle:.3f} ({low:.3f} to {high:.3f})", flush=True)


if __name__ == "__main__":
    main()
