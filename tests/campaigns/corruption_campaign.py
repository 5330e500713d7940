"""Damages results and caches at random and looks whether it is found and healed.

    python -m tests.campaigns.corruption_campaign --damages 500 --seed 0

Truncates, zeroes, flips one bit, deletes and swaps files. `bench verify` must name every damaged
run and table; the same command must quarantine the runs, heal the caches and end with the numbers
that it had. `tests/whole/test_corruption.py` runs a short one.
"""

import argparse
import collections
import contextlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.data import synthetic
from bench.data.images import load
from bench.store.folder import Store
from bench.store.verify import leftovers, problems
from bench.system.digests import SETTLED, FingerprintCache
from bench.system.files import unsealed
from tests.campaigns.kill_campaign import assert_equal, rows
from tests.fixtures.command import Bench

SUITE = """
methods = ["shortcut", "cutmix"]
data = ["synthetic/washer", "synthetic/weave"]
shots = [1, 10]
[set]
image_size = 32
backbone = "resnet18"
stage = 1
weights = "none"
epochs = 2
steps_per_epoch = 2
"""


def truncate(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(max(1, len(content)))])


def zero(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = rng.randrange(max(1, len(content)))
    end = min(len(content), start + 4096)
    content[start:end] = bytes(end - start)
    path.write_bytes(content)


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def delete(path: Path, _: random.Random) -> None:
    path.unlink()


def swap(path: Path, other: Path) -> None:
    aside = path.with_name("aside")
    os.rename(path, aside)
    os.rename(other, path)
    os.rename(aside, other)


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "truncated": truncate, "zeroed": zero, "one bit": flip, "deleted": delete,
}  # fmt: skip


@dataclass
class Campaign:
    """Results and a cache that are damaged again and again."""

    folder: Path
    random: random.Random
    seeds: int = 2
    """Each of them means eight runs."""
    done: collections.Counter[str] = field(default_factory=collections.Counter)
    rounds: int = 0

    def __post_init__(self) -> None:
        (self.folder / "suite.toml").write_text(SUITE)
        self.cache = self.folder / "cache"
        self.store = Store(self.folder / "results")
        for _ in range(2):  # digests of files that are seconds old are not kept
            code, said = self.run()
            assert code == 0, said
            time.sleep(SETTLED / 1e9)
        self.undisturbed = rows(self.store)
        self.facts = self.cache_facts()

    def run(self) -> tuple[int, str]:
        options = ("--suite", "suite.toml", "--seeds", str(self.seeds), "--threads", "1")
        return Bench(self.folder, self.cache)("run", *options)

    def files(self) -> list[Path]:
        """Return what can be damaged: everything stored, and of the many bitmaps a few."""
        stored = [p for p in self.store.runs.rglob("*") if p.is_file()] + [self.store.table]
        kept = [p for p in self.cache.rglob("[!.]*") if p.is_file()]
        cached = [p for p in kept if p.suffix != ".bmp"]
        bitmaps = list((self.cache / "datasets").rglob("*.bmp"))
        return stored * 2 + cached * 8 + self.random.sample(bitmaps, 12)

    def damage(self, count: int) -> set[Path]:
        """Damage so many files; return those that are no longer what they were."""
        before: dict[Path, bytes] = {}
        changed: set[Path] = set()
        while len(changed) < count:
            path = self.random.choice(self.files())
            other = self.random.choice(self.files())
            if path in before or other in before or path == other or not path.is_file():
                continue
            kind = self.random.choice([*DAMAGES, "swapped"])
            touched = (path, other) if kind == "swapped" else (path,)
            before |= {p: p.read_bytes() for p in touched}
            if kind == "swapped":
                swap(path, other)
            else:
                DAMAGES[kind](path, self.random)
            really = {p for p in touched if not p.is_file() or p.read_bytes() != before[p]}
            if really:
                self.done[kind] += 1
                changed |= really
        return changed

    def round(self, count: int) -> None:
        """Damage, look, heal, and compare with what there was."""
        # Of each category one run is missing, so that the command has a use for the caches.
        for place in ("washer", "weave"):
            runs = [r["run_id"] for r in self.undisturbed if r["category"] == place]
            shutil.rmtree(self.store.runs / self.random.choice(runs))
        table = self.table_rows()
        changed = self.damage(count)
        runs = {p.parent.name for p in changed if p.is_relative_to(self.store.runs)}
        told = "\n".join([*problems(self.store), *leftovers(self.store)])
        assert all(f"run {run} is damaged" in told for run in runs), (runs, told)
        if self.table_rows() != table:  # a stray bit may leave what a table says as it was
            assert "runs.parquet" in told
        quarantined = self.quarantined()
        code, said = self.run()
        assert code == 0, said
        assert all(f"run {run} did not verify" in said for run in runs), said
        assert self.quarantined() - quarantined == len(runs)
        assert list(problems(self.store)) == []
        assert_equal(rows(self.store), self.undisturbed)
        assert self.cache_facts() == self.facts, changed
        self.rounds += 1

    def table_rows(self) -> list[dict[str, Any]] | None:
        """Return what the table says; nothing where it does not read."""
        try:
            return rows(self.store)
        except Exception:  # whatever Arrow makes of damaged bytes
            return None

    def quarantined(self) -> int:
        folder = self.store.quarantine
        return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0

    def cache_facts(self) -> dict[str, Any]:
        """Return what the caches say; raises where one of them is damaged."""
        digests = FingerprintCache(self.cache)
        generated = self.cache / "datasets" / f"synthetic-v{synthetic.SYNTHETIC_VERSION}"
        facts: dict[str, Any] = {
            name: synthetic.content_digest(generated / name, digests)
            for name in ("washer", "weave")
        }
        for folder in (self.cache / "images").glob("[!.]*"):
            images = load(folder)
            facts[folder.name] = (images.facts, images.pixels.tobytes())
        cards = (self.cache / "methods.json").read_bytes()
        facts["methods"] = unsealed("method cards with abilities and epochs", cards)
        assert unsealed("sha256 of files", (self.cache / "sha256.json").read_bytes())
        return facts

    def go(self, damages: int) -> None:
        """Go on until so many files were damaged."""
        while sum(self.done.values()) < damages:
            self.round(min(8, damages - sum(self.done.values())))


@contextlib.contextmanager
def campaign(seed: int, seeds: int = 2) -> Iterator[Campaign]:
    """Yield a campaign in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Campaign(Path(folder), random.Random(seed), seeds)


def main() -> None:
    """Run a campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--damages", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    began = time.monotonic()
    with campaign(chosen.seed) as made:
        made.go(chosen.damages)
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(made.done.items()))
        print(
            f"{sum(made.done.values())} damages ({kinds}) in {made.rounds} rounds and"
            f" {time.monotonic() - began:.0f} s: all found and healed, no number changed"
        )


if __name__ == "__main__":
    main()
