"""SLURM jobs that serve as nodes: a scheduler in this process, a worker in each job."""

import functools
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import RequestError
from bench.execution.engines.dask import DEATH_TIMEOUT, WORKER, Cluster
from bench.system.untrusted import one_line

SETTINGS: Mapping[str, Any] = {
    "distributed.scheduler.allowed-failures": 0,  # a campaign tries again itself
    "distributed.scheduler.worker-ttl": "60s",
    "distributed.comm.timeouts.connect": "30s",
}
RENEWED = "2s"
"""How often jobs that are gone are replaced."""


@dataclass(frozen=True)
class SlurmJobs:
    """What to ask SLURM for."""

    nodes: int = 1
    """Jobs at once, with one run at a time each."""
    partition: str = ""
    account: str = ""
    gres: str = "gpu:1"
    """Empty for none."""
    cpus: int = 4
    memory: str = "16GB"
    walltime: str = "24:00:00"
    interface: str = ""
    """The network interface that nodes reach this machine by; empty for all."""
    sbatch: tuple[str, ...] = ()
    """Further options of sbatch, such as `--qos=low`."""
    setup: tuple[str, ...] = ()
    """Lines of shell before the worker starts, such as `module load cuda`."""
    folder: Path = Path(".bench-slurm")
    """Where jobs write their logs, and read their certificates; all nodes see it."""


def job_script(jobs: SlurmJobs, folders: Mapping[str, str]) -> str:
    """Return the script of one job, with `SCHEDULER` for the address.

    `folders` are variables that name data and weights.
    """
    from dask_jobqueue.slurm import SLURMJob

    was_there = jobs.folder.exists()
    script = SLURMJob("tls://SCHEDULER", name="bench", **_job_options(jobs, folders)).job_script()
    if not was_there:  # it is made for the logs, and a script alone has none
        jobs.folder.rmdir()
    return str(script)


def start(jobs: SlurmJobs, folders: Mapping[str, str], *, shared: bool) -> Cluster:
    """Ask for jobs, and keep asking for those that have ended; raises RequestError."""
    if shutil.which("sbatch") is None:
        raise RequestError("there is no sbatch here: give this command where SLURM's commands are")
    import dask
    from dask_jobqueue import SLURMCluster
    from distributed import Security

    jobs.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    dask.config.set(SETTINGS)
    security = Security.temporary()
    try:
        cluster = SLURMCluster(
            **_job_options(jobs, folders), protocol="tls://", security=security,
            shared_temp_directory=str(jobs.folder.absolute()),
            scheduler_options={
                "dashboard_address": "127.0.0.1:0",
                **({"interface": jobs.interface} if jobs.interface else {}),
            },
        )  # fmt: skip
        cluster.adapt(minimum_jobs=jobs.nodes, maximum_jobs=jobs.nodes, interval=RENEWED)
    except (OSError, ValueError, RuntimeError) as error:
        raise RequestError(f"SLURM takes no jobs: {one_line(str(error))[:300]}") from error
    close = functools.partial(cluster.close, timeout=10)
    return Cluster(cluster.scheduler_address, security, shared, close)


def _job_options(jobs: SlurmJobs, folders: Mapping[str, str]) -> dict[str, Any]:
    exports = [f"export {name}={shlex.quote(value)}" for name, value in folders.items()]
    gres = [f"--gres={jobs.gres}"] if jobs.gres else []
    # Jobs that are gone are replaced here; one that SLURM itself began again would come too late.
    directives = ["--no-requeue", *gres, *jobs.sbatch]
    return {
        "queue": jobs.partition or None,
        "account": jobs.account or None,
        "cores": 1,
        "processes": 1,
        "memory": jobs.memory,
        "job_cpu": jobs.cpus,
        "walltime": jobs.walltime,
        "interface": jobs.interface or None,
        "nanny": False,  # its workers could have no processes of their own
        "death_timeout": DEATH_TIMEOUT,
        "python": sys.executable,
        "worker_extra_args": list(WORKER),
        "job_extra_directives": directives,
        "job_script_prologue": [*exports, *jobs.setup],
        "log_directory": str(jobs.folder.absolute()),
    }  # fmt: skip
