"""What `bench run --dry-run` says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.source import Standing
from bench.store.groups import Provenance
from bench.store.results import receipts
from tests.fixtures.command import ROOT, Bench
from tests.fixtures.runs import bench as call

CPU = ("--device", "cpu")
"""Memory is foretold as for a CPU, and a GPU's lines are others."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, warm_cache: Path) -> tuple[Bench, str]:
    """A folder that holds the shortcut's and devnet's runs of a suite of three methods."""
    command = Bench(tmp_path_factory.mktemp("dry"), warm_cache)
    suite = command.suite("shortcut", "devnet", "atacnet", shots="1, 10")
    code, said = command("run", "--suite", suite, "--methods", "shortcut,devnet", *CPU)
    assert code == 0, said
    return command, suite


@pytest.fixture
def dry(ran: tuple[Bench, str], capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    command, suite = ran
    monkeypatch.setenv("BENCH_RESULTS", str(command.folder / "results"))
    monkeypatch.setenv("BENCH_CACHE", str(command.cache))

    def said(*arguments: str, width: int = 80) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        code, out, err = call(capsys, "run", "--suite", suite, "--dry-run", *CPU, *arguments)
        assert code == 0, err
        return str(out)

    return said


def test_it_shows_what_is_stored_of_what_is_wanted(dry: Any) -> None:
    said = dry()
    assert "6 runs wanted, 4 stored, 2 to do" in said
    rows = [line.split() for line in said.splitlines() if "1/1" in line]
    assert rows == [
        ["synthetic/washer", "1", "1/1", "1/1", "0/1"],
        ["10", "1/1", "1/1", "0/1"],
    ]
    assert "image_size=32" in said
    assert "backbone=resnet18" in said


def test_variants_of_a_method_are_columns_of_their_own(dry: Any) -> None:
    said = dry("--set", "atacnet.lr=0.5")
    assert re.search(r"atacnet\s+lr=0.5", said)


def test_it_foretells_memory_disk_and_time(dry: Any) -> None:
    said = dry("--seeds", "2")
    line = next(li for li in said.splitlines() if li.startswith("devnet"))
    assert re.match(r"devnet\s+2\s+\d+ s\s+[\d.]+ GiB\s+[\d.]+ GiB", line)
    assert re.search(r"memory: a run takes up to [\d.]+ GiB, [\d.]+ GiB available", said)
    assert re.search(r"disk: cache nothing; results [\d.]+ MB \(as stored runs are", said)
    assert re.search(r"time: about \d+ s, by stored runs", said)
    assert "time: unknown for atacnet: none is stored; a first run will tell" in said


def test_another_number_of_threads_says_nothing_of_the_time(dry: Any) -> None:
    said = " ".join(dry("--seeds", "2", "--threads", "7").split())
    assert "but of another device or number of threads" in said


@pytest.mark.parametrize("narrowing", [(), ("--methods", "devnet"), ("--slots", "2")])
def test_status_tells_the_same_time_as_the_plan(
    ran: tuple[Bench, str], dry: Any, capsys: Any, narrowing: tuple[str, ...]
) -> None:
    options = ("--seeds", "2", *CPU, *narrowing)
    planned = dry(*options, width=1000)
    lines = [line for line in planned.splitlines() if line.startswith("time: ")]
    (foretold,) = [line for line in lines if narrowing[:1] == ("--methods",) or " for all" in line]
    code, out, err = call(capsys, "status", "--suite", ran[1], *options)
    assert code == 0, err
    (left,) = [line.removeprefix("left").strip() for line in out.splitlines() if "left" in line]
    assert left.partition(", ")[0] == foretold.removeprefix("time: ").partition(", ")[0].replace(
        " for all", ""
    )
    assert ("reference runs on" in left) == ("reference runs on" in foretold)
    code, out, _ = call(capsys, "status", "--suite", ran[1], *options, "--json")
    assert json.loads(out)["seconds_left"] > 0
    assert json.loads(out)["seconds_left_are_rough"] == ("reference runs on" in left)


def test_too_little_memory_or_disk_is_a_warning(dry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.cli.dry_run.available_memory", lambda: 1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    said = " ".join(dry("--slots", "2").split())
    assert "warning: memory:" in said
    assert "use fewer --slots" in said
    assert "warning: disk:" in said


def test_stale_failed_and_missing_runs_are_marked(
    ran: tuple[Bench, str], dry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Provenance, "standing", lambda self, path: Standing(stale=True))
    assert "1/1 s1" in dry()
    assert "s stale: made by older code" in dry()
    said = dry("--set", "atacnet.backbone=resnet50", "--set", "atacnet.weights=imagenet",
               "--methods", "atacnet", "--weights", str(ran[0].folder))  # fmt: skip
    assert "0/1 m1" in said
    assert "m missing" in said


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "suite", ["smoke", "table1", "ablation", "hard", "table1-published", "timing"]
)
def test_it_fits_the_terminal(
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    warm_cache: Path,
    suite: str,
    width: int,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("bench.planning.resources.rehearsed", lambda _: 1 << 30)
    code, out, _ = call(
        capsys, "run", "--suite", suite, "--dry-run", "--data", tmp_path, "--weights", tmp_path,
        "--results", tmp_path / "results", "--cache", warm_cache,
    )  # fmt: skip
    assert code == 0
    start = out.index("all: ")
    assert max(map(len, out[start:].splitlines())) <= width


def test_where_nothing_is_left_torch_stays_out(ran: tuple[Bench, str]) -> None:
    command, suite = ran
    code = (
        "import sys; from bench.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    arguments = ("run", "--suite", suite, "--dry-run", "--methods", "shortcut,devnet", *CPU)
    environment = {**command.environment(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=command.folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 to do" in done.stdout
    assert len(list(receipts(command.store))) == 4
