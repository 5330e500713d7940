"""Runs on nodes of a Dask scheduler: what comes back, and what happens when something dies."""

import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from bench.execution.engines.addresses import FILES
from bench.store.results import receipts
from tests.fixtures.command import Bench
from tests.fixtures.nodes import PATIENCE, SLOW, Nodes, alive, descendants, nodes_of, until

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, warm_cache: Path) -> Any:
    """A scheduler with two nodes, shared by tests that leave them as they are."""
    with nodes_of(Bench(tmp_path_factory.mktemp("nodes"), warm_cache)) as started:
        started.scheduler()
        started.node("one")
        started.node("two")
        yield started


def run(bench: Bench, nodes: Nodes, suite: str, *more: str) -> tuple[int, str]:
    return bench.apart("run", suite, "--engine", "dask", "--scheduler", str(nodes.file), *more)


def test_runs_of_nodes_are_those_of_one_machine(
    nodes: Nodes, tmp_path: Path, warm_cache: Path
) -> None:
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    near.mkdir()
    code, said = run(
        Bench(far, warm_cache), nodes, "smoke", "--methods", "shortcut", "--threads", "1"
    )
    assert code == 0, said
    assert Bench(near, warm_cache)("run", "smoke", "--methods", "shortcut")[0] == 0
    code, said = Bench(tmp_path, warm_cache)("compare", str(far / "results"), str(near / "results"))
    assert (code, "4 identical, 0 close, 0 different" in said) == (0, True), said
    assert Bench(far, warm_cache)("verify")[0] == 0
    assert not [*(far / "results" / "staging").iterdir()]
    once_more = run(Bench(far, warm_cache), nodes, "smoke", "--methods", "shortcut")
    assert "4 stored, 0 to do" in once_more[1]


def test_a_failure_on_a_node_is_recorded_with_its_log_here(
    nodes: Nodes, tmp_path: Path, warm_cache: Path
) -> None:
    bench = Bench(tmp_path, warm_cache)
    suite = bench.suite("tests.fixtures.misbehaving:Raises", SLOW[0])
    code, said = run(bench, nodes, suite)
    assert code == 1, said
    (failure,) = [f for p in bench.store.failed.iterdir() for f in bench.store.failures(p.name)]
    assert failure.kind == "method"
    assert "Traceback" in failure.traceback
    assert failure.provenance.device == "cpu"
    assert (failure.folder / "log.txt").stat().st_size
    assert [r.spec.method for r in receipts(bench.store)] == ["slow-a"]
    code, said = run(bench, nodes, suite)
    assert (code, "failed earlier and would again" in said) == (1, True), said


def test_nodes_publish_themselves_in_results_that_they_see(
    nodes: Nodes, tmp_path: Path, warm_cache: Path
) -> None:
    bench = Bench(nodes.bench.folder, warm_cache)  # the nodes' own results
    code, said = run(bench, nodes, bench.suite(*SLOW[:2]), "--shared-results")
    assert code == 0, said
    assert {r.spec.method for r in receipts(bench.store)} == {"slow-a", "slow-b"}
    assert not [*(bench.store.root / "staging").iterdir()]


def test_nothing_listens_but_to_this_machine(nodes: Nodes) -> None:
    pids = {p for process in nodes.processes.values() for p in descendants(process.pid)}
    pids |= {process.pid for process in nodes.processes.values()}
    inodes = {
        link.readlink().name.strip("socket:[]")
        for pid in pids
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if str(link.readlink()).startswith("socket:")
    }
    listening = []
    for table, loopback in (("tcp", "0100007F"), ("tcp6", "0" * 24 + "01000000")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.append(fields[1].partition(":")[0] == loopback)
    assert len(listening) >= 3
    assert all(listening)


def test_the_doctor_asks_every_node(nodes: Nodes, warm_cache: Path) -> None:
    bench = Bench(nodes.bench.folder, warm_cache)
    asked = ("--engine", "dask", "--scheduler", str(nodes.file), "--shared-results")
    code, said = bench.apart("doctor", *asked)
    assert code == 0, said
    assert "which are not those of" not in said
    assert said.count("clock 0 s") == 2
    assert not [*bench.store.root.glob(".doctor-*")]
    assert f"{nodes.address}: 2 nodes" in said
    assert said.count("versions as here") == 2
    assert "BENCH_DATA" in said, "the nodes of the test have no such folder"


@pytest.fixture
def struck(nodes: Nodes) -> Nodes:
    """The same cluster for tests that strike it, whatever an earlier one has left of it."""
    if nodes.gone("scheduler"):
        for name in nodes.processes:
            nodes.strike(name)
        nodes.scheduler()
    for name in ("one", "two"):
        if nodes.gone(name):
            nodes.node(name)
    return nodes


@pytest.fixture
def bench(tmp_path: Path, warm_cache: Path) -> Bench:
    return Bench(tmp_path, warm_cache)


def busy(nodes: Nodes, *names: str) -> bool:
    """Whether one of these nodes makes a run."""
    pids = [nodes.processes[name].pid for name in names]
    return any(len(descendants(pid)) >= 4 for pid in pids)  # worker, server, tracker and a run


def test_an_interrupted_command_leaves_nothing_and_continues(struck: Nodes, bench: Bench) -> None:
    suite = bench.suite(*SLOW[:2])
    arguments = ("run", suite, "--engine", "dask", "--scheduler", str(struck.file))
    command = bench.start(*arguments)
    until(lambda: busy(struck, "one", "two"))
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=PATIENCE)
    assert (command.returncode, "the same command continues" in err) == (130, True), out + err
    assert not [*bench.store.staging.iterdir()]
    code, said = bench.apart(*arguments)
    assert code == 0, said


