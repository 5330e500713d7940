"""Options of other machines, and `bench worker`, which serves as one of them."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import (
    DeviceOption,
    OptionGroup,
    SlotsOption,
    gpus,
    printable,
    say,
    shared_options,
    with_options,
)
from bench.errors import RequestError
from bench.text import joined

if TYPE_CHECKING:
    from bench.execution.engines.dask import Cluster, DaskEngine
    from bench.execution.engines.here import ExecutionOptions
    from bench.execution.engines.slurm import SlurmJobs
    from bench.planning.plan import Folders
    from bench.store.folder import Store

ENGINES = ("local", "dask", "slurm")
QUEUED = 7 * 86400.0
"""Seconds that jobs may wait in SLURM's queue."""
EXTRA = "pip install 'atacnet-bench[cluster]'"
PANEL = "Other machines"
"""The group of these options in the help."""
TlsOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with ca.pem, cert.pem and key.pem.", metavar="FOLDER", rich_help_panel=PANEL
    ),
]
InsecureOption = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help="Without certificates, where nobody else can reach.",
        rich_help_panel=PANEL,
    ),
]
_NODES: dict[str, tuple[Any, Any]] = {
    "engine": (
        Annotated[
            str,
            typer.Option(help=f"Where runs are made: {', '.join(ENGINES)}.", metavar="ENGINE"),
        ],
        "local",
    ),
    "scheduler": (
        Annotated[
            str | None,
            typer.Option(help="The Dask scheduler.", metavar="tls://HOST:PORT|FILE"),
        ],
        None,
    ),
    "tls": (TlsOption, None),
    "insecure": (InsecureOption, False),
    "shared_results": (
        Annotated[
            bool,
            typer.Option(
                "--shared-results",
                help="Nodes see --results and publish there; otherwise they send runs back.",
            ),
        ],
        False,
    ),
    "cluster": (
        Annotated[
            Path | None,
            typer.Option(help="TOML file with a table [slurm].", metavar="FILE"),
        ],
        None,
    ),
}
_SLURM: dict[str, tuple[Any, Any]] = {
    "nodes": (
        Annotated[int | None, typer.Option(help="SLURM jobs at once.", min=1, metavar="N")],
        None,
    ),
    "partition": (Annotated[str | None, typer.Option(help="Of SLURM.", metavar="NAME")], None),
    "account": (Annotated[str | None, typer.Option(help="Of SLURM.", metavar="NAME")], None),
    "gres": (
        Annotated[
            str | None,
            typer.Option(help="Of each job; gpu:1 if not given, '' for none.", metavar="GRES"),
        ],
        None,
    ),
    "cpus": (
        Annotated[
            int | None, typer.Option(help="Of each job; 4 if not given.", min=1, metavar="N")
        ],
        None,
    ),
    "memory": (
        Annotated[str | None, typer.Option(help="Of each job; 16GB if not given.", metavar="16GB")],
        None,
    ),
    "walltime": (
        Annotated[
            str | None, typer.Option(help="Of each job; 24 hours if not given.", metavar="HH:MM:SS")
        ],
        None,
    ),
    "interface": (
        Annotated[
            str | None,
            typer.Option(help="Network interface that nodes reach this machine by.", metavar="IB0"),
        ],
        None,
    ),
    "sbatch": (
        Annotated[
            list[str] | None,
            typer.Option(help="A further option of sbatch; may be given again.", metavar="--QOS=X"),
        ],
        None,
    ),
}
CLUSTER_OPTIONS = _NODES | _SLURM
"""Options of `bench run` and `bench doctor` for other machines, with their defaults."""


@dataclass(frozen=True)
class ClusterOptions:
    """What was asked of other machines."""

    engine: str
    scheduler: str | None
    tls: Path | None
    insecure: bool
    shared: bool
    slurm: "SlurmJobs | None"

    @property
    def local(self) -> bool:
        """Whether runs are made here."""
        return self.engine == "local"


