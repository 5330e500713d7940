"""The methods that README and CONTRIBUTING show are run as they stand there."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.store.results import receipts
from tests.campaigns import peer_times, step_times
from tests.fixtures.command import Bench

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("document", "file", "method", "lines"),
    [
        ("README.md", "nearest.py", "nearest:Nearest", 20),
        ("CONTRIBUTING.md", "pooled.py", "pooled:Pooled", 25),
    ],
)
def test_the_method_of_ones_own_runs_and_finds_defects(
    tmp_path: Path, warm_cache: Path, document: str, file: str, method: str, lines: int
) -> None:
    text = (ROOT / document).read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    body = code.partition("\nclass ")[2]
    assert len([line for line in body.splitlines() if line.strip()]) <= lines
    (tmp_path / file).write_text(code)
    bench = Bench(tmp_path, warm_cache)
    code_, said = bench(
        "run", "--suite", "smoke", "--method", method, "--categories", "washer", "--shots", "10"
    )
    assert code_ == 0, said
    (receipt,) = receipts(bench.store)
    assert receipt.metrics.auroc > 0.7
    assert receipt.spec.method_source.startswith(f"{method}@")


def test_every_command_that_the_readme_shows_is_understood(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    shown = set(re.findall(r"^(bench [^#\n]*?)\s*(?:#.*)?$", text, re.MULTILINE))
    assert len(shown) >= 7
    for command in shown:
        words = command.split()[1:]
        words = [w for w in words if not w.startswith("-") and w.isalpha()][:2]
        help_for = words[:2] if words[0] == "data" else words[:1]
        done = subprocess.run(
            [sys.executable, "-m", "bench", *help_for, "--help"],
            capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0
        for option in re.findall(r"--[a-z-]+", command):
            assert option in done.stdout, f"{command}: {option}"


def test_the_tables_of_results_are_what_their_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "README.md").read_text()
    command = r"bench (?:table|times) [^>]*"
    quoted = re.findall(rf"<!-- ({command}) -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert quoted
    monkeypatch.chdir(ROOT)
    for command, printed in quoted:
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(command)[1:])
        assert not ended.value.code
        assert capsys.readouterr().out.strip() == printed.strip()


@pytest.mark.parametrize(("name", "script"), [("steps", step_times), ("peers", peer_times)])
def test_the_tables_of_times_are_what_was_measured(name: str, script: Any) -> None:
    text = (ROOT / "README.md").read_text()
    (quoted,) = re.findall(rf"<!-- {name}: (\S+) -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert script.markdown(json.loads((ROOT / quoted[0]).read_text())) == quoted[1].strip()
