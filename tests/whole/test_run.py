"""The real command, end to end, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.metrics import auroc
from bench.store.folder import Store
from bench.store.receipt import seal
from bench.store.results import receipts
from bench.store.verify import problems

ROOT = Path(__file__).parents[2]

TINY = """
methods = [{methods}]
data = ["synthetic/washer"]
shots = [{shots}]
[set]
image_size = 32
backbone = "resnet18"
stage = 1
weights = "none"
epochs = {epochs}
steps_per_epoch = 2
"""


@dataclass(frozen=True)
class Bench:
    """The command with folders of its own."""

    folder: Path
    cache: Path

    def environment(self) -> dict[str, str]:
        return {**os.environ, "BENCH_CACHE": str(self.cache), "PYTHONPATH": str(ROOT),
                "BENCH_RESULTS": str(self.folder / "results"), "OMP_NUM_THREADS": "1"}  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "bench", *arguments], cwd=self.folder, text=True,
            env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=600)
        assert "Traceback" not in out + err, out + err
        return process.returncode, out + err

    def suite(self, *methods: str, shots: str = "10", epochs: int = 2) -> str:
        named = ", ".join(f'"{m}"' for m in methods)
        path = self.folder / "tiny.toml"
        path.write_text(TINY.format(methods=named, shots=shots, epochs=epochs))
        return str(path)

    @property
    def store(self) -> Store:
        return Store(self.folder / "results")


@pytest.fixture
def bench(tmp_path: Path, warm_cache: Path) -> Bench:
    return Bench(tmp_path, warm_cache)


def test_a_suite_becomes_results_and_the_same_command_has_nothing_left(bench: Bench) -> None:
    suite = bench.suite("atacnet", "cutmix", "shortcut", shots="1, 10")
    code, said = bench("run", "--suite", suite)
    assert code == 0, said
    assert "6 runs wanted, 0 stored, 6 to do" in said
    ids = bench.store.ids()
    assert len(ids) == 6
    table = pq.read_table(bench.store.table).to_pylist()
    assert [row["run_id"] for row in table] == ids
    for row in table:
        receipt = bench.store.read(row["run_id"])
        scores = pq.read_table(bench.store.runs / row["run_id"] / "scores.parquet").to_pydict()
        counted = [i for i, role in enumerate(scores["role"]) if role == "test"]
        assert scores["role"].count("drawn") == 10
        assert len(receipt["draw"]) == 10
        measured = auroc(
            [scores["score"][i] for i in counted], [scores["label"][i] for i in counted]
        )
        assert measured == row["auroc"] == receipt["metrics"]["auroc"]
        assert receipt["provenance"]["source_sha256"]
        assert receipt["split"]["scored"] == len(scores["file"]) == 128
    draws = {json.dumps(r["draw"]) for r in receipts(bench.store)}
    assert len(draws) == 1  # every method and every number of shots meets the same draw

    code, said = bench("run", "--suite", suite)
    assert code == 0
    assert "6 runs wanted, 6 stored, 0 to do" in said
    code, said = bench("status", "--suite", suite)
    assert "done     6" in said
    assert "left     nothing" in said
    code, said = bench("show", ids[0][:6])
    assert f"run {ids[0]}" in said

    # The same spec once more, in another results folder: the same bits.
    again = Bench(bench.folder, bench.cache)
    code, said = again("run", "--suite", suite, "--results", "again", "--shots", "10")
    assert code == 0, said
    repeated = Store(bench.folder / "again")
    assert len(repeated.ids()) == 3
    for run_id in repeated.ids():
        first, second = bench.store.read(run_id), repeated.read(run_id)
        assert first["metrics"] == second["metrics"]


def gone(pid: int) -> bool:
    """Whether no process of that number does anything any more."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status == "Z"


