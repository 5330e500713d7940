"""The nightly workflow: what it must never do, its commands, and the scripts that it calls."""

import json
import os
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.whole.test_readme import help_for

ROOT = Path(__file__).parents[2]
WORKFLOW = (ROOT / ".github/workflows/nightly.yml").read_text()
SCRIPTS = ROOT / ".ci"


def script(name, *arguments, cwd=None, **environment):
    """Run a script of the workflow."""
    return subprocess.run(
        ["bash", SCRIPTS / name, *map(str, arguments)], cwd=cwd, text=True, capture_output=True,
        env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def test_it_never_runs_for_a_pull_request_and_may_only_read_unless_it_tells():
    triggers = WORKFLOW.partition("permissions:")[0]
    assert re.findall(r"^  (\w+):", triggers, re.M) == ["schedule", "workflow_dispatch"]
    top, _, jobs = WORKFLOW.partition("jobs:")
    assert "permissions:\n  contents: read\n" in top
    granting = re.findall(r"^  (\w+):\n(?:.*\n)*?    permissions:", jobs, re.M)
    assert len(re.findall(r": write", jobs)) == 2
    assert jobs.index("  tell:") < jobs.index(": write") < jobs.index("  watchdog:"), granting


def test_what_an_artefact_holds_is_read_and_never_executed():
    tell = WORKFLOW[WORKFLOW.index("  tell:") : WORKFLOW.index("  watchdog:")]
    commands = re.findall(r"run: (.*)", tell)
    assert commands
    assert all(command.startswith("bash .ci/") for command in commands)


def test_its_commands_and_options_exist_and_its_scripts_too():
    text = WORKFLOW.replace("\\\n", " ")
    commands = re.findall(r"^\s+(?:run: )?(bench [^|\n]*)", text, re.M)
    assert {c.split()[1] for c in commands} >= {"doctor", "run", "verify", "regress", "report"}
    for command in commands:
        name = command.split()[1]
        options = set(re.findall(r"(--[\w-]+)", command))
        known = set(re.findall(r"(--[\w-]+)", help_for(name)))
        assert options <= known, f"{command}: {options - known}"
    called = re.findall(r"bash (\.ci/[\w-]+)", text)
    assert {Path(c).name for c in called} == {"quiet", "keep-history", "tell", "watchdog"}
    assert all((ROOT / c).is_file() for c in called)


def test_a_loaded_machine_and_one_whose_gpu_is_in_use_are_not_quiet(tmp_path):
    assert script("quiet", -1).returncode == 3
    assert script("quiet", 10_000, PATH=os.environ["PATH"]).returncode == 0
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 12, python\n")
    fake.chmod(0o755)
    busy = script("quiet", 10_000, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (busy.returncode, "12, python" in busy.stderr) == (3, True)


@pytest.fixture
def checkout(tmp_path):
    """A clone of an empty repository of its own."""

    def git(*arguments):
        settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *settings, *map(str, arguments)], check=True, capture_output=True)

    clone = tmp_path / "clone"
    git("init", "--bare", tmp_path / "origin")
    git("clone", tmp_path / "origin", clone)
    (clone / "file").write_text("x")
    git("-C", clone, "add", "file")
    git("-C", clone, "commit", "-m", "first")
    git("-C", clone, "push", "origin", "HEAD")
    return clone


def line(hours):
    date = datetime.now(UTC) - timedelta(hours=hours)
    return json.dumps({"date": date.isoformat(timespec="seconds"), "times": {}}) + "\n"


def test_the_history_is_kept_on_a_branch_and_a_silent_runner_is_noticed(checkout, tmp_path):
    def fetched(*arguments):
        subprocess.run(["git", "fetch", "-q", "origin"], cwd=checkout, check=True)
        return script("watchdog", *arguments, cwd=checkout)

    assert fetched().returncode == 1, "no night yet"
    history = tmp_path / "history.jsonl"
    history.write_text("")
    assert script("keep-history", history, cwd=checkout).returncode == 0, "nothing to keep"
    for lines in (line(50), line(50) + line(40)):
        history.write_text(lines)
        kept = script("keep-history", history, cwd=checkout)
        assert kept.returncode == 0, kept.stderr
    assert (fetched().returncode, fetched(41).returncode) == (1, 0)
    shown = subprocess.run(
        ["git", "show", "origin/nightly-history:history.jsonl"], cwd=checkout, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert len(shown.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("code", "open_issue", "asked"),
    [
        ("0", "", []),
        ("1", "", ["issue list --label nightly-regression", "issue create"]),
        ("1", "7", ["issue list --label nightly-regression", "issue comment 7"]),
        ("3", "", ["issue list --label nightly-runner", "issue create"]),
    ],
)
def test_each_kind_of_trouble_has_one_issue(tmp_path, code, open_issue, asked):
    fake, said = tmp_path / "gh", tmp_path / "said"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {said}\n[ "$2" != list ] || echo {open_issue}\n')
    fake.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert script("tell", code, tmp_path / "none", "url", PATH=path).returncode == 0
    lines = said.read_text().splitlines() if said.exists() else []
    assert len(lines) == len(asked)
    assert all(text.startswith(start) for text, start in zip(lines, asked, strict=True))
