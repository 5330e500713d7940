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

from tests.campaigns.same_numbers import ROOT, check_out, copy_tree

METHODS = ("devnet", "dra", "saoe", "cutmix", "atacnet")
SCRIPT = ROOT / "tests/fixtures/random_fit.py"


def started(tree: Path, *settings: object) -> "subprocess.Popen[str]":
    """Start a process that serves fits by the code of a tree, see `tests.fixtures.random_fit`."""
    path = os.pathsep.join(filter(None, (str(tree), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, str(SCRIPT), *map(str, settings)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)


def ask(process: "subprocess.Popen[str]", *fit: object) -> None:
    """Ask a process for a fit: method, precision, steps."""
    assert process.stdin
    print(*fit, file=process.stdin, flush=True)


def answer(process: "subprocess.Popen[str]") -> float:
    """Return the seconds of a step of the fit that was asked for."""
    assert process.stdout
    return float(process.stdout.readline())


def seconds(process: "subprocess.Popen[str]", *fit: object) -> float:
    """Return the time of a step of one fit."""
    ask(process, *fit)
    return answer(process)


def ratios(old: Path, new: Path, method: str, turns: int, *sizes: int) -> list[float]:
    """Return new over old of each turn; the first comes second in every other."""
    side, batch, steps = sizes
    settings = "process_time", "cpu", side, batch, "resnet18"
    processes = [started(tree, *settings) for tree in (old, new)]
    measured = []
    for turn in range(turns + 1):
        order = (0, 1) if turn % 2 else (1, 0)
        took = {number: seconds(processes[number], method, "float32", steps) for number in order}
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