def test_a_node_that_dies_in_a_run_costs_the_run_and_nothing_else(
    struck: Nodes, bench: Bench
) -> None:
    command = bench.start(
        "run", bench.suite(*SLOW), "--engine", "dask", "--scheduler", str(struck.file)
    )
    until(lambda: busy(struck, "one"))
    orphans = descendants(struck.processes["one"].pid)
    struck.strike("one")
    out, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, out + err
    assert "was lost with its node: starting it again" in out
    assert {r.spec.method for r in receipts(bench.store)} == {
        "slow-a",
        "slow-b",
        "slow-c",
        "slow-d",
    }
    assert not bench.store.failed.exists() or not [*bench.store.failed.iterdir()]
    until(lambda: not any(map(alive, orphans)))
    assert bench("verify")[0] == 0


def test_a_node_with_other_code_makes_no_run(struck: Nodes, bench: Bench, tmp_path: Path) -> None:
    for name in ("one", "two"):
        struck.strike(name)
    struck.node("old", BENCH_TEST_TORCH="2.0.1", PYTHONPATH=f"{_old(tmp_path)}:{_root()}")
    suite = bench.suite(SLOW[0])
    command = bench.start("run", suite, "--engine", "dask", "--scheduler", str(struck.file))
    until(lambda: struck.processes["old"].poll() is not None)
    struck.node("one")
    out, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, out + err
    assert re.search(r"node \S+ is not used: it has torch 2\.0\.1, the command \d", out), out


def _root() -> Path:
    return Path(__file__).parents[3]


def _old(folder: Path) -> Path:
    """Make a folder whose Python says that it has an older torch."""
    path = folder / "old"
    path.mkdir()
    (path / "sitecustomize.py").write_text(
        "import importlib.metadata as m, os\nreal = m.version\n"
        "m.version = lambda n: os.environ['BENCH_TEST_TORCH'] if n == 'torch' else real(n)\n"
    )
    return path


def test_certificates_keep_strangers_out(bench: Bench, tmp_path: Path) -> None:
    from distributed import Security

    folders = [tmp_path / name for name in ("ours", "theirs")]
    for folder in folders:
        made = Security.temporary()
        folder.mkdir()
        contents = (made.tls_ca_file, made.tls_client_cert, made.tls_client_key)
        for name, content in zip(FILES, contents, strict=True):
            (folder / name).write_text(content)
            (folder / name).chmod(0o600)
    ours, theirs = map(str, folders)
    options = zip(("--tls-ca-file", "--tls-cert", "--tls-key"), FILES, strict=True)
    files = [word for option, name in options for word in (option, f"{ours}/{name}")]
    with nodes_of(bench) as nodes:
        nodes.scheduler("--protocol", "tls", *files)
        assert nodes.address.startswith("tls://127.0.0.1:")
        suite = bench.suite("shortcut")
        asked = ("run", suite, "--engine", "dask", "--scheduler", str(nodes.file))
        code, said = bench.apart(*asked)
        assert (code, "asks for certificates: give their folder, --tls" in said) == (2, True), said
        code, said = bench.apart(*asked, "--tls", theirs)
        assert (code, "no scheduler answers" in said) == (2, True), said
        nodes.node("one", "--tls", ours)
        code, said = bench.apart(*asked, "--tls", ours)
        assert code == 0, said


def test_no_scheduler_is_one_line(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.execution.engines.dask.CONNECT", 1.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    code, said = bench("run", bench.suite(SLOW[0]), "--engine", "dask", "--scheduler", address)
    assert code == 2, said
    assert f"no scheduler answers at {address}" in said
    assert not bench.store.root.exists()


def test_a_scheduler_that_dies_ends_the_command_and_no_run(struck: Nodes, bench: Bench) -> None:
    suite = bench.suite(*SLOW[:2])
    arguments = ("run", suite, "--engine", "dask", "--scheduler", str(struck.file))
    command = bench.start(*arguments)
    until(lambda: busy(struck, "one", "two"))
    struck.strike("scheduler")
    out, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 2, out + err
    assert re.search(r"the scheduler at tcp://\S+ is gone; once it runs again, the same", err), err
    assert not bench.store.failed.exists() or not [*bench.store.failed.iterdir()]
    for name in ("one", "two"):
        struck.strike(name)
    struck.scheduler()
    struck.node("one")
    code, said = bench.apart(*arguments)
    assert code == 0, said
    assert {r.spec.method for r in receipts(bench.store)} == {"slow-a", "slow-b"}
