"""`bench doctor`: every finding, good and bad, and the probe for real once."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterable
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench import doctor
from bench.cli import main
from bench.data.catalog import HEAD_CT
from bench.detector import BackboneSource
from bench.doctor import Finding, inputs, machine, probe
from bench.doctor import disk as places
from bench.errors import MissingWeights, StoreError
from bench.planning.plan import Folders
from bench.system import host as environment
from bench.system.digests import SETTLED
from bench.weights import BACKBONES, Weights

ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]


def check(name: str, residual: float = 1e-7, **changes: Any) -> dict[str, Any]:
    right = residual <= 1e-4
    return {
        "device": "cpu", "threads": 2, "name": name, "residual": residual, "limit": 1e-4,
        "right": right, "required": True, "error": "", **changes,
    }  # fmt: skip


def answer(*checks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "torch": "2.15.0", "import_s": 2.0, "gpus": [], "bfloat16_speedup": 2.0,
        "checks": list(checks), "methods": {}, **changes,
    }  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(*(tmp_path / name for name in ("data", "weights", "results", "cache")))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, warm_cache: Path) -> None:
    """No probe, an idle machine, and folders of our own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(warm_cache))
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(doctor, "ask", lambda arguments: answer(check("matmul")))
    monkeypatch.setattr(machine, "load_average", lambda: 0.0)


