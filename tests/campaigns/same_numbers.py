"""Proves that this tree gives the same numbers as an earlier commit, and records the proof.

`nox -s same_numbers -- REV` runs one suite by each tree's own command and compares scores, maps and
embeddings bit for bit. Of every method whose source hash has changed and whose numbers have not,
`bench/equivalences.json` gets both hashes with the proof: stored runs of the old one are not stale.
A method with any other number is refused, and the command ends with 1: raise its `version`.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.store.artifacts import EMBEDDINGS, EXPLANATIONS
from bench.store.folder import Store
from bench.system.files import write_atomically

ROOT = Path(__file__).parents[2]
SUITE = Path(__file__).with_suffix(".toml")
RECORD = Path("bench/equivalences.json")
CODE = ("bench", "baselines", "atacnet")
VERSIONS = ("python", "torch", "torchvision", "numpy")


@dataclass
class Comparison:
    """What the runs of one method say."""

    runs: list[str] = field(default_factory=list)
    """A line a run, `id scores_sha256`: what the proof is of."""
    hashes: set[tuple[str, str]] = field(default_factory=set)
    """Source hash by the earlier tree and by this one."""
    differences: list[str] = field(default_factory=list)


def check_out(revision: str, folder: Path) -> str:
    """Write the code of a commit to a folder; return the commit's full name."""
    commit = git("rev-parse", "--verify", f"{revision}^{{commit}}")
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit, *CODE], capture_output=True, check=True
    )
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return commit


def copy_tree(folder: Path) -> None:
    """Copy the code as it is now, so that an edit on the way changes nothing."""
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def git(*arguments: str) -> str:
    """Return what git says of the checkout; a refusal ends the command with git's words."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"same_numbers: {done.stderr.strip()}")
    return done.stdout.strip()


def today() -> str:
    """Return the commit of this tree, and whether it has changed since."""
    changed = git("status", "--porcelain", "--", *CODE, f":!{RECORD}")
    return git("rev-parse", "HEAD") + (" and changes" if changed else "")


def narrowed(suite: str, methods: set[str]) -> str:
    """Return a suite's text with the blocks that run any of these methods.

    A parameter of a method that the earlier tree lacks would be refused by its command.
    """
    mark = "\n[[block]]\n"
    head, *blocks = suite.split(mark)
    return mark.join([head, *(b for b in blocks if methods & {*tomllib.loads(b)["methods"]})])


def run_suite(tree: Path, results: Path, options: argparse.Namespace) -> Store:
    """Run the suite by the command of a tree; a run that fails ends the proof."""
    command = [
        sys.executable, "-m", "bench", "run", "--suite", str(options.suite), "--save-maps",
        "--results", str(results), "--cache", f"{results}-cache", "--device", options.device,
        "--threads", "1", "--slots", str(options.slots),
    ]  # fmt: skip
    command += ["--methods", options.methods] if options.methods else []
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, cwd=results.parent, env=environment)
    if done.returncode:
        sys.exit(f"same_numbers: the command of {tree} ended with {done.returncode}")
    return Store(results)


def compare(old: Store, new: Store) -> dict[str, Comparison]:
    """Compare two results folders run by run; return what holds for each method."""
    methods: defaultdict[str, Comparison] = defaultdict(Comparison)
    for run_id in sorted({*old.ids(), *new.ids()}):
        receipts = [store.read(run_id) for store in (old, new) if store.has(run_id)]
        comparison = methods[receipts[0].spec.method]
        if len(receipts) < 2:
            comparison.differences.append(f"{run_id} is not wanted by both trees")
            continue
        comparison.differences += (
            f"{run_id}: other {name}" for name in differing(old, new, run_id)
        )
        comparison.runs.append(f"{run_id} {new.scores(run_id).digest()}")
        earlier, today = (r.provenance.source_sha256 or "" for r in receipts)
        comparison.hashes.add((earlier, today))
    return dict(methods)


def differing(old: Store, new: Store, run_id: str) -> Iterator[str]:
    """Yield what of a run is not the same in both, bit for bit."""
    if old.scores(run_id).digest() != new.scores(run_id).digest():
        yield "scores"
    for name in (EMBEDDINGS, EXPLANATIONS):
        files = [store.runs / run_id / name for store in (old, new)]
        contents = [f.read_bytes() if f.exists() else None for f in files]
        if contents[0] != contents[1]:
            yield name


def proof(
    methods: Mapping[str, Comparison], commits: tuple[str, str], host: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the record of the methods whose source has changed and whose numbers have not."""
    equal = {m: c for m, c in methods.items() if not c.differences}
    hashes = {m: list(*c.hashes) for m, c in equal.items() if any(a != b for a, b in c.hashes)}
    runs = sorted(line for m in hashes for line in equal[m].runs)
    return {
        "by": "same_numbers",
        "old_commit": commits[0],
        "new_commit": commits[1],
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": str(host["device"]).partition(":")[0],
        "machine": host["device_name"] if host["device"] != "cpu" else host["cpu"],
        "versions": {name: host[name] for name in VERSIONS},
        "threads": host["threads"],
        "runs": len(runs),
        "runs_sha256": hashlib.sha256("\n".join(runs).encode()).hexdigest(),
        "hashes": hashes,
    }


def record(entry: Mapping[str, Any], path: Path) -> None:
    """Add a proof to the committed ones."""
    proofs = [*json.loads(path.read_text()), entry]
    write_atomically(path, (json.dumps(proofs, indent=1) + "\n").encode())


def main() -> int:
    """Run both trees, compare and record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, prog="same_numbers")
    parser.add_argument("revision", help="the earlier commit")
    parser.add_argument("--suite", type=Path, default=SUITE)
    parser.add_argument("--methods", help="only these, separated by commas")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--slots", type=int, default=2)
    options = parser.parse_args()
    options.suite = options.suite.resolve()
    with tempfile.TemporaryDirectory(prefix="same-numbers-") as scratch:
        old_tree, new_tree = Path(scratch, "old-tree"), Path(scratch, "new-tree")
        commits = check_out(options.revision, old_tree), today()
        copy_tree(new_tree)
        if options.methods:
            text = narrowed(options.suite.read_text(), set(options.methods.split(",")))
            options.suite = Path(scratch, options.suite.name)
            options.suite.write_text(text)
        old = run_suite(old_tree, Path(scratch, "old"), options)
        new = run_suite(new_tree, Path(scratch, "new"), options)
        methods = compare(old, new)
        if not new.ids():
            sys.exit("same_numbers: the suite has no run of these methods")
        host = new.read(new.ids()[0]).provenance
        entry = proof(methods, commits, host)
    for name, comparison in sorted(methods.items()):
        verdict = "; ".join(comparison.differences) or f"{len(comparison.runs)} runs, the same bits"
        print(f"{name}: {verdict}{'; recorded' if name in entry['hashes'] else ''}")
    if entry["hashes"]:
        record(entry, ROOT / RECORD)
    return int(any(c.differences for c in methods.values()))


if __name__ == "__main__":
    sys.exit(main())