def children(pid: int) -> list[int]:
    """Return a process's descendants, by /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_killed_in_the_middle_it_leaves_nothing_behind_and_continues(bench: Bench) -> None:
    suite = bench.suite("shortcut", "cutmix", shots="10", epochs=40)
    process = bench.start("run", "--suite", suite)
    wait_for(
        lambda: any("epoch 3/" in p.read_text() for p in bench.store.staging.glob("*/log.txt"))
    )
    family = children(process.pid)
    assert len(family) >= 2, "a server and a run"
    process.send_signal(signal.SIGKILL)  # the command alone; its children must notice
    process.communicate()
    wait_for(lambda: all(gone(pid) for pid in family), seconds=10)
    assert len(bench.store.ids()) == 1  # the shortcut was finished, the other one is not visible

    code, said = bench("run", "--suite", suite)
    assert code == 0, said
    assert "2 runs wanted, 1 stored, 1 to do" in said
    assert not list(bench.store.staging.iterdir())
    assert bench("run", "--suite", suite, "--results", "undisturbed")[0] == 0
    undisturbed = Store(bench.folder / "undisturbed")
    assert undisturbed.ids() == bench.store.ids()
    for run_id in undisturbed.ids():
        assert undisturbed.read(run_id)["metrics"] == bench.store.read(run_id)["metrics"]


MISBEHAVING = {
    "Raises": "ValueError: this method never works",
    "Exits": "exit code 0 without a result",
    "ExitsPolitely": "SystemExit: 0",
    "ExitsLikeALostServer": "exit code 255 without a result",
    "MeetsAFullDisk": "No space left on device: '/elsewhere/cache.bin'",
    "Masked": "must return a float32 array, not MaskedArray",
    "Segfaults": "Segmentation fault",
    "Hangs": "time limit",
    "HoldsTheInterpreter": "time limit",
    "FillsMemory": "MemoryError",
    "Prints": "printed more than 64 MiB",
    "NotFinite": "128 of 128 values that are not finite",
    "TooShort": "must return shape (128,), not (127,)",
    "WrongType": "must return a float32 array, not float64",
}
BEHAVING = ("Constant", "Forks", "LeavesAChild", "Good")


def test_methods_that_misbehave_are_recorded_failures_and_the_others_go_on(bench: Bench) -> None:
    suite = bench.suite(*(f"tests.fixtures.misbehaving:{n}" for n in (*MISBEHAVING, *BEHAVING)))
    process = bench.start("run", "--suite", suite, "--timeout", "15")
    said = "".join(process.communicate(timeout=300))
    assert process.returncode == 1, said
    assert f"{len(MISBEHAVING)} runs failed" in said
    assert "Traceback" not in said
    done = {r["spec"]["method_source"].partition("@")[0]: r for r in receipts(bench.store)}
    assert {path.partition(":")[2] for path in done} == set(BEHAVING)
    constant = done["tests.fixtures.misbehaving:Constant"]
    assert constant["metrics"]["auroc"] == 0.5
    assert constant["warnings"] == ["all scores are equal"]

    reasons = {}
    for folder in bench.store.failed.iterdir():
        (failure,) = bench.store.failures(folder.name)
        reasons[failure["spec"]["method_source"].partition("@")[0].partition(":")[2]] = failure
        assert failure["provenance"]["python"]
        assert failure["provenance"]["threads"] >= 1
        assert (folder / "1" / "log.txt").stat().st_size < 2 << 20
    assert reasons.keys() == MISBEHAVING.keys()
    for name, reason in MISBEHAVING.items():
        assert reason in reasons[name]["reason"]
    assert "in fit" in reasons["Raises"]["traceback"]
    logs = [p.read_text() for p in bench.store.failed.glob("*/1/log.txt")]
    assert any("fitting 64" in log for log in logs)
    code, said = bench("status", "--suite", suite)
    assert f"failed   {len(MISBEHAVING)}" in said
    shown = bench.start("show", reasons["Raises"]["run_id"][:8]).communicate(timeout=60)[0]
    assert "in fit" in shown
    assert "log.txt" in shown

    # What failed by itself is not tried again, and is not forgotten either; memory may be back.
    code, said = bench("run", "--suite", suite)
    assert code == 1
    assert f"{len(BEHAVING)} stored, 1 to do" in said
    assert "--retry-failed" in said
    only = ("--methods", "tests.fixtures.misbehaving:Raises")
    code, said = bench("run", "--suite", suite, *only, "--retry-failed")
    assert code == 1
    assert len(bench.store.failures(reasons["Raises"]["run_id"])) == 2


def test_a_command_that_dies_takes_along_a_method_that_holds_the_interpreter(bench: Bench) -> None:
    process = bench.start(
        "run", "--suite", bench.suite("tests.fixtures.misbehaving:HoldsTheInterpreter")
    )
    wait_for(lambda: any("hanging" in p.read_text() for p in bench.store.staging.glob("*/log.txt")))
    family = children(process.pid)
    process.kill()
    process.communicate()
    wait_for(lambda: all(gone(pid) for pid in family), seconds=5)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_damaged_run_is_set_aside_and_run_again(bench: Bench) -> None:
    suite = bench.suite("shortcut")
    assert bench("run", "--suite", suite)[0] == 0
    (run_id,) = bench.store.ids()
    before = bench.store.read(run_id)["metrics"]
    scores = bench.store.runs / run_id / "scores.parquet"
    content = bytearray(scores.read_bytes())
    content[len(content) // 2] ^= 1
    scores.write_bytes(content)
    code, said = bench("run", "--suite", suite)
    assert code == 0
    assert "did not verify" in said
    assert bench.store.read(run_id)["metrics"] == before
    assert len(list(bench.store.quarantine.iterdir())) == 1


def test_a_helper_beside_a_method_from_outside_is_part_of_its_identity(bench: Bench) -> None:
    (bench.folder / "helper.py").write_text("SIGN = 1\n")
    (bench.folder / "mine.py").write_text(
        "from helper import SIGN\nfrom tests.fixtures.misbehaving import Good\n"
        "class Mine(Good):\n    name = 'mine'\n"
        "    def score(self, samples):\n        return SIGN * super().score(samples)\n"
    )
    arguments = ("run", "--suite", bench.suite("shortcut"), "--method", "mine:Mine")
    assert bench(*arguments)[0] == 0
    assert "0 to do" in bench(*arguments)[1]
    (bench.folder / "helper.py").write_text("SIGN = -1\n")
    assert "1 to do" in bench(*arguments)[1]
    first, second = (r["metrics"]["auroc"] for r in receipts(bench.store))
    assert first == pytest.approx(1 - second)


def test_two_commands_at_once_share_the_work(bench: Bench) -> None:
    suite = bench.suite(*(f"tests.fixtures.misbehaving:Slow{n}" for n in "ABCD"))
    commands = [bench.start("run", "--suite", suite) for _ in range(2)]
    said = ["".join(p.communicate(timeout=120)) for p in commands]
    assert [p.returncode for p in commands] == [0, 0], said
    assert len(bench.store.ids()) == 4
    assert list(problems(bench.store)) == []
    trained = sum(text.count("auroc 0.") for text in said)
    assert trained == 8  # each command tells of all four
    assert "under way in another command" in said[0] + said[1]


def test_a_run_of_other_code_is_stale_and_run_again_where_asked(bench: Bench) -> None:
    """The project's own methods keep their id when their code changes: only the hash tells."""
    suite = bench.suite("shortcut")
    assert bench("run", "--suite", suite)[0] == 0
    (receipt,) = receipts(bench.store)
    run = bench.store.runs / receipt["run_id"]
    older = {**receipt, "provenance": {**receipt["provenance"], "source_sha256": "0" * 64}}
    (run / "run.json").write_bytes(seal(older, receipt["files"]))
    code, said = bench("run", "--suite", suite)
    assert code == 0
    assert "1 stored, 0 to do" in said
    assert "1 run stale" in said
    code, said = bench("run", "--suite", suite, "--stale")
    assert code == 0
    assert "run again under today's code of the method: identical" in said
    assert bench.store.read(receipt["run_id"])["provenance"]["source_sha256"] != "0" * 64
    assert len(list(bench.store.superseded.iterdir())) == 1
    assert "1 stored, 0 to do" in bench("run", "--suite", suite, "--stale")[1]


