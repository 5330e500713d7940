"""The memory that a dry run foretells, against the memory that a step really takes.

Measured by hand beyond what a test can afford, on a CPU in one thread, growth of the resident size
over a process that has imported torch: ResNet-18, 448 px, batch 48, two scales: devnet 5544 MiB in
float32 and 3272 in bfloat16, dra (thirds) 6199 and 3644, saoe (60 images, 12 of them external)
6763 and 4084; ResNet-50 to stage 3, 224 px, batch 16, bfloat16: devnet 1062, dra 1336, saoe 1267,
atacnet 1609, cutmix 1070; float32: 1601, 2000, 1905, 2977, 1712. The tensors of the rehearsal are
.66 to .96 of it, more for larger steps.
"""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.cli.dry_run import RUN_MODULES
from bench.data.catalog import MVTEC_AD
from bench.data.images import prepare
from bench.errors import RequestError
from bench.planning.matrix import Selection, expand
from bench.planning.plan import Folders, plan_runs
from bench.planning.rehearsal import (
    FIXED,
    MARGIN,
    estimate_problem,
    process_base,
    rehearsed,
    step_bytes,
    torch_internals,
)
from bench.planning.resources import (
    Memory,
    disk_space,
    image_bytes,
    map_bytes,
    memory_of,
    to_decode,
)
from bench.planning.suite import read_suite
from bench.planning.variants import variant_of
from bench.registry import Registry
from bench.store.artifacts import MAPS
from bench.store.groups import SplitCounts
from tests.fixtures.plans import receipt
from tests.fixtures.runs import bench as call

MIB = 1 << 20
MEASURED = {  # by hand, see above
    ("devnet", "float32"): 5544,
    ("devnet", "bfloat16"): 3272,
    ("dra", "float32"): 6199,
    ("dra", "bfloat16"): 3644,
    ("saoe", "float32"): 6763,
    ("saoe", "bfloat16"): 4084,
}
# How far a process has grown, and how much of that are pages of libraries' files: how many of these
# come in differs from run to run, other processes share them, and the kernel may drop them. They
# need no room of their own.
PROBE = """
import json, os, re, sys
import numpy, torchvision, bench.execution.worker
from bench.detector import BackboneSource, Context, Samples, Seeds, TrainingSet
from bench.registry import METHODS, load_class

def g(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

def samples(n, size):
    facts = numpy.zeros(n, int)
    images = numpy.random.RandomState(0).randint(0, 256, (n, 3, size, size), numpy.uint8)
    return Samples(images, ("",) * n, facts, facts, ("RGB",) * n, facts)

def context_of(stage, **given):
    return Context("cpu", Seeds(0, "d", "c"),
                   backbone=BackboneSource("resnet18", stage, None), **given)

def a_step(cls, size, batch, stage, scales):
    context = context_of(stage, batch_size=batch,
                         external=numpy.zeros((1, 3, size, size), numpy.uint8))
    cls(cls.Parameters(scales=scales)).rehearse(size, context)

def all_of_it(cls, normal, tested, given):
    detector = cls(cls.Parameters(**given))
    detector.fit(TrainingSet(normal, samples(0, normal.images.shape[2])), context_of(3))
    detector.score(tested)

bench.execution.determinism.make_deterministic(1, 0)
for name, *case in json.loads(sys.argv[1]):
    if os.fork():  # as a run's process is made of its server's
        assert os.wait()[1] == 0, name
        continue
    cls, told = load_class(METHODS[name].path), None
    work, arguments = a_step, case
    if isinstance(case[-1], dict):
        n, size, given = case
        work, arguments = all_of_it, (samples(n, size), samples(8, size), given)
        told = cls(cls.Parameters(**given)).memory(n, size, context_of(3))
    base, files = g("VmRSS"), g("RssFile")
    work(cls, *arguments)
    # Not ru_maxrss, which an exec'd process takes over from the one that started it.
    print(json.dumps([told, g("VmHWM") - base, g("RssFile") - files]), flush=True)
    os._exit(0)
"""
STEPS = [("devnet", 128, 16, 4, 1), ("dra", 96, 12, 2, 1), ("saoe", 112, 12, 4, 2)]
"""Methods, the side of images, how many are in a batch, the backbone's stage, and scales."""
REMEMBERING = [
    ("padim", 60, 128, {"channels": 448}),  # fewer images than channels
    ("padim", 110, 128, {}),
    ("patchcore", 30, 128, {"coreset": 0.002}),
    ("patchcore", 40, 128, {"coreset": 0.8, "projection": 16}),
    ("spade", 60, 128, {}),
]
"""Methods, normal images, their side, and parameters."""