def call(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def by_name(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {f.what: f for f in findings}


# For real


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """All findings of a whole command on a cold cache, which must not import torch itself."""
    code = """
import sys
from bench.cli import app
try:
    app(["doctor", "--suite", "smoke", "--json"])
finally:
    assert not {"torch", "torchvision", "pyarrow", "sklearn"} & set(sys.modules)
"""
    folder = tmp_path_factory.mktemp("real")
    environment = {**os.environ, "BENCH_CACHE": "cache", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["ok"]
    assert not (folder / "results").exists()
    findings: list[dict[str, str]] = told["findings"]
    return findings


def test_this_machine_calculates_what_methods_rely_on(real: list[dict[str, str]]) -> None:
    cpu = {f["what"]: f for f in real if f["group"] == "cpu"}
    assert set(cpu) == {f"cpu {c.name}" for c in probe.CHECKS}
    for c in probe.CHECKS:
        found = cpu[f"cpu {c.name}"]
        assert found["state"] == "ok" or (found["state"] == "note" and not c.required)
        if found["state"] == "note":  # inv and solve, on some CPUs with two threads
            assert "cholesky" in found["todo"]
            assert "exit code 1" not in found["found"]


def test_a_suite_is_planned_without_torch(real: list[dict[str, str]]) -> None:
    suite = next(f for f in real if f["group"] == "suite")
    assert suite["what"] == "smoke"
    assert " runs wanted, 0 stored" in suite["found"]
    disk = next(f for f in real if f["what"] == "disk")
    assert "needed" in disk["found"]
    assert {f["group"] for f in real} >= {"software", "machine", "torch", "cpu", "folders", "data"}


def test_all_that_is_not_ok_says_what_to_do(real: list[dict[str, str]]) -> None:
    for f in real:
        assert bool(f["todo"]) == (f["state"] != "ok"), f


# Software


def libraries(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> dict[str, Finding]:
    installed = metadata.version

    def version(name: str) -> str:
        found = versions.get(name.replace("-", "_"), "as installed")
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return installed(name) if found == "as installed" else found

    monkeypatch.setattr(metadata, "version", version)
    return by_name(machine.check_libraries())


def test_a_library_that_is_absent_or_too_old_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    found = libraries(monkeypatch, pyarrow=None, torch="2.8.9+cpu", numpy="1.26.0rc1")
    assert found["pyarrow"].state == "bad"
    assert found["pyarrow"].todo.startswith("pip install 'pyarrow>=")
    assert found["torch"].state == "bad"
    assert "2.8.9+cpu is too old" in found["torch"].found
    assert "numpy 1.26.0rc1" in found["libraries"].found


def test_an_old_python_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Message()
    card["Requires-Python"] = ">=99.1"
    monkeypatch.setattr(metadata, "metadata", lambda name: card)
    found = by_name(machine.check_libraries())["python"]
    assert found.state == "bad"
    assert ">=99.1" in found.todo


def test_a_checkout_that_is_not_installed_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DISTRIBUTION", "no-such-distribution")
    assert [f.state for f in machine.check_libraries()] == ["note"]


# Machine


def test_little_memory_and_a_busy_machine_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 2**30)
    monkeypatch.setattr(machine, "load_average", lambda: 1000.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = by_name(machine.check_machine())
    assert found["memory"].state == found["load"].state == "note"
    assert "1.0 GiB available" in found["memory"].found
    assert "OMP_NUM_THREADS=3" in found["cores"].found


def test_memory_that_the_system_does_not_tell_is_no_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: None)
    assert by_name(machine.check_machine())["memory"].state == "ok"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_a_containers_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "control_groups", lambda controller: [tmp_path, tmp_path / "no"])
    monkeypatch.setattr(machine, "cpu_count", lambda: 4)
    assert machine.cpu_quota() == quota
    cores = by_name(machine.check_machine())["cores"]
    assert cores.state == ("note" if quota else "ok")
    if quota == 1.5:
        assert "taskset -c 0-0" in cores.todo


def test_a_containers_limit_bounds_the_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, text in (("max", "5000"), ("current", "3000"), ("stat", "inactive_file 500\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(environment, "control_groups", lambda controller: [tmp_path])
    if Path("/proc/meminfo").is_file():
        assert environment.available_memory() == 2500


def test_the_control_groups_of_both_versions(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("5:cpu,cpuacct:/a\n4:memory:/job\n0::/b/c\n")
    found = list(environment.control_groups("memory", tmp_path, membership))
    assert found == [
        tmp_path / "memory/job", tmp_path / "memory",
        tmp_path / "b/c", tmp_path / "b", tmp_path,
    ]  # fmt: skip
    assert list(environment.control_groups("memory", tmp_path, tmp_path / "absent")) == []


# torch


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "(Segmentation fault)"),
        ("import time; time.sleep(60)", "gave no answer in 0.5 s"),
        ("print('Intel MKL FATAL')", "no answer (Intel MKL FATAL)"),
        ("import os; os.write(1, bytes([255, 254]))", "no answer"),
        ("print([])", "no answer ([])"),
        ("raise SystemExit('no disk')", "no answer (no disk)"),
        ("pass", "it said nothing"),
    ],
)
def test_a_probe_that_crashes_hangs_or_babbles_is_a_bad_line(
    monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    monkeypatch.setattr(probe, "COMMAND", (sys.executable, "-S", "-c", code))
    monkeypatch.setattr(probe, "PATIENCE_S", 0.5 if "sleep" in code else 30.0)
    (found,) = machine.check_torch(probe.ask([]))
    assert found.state == "bad"
    assert said in found.found


def test_a_probe_that_cannot_be_started_is_a_bad_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(probe, "COMMAND", (str(tmp_path / "python"), "-c", "pass"))
    (found,) = machine.check_torch(probe.ask([]))
    assert found.state == "bad"
    assert found.found == f"{tmp_path}/python cannot be started (No such file or directory)"


def test_a_torch_that_does_not_import_is_a_bad_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And what its libraries print does not spoil the answer."""
    (tmp_path / "torch.py").write_text("print('noise')\nraise ImportError('no libcudart')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.chdir(tmp_path)
    (found,) = machine.check_torch(probe.ask([]))
    assert found.state == "bad"
    assert found.found == "ImportError: no libcudart"


def test_what_no_method_relies_on_may_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes no answer from another device or number of threads with it."""
    first, second = (c for c in probe.CHECKS if not c.required)
    answers = [json.dumps(probe._outcome(c, "cuda:0", 1, 1e-6, "")) for c in (first, second)]
    one, both = answers[0], "\n".join(answers)
    code = (
        "import os, sys; device, threads = sys.argv[2:4]\n"
        f"if device != 'cpu': print({both!r}); sys.exit()\n"
        f"if threads == '1': print({one.replace('cuda:0', 'cpu')!r}, flush=True)\n"
        "os.abort()"
    )
    monkeypatch.setattr(probe, "COMMAND", (sys.executable, "-S", "-c", code))
    checks = list(probe._optional([("cpu", 1), ("cpu", 16), ("cuda:0", 1)]))
    said = "ended with exit code -6"
    assert [(c["device"], c["threads"], c["name"], c["error"]) for c in checks] == [
        ("cpu", 1, "linalg.inv", ""),
        ("cpu", 1, "linalg.solve", said),
        ("cpu", 16, "linalg.inv", said),
        ("cpu", 16, "linalg.solve", "not reached"),
        ("cuda:0", 1, "linalg.inv", ""),
        ("cuda:0", 1, "linalg.solve", ""),
    ]
    found = by_name(machine.check_arithmetic(checks))
    assert {name: f.state for name, f in found.items()} == {
        "cpu linalg.inv": "note", "cpu linalg.solve": "note",
        "cuda:0 linalg.inv": "ok", "cuda:0 linalg.solve": "ok",
    }  # fmt: skip


def test_what_no_method_relies_on_may_hang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import time; time.sleep(3600)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probe, "OPTIONAL_PATIENCE_S", 1.0)
    checks = list(probe._optional([("cpu", 1)]))
    assert [c["error"] for c in checks] == ["no answer in 1 s", "not reached"]
    assert {f.state for f in machine.check_arithmetic(checks)} == {"note"}


def test_wrong_arithmetic_is_bad_where_methods_rely_on_it() -> None:
    found = by_name(
        machine.check_arithmetic(
            [
                check("cholesky", 2e-7, threads=1),
                check("cholesky", 0.21),
                check("eigh", float("nan"), error="no convergence"),
                check("inv", 0.15, required=False),
                check("topk", 3.0, limit=0, device="cuda:0"),
                check("matmul", 0.0),
            ]
        )
    )
    assert {name: f.state for name, f in found.items()} == {
        "cpu cholesky": "bad", "cpu eigh": "bad", "cpu inv": "note", "cuda:0 topk": "bad",
        "cpu matmul": "ok",
    }  # fmt: skip
    assert found["cpu cholesky"].found == (
        "off by 2.0e-07 (1 thread), off by 2.1e-01 where 1e-04 is the most (2 threads)"
    )
    assert found["cpu eigh"].found == "fails (2 threads: no convergence)"
    assert found["cuda:0 topk"].found == "off by 3.0e+00 where 0 is due"
    assert found["cpu matmul"].found == "exact (2 threads)"


def test_gpus_are_listed_and_a_busy_one_is_noted() -> None:
    gpu = {"name": "H200", "total": 140 * 2**30, "capability": "9.0", "driver": "580.1"}
    gpus = [{**gpu, "free": 139 * 2**30}, {**gpu, "free": 9 * 2**30}]
    found = by_name(machine.check_torch(answer(gpus=gpus, bfloat16_speedup=0.4)))
    assert found["cuda:0"].found == "H200, 139 of 140 GiB free, capability 9.0, driver 580.1"
    assert [found[w].state for w in ("cuda:0", "cuda:1", "bfloat16")] == ["ok", "note", "note"]


# Folders


def test_trying_a_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    assert places.check_write_access("results", tmp_path).state == "ok"
    found = places.check_write_access("results", tmp_path / "not/made/yet")
    assert found.state == "ok"
    assert "not made yet" in found.found
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_bad(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    found = places.check_write_access("cache", tmp_path / "file" / "cache")
    assert found.state == "bad"
    assert "--cache" in found.todo

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(places, "write_synced", full)
    found = places.check_write_access("results", tmp_path)
    assert found.state == "bad"
    assert "No space left" in found.found
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_whose_renames_replace_others_is_bad(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rename: Callable[[Path, Path], None] = os.rename

    def careless(source: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        rename(source, target)

    monkeypatch.setattr(os, "rename", careless)
    found = places.check_write_access("results", tmp_path)
    assert found.state == "bad"
    assert "vanish" in found.todo


@pytest.mark.parametrize(
    ("free", "needed", "state"),
    [
        (5 * 10**9, {}, "ok"),
        (5 * 10**8, {}, "note"),
        (5 * 10**9, {"results": 10**9, "cache": 3 * 10**9}, "ok"),
        (5 * 10**9, {"results": 3 * 10**9, "cache": 3 * 10**9}, "bad"),
    ],
)
def test_space_is_compared_with_what_is_needed(
    monkeypatch: pytest.MonkeyPatch,
    folders: Folders,
    free: int,
    needed: dict[str, int],
    state: str,
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free))
    monkeypatch.setattr(places, "file_system", lambda folder: "ext4")
    (found,) = places.check_disk(folders, needed)
    assert found.state == state
    if state == "bad":
        assert "5.0 GB free" in found.found
        assert "6.0 GB needed" in found.found
        assert "--results and --cache" in found.todo


def test_file_systems_with_weak_renames_are_noted(
    monkeypatch: pytest.MonkeyPatch, folders: Folders, tmp_path: Path
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12))
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/a / ext4 rw 0 0\nhost:/x /mnt/a\\040b nfs4 rw 0 0\n"
        f"a {tmp_path} ext4 rw 0 0\nb {tmp_path} tmpfs rw 0 0\n"
    )
    assert places.file_system(Path("/mnt/a b/c"), mounts) == "nfs4"
    assert places.file_system(Path("/mnt/a"), mounts) == "ext4"
    assert places.file_system(tmp_path / "x", mounts) == "tmpfs"
    assert places.file_system(tmp_path, tmp_path / "absent") == ""
    for kind, state in (("tmpfs", "note"), ("nfs4", "note"), ("xfs", "ok"), ("", "ok")):
        monkeypatch.setattr(places, "file_system", lambda folder, kind=kind: kind)
        (found,) = places.check_disk(folders, {})
        assert found.state == state


# Data, weights, suite


def bottle(data: Path, count: int) -> None:
    for place in ("train/good", "test/good", "test/broken"):
        folder = data / "mvtec_ad/bottle" / place
        folder.mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8)).save(folder / f"{i:03}.png")