def test_other_threads_and_other_batches_of_evaluation_are_close_not_identical(
    bench: Bench,
) -> None:
    suite = bench.suite("cutmix")
    assert bench("run", "--suite", suite, "--threads", "1", "--results", "one")[0] == 0
    for other in (("--threads", "2"), ("--threads", "1", "--score-batch-size", "7")):
        name = other[-2].strip("-")
        assert bench("run", "--suite", suite, *other, "--results", name)[0] == 0
        code, said = bench("compare", "one", name)
        assert code == 0
        assert "0 identical, 1 close, 0 different" in said
    assert bench("run", "--suite", suite, "--threads", "1", "--results", "again")[0] == 0
    assert "1 identical, 0 close, 0 different" in bench("compare", "one", "again")[1]


def test_a_result_that_does_not_repeat_is_found_when_two_folders_meet(bench: Bench) -> None:
    """A method that is not deterministic is found out, not outvoted by the older result."""
    suite = bench.suite("tests.fixtures.misbehaving:Restless")
    for results in ("one", "other"):
        assert bench("run", "--suite", suite, "--results", results)[0] == 0
    before = [r["metrics"] for r in receipts(Store(bench.folder / "one"))]
    code, said = bench("merge", "other", "--results", "one")
    assert code == 1
    assert "1 different" in said
    assert [r["metrics"] for r in receipts(Store(bench.folder / "one"))] == before
