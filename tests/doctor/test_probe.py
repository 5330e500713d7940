"""The probe of torch: right, wrong, crashing and hanging arithmetic."""

import json
import os
import sys
from pathlib import Path

import pytest

from bench.doctor import machine, probe
from tests.fixtures.command import ROOT
from tests.fixtures.findings import by_name, check


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
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.5 if "sleep" in code else 30.0)
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
        "cpu linalg.inv": "note",
        "cpu linalg.solve": "note",
        "cuda:0 linalg.inv": "ok",
        "cuda:0 linalg.solve": "ok",
    }


def test_what_no_method_relies_on_may_hang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import time; time.sleep(3600)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probe, "OPTIONAL_TIMEOUT_S", 1.0)
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
        "cpu cholesky": "bad",
        "cpu eigh": "bad",
        "cpu inv": "note",
        "cuda:0 topk": "bad",
        "cpu matmul": "ok",
    }
    assert found["cpu cholesky"].found == (
        "off by 2.0e-07 (1 thread), off by 2.1e-01 where 1e-04 is the most (2 threads)"
    )
    assert found["cpu eigh"].found == "fails (2 threads: no convergence)"
    assert found["cuda:0 topk"].found == "off by 3.0e+00 where 0 is due"
    assert found["cpu matmul"].found == "exact (2 threads)"
