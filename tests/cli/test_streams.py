"""Standard streams that are closed, lose their reader or cannot show a character."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.command import ROOT, Bench

LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Python takes text and file names for ASCII."""


def shell(line: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [
            "bash",
            "-c",
            f"set -o pipefail; bench() {{ '{sys.executable}' -m bench \"$@\"; }}; {line}",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        timeout=100,
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("bench audit | true", 0),
        ("bench audit >&-", 0),
        ("bench audit <&- >&- 2>&-", 0),
        ("bench --version | true", 0),
        ("bench list suites --nosuch 2>&1 >&- | true", 2),
        ("bench status --suite nosuch >&- 2>&-", 2),
    ],
)
def test_a_stream_without_a_reader_changes_no_exit_code(line: str, code: int) -> None:
    done = shell(line)
    assert (done.returncode, done.stderr) == (code, b"")


@pytest.mark.parametrize("command", ["audit", "--version", "--help"])
def test_a_full_disk_under_the_output_is_one_line(command: str) -> None:
    done = shell(f"bench {command} > /dev/full")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"No space left on device" in done.stderr


def test_a_terminal_of_few_characters_gets_a_mark_for_each_other_one(tmp_path: Path) -> None:
    folder = tmp_path / "schr\xe4ubchen"
    folder.mkdir()
    done = shell(f"bench report --data '{folder}/gr\xf6\xdfe'; bench list --help", **LOCALE)
    assert done.stdout.isascii()
    assert b"Usage" in done.stdout
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_run_goes_on_where_nobody_reads_its_output(tmp_path: Path, warm_cache: Path) -> None:
    """Also in a folder that the locale's encoding cannot name."""
    folder = tmp_path / "schr\xe4ubchen"
    folder.mkdir()
    bench = Bench(folder, warm_cache)
    suite = bench.suite("shortcut")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", "--suite", suite, "--threads", "1"],
        env={**bench.environment(), **LOCALE}, cwd=folder, stdout=writer, stderr=writer,
        timeout=100,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == 0
    (run_id,) = bench.store.ids()
    assert bench.store.read(run_id).metrics.auroc >= 0
