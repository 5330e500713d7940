"""Options of other machines."""

from pathlib import Path
from typing import Any

import pytest

from bench.cli.cluster import CLUSTER_OPTIONS, folder_variables, read_cluster
from bench.errors import RequestError
from bench.planning.plan import Folders
from tests.fixtures.command import Bench


def read(**options: Any) -> Any:
    return read_cluster({**{n: d for n, (_, d) in CLUSTER_OPTIONS.items()}, **options})


def test_by_default_runs_are_made_here() -> None:
    assert read().local


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"engine": "ray"}, "--engine is one of local, dask, slurm, not 'ray'"),
        ({"nodes": 3}, "--engine local takes no --nodes"),
        ({"engine": "dask"}, "--engine dask takes --scheduler"),
        ({"engine": "dask", "scheduler": "x", "gres": "", "nodes": 1}, "no --gres and --nodes"),
        ({"engine": "slurm", "insecure": True}, "--engine slurm takes no --insecure"),
        ({"engine": "slurm", "memory": "32"}, "--memory takes a number and a unit, such as 16GB"),
        ({"engine": "slurm", "walltime": "12h"}, "such as 12:00:00, not '12h'"),
    ],
)
def test_options_that_do_not_go_together_are_named(options: dict[str, Any], why: str) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(RequestError, match=why):
        read(**options)


def test_a_table_of_slurm_and_options_over_it(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    file = tmp_path / "cluster.toml"
    file.write_text(
        '[slurm]\npartition = "gpu"\nnodes = 4\nsbatch = ["--qos=low"]\n'
        'setup = ["module load cuda"]\nfolder = "~/jobs"\n'
    )
    jobs = read(engine="slurm", cluster=file, nodes=2, sbatch=["--exclusive"]).slurm
    assert (jobs.partition, jobs.nodes, jobs.gres) == ("gpu", 2, "gpu:1")
    assert jobs.sbatch == ("--qos=low", "--exclusive")
    assert jobs.folder == Path.home() / "jobs"


@pytest.mark.parametrize(
    ("table", "why"),
    [("nods = 4", "knows nodes, partition"), ('nodes = "4"', "nodes is a whole number, not '4'"),
     ("sbatch = 3", "sbatch is a list of texts"), ("gres = 1", "gres is a text"), ("x =", "TOML")],
)  # fmt: skip
def test_a_bad_table_names_file_and_key(tmp_path: Path, table: str, why: str) -> None:
    pytest.importorskip("dask_jobqueue")
    file = tmp_path / "cluster.toml"
    file.write_text(f"[slurm]\n{table}\n")
    with pytest.raises(RequestError, match=why) as raised:
        read(engine="slurm", cluster=file)
    assert "cluster.toml" in str(raised.value)


def test_results_travel_as_a_variable_only_where_they_are_shared() -> None:
    folders = Folders(Path("/d"), Path("/w"), Path("/r"), Path("/c"))
    named = {"BENCH_DATA": "/d", "BENCH_WEIGHTS": "/w", "BENCH_CACHE": "/c"}
    assert folder_variables(folders, shared=False) == named
    assert folder_variables(folders, shared=True) == {**named, "BENCH_RESULTS": "/r"}


def test_times_belong_to_one_machine_and_slots_to_the_node(
    tmp_path: Path, warm_cache: Path
) -> None:
    pytest.importorskip("distributed")
    bench = Bench(tmp_path, warm_cache)
    there = ("--engine", "dask", "--scheduler", "127.0.0.1:1")
    code, said = bench("run", bench.suite("shortcut"), *there, "--slots", "2")
    assert (code, "give them to `bench worker`" in said) == (2, True), said
    suite = Path(bench.suite("shortcut"))
    suite.write_text('kind = "timing"\n' + suite.read_text())
    code, said = bench("run", str(suite), *there)
    assert (code, "measures time, which belongs to one machine" in said) == (2, True), said
    code, said = bench("worker", "--scheduler", "tcp://10.0.0.1:8786")
    assert (code, "open to everyone on the network" in said) == (2, True), said


def test_the_script_of_a_job_is_shown_before_anything_runs(
    tmp_path: Path, warm_cache: Path
) -> None:
    pytest.importorskip("dask_jobqueue")
    bench = Bench(tmp_path, warm_cache)
    code, said = bench(
        "run", bench.suite("shortcut"), "--engine", "slurm", "--partition", "gpu", "--cpus", "8",
        "--sbatch=--qos=low", "--data", "/the/data", "--dry-run",
    )  # fmt: skip
    assert code == 0, said
    for line in ("#SBATCH --no-requeue",
                 "#SBATCH -p gpu", "#SBATCH --cpus-per-task=8", "#SBATCH --gres=gpu:1",
                 "#SBATCH --qos=low", "export BENCH_DATA=/the/data"):  # fmt: skip
        assert line in said.splitlines(), said
    assert "BENCH_RESULTS" not in said
    assert not (tmp_path / ".bench-slurm").exists(), "a dry run leaves nothing"
    assert "--no-nanny" in said
    assert "--resources bench=1" in said