def test_datasets_that_are_absent_or_unofficial_are_noted(folders: Folders) -> None:
    found = by_name(inputs.check_datasets(folders, None))
    assert {name: f.state for name, f in found.items()} == {
        "mvtec_ad": "note", "brain_mri": "note", "head_ct": "note", "synthetic": "ok",
    }  # fmt: skip
    assert "kaggle.com" in found["head_ct"].todo
    assert found["mvtec_ad"].found.endswith("nor 14 more of 15 categories")
    bottle(folders.data, 1)
    found = by_name(inputs.check_datasets(folders, None))
    assert found["mvtec_ad"].found.endswith("nor 13 more of 15 categories")


def test_a_folder_that_cannot_be_read_is_a_line_for_each_dataset(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    folders.data.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", forbidden)
        patched.setattr(Path, "is_dir", forbidden)
        found = by_name(inputs.check_datasets(folders, None))
    assert list(found) == ["mvtec_ad", "brain_mri", "head_ct", "synthetic"]
    for name in ("mvtec_ad", "brain_mri", "head_ct"):
        assert found[name].state == "note"
        assert "Permission denied" in found[name].found


def test_colons_in_a_path_split_no_finding(tmp_path: Path) -> None:
    home = tmp_path / "a: b" / "c: put d"
    folders = Folders(*(home / name for name in ("data", "weights", "results", "cache")))
    found = by_name(inputs.check_datasets(folders, None))
    assert found["head_ct"].found == f"head_ct is not in {folders.data}"
    assert found["head_ct"].todo == HEAD_CT.remedy(folders.data)
    stray = folders.data / "head_ct/head_ct/stray.png"
    stray.parent.mkdir(parents=True)
    stray.touch()
    found = by_name(inputs.check_datasets(folders, None))
    assert found["head_ct"].found.startswith(f"{stray} is not one of Head-CT's")
    found = by_name(inputs.check_weights(folders, None))
    assert found["resnet18"].found.startswith("no ImageNet weights of resnet18 to stage 4 in ")
    assert found["resnet18"].found.endswith("c: put d/weights")
    assert found["resnet18"].todo.startswith("put https://download.pytorch.org/")


def test_each_weights_file_is_read_once(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    folders.weights.mkdir()
    for name in ("a.pth", "b.pth"):
        (folders.weights / name).write_bytes(name.encode())
    now, read = time.time_ns(), []
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * SETTLED)
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda f, k: read.append(f.name) or digest(f, k))
    for _ in range(2):
        assert {f.state for f in inputs.check_weights(folders, None)} == {"note"}
        assert len(read) == 2