@pytest.fixture(scope="module")
def probed() -> dict[str, list[Any]]:
    """What was told of every step and method, how far its process grew, and of that files."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("reads sizes as Linux tells them")
    cases = [json.dumps(case) for case in (*STEPS, *REMEMBERING)]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, f"[{','.join(cases)}]"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(zip(cases, map(json.loads, done.stdout.splitlines()), strict=True))


def cells(warm_cache: Path, tmp_path: Path, suite: str, *overrides: str, **narrowing: Any) -> Any:
    given = Selection(overrides=overrides, **narrowing)
    return expand(read_suite(suite), given, Registry(warm_cache), tmp_path)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_takes_about_what_was_foretold(
    warm_cache: Path, tmp_path: Path, probed: dict[str, list[Any]], step: tuple[Any, ...]
) -> None:
    """SAOE at a quarter of its authors' side and batch: 15 images of 112 px, not 60 of 448."""
    method, size, batch, stage, scales = step
    bent = (f"image_size={size}", f"batch_size={batch}", f"stage={stage}", f"scales={scales}")
    (cell, *_) = cells(warm_cache, tmp_path, "smoke", *bent, methods=(method,))
    told = rehearsed(variant_of(cell))
    assert told is not None
    _, measured, files = probed[json.dumps(step)]
    own = measured - files
    assert told < own, "tensors alone are less than what is resident"
    assert 0.9 * own < step_bytes(told) < 1.6 * own


@pytest.mark.parametrize("case", REMEMBERING, ids=str)
def test_what_is_remembered_takes_about_what_was_foretold(
    probed: dict[str, list[Any]], case: tuple[Any, ...]
) -> None:
    told, measured, files = probed[json.dumps(case)]
    assert (measured - files) / 1.5 < told + FIXED < 1.5 * measured


@pytest.mark.parametrize(("method", "precision"), MEASURED)
def test_the_authors_own_settings_are_foretold_as_they_were_measured(
    warm_cache: Path, tmp_path: Path, method: str, precision: str
) -> None:
    (cell, *_) = cells(
        warm_cache, tmp_path, "table1-published", f"precision={precision}", methods=(method,)
    )
    assert (cell.settings["image_size"], cell.settings["batch_size"]) == (448, 48)
    told = rehearsed(variant_of(cell))
    assert told is not None
    measured = MEASURED[method, precision] * MIB
    assert 0.9 * measured < told < measured
    assert measured < step_bytes(told) < 1.3 * measured


