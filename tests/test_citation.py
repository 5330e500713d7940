"""What stands beside the code: how to cite it, and the versions of the reference runs."""

import re
import tomllib
from pathlib import Path

import bench
from bench.store.open import open_results
from bench.store.results import receipts

ROOT = Path(__file__).parents[1]


def test_the_citation_names_this_version_and_the_paper() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {bench.__version__}\n" in text
    assert "arXiv:2406.14398" in text
    for key in ("cff-version", "message", "title", "authors", "license"):
        assert re.search(rf"^{key}:", text, re.MULTILINE), key


def test_the_constraints_are_the_dependencies_as_the_reference_runs_had_them() -> None:
    lines = (ROOT / "results/constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least = dict(dependency.split(">=") for dependency in project["dependencies"])
    assert pinned.keys() == least.keys()
    for name, version in least.items():
        have, need = ([*map(int, v.split("."))] for v in (pinned[name], version))
        assert have >= need, name
    archive = open_results(ROOT / "results/reference/amd-epyc-2-cores-cpu-2026-11")
    for receipt in receipts(archive):
        stated = {k: receipt.provenance.get(k) for k in [*pinned][:5]}
        assert stated == {k: pinned[k] for k in stated}
