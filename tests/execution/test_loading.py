"""What ran is what is recorded: the source that a process has loaded."""

import importlib
import importlib.util
import json
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from bench.code import file_digests
from bench.errors import CodeError
from bench.execution import loading
from bench.execution.loading import also_loaded, check_loaded, record_sources
from bench.source import method_code, source_hash
from bench.store.failures import Failure
from bench.store.groups import Provenance
from bench.store.receipt import Receipt
from bench.store.results import receipts
from tests.fixtures.command import Bench

METHOD = """
from dataclasses import dataclass
import importlib
import numpy as np
from lib.{helper} import statistic

class {name}:
    name, version, supervision, settings = "{module}", 1, "unsupervised", frozenset()

    @dataclass(frozen=True)
    class Parameters:
        tag: str = "a"

    def __init__(self, parameters): ...

    def fit(self, train, context):
        importlib.import_module("li" + "b.late")

    def score(self, samples):
        return statistic(samples.images).astype(np.float32)
"""
STATISTIC = "def statistic(images): return images[:, 0].astype(float).max((1, 2))\n"
CHANGES_ITSELF = STATISTIC + "open(__file__, 'a').write('rate = 1\\n')\n"


@pytest.fixture
def recorded(monkeypatch):
    """Record sources in this process; afterwards nothing is recorded."""
    monkeypatch.setattr(loading, "_LOADED", {})
    monkeypatch.setattr(SourceFileLoader, "get_code", SourceFileLoader.get_code)
    record_sources()


def planned(module):
    return file_digests(method_code(module))


def test_what_is_loaded_counts_not_what_the_disk_holds_by_now(write, recorded):
    write(mine="rate = 1\n")
    plan = planned("mine")
    importlib.import_module("mine")
    write(mine="rate = 2\n")
    check_loaded("mine", plan)
    with pytest.raises(CodeError, match="it changed meanwhile"):
        check_loaded("mine", planned("mine"))


def test_code_that_was_changed_before_it_was_loaded_is_no_code_of_the_plan(write, recorded):
    write(mine="from helper import rate\n", helper="rate = 1\n")
    plan = planned("mine")
    write(helper="rate = 2\n")
    importlib.import_module("mine")
    with pytest.raises(CodeError, match=r"helper ran from .*helper.py .* planned from") as caught:
        check_loaded("mine", plan)
    assert caught.value.source_sha256 == source_hash("mine")


def test_a_comment_is_no_other_code(write, recorded):
    write(mine="rate = 1\n")
    plan = planned("mine")
    write(mine="rate = 1  # a share\n")
    importlib.import_module("mine")
    check_loaded("mine", plan)


def test_another_file_of_the_name_is_named_beside_the_planned_one(write, recorded, tmp_path):
    write(mine="rate = 1\n")
    plan = planned("mine")
    other = tmp_path / "other" / "mine.py"
    other.parent.mkdir()
    other.write_text("rate = 2\n")
    sys.path.insert(0, str(other.parent))  # the fixture takes it off again
    importlib.import_module("mine")
    with pytest.raises(CodeError) as caught:
        check_loaded("mine", plan)
    assert f"ran from {other} " in str(caught.value)
    assert f"planned from {plan['mine'].file} " in str(caught.value)


def test_a_planned_module_that_is_not_loaded_takes_no_part(write, recorded):
    write(mine="def late():\n    import heavy\n", heavy="rate = 1\n")
    plan = planned("mine")
    importlib.import_module("mine")
    write(heavy="rate = 2\n")
    check_loaded("mine", plan)
    importlib.import_module("heavy")
    with pytest.raises(CodeError, match="heavy"):
        check_loaded("mine", plan)


def test_without_a_record_the_file_of_a_loaded_module_counts(write):
    write(mine="rate = 1\n")
    plan = planned("mine")
    importlib.import_module("mine")
    check_loaded("mine", plan)
    write(mine="rate = 2\n")
    with pytest.raises(CodeError, match="mine"):
        check_loaded("mine", plan)


def test_what_no_statement_names_is_reported_by_path_and_digest(write, recorded, tmp_path):
    by_path = tmp_path / "plugin.py"
    by_path.write_text("rate = 1\n")
    write(
        mine="import importlib, json\nimportlib.import_module('li' + 'b.late')\n",
        lib__late="rate = 1\n",
        lib__empty='"""Nothing."""\n',
    )
    plan = planned("mine")
    importlib.import_module("mine")
    importlib.import_module("lib.empty")
    importlib.import_module("baselines.shortcut")
    spec = importlib.util.spec_from_file_location("plugin", by_path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    files = json.loads(also_loaded("mine", plan))
    assert files.keys() == {"lib/late.py", str(by_path)}
    about = Provenance({"source_sha256": source_hash("mine"), "also_loaded": json.dumps(files)})
    assert not about.standing("mine:Mine").stale
    by_path.write_text("rate = 1  # a comment\n")
    assert not about.standing("mine:Mine").stale
    by_path.write_text("rate = 2\n")
    assert about.standing("mine:Mine").stale


def test_a_method_that_loads_what_its_imports_name_has_nothing_else(write, recorded):
    write(mine="from lib.helper import rate\n", lib__helper="rate = 1\n")
    importlib.import_module("mine")
    assert also_loaded("mine", planned("mine")) is None


# A command in a folder with files of others' names


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, warm_cache: Path) -> tuple[Bench, str]:
    """Run methods from a folder that has a `random.py` and a changed copy of a method."""
    command = Bench(tmp_path_factory.mktemp("hostile"), warm_cache)
    for name in ("random", "numpy", "torch", "tempfile", "json"):
        (command.folder / f"{name}.py").write_text("raise SystemExit('not to be loaded')")
    for file, text in {
        "mine.py": METHOD.format(name="Mine", module="mine", helper="helper"),
        "shifty.py": METHOD.format(name="Shifty", module="shifty", helper="changes"),
        "baselines/__init__.py": "",
        "baselines/shortcut.py": "raise SystemExit('not to be loaded')",
        "lib/helper.py": STATISTIC,
        "lib/changes.py": CHANGES_ITSELF,
        "lib/late.py": "rate = 1\n",
    }.items():
        path = command.folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    suite = command.suite("mine:Mine", "shifty:Shifty", "shortcut")
    code, said = command.apart("run", "--suite", suite, "--threads", "1")
    assert code == 1, said
    return command, said


def stored(command: Bench) -> dict[str, Receipt]:
    return {receipt.spec.method: receipt for receipt in receipts(command.store)}


def failure(command: Bench) -> Failure:
    (folder,) = command.store.failed.iterdir()
    (record,) = command.store.failures(folder.name)
    return record


def test_methods_run_from_a_folder_with_files_of_others_names(hostile):
    runs = stored(hostile[0])
    assert runs.keys() == {"mine", "shortcut"}
    assert runs["shortcut"].provenance.source_sha256 == source_hash("baselines.shortcut")
    assert runs["shortcut"].provenance.also_loaded is None


def test_a_run_says_what_it_loaded_beside_its_imports(hostile):
    receipt = stored(hostile[0])["mine"]
    assert json.loads(receipt.provenance.also_loaded).keys() == {"lib/late.py"}
    assert any("no import statement names" in warning for warning in receipt.warnings)


def test_a_run_of_other_code_than_was_planned_is_a_recorded_failure(hostile):
    command, said = hostile
    record = failure(command)
    file = command.folder / "lib" / "changes.py"
    assert record.kind == "code"
    assert f"lib.changes ran from {file} " in record.reason
    assert f"planned from {file} " in record.reason
    assert "lib.changes ran from" in said
    assert record.provenance.source_sha256