def read_cluster(options: Mapping[str, Any]) -> ClusterOptions:
    """Read the options of `CLUSTER_OPTIONS`; raises RequestError for what does not go together."""
    engine = str(options["engine"])
    if engine not in ENGINES:
        raise RequestError(f"--engine is one of {', '.join(ENGINES)}, not {engine!r:.80}")
    given = {n for n, (_, default) in CLUSTER_OPTIONS.items() if options[n] != default}
    fitting = {
        "local": {"engine"},
        "dask": {"engine", "scheduler", "tls", "insecure", "shared_results"},
        "slurm": {"engine", "shared_results", "cluster", *_SLURM},
    }[engine]
    if given - fitting:
        names = joined(f"--{n.replace('_', '-')}" for n in sorted(given - fitting))
        raise RequestError(f"--engine {engine} takes no {names}")
    if engine == "dask" and options["scheduler"] is None:
        raise RequestError("--engine dask takes --scheduler: an address, or the scheduler's file")
    slurm = None
    if engine != "local":
        _check_installed()
    if engine == "slurm":
        slurm = _slurm_jobs(options)
    return ClusterOptions(
        engine, options["scheduler"], options["tls"], options["insecure"],
        options["shared_results"], slurm,
    )  # fmt: skip


def _check_installed() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("distributed", "dask_jobqueue", "cryptography")
               if find_spec(name) is None]  # fmt: skip
    if missing:
        raise RequestError(f"{joined(missing)} not installed: {EXTRA}")


def _slurm_jobs(options: Mapping[str, Any]) -> "SlurmJobs":
    """Return what to ask SLURM for: the file's table, then options."""
    from bench.execution.engines.slurm import SlurmJobs

    file = options["cluster"]
    kinds = {f.name: type(f.default) for f in fields(SlurmJobs)}
    table = _slurm_table(file, kinds) if file is not None else {}
    if "folder" in table:
        table["folder"] = Path(table["folder"]).expanduser()
    given = {n: options[n] for n in _SLURM if options[n] is not None}
    if "sbatch" in given:
        given["sbatch"] = (*table.get("sbatch", ()), *given["sbatch"])
    jobs = SlurmJobs(**{**table, **given})
    if not re.fullmatch(r"(?=.*[1-9])\d+(\.\d+)? ?[KMGT]i?B", jobs.memory):
        raise RequestError(f"--memory takes a number and a unit, such as 16GB, not {jobs.memory!r}")
    if not re.fullmatch(r"(?=.*[1-9])(\d+-)?\d{1,3}:\d\d(:\d\d)?", jobs.walltime):
        raise RequestError(
            f"--walltime takes hours, minutes and seconds, such as 12:00:00, not {jobs.walltime!r}"
        )
    return jobs