def test_a_cache_that_cannot_be_written_ends_no_check_of_weights(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object) -> None:
        raise StoreError("cannot write")

    monkeypatch.setattr(inputs.FingerprintCache, "save", full)
    assert len(list(inputs.check_weights(folders, None))) == len(BACKBONES)


@pytest.mark.parametrize(("holds", "asked"), [(4, [4]), (3, [4, 3]), (0, [4, 3, 2, 1])])
def test_the_deepest_stage_that_fits_is_found_and_the_deepest_failure_told(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, holds: int, asked: list[int]
) -> None:
    tried: list[int] = []

    def find(backbone: str, stage: int, *_: object) -> Weights:
        tried.append(stage)
        if stage > holds:
            raise MissingWeights(f"none to stage {stage}: put x there")
        return Weights(BackboneSource(backbone, stage, None), "none", "title")

    monkeypatch.setattr(inputs, "find_weights", find)
    found = list(inputs.check_weights(folders, None))
    assert tried == asked * len(BACKBONES)
    said = f"to stage {holds}: title" if holds else "none to stage 4"
    assert [f.found for f in found] == [said] * len(BACKBONES)


SUITE = 'methods = ["cutmix"]\ndata = ["mvtec_ad/bottle"]\nseeds = 1\n[set]\nimage_size = 32\n'


