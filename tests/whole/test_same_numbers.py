"""`nox -s same_numbers`: a rearrangement becomes equivalent, another number is refused."""

import json
import shutil
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.data.splits import SETTINGS
from bench.planning.matrix import PRECISIONS, Selection, expand
from bench.planning.suite import read_suite
from bench.registry import METHODS, Registry
from bench.store.folder import Store
from bench.weights import BACKBONES, STAGES
from tests.campaigns import same_numbers
from tests.campaigns.same_numbers import CODE, RECORD, ROOT, SUITE, narrowed

METHOD = Path("baselines/shortcut.py")
AS_IT_IS = "z[:, self.best] * self.direction"


class Checkout:
    """A repository of its own with the project's code in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        without = shutil.ignore_patterns("__pycache__")
        for name in CODE:
            shutil.copytree(ROOT / name, folder / name, ignore=without)
        for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
            who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
            subprocess.run(["git", "-C", str(folder), *who, *command], check=True)

    def edit(self, replacement: str) -> None:
        text = (ROOT / METHOD).read_text()
        assert text.count(AS_IT_IS) == 1
        (self.folder / METHOD).write_text(text.replace(AS_IT_IS, replacement))

    @property
    def proofs(self) -> list[dict[str, object]]:
        proofs: list[dict[str, object]] = json.loads((self.folder / RECORD).read_text())
        return proofs


def earlier_once(folder: Path) -> Callable[..., Store]:
    """Return `run_suite` that runs the earlier tree, the same each time, once."""
    run_suite = same_numbers.run_suite

    def run(tree: Path, results: Path, *options: Any) -> Store:
        if tree.name != "old-tree":
            return run_suite(tree, results, *options)
        if not folder.exists():
            shutil.copytree(run_suite(tree, results, *options).root, folder)
        return Store(folder)

    return run


def test_a_rearrangement_becomes_equivalent_and_another_number_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    checkout = Checkout(tmp_path / "project")
    monkeypatch.setattr(same_numbers, "ROOT", checkout.folder)
    monkeypatch.setattr(same_numbers, "run_suite", earlier_once(tmp_path / "earlier"))
    monkeypatch.setattr("sys.argv", ["same_numbers", "HEAD", "--methods", "shortcut"])
    committed = checkout.proofs
    checkout.edit("self.direction * z[:, self.best] * 2")
    code = same_numbers.main()
    output = "".join(capfd.readouterr())
    assert code == 1, output
    assert "shortcut:" in output
    assert "other scores" in output
    assert checkout.proofs == committed
    checkout.edit("self.direction * z[:, self.best]")
    assert same_numbers.main() == 0, capfd.readouterr()
    *before, proof = checkout.proofs
    assert before == committed
    assert proof["by"] == "same_numbers"
    assert proof["device"] == "cpu"
    assert proof["runs"] == 2
    assert isinstance(proof["hashes"], dict)
    ((old, new),) = proof["hashes"].values()
    assert old != new


def test_of_some_methods_the_blocks_of_others_are_left_out() -> None:
    text = SUITE.read_text()
    few = tomllib.loads(narrowed(text, {"padim"}))["block"]
    assert all("padim" in block["methods"] for block in few)
    every = [b for b in tomllib.loads(text)["block"] if "padim" in b["methods"]]
    assert few == every
    assert 2 < len(few) < len(tomllib.loads(text)["block"])


def test_the_suite_reaches_every_method_and_what_has_code_of_its_own(cache: Path) -> None:
    registry = Registry(cache)
    reached: dict[tuple[str, str], set[object]] = defaultdict(set)
    for cell in expand(read_suite(str(SUITE)), Selection(), registry, cache):
        name = cell.method.name
        for key, value in {**cell.settings, **cell.parameters}.items():
            reached[name, key].add(value)
        reached[name, "shots"].add(cell.shots)
        reached["all", "setting"].add(cell.setting)
    for name in METHODS:
        card = registry.find(name)
        if card.supervision == "weak":
            assert reached[name, "shots"] == {1, 10}, name
        for key, default in card.defaults.items():
            choices = card.limits[key].get("choices", (True, False) if default in (0, 1) else ())
            if type(default) is bool or "choices" in card.limits[key]:
                assert reached[name, key] >= set(choices), f"{name}.{key}"
        if "scales" in card.defaults:
            assert reached[name, "scales"] == {1, 2}, name
        if "precision" in card.settings:
            assert reached[name, "precision"] == set(PRECISIONS), name
        if "external" in card.settings:
            assert reached[name, "external"] >= {"textures", "none"}, name
    for key, values in (("backbone", BACKBONES), ("stage", range(1, STAGES + 1))):
        assert set().union(*(reached[name, key] for name in METHODS)) >= set(values), key
    assert reached["all", "setting"] == set(SETTINGS)