def _slurm_table(file: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Read a file's table [slurm], whose values have certain types; raises RequestError."""
    from bench.system.untrusted import one_line, os_reason, read_toml

    try:
        table = dict(read_toml(file).get("slurm", {}))
    except OSError as error:
        raise RequestError(f"cannot read {one_line(file)}: {os_reason(error)}") from error
    except ValueError as error:
        raise RequestError(f"{one_line(file)} {error}") from error
    for name, value in table.items():
        if name not in kinds:
            raise RequestError(f"{one_line(file)}: [slurm] knows {joined(kinds)}, not {name!r:.80}")
        text = kinds[name] not in (int, tuple)
        wanted = str if text else list if kinds[name] is tuple else int
        if type(value) is not wanted:
            word = {str: "a text", list: "a list of texts", int: "a whole number"}[wanted]
            raise RequestError(f"{one_line(file)}: [slurm] {name} is {word}, not {value!r:.80}")
        if isinstance(value, int) and value < 1:
            raise RequestError(f"{one_line(file)}: [slurm] {name} is at least 1, not {value}")
        table[name] = tuple(map(str, value)) if isinstance(value, list) else value
    return table


cluster_options = with_options({"cluster": OptionGroup(CLUSTER_OPTIONS, read_cluster, PANEL)})
"""Replaces a command's parameter `cluster` by the options that it is read from."""


def cluster_engine(
    cluster: ClusterOptions,
    store: "Store",
    folders: "Folders",
    options: "ExecutionOptions",
    threads: int | None,
) -> "DaskEngine":
    """Return the engine of other machines; SLURM's jobs are asked for at once."""
    from bench.execution.engines.dask import DaskEngine

    reached = reached_cluster(cluster, folders)
    if cluster.slurm is None:
        return DaskEngine(reached, store, options, threads)
    return DaskEngine(reached, store, options, threads or cluster.slurm.cpus, patience=QUEUED)


def reached_cluster(cluster: ClusterOptions, folders: "Folders") -> "Cluster":
    """Return the cluster that was asked for; SLURM's jobs are asked for at once."""
    from bench.execution.engines import slurm
    from bench.execution.engines.addresses import scheduler_address, security_for
    from bench.execution.engines.dask import Cluster

    if cluster.slurm is not None:
        exports = folder_variables(folders, shared=cluster.shared)
        return slurm.start(cluster.slurm, exports, shared=cluster.shared)
    address = scheduler_address(str(cluster.scheduler))
    security = security_for(address, cluster.tls, insecure=cluster.insecure)
    return Cluster(address, security, cluster.shared)


def slurm_script(cluster: ClusterOptions, folders: "Folders") -> str:
    """Return the script of one of SLURM's jobs."""
    from bench.execution.engines.slurm import job_script

    assert cluster.slurm is not None, "asked of --engine slurm alone"
    return job_script(cluster.slurm, folder_variables(folders, shared=cluster.shared))


def folder_variables(folders: "Folders", *, shared: bool) -> dict[str, str]:
    """Return folders as the variables that nodes read; results only where they are shared."""
    named = {
        "BENCH_DATA": folders.data,
        "BENCH_WEIGHTS": folders.weights,
        "BENCH_CACHE": folders.cache,
        "BENCH_TEXTURES": folders.textures,
        "BENCH_RESULTS": folders.results if shared else None,
    }
    return {name: str(path) for name, path in named.items() if path is not None}


@shared_options()
def worker_command(
    folders: "Folders",
    scheduler: Annotated[
        str,
        typer.Option(help="Of the runs.", metavar="tls://HOST:PORT|FILE", rich_help_panel=PANEL),
    ],
    tls: TlsOption = None,
    insecure: InsecureOption = False,
    host: Annotated[
        str | None,
        typer.Option(help="This machine's address for the scheduler.", metavar="ADDRESS"),
    ] = None,
    device: DeviceOption = "auto",
    slots: SlotsOption = 1,
    lifetime: Annotated[
        str | None,
        typer.Option(help="Stop after this time, such as 23h.", metavar="TIME"),
    ] = None,
) -> None:
    """Make this machine a node: it takes runs from commands until it is stopped.

    Give it the folders where *this* machine has data, weights and cache.

    Exit code: 0 stopped, 2 the request cannot be met.
    """
    from bench.execution.engines.addresses import (
        certificates,
        is_loopback,
        scheduler_address,
        security_for,
    )
    from bench.execution.engines.dask import DEATH_TIMEOUT, WORKER
    from bench.planning.slots import slots_for

    _check_installed()
    address = scheduler_address(scheduler)
    security_for(address, tls, insecure=insecure)
    taken = slots_for(device, slots, gpus(device))
    command = [
        sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny",
        "--nthreads", "1", "--memory-limit", "0", "--death-timeout", str(DEATH_TIMEOUT), *WORKER,
    ]  # fmt: skip
    if host or is_loopback(address):
        command += ["--host", host or "127.0.0.1"]
    if tls is not None:
        for option, path in zip(("ca-file", "cert", "key"), certificates(tls), strict=True):
            command += [f"--tls-{option}", str(path)]
    if lifetime:
        command += ["--lifetime", lifetime]
    say(f"{len(taken)} x {taken[0].device.partition(':')[0]} for runs of {printable(address)}")
    where = {**os.environ, **folder_variables(folders, shared=True)}
    children = [
        subprocess.Popen(command, env={**where, "BENCH_DEVICE": slot.device}) for slot in taken
    ]
    try:
        for child in children:
            child.wait()
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()