def test_what_a_suite_needs_and_is_missing_is_bad(
    capsys: Capture, quick: None, tmp_path: Path
) -> None:
    Path("mine.toml").write_text(SUITE)
    code, out, _ = call(capsys, "--suite", "mine.toml", "--json")
    assert code == 1
    found = {f["what"]: f for f in json.loads(out)["findings"]}
    assert [w for w, f in found.items() if f["state"] == "bad"] == ["mvtec_ad", "resnet50", "mine"]
    assert "mvtec.com" in found["mvtec_ad"]["todo"]
    assert "download.pytorch.org" in found["resnet50"]["todo"]
    assert "2 cannot be done here" in found["mine"]["found"]
    assert not {"head_ct", "resnet18"} & set(found)


def test_an_unofficial_copy_will_do_and_its_space_is_counted(
    capsys: Capture, quick: None, tmp_path: Path
) -> None:
    Path("mine.toml").write_text(SUITE + 'weights = "none"\n')
    bottle(tmp_path / "data", 11)
    code, out, _ = call(capsys, "--suite", "mine.toml", "--json")
    found = {f["what"]: f for f in json.loads(out)["findings"]}
    assert code == 0
    assert found["mvtec_ad"]["state"] == "note"
    assert "bottle has 33 of 292 images" in found["mvtec_ad"]["found"]
    assert f"{(33 * 3 * 32 * 32 + 2 * 40_000) / 1e6:.1f} MB needed" in found["disk"]["found"]
    assert found["mine"]["found"] == "2 runs wanted, 0 stored, 2 to do"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"error": "gone"}, "torch does not work"),
        (answer(methods={"a:B": "cannot import 'a'"}), "cannot import 'a'"),
    ],
)
def test_a_suite_is_not_planned_where_its_methods_do_not_import(
    capsys: Capture, quick: None, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(doctor, "ask", lambda arguments: told)
    code, out, _ = call(capsys, "--suite", "smoke", "--json")
    suite = json.loads(out)["findings"][-1]
    assert code == 1
    assert (suite["group"], suite["state"]) == ("suite", "bad")
    assert said in suite["found"]


# The command


def test_the_lines_are_aligned_and_the_exit_code_tells(
    capsys: Capture, quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = f"/{'x' * 120}"
    results = os.path.join(tmp_path, "a\x1b[2J" + "é " * 20)
    code, out, err = call(capsys, "--results", results, "--data", long)
    assert (code, err) == (0, "")
    *lines, empty, last = out.splitlines()
    assert last.endswith(" to note, 0 bad")
    assert empty == ""
    assert any(long in line for line in lines)
    assert r"a\x1b[2J" in out
    for line in filter(None, lines):
        assert line[:6].strip() in ("ok", "note", "")
        assert line[28:29] in (" ", "")
        assert line[29:30] != " "
        # Only what has no place to break is longer, and stands alone.
        assert len(line) <= 100 or " " not in line[29:]
    monkeypatch.setattr(doctor, "ask", lambda arguments: answer(check("eigh", 1.0)))
    code, out, _ = call(capsys)
    assert code == 1
    assert out.splitlines()[-1].endswith(", 1 bad")


def test_an_unknown_suite_is_a_bad_request(capsys: Capture, quick: None) -> None:
    code, out, err = call(capsys, "--suite", "nosuch")
    assert (code, out) == (2, "")
    assert "unknown suite 'nosuch'" in err
