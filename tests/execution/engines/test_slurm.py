"""Runs as jobs of a real SLURM, whose three nodes are daemons on this machine."""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.store.results import receipts
from tests.fixtures.command import Bench
from tests.fixtures.nodes import PATIENCE, SLOW, until
from tests.fixtures.slurm import NoSlurm, Slurm, slurm_of

pytest.importorskip("dask_jobqueue")
PORT = 17917


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A SLURM; skips where it cannot be started."""
    try:
        with slurm_of(tmp_path_factory.mktemp("slurm"), PORT) as slurm:
            yield slurm
    except NoSlurm as error:
        pytest.skip(str(error))


@pytest.fixture
def bench(tmp_path: Path, warm_cache: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("SLURM_CONF", str(slurm.configuration))
    return Bench(tmp_path, warm_cache)


def arguments(bench: Bench, nodes: int) -> tuple[str, ...]:
    return ("run", bench.suite(*SLOW), "--engine", "slurm", "--nodes", str(nodes), "--cpus", "1",
            "--memory", "1GB", "--interface", "lo")  # fmt: skip


def test_four_strikes_leave_all_runs_and_no_process(bench: Bench, slurm: Slurm) -> None:
    """A worker killed, a run's process killed, a node set down, the command killed: then again."""
    command = bench.start(*arguments(bench, 2))
    until(lambda: len(slurm.workers()) >= 2)
    os.kill(slurm.workers()[0], signal.SIGKILL)
    until(lambda: bench.store.ids())
    running = re.findall(r"\bn[123]\b", slurm("squeue", "-h", "-t", "R", "-o", "%N"))
    if running:
        slurm.set_down(running[0])
    if command.poll() is None and len(bench.store.ids()) < len(SLOW):
        command.kill()
    command.communicate(timeout=PATIENCE)
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
    until(lambda: not slurm.processes())
    until(lambda: not slurm.waiting_or_running())
    assert not list((bench.folder / ".bench-slurm").glob("*.pem")), "certificates stayed"


def test_without_sbatch_it_is_one_line(
    tmp_path: Path, warm_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    bench = Bench(tmp_path, warm_cache)
    code, said = bench(*arguments(bench, 1))
    assert (code, "there is no sbatch here" in said) == (2, True), said
    assert not (tmp_path / ".bench-slurm").exists()