def test_a_dry_run_prints_the_memory_of_the_authors_own_settings(
    warm_cache: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process, a step as it was measured and what it may take more, and the images."""
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = call(
        capsys, "run", "--suite", "table1-published", "--dry-run", "--device", "cpu",
        "--data", tmp_path, "--weights", tmp_path, "--results", tmp_path / "results",
        "--cache", warm_cache,
    )  # fmt: skip
    assert code == 0
    assert "memory, estimated" in out
    rows = re.findall(r"^(devnet|dra|saoe) .*?([\d.]+) GiB", out, re.MULTILINE)
    assert [name for name, _ in rows] == ["devnet", "dra", "saoe"]
    most = max(facts.images for facts in MVTEC_AD.categories.values() if facts)
    rest = process_base(RUN_MODULES) + 2 * most * 3 * 448 * 448
    for name, printed in rows:
        step = MEASURED[name, "float32"] * MIB
        assert rest + step < float(printed) * 2**30 < rest + 1.3 * step
    largest = max(float(printed) for _, printed in rows)
    assert f"memory: a run takes up to {largest:.1f} GiB" in out


def test_what_a_step_takes_has_a_fixed_and_a_growing_part() -> None:
    assert step_bytes(0) == FIXED
    assert step_bytes(1000 * MIB) == FIXED + round(MARGIN * 1000 * MIB)


def test_a_rehearsal_is_shared_by_variants_of_one_step(
    warm_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cell, *_) = cells(warm_cache, tmp_path, "smoke", methods=("devnet",))
    variant = variant_of(cell)
    first = rehearsed(variant)
    monkeypatch.setattr(
        "bench.planning.rehearsal.rehearsed_peak", lambda *_: pytest.fail("once is enough")
    )
    for key, value in (("lr", 0.5), ("epochs", 7)):
        assert rehearsed(replace(variant, settings={**variant.settings, key: value})) == first


def test_a_method_that_cannot_rehearse_is_unknown_until_it_has_run(
    warm_cache: Path, tmp_path: Path
) -> None:
    folders = Folders(tmp_path, tmp_path, tmp_path / "results", warm_cache)
    wanted = plan_runs(cells(warm_cache, tmp_path, "smoke", methods=("shortcut",)), folders).runs
    variant = variant_of(wanted[0].planned)
    assert memory_of(variant, wanted, [], "cpu", tmp_path, RUN_MODULES).likely is None
    stored = receipt(wanted[0], peak_memory_bytes=300 * MIB)
    found = memory_of(variant, wanted, [stored], "cpu", tmp_path, RUN_MODULES)
    assert (found.estimated, found.measured) == (None, 300 * MIB)
    assert memory_of(variant, wanted, [stored], "cuda:0", tmp_path, RUN_MODULES).measured is None


def test_maps_that_are_kept_are_part_of_the_estimate(warm_cache: Path, tmp_path: Path) -> None:
    folders = Folders(tmp_path, tmp_path, tmp_path / "results", warm_cache)
    (run, *_) = plan_runs(cells(warm_cache, tmp_path, "smoke", methods=("devnet",)), folders).runs

    def asked(*stored: Any, keep: frozenset[str] = MAPS) -> Memory:
        return memory_of(variant_of(run.planned), [run], stored, "cpu", tmp_path, RUN_MODULES, keep)

    plain, kept = asked(keep=frozenset()).estimated, asked().estimated
    assert plain is not None
    assert kept is not None
    assert kept - plain == map_bytes(run, tmp_path) == 4 * 128 * 64 * 64
    about = {"peak_memory_bytes": 300 * MIB, "artifacts_peak_memory_bytes": 400 * MIB}
    stored = receipt(run, **about)
    assert asked(stored).measured == 400 * MIB
    assert asked(stored, keep=frozenset()).measured == 300 * MIB


def test_what_was_measured_grows_with_the_images(warm_cache: Path, tmp_path: Path) -> None:
    """A run of another category or dataset says little of a larger one, unless it is told so."""
    folders = Folders(tmp_path, tmp_path, tmp_path / "results", warm_cache)
    (run, *_) = plan_runs(cells(warm_cache, tmp_path, "smoke", methods=("shortcut",)), folders).runs
    for images, more in ((192, 0), (500, 0), (100, 92)):
        split = SplitCounts({"train_normal": 30, "scored": images - 30})
        stored = replace(receipt(run, peak_memory_bytes=300 * MIB), split=split)
        found = memory_of(
            variant_of(run.planned), [run], [stored], "cpu", tmp_path, RUN_MODULES
        ).measured
        assert found == 300 * MIB + more * 2 * 3 * 64 * 64


def test_images_are_counted_twice_and_external_ones_as_well(
    warm_cache: Path, tmp_path: Path
) -> None:
    folders = Folders(tmp_path, tmp_path, tmp_path / "results", warm_cache)
    narrowed = cells(warm_cache, tmp_path, "smoke", methods=("devnet", "saoe"), shots=(10,))
    runs = plan_runs(narrowed, folders).runs
    one = {r.spec.method: image_bytes(r, tmp_path) // (2 * 3 * 64 * 64) for r in runs}
    assert one["devnet"] == 64 + 32 + 96
    assert one["saoe"] == one["devnet"] + 48


def test_what_is_in_the_cache_is_not_decoded_again(cache: Path, tmp_path: Path) -> None:
    folders = Folders(tmp_path, tmp_path, tmp_path / "results", cache)
    narrowed = cells(cache, tmp_path, "smoke", categories=("washer",), methods=("devnet",))
    runs = plan_runs(narrowed, folders).runs
    (left,) = to_decode(runs, cache)
    assert (left.images, left.bytes) == (192, 192 * 3 * 64 * 64)
    prepare(runs[0].listing, runs[0].spec.fingerprint, cache, 64)
    assert to_decode(runs, cache) == []


def test_folders_of_one_disk_are_added_up(tmp_path: Path) -> None:
    folders = Folders(tmp_path, tmp_path, tmp_path / "results", tmp_path / "cache" / "deep")
    (room,) = disk_space(folders, {"cache": 5, "results": 7})
    assert (set(room.options), room.needed) == ({"cache", "results"}, 12)
    assert room.free > 0


def test_a_process_that_has_done_nothing_yet_takes_some_hundred_megabytes() -> None:
    assert 100 * MIB < process_base(RUN_MODULES) < 4000 * MIB


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch._subclasses.fake_tensor", "FakeTensorMode"),
        ("torch.utils._python_dispatch", "TorchDispatchMode"),
        ("torch.utils._pytree", "tree_leaves"),
    ],
)
def test_a_torch_without_its_private_names_is_one_clear_line(
    warm_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    """And the estimate is unknown, not an error."""
    import torch

    assert estimate_problem() == ""
    monkeypatch.delattr(f"{module}.{name}")
    monkeypatch.setattr("bench.planning.rehearsal._peaks", {})
    with pytest.raises(RequestError) as caught:
        torch_internals()
    assert (
        str(caught.value)
        == estimate_problem()
        == (
            f"memory cannot be estimated: torch {torch.__version__} has no {module}.{name};"
            " measure it by a first run, or install an older torch"
        )
    )
    monkeypatch.setattr("bench.planning.rehearsal._PRIVATE", (("torch.no_such_module", "x"),))
    assert "has no torch.no_such_module.x" in estimate_problem()
    (cell, *_) = cells(warm_cache, tmp_path, "smoke", methods=("devnet",))
    assert rehearsed(variant_of(cell)) is None


def test_a_dry_run_with_such_a_torch_says_unknown(
    warm_cache: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("bench.planning.rehearsal._PRIVATE", (("torch.no_such_module", "x"),))
    monkeypatch.setattr("bench.planning.rehearsal._peaks", {})
    code, out, _ = call(
        capsys, "run", "--suite", "smoke", "--methods", "devnet", "--dry-run", "--device", "cpu",
        "--data", tmp_path, "--results", tmp_path / "results", "--cache", warm_cache,
    )  # fmt: skip
    assert code == 0
    assert "memory: unknown; a first run will tell" in out
    assert "warning: memory cannot be estimated: torch" in out
    assert "has no torch.no_such_module.x; measure it by a first run" in out
