"""Runs as jobs of a real SLURM, whose three nodes are daemons on this machine."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.store.results import receipts
from tests.fixtures.command import Bench
from tests.fixtures.nodes import alive, until

pytest.importorskip("dask_jobqueue")
SLOW = tuple(f"tests.fixtures.misbehaving:{name}" for name in ("SlowA", "SlowB", "SlowC", "SlowD"))
PORT = 17917


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Any:
    """The folder of a SLURM; skips where it cannot be started."""
    if shutil.which("slurmctld") is None or shutil.which("munged") is None:
        pytest.skip("needs Debian's slurm-wlm and munge")
    if os.geteuid():
        pytest.skip("a SLURM of fake nodes is started as root")
    folder = tmp_path_factory.mktemp("slurm")
    up, down = (shared / "slurm" / f"slurm-{way}" for way in ("up", "down"))
    begun = subprocess.run(
        ["bash", up, folder, "3", "2", "1", str(PORT)], capture_output=True, text=True, timeout=60
    )
    if begun.returncode:
        subprocess.run(["bash", down, folder], check=False, timeout=60)
        pytest.skip(f"SLURM does not start here: {begun.stderr[-200:]}")
    yield folder
    subprocess.run(["bash", down, folder], check=True, timeout=60)


def slurm_command(folder: Path, *arguments: str, check: bool = True) -> str:
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    return subprocess.run(
        arguments, env=environment, capture_output=True, text=True, check=check, timeout=30
    ).stdout


def jobs_of(folder: Path) -> list[int]:
    """Return the process ids of this SLURM's workers."""
    marks = (f"SLURM_CONF={folder / 'slurm.conf'}".encode(), b"SLURM_JOB_ID=")
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().split(b"\0")
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        in_job = marks[0] in environment and any(e.startswith(marks[1]) for e in environment)
        if in_job and b"dask_worker" in command and b"-m" in command.split(b"\0"):
            pids.append(int(path.name))
    return pids


@pytest.fixture
def bench(tmp_path: Path, warm_cache: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("SLURM_CONF", str(slurm / "slurm.conf"))
    return Bench(tmp_path, warm_cache)


def arguments(bench: Bench, nodes: int) -> tuple[str, ...]:
    return ("run", bench.suite(*SLOW), "--engine", "slurm", "--nodes", str(nodes), "--cpus", "1",
            "--memory", "1GB", "--interface", "lo")  # fmt: skip


def test_four_strikes_leave_all_runs_and_no_process(bench: Bench, slurm: Path) -> None:
    """A worker killed, a run's process killed, a node set down, the command killed: then again."""
    command = bench.start(*arguments(bench, 2))
    until(lambda: len(jobs_of(slurm)) >= 2)
    os.kill(jobs_of(slurm)[0], signal.SIGKILL)
    until(lambda: bench.store.ids())
    node = re.findall(r"\bn[123]\b", slurm_command(slurm, "squeue", "-h", "-t", "R", "-o", "%N"))
    if node:
        down = ("scontrol", "update", f"nodename={node[0]}", "state=down", "reason=test")
        slurm_command(slurm, *down)
        resume = ("scontrol", "update", f"nodename={node[0]}", "state=resume")
        slurm_command(slurm, *resume, check=False)  # refused where it has come back by itself
    if command.poll() is None and len(bench.store.ids()) < len(SLOW):
        command.kill()
    command.communicate(timeout=300)
    code, said = bench.apart(*arguments(bench, 3))
    assert code == 0, said
    assert {r.spec.method for r in receipts(bench.store)} == {
        "slow-a",
        "slow-b",
        "slow-c",
        "slow-d",
    }
    assert not [*bench.store.staging.iterdir()]
    assert not bench.store.failed.exists() or not [*bench.store.failed.iterdir()]
    assert bench("verify")[0] == 0
    until(lambda: not any(map(alive, jobs_of(slurm))))
    until(lambda: not slurm_command(slurm, "squeue", "-h", "-t", "R,PD").strip())
    assert not list((bench.folder / ".bench-slurm").glob("*.pem")), "certificates stayed"


def test_without_sbatch_it_is_one_line(
    tmp_path: Path, warm_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    bench = Bench(tmp_path, warm_cache)
    code, said = bench(*arguments(bench, 1))
    assert (code, "there is no sbatch here" in said) == (2, True), said
    assert not (tmp_path / ".bench-slurm").exists()
