"""The command `bench doctor`, for real and with a stand-in for the probe."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import doctor
from bench.cli import main
from bench.doctor import machine, probe
from tests.fixtures.command import ROOT
from tests.fixtures.findings import answer, bottle, check

Capture = pytest.CaptureFixture[str]


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
    assert "bottle: 11 of 209 normal training images; 11 of 20" in found["mvtec_ad"]["found"]
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
