"""What timing runs measure, by hand and end to end; that nothing takes them for results."""

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import comb
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from bench.cli.progress import PlainDisplay
from bench.cli.result_tables import result_tables
from bench.cli.runs import _slots
from bench.data.images import CategoryImages, read_samples
from bench.data.listing import File
from bench.detector import Explanation
from bench.errors import RequestError
from bench.execution import timing
from bench.execution.timing import BATCH, Budget, Meter, Stopwatch, measure, median_interval
from bench.planning.matrix import PlannedRun, Selection, expand
from bench.planning.plan import Folders, Plan, Run, plan_runs
from bench.planning.runtime import time_left
from bench.planning.slots import Slot
from bench.planning.state import compare_with_store
from bench.planning.suite import read_suite
from bench.registry import Registry
from bench.store.agreement import agreement
from bench.store.archive import Archive, pack
from bench.store.folder import Store
from bench.store.merge import merge_results
from bench.store.parquet import unpacked
from bench.store.results import receipts
from bench.store.table import flat
from bench.store.verify import problems
from bench.system import load as watch
from bench.text import compact
from tests.fixtures.command import Bench
from tests.fixtures.runs import HERE, SCORES, SPEC, changed, receipt_of, store_at
from tests.fixtures.runs import bench as call

TIMING = """
kind = "timing"
methods = [{methods}]
data = ["synthetic/washer"]
shots = [10]
seeds = {seeds}
[set]
image_size = 32
backbone = "resnet18"
stage = 1
weights = "none"
epochs = 1
steps_per_epoch = 3
"""
LATENCY = ("s", "low_s", "high_s", "p95_s", "repeats")
ALWAYS = {f"{what}_{part}" for what in ("latency", "latency_file") for part in LATENCY} | {
    "throughput_per_s", "throughput_file_per_s", "throughput_repeats", "throughput_file_repeats",
    "yardstick_s", "yardstick_repeats",
}  # fmt: skip
"""The timings that every timing run has; tables are made of exactly these names."""


# Repetitions


@given(
    least=st.integers(1, 5), more=st.integers(0, 20),
    took=st.lists(st.floats(0.001, 30.0), min_size=30, max_size=30),
)  # fmt: skip
def test_a_budget_ends_by_number_or_time_but_not_below_its_least(
    least: int, more: int, took: list[float]
) -> None:
    budget, done = Budget(least, least + more, 10.0), list[float]()
    shares = []
    while (share := budget.used(done)) < 1:
        shares.append(share)
        done.append(took[len(done)])
    assert least <= len(done) <= least + more
    if len(done) < least + more:
        assert sum(done) >= 10.0
    if len(done) > least:
        assert sum(done[:-1]) < 10.0
    assert shares == sorted(shares)


class Fake(Stopwatch):
    """Takes for each call the time that it is told, without waiting."""

    def __init__(self, **took: float) -> None:
        super().__init__("cpu")
        self.took, self.log = took, list[str]()

    def once(self, action: Callable[[], Any]) -> float:
        action()
        return self.took[self.log[-1]]


@pytest.mark.parametrize(
    ("single", "turn", "repeats"),
    [(0.01, 0.5, 100), (0.05, 0.5, 100), (0.25, 0.5, 40), (1.0, 0.5, 10), (60.0, 0.5, 10)],
)
def test_the_yardstick_comes_in_turns_and_costs_no_more_than_what_is_measured(
    single: float, turn: float, repeats: int
) -> None:
    clock = Fake(single=single, turn=turn)
    clock.repeat(
        "latency", lambda i: clock.log.append("single"), timing.SINGLE,
        turn=lambda: clock.log.append("turn"), ready=lambda: clock.log.append("ready"),
    )  # fmt: skip
    latency, yardstick = clock.seconds["latency"], clock.seconds["yardstick"]
    assert latency == pytest.approx([single] * repeats)
    assert len(yardstick) >= timing.LEAST_TURNS
    least_turns = timing.LEAST_TURNS * turn
    assert sum(yardstick) <= max(least_turns, sum(latency)) + turn
    warm, log = clock.log[: clock.log.index("ready")], clock.log[clock.log.index("ready") + 1 :]
    assert warm.count("turn") == 1
    assert warm.count("single") == (10 if single < 0.3 else 3 if single == 1.0 else 1)
    assert log[0] == "turn"
    counted = single > timing.SINGLE.seconds  # the call that warms up
    assert log.count("single") == repeats - counted + len(yardstick) - (log[-1] == "turn")
    places = [i for i, what in enumerate(log) if what == "turn"]
    gaps = [b - a for a, b in itertools.pairwise([*places, len(log)])]
    assert max(gaps) <= len(log) / 3  # nowhere long without


def test_repetitions_go_round_and_the_device_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[Any] = []
    monkeypatch.setattr(timing, "synchronize", lambda device: log.append(device))
    clock = Stopwatch("cuda:7")
    clock.repeat("batch", log.append, Budget(3, 3, 1e9))
    warm = [i for i in log if i != "cuda:7"][:-3]
    assert warm == list(range(10))
    assert log[-9:] == ["cuda:7", 0, "cuda:7", "cuda:7", 1, "cuda:7", "cuda:7", 2, "cuda:7"]
    assert len(clock.seconds["batch"]) == 3


@pytest.mark.parametrize(("took", "calls", "counted"), [(128.0, 1, 1), (7.0, 3, 2), (1.0, 13, 10)])
def test_a_batch_that_takes_the_whole_budget_is_scored_once(
    took: float, calls: int, counted: int
) -> None:
    clock = Fake(batch=took)
    clock.repeat("batch", lambda i: clock.log.append("batch"), timing.BATCHES)
    assert len(clock.log) == calls
    assert clock.seconds["batch"] == [took] * counted


def test_the_yardstick_is_one_pass_of_resnet_18(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[tuple[int, ...]] = []
    forward = torch.nn.Conv2d.forward

    def counted(self: Any, images: torch.Tensor) -> torch.Tensor:
        passed.append(tuple(images.shape))
        assert images.dtype == torch.float32
        return forward(self, images)

    run = timing.reference_pass("cpu")
    monkeypatch.setattr(torch.nn.Conv2d, "forward", counted)
    run()
    assert passed[0] == (16, 3, 224, 224)
    assert len(passed) == 20  # ResNet-18: 17 convolutions and 3 on shortcuts


# Numbers


def bootstrap_of_median(values: Sequence[float], share: float) -> float:
    """Return the quantile of the exact bootstrap distribution of the median of an odd number.

    The median of n draws is at most the k-th value where at least (n + 1) / 2 of them are.
    """
    n, ordered = len(values), sorted(values)
    for k in range(1, n + 1):
        p = k / n
        at_most = sum(comb(n, j) * p**j * (1 - p) ** (n - j) for j in range((n + 1) // 2, n + 1))
        if at_most >= share:
            return ordered[k - 1]
    return ordered[-1]


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_of_a_median_is_that_of_the_exact_bootstrap(seed: int) -> None:
    values = np.random.RandomState(seed).lognormal(size=101)
    ordered = sorted(values)
    found = median_interval(values)
    for end, share in zip(found, (0.025, 0.975), strict=True):
        exact = ordered.index(bootstrap_of_median(values, share))
        near = ordered[max(0, exact - 2) : exact + 3]  # 2000 draws do not give the very quantile
        assert near[0] <= end <= near[-1]
    assert found == median_interval(list(values))


def test_equal_times_have_no_width() -> None:
    assert median_interval([2.0] * 10) == (2.0, 2.0)


def test_timings_by_hand() -> None:
    seconds = {
        "latency": [0.010, 0.030, 0.020], "latency_file": [0.5] * 4, "batch": [2.0, 4.0, 4.0],
        "batch_file": [8.0, 8.0], "yardstick": [1.0, 2.0, 3.0],
    }  # fmt: skip
    found = timing._timings(seconds)
    assert found.keys() == ALWAYS
    assert all(type(v) is float for v in found.values())
    assert found["latency_s"] == 0.020
    assert found["latency_p95_s"] == pytest.approx(0.029)
    assert (found["latency_low_s"], found["latency_high_s"]) == (0.010, 0.030)
    assert (found["latency_repeats"], found["latency_file_repeats"]) == (3.0, 4.0)
    assert (found["throughput_per_s"], found["throughput_file_per_s"]) == (8.0, 4.0)
    assert (found["throughput_repeats"], found["throughput_file_repeats"]) == (3.0, 2.0)
    assert (found["yardstick_s"], found["yardstick_repeats"]) == (2.0, 3.0)
    assert timing._timings({**seconds, "explain": [3.0]})["explain_latency_s"] == 3.0


def test_parameters_are_those_of_the_networks_a_detector_has() -> None:
    detector = SimpleNamespace(network=torch.nn.Linear(3, 2), name="x", bank=np.zeros(99))
    assert timing.parameter_count(detector) == 8
    detector.again = detector.network  # counted once
    detector.head = torch.nn.Conv2d(1, 1, 1, bias=False)
    detector.head.weight.requires_grad_(False)  # frozen ones count
    assert timing.parameter_count(detector) == 9
    assert timing.parameter_count(SimpleNamespace(bank=np.zeros(9))) == 0


@pytest.mark.parametrize(
    ("facts", "batch_size", "step"),
    [({"train_images_per_s": 64.0}, 16, {"step_s": 0.25}), ({}, 16, {}),
     ({"train_images_per_s": None}, 16, {}), ({"train_images_per_s": 64.0}, None, {})],
)  # fmt: skip
def test_the_step_is_known_where_the_method_records_its_pace(
    facts: dict[str, Any], batch_size: int | None, step: dict[str, float]
) -> None:
    job: Any = SimpleNamespace(spec=replace(SPEC, batch_size=batch_size))
    assert timing._step(job, facts) == step


# A measurement


class Plain:
    """Scores by mean grey, and remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def score(self, samples: Any) -> Any:
        self.seen.append(samples)
        return samples.images.mean((1, 2, 3)).astype(np.float32)


class Explains(Plain):
    def explain(self, samples: Any) -> Any:
        return Explanation({"grey": samples.images.mean(1).astype(np.float32)})


class Declines(Plain):
    def explain(self, samples: Any) -> Any:
        raise NotImplementedError("not for this backbone")


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., timing.TimingResult]:
    """Measure a detector on 40 images of which 5 do not count as tested."""
    files = tuple(File(f"test/{i:02}.png", "test", "good") for i in range(40))
    (tmp_path / "test").mkdir()
    colours = np.random.RandomState(0).randint(0, 256, (40, 48, 40, 3)).astype(np.uint8)
    for file, pixels in zip(files, colours, strict=True):
        Image.fromarray(pixels).save(tmp_path / file.path)
    samples = read_samples([tmp_path / f.path for f in files], 16, "bilinear")
    facts = [SimpleNamespace(path=f.path, width=40, height=48, mode="RGB", bytes=1) for f in files]
    images = CategoryImages(samples.images, tuple(facts))  # type: ignore[arg-type]
    for name, most in (("SINGLE", 70), ("BATCHES", 3), ("EXPLAIN", 2), ("WARM_UP", 1)):
        monkeypatch.setattr(timing, name, Budget(1, most, 1e9))
    monkeypatch.setattr(timing, "reference_pass", lambda device: lambda: None)
    monkeypatch.setattr(watch, "SHORTEST", 0.0)
    spec = replace(SPEC, image_size=16, batch_size=16)
    job: Any = SimpleNamespace(spec=spec, device="cpu", threads=2, root=tmp_path, files=files)

    def run(detector: Any, **facts: Any) -> timing.TimingResult:
        meter = Meter("cpu")
        meter.fitted()
        return measure(detector, job, images, list(range(5, 40)), facts, meter)

    return run


def test_a_measurement_gives_what_tables_are_made_of(measured: Any) -> None:
    found = measured(Plain(), train_images_per_s=8.0)
    assert found.timings.keys() == ALWAYS | {"step_s"}
    assert found.timings["step_s"] == 2.0
    assert all(type(v) is float and v > 0 for v in found.timings.values())
    assert found.facts == {"parameters": 0}
    told = found.provenance
    assert {"fit_memory_bytes", "score_memory_bytes", "disturbed"} <= told.keys()
    assert told.keys() <= {"fit_memory_bytes", "score_memory_bytes", "disturbed", "mhz_low",
                           "mhz_high", "other_cpu_share"}  # fmt: skip
    assert all(type(v) in (int, float, str) for v in told.values())


def test_all_tested_images_take_part_decoded_and_from_their_files(
    measured: Any, tmp_path: Path
) -> None:
    detector = Plain()
    found = measured(detector)
    singles = [s for s in detector.seen if len(s) == 1]
    batches = [s for s in detector.seen if len(s) != 1]
    assert {len(s) for s in batches} == {BATCH}
    names = {f"test/{i:02}.png" for i in range(5, 40)}
    decoded = {s.names[0]: s.images for s in singles if not s.names[0].startswith("/")}
    read = {s.names[0]: s.images for s in singles if s.names[0].startswith("/")}
    assert decoded.keys() == names
    assert read.keys() == {str(tmp_path / name) for name in names}
    for name, image in decoded.items():
        assert np.array_equal(image, read[str(tmp_path / name)])
    order = [s.names[0] for s in singles if s.names[0] in names]
    assert order[:35] != sorted(order[:35])  # not one kind after the other
    in_batches = {n for s in batches for n in s.names}
    assert names | {str(tmp_path / n) for n in names} == in_batches
    rows = unpacked(found.files[timing.REPETITIONS]).to_pylist()
    for what, count in (("latency", 70), ("latency_file", 70), ("batch", 3), ("batch_file", 3)):
        mine = [row for row in rows if row["what"] == what]
        assert [row["repetition"] for row in mine] == list(range(count))
        middle = float(np.median([row["seconds"] for row in mine]))
        if what.startswith("latency"):
            assert found.timings[f"{what}_s"] == middle
        else:
            per_s = "throughput_per_s" if what == "batch" else "throughput_file_per_s"
            assert found.timings[per_s] == BATCH / middle


def test_explaining_is_timed_where_a_method_does(measured: Any) -> None:
    assert measured(Explains()).timings["explain_latency_s"] > 0
    for detector in (Plain(), Declines()):
        found = measured(detector)
        assert "explain_latency_s" not in found.timings
        assert "explain" not in unpacked(found.files[timing.REPETITIONS])["what"].to_pylist()


def test_what_a_method_warns_of_again_and_again_is_not_told_again(measured: Any) -> None:
    class Warns(Plain):
        def score(self, samples: Any) -> Any:
            import warnings

            warnings.warn("once more", stacklevel=1)
            return super().score(samples)

    measured(Warns())  # warnings are errors here


# Memory


def test_where_the_peak_cannot_be_reset_that_of_scoring_is_absent(
    measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    told = measured(Plain()).provenance
    assert "score_memory_bytes" not in told
    assert "fit_memory_bytes" in told


# Plans


@pytest.fixture
def cells(tmp_path: Path, warm_cache: Path) -> Callable[..., list[PlannedRun]]:
    def expanded(text: str, **narrowing: Any) -> list[PlannedRun]:
        path = tmp_path / "mine.toml"
        path.write_text(text)
        suite = read_suite(str(path))
        return expand(suite, Selection(**narrowing), Registry(warm_cache), tmp_path)

    return expanded


def planned(cells: Sequence[PlannedRun], tmp_path: Path, cache: Path) -> Plan:
    folders = Folders(tmp_path / "data", tmp_path / "weights", tmp_path / "results", cache)
    return plan_runs(cells, folders)


MINE = TIMING.format(methods='"devnet", "shortcut", "cutmix"', seeds=3)


def test_rounds_follow_each_other_with_all_methods_in_each(cells: Any) -> None:
    assert [(c.seed, c.method.name) for c in cells(MINE)] == [
        (seed, method) for seed in range(3) for method in ("devnet", "shortcut", "cutmix")
    ]
    accuracy = cells(MINE.replace('"timing"', '"accuracy"'))
    assert [c.seed for c in accuracy] == [0, 1, 2] * 3
    assert {c.kind for c in accuracy} == {"accuracy"}


def test_a_method_without_chance_is_timed_in_every_round_all_the_same(
    cells: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Registry.find

    def seedless(self: Registry, method: str) -> Any:
        card = found(self, method)
        return replace(card, supervision="unsupervised", seedless=True)

    monkeypatch.setattr(Registry, "find", seedless)
    text = TIMING.format(methods='"shortcut"', seeds=3)
    assert [c.seed for c in cells(text)] == [0, 1, 2]
    assert [c.seed for c in cells(text.replace('"timing"', '"accuracy"'))] == [0]


def test_the_kind_is_part_of_the_id_and_accuracy_is_what_it_was(
    cells: Any, tmp_path: Path, warm_cache: Path
) -> None:
    timed = planned(cells(MINE), tmp_path, warm_cache)
    accuracy = planned(cells(MINE.replace('kind = "timing"', "")), tmp_path, warm_cache)
    assert timed.timing
    assert not accuracy.timing
    assert {r.spec.kind for r in timed.runs} == {"timing"}
    as_before = {replace(r.spec, kind="accuracy").run_id for r in timed.runs}
    assert {r.run_id for r in accuracy.runs} == as_before
    assert not as_before & {r.run_id for r in timed.runs}


def test_a_kind_that_there_is_not_is_refused(cells: Any) -> None:
    for kind in ('"speed"', "1", '["timing"]'):
        with pytest.raises(RequestError, match="kind is one of accuracy, timing, not"):
            cells(MINE.replace('"timing"', kind))


def test_a_block_may_have_another_kind_and_timing_runs_come_last_in_rounds(cells: Any) -> None:
    accuracy = MINE.replace('kind = "timing"', "")
    runs = cells(accuracy + '[[block]]\nkind = "timing"\nseeds = 2\n[[block]]\nseeds = 2\n')
    half = len(runs) // 2
    assert [run.kind for run in runs] == ["accuracy"] * half + ["timing"] * half
    rounds = [run.seed for run in runs[half:]]
    assert rounds == sorted(rounds)


def test_the_suite_narrows_and_bends_as_all_suites(tmp_path: Path, warm_cache: Path) -> None:
    suite, registry = read_suite("timing"), Registry(warm_cache)
    assert {block.kind for block in suite.blocks} == {"timing"}
    cells = expand(suite, Selection(), registry, tmp_path)
    assert {c.seed for c in cells} == {0, 1, 2}
    trained = [c.parameters for c in cells if c.method.supervision == "weak"]
    assert {(p["epochs"], p["steps_per_epoch"]) for p in trained} == {(1, 20)}
    bent = Selection(methods=("cutmix",), seeds=1, overrides=("stage=3",))
    (cell,) = expand(suite, bent, registry, tmp_path)
    assert (cell.settings["stage"], cell.category, cell.kind) == (3, "bottle", "timing")


# Slots


@pytest.mark.parametrize(
    ("gpus", "device", "per_device", "asked"),
    [(0, "cpu", 3, 3), (4, "cuda", 2, 8), (4, "auto", 1, 4)],
)
def test_timing_runs_get_one_slot_and_all_cores(
    cells: Any, tmp_path: Path, warm_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any,
    gpus: int, device: str, per_device: int, asked: int,
) -> None:  # fmt: skip
    monkeypatch.setattr("bench.cli.runs.gpus", lambda device: gpus)
    monkeypatch.setattr("bench.planning.slots.cpu_count", lambda: 16)
    plan = planned(cells(MINE), tmp_path, warm_cache)
    first = "cuda:0" if gpus else "cpu"
    assert _slots(plan, device, per_device, None, print) == [Slot(first, 16)]
    said = f"timing runs go one at a time: one slot on {first}, not {asked}\n"
    assert capsys.readouterr().out == said
    assert _slots(plan, first, 1, 3, print) == [Slot(first, 3)]
    assert not capsys.readouterr().out
    other = planned(cells(MINE.replace('"timing"', '"accuracy"')), tmp_path, warm_cache)
    assert len(_slots(other, device, per_device, None, print)) == asked


# What is made of them


TIMED = replace(SPEC, kind="timing")
TOOK = {
    "setup_s": 0.5, "fit_s": 1.5, "score_s": 0.5, "first_step_s": None, "measure_s": 40.0,
    **dict.fromkeys(ALWAYS, 0.25),
}  # fmt: skip
QUIET = {**HERE, "disturbed": "", "score_memory_bytes": 3 << 20}


def timed_receipt(run: Run, seconds: float = 0.25, **provenance: Any) -> Any:
    about = {**QUIET, **provenance}
    return receipt_of(run.spec, provenance=about, timings={**TOOK, "latency_s": seconds})


@pytest.fixture
def runs(cells: Any, tmp_path: Path, warm_cache: Path) -> dict[str, tuple[Run, ...]]:
    """Runs of the shortcut by their kind, three of each."""
    text = TIMING.format(methods='"shortcut"', seeds=3)
    texts = {"timing": text, "accuracy": text.replace('"timing"', '"accuracy"')}
    return {k: planned(cells(t), tmp_path, warm_cache).runs for k, t in texts.items()}


def test_timing_and_accuracy_runs_say_nothing_of_each_others_time(runs: Any) -> None:
    timed, plain = runs["timing"], runs["accuracy"]
    normals = sum(f.fold == "train" for f in timed[0].listing.files)
    alike = {"train_normal": normals, "scored": len(timed[0].listing.files) - normals}
    stored = changed(timed_receipt(timed[0]), split=alike)
    assert time_left(timed[1:], [stored], 1) == pytest.approx(2 * 42.5)
    assert time_left(plain, [stored], 1) is None
    other = changed(timed_receipt(plain[0]), split=alike, timings={**TOOK, "measure_s": 0.0})
    assert time_left(timed, [other], 1) is None
    assert time_left(plain, [other, stored], 1) == pytest.approx(3 * 2.5)


def shown(tables: Any) -> str:
    out = io.StringIO()
    for table in tables:
        Console(file=out, width=120).print(table)
    return out.getvalue()


def test_the_command_shows_times_and_no_auroc(runs: Any, tmp_path: Path) -> None:
    timed, out = runs["timing"], io.StringIO()
    state = compare_with_store(Plan(timed, ()), Store(tmp_path))
    busy = "other processes used 1.0 of 2 cores"
    done = {r.run_id: timed_receipt(r, s) for r, s in zip(timed, (0.010, 0.030, 0.5), strict=True)}
    done[timed[2].run_id] = timed_receipt(timed[2], 0.5, disturbed=busy)
    with PlainDisplay(Console(file=out, width=200), state, 1) as display:
        display.finished(timed[2], done[timed[2].run_id])
    assert "seed 2: 500 ms an image in 42 s" in out.getvalue()
    assert f"  disturbed: {busy}" in out.getvalue()
    text = shown(result_tables(timed, done))
    assert "AUROC" not in text + out.getvalue().upper()
    (row,) = [line for line in text.splitlines() if line.startswith(" shortcut")]
    assert row.split() == ["shortcut", "20", "250", "250", "0.25", "-", "3", "2/3"]
    assert "synthetic/washer on CPU, 2 threads" in text
    for r in timed:
        done[r.run_id] = changed(done[r.run_id], provenance={**QUIET, "disturbed": busy})
    assert "shortcut‡" in shown(result_tables(timed, done))
    assert "‡ all rounds were disturbed" in shown(result_tables(timed, done))


@pytest.mark.parametrize(
    ("value", "text"), [(1745.2, "1745"), (99.95, "100"), (79.64, "79.6"), (0.00401, "0.00401")]
)
def test_times_have_three_digits_that_count(value: float, text: str) -> None:
    assert compact(value) == text


def test_times_of_several_machines_or_threads_are_rows_of_their_own(runs: Any) -> None:
    timed = runs["timing"]
    where = ({"threads": 1, "cpu": "A"}, {"threads": 2, "cpu": "A"}, {"threads": 2, "cpu": "B"})
    done = {r.run_id: timed_receipt(r, **w) for r, w in zip(timed, where, strict=True)}
    lines = shown(result_tables(timed, done)).splitlines()
    rows = [line for line in lines if line.startswith(" shortcut")]
    assert [" ".join(row.split()[1:4]) for row in rows] == [
        "(A, 1 thread)", "(A, 2 threads)", "(B, 2 threads)",
    ]  # fmt: skip
    assert all(row.rstrip().endswith("1/3") for row in rows)


def test_both_kinds_are_shown_apart(runs: Any) -> None:
    both = (*runs["timing"], *runs["accuracy"])
    text = shown(result_tables(both, {r.run_id: timed_receipt(r) for r in both}))
    assert text.count("shortcut") == 2
    assert text.index("AUROC") < text.index("ms/image")


def test_the_table_of_runs_has_no_auroc_of_a_timing_run(tmp_path: Path) -> None:
    store = store_at(tmp_path / "results", SPEC)
    store_at(store.root, TIMED, timings=TOOK, provenance=QUIET)
    rows = {r["kind"]: r for r in pq.read_table(store.table).to_pylist()}
    timed, plain = rows["timing"], rows["accuracy"]
    assert (timed["auroc"], timed["ap"], plain["auroc"]) == (None, None, 0.75)
    assert timed["metric.scores_sha256"] == plain["metric.scores_sha256"] == SCORES.digest()
    assert timed["time.latency_s"] == 0.25
    full = store.read(TIMED.run_id)
    full = changed(full, metrics={**full.metrics, "auroc_full": 0.5})
    assert "metric.auroc_full" not in flat(full)
    assert not list(problems(store))


def test_the_table_of_results_leaves_timing_runs_out(tmp_path: Path, capsys: Any) -> None:
    store = store_at(tmp_path, replace(TIMED, seed=1), timings=TOOK, provenance=QUIET)
    code, out, err = call(capsys, "table", "--results", store.root)
    assert (code, out) == (2, "")
    assert err == "bench: only timing runs are stored: `bench times` shows them\n"
    store_at(tmp_path, SPEC)
    code, out, _ = call(capsys, "table", "--results", store.root)
    assert "| head_ct | 10 | 0.750† |" in out
    code, out, _ = call(capsys, "show", replace(TIMED, seed=1).run_id,
                        "--results", store.root)  # fmt: skip
    assert "metrics, no result: training was cut short" in out
    code, out, _ = call(capsys, "show", SPEC.run_id, "--results", store.root)
    assert "no result" not in out


def test_two_timing_runs_that_differ_are_told_apart_without_their_auroc() -> None:
    one = receipt_of(TIMED)
    other = receipt_of(TIMED, provenance={**HERE, "threads": 1})
    metrics = {**other.metrics, "scores_sha256": "6" * 64, "auroc": 0.745}
    other = changed(other, metrics=metrics)
    assert str(agreement(one, other)) == "close: scores differ (threads 2 and 1)"
    found = agreement(replace(one, spec=SPEC), replace(other, spec=SPEC))
    assert str(found) == "close: AUROC differs by -0.005000 (threads 2 and 1)"


def test_times_without_any_say_how_to_get_them(tmp_path: Path, capsys: Any) -> None:
    store = store_at(tmp_path, SPEC)
    code, _, err = call(capsys, "times", "--results", store.root)
    assert code == 2
    assert "no timing run is stored" in err
    assert "`bench run --suite timing`" in err


# End to end


def test_a_timing_suite_becomes_times(bench: Bench) -> None:
    path = bench.folder / "timing.toml"
    path.write_text(TIMING.format(methods='"cutmix"', seeds=1))
    where = ("--device", "cpu", "--threads", "1")
    code, said = bench("run", "--suite", str(path), "--slots", "2", *where)
    assert code == 0, said
    assert "timing runs go one at a time: one slot on cpu, not 2" in said
    assert "AUROC" not in said.upper()
    store = bench.store
    (receipt,) = receipts(store)
    took, about = receipt.timings, receipt.provenance
    assert took.keys() >= ALWAYS | {"step_s", "explain_latency_s", "measure_s"}
    assert took["step_s"] == pytest.approx(16 / receipt.facts["train_images_per_s"])
    assert took["latency_low_s"] <= took["latency_s"] <= took["latency_high_s"]
    assert took["latency_s"] <= took["latency_p95_s"]
    assert receipt.facts["parameters"] > 100_000
    assert 0 < about["score_memory_bytes"] < about["peak_memory_bytes"]
    assert 0 < about["fit_memory_bytes"] < about["peak_memory_bytes"]
    assert type(about["disturbed"]) is str
    rows = pq.read_table(store.runs / receipt.run_id / "repetitions.parquet").to_pylist()
    single = [row["seconds"] for row in rows if row["what"] == "latency"]
    assert took["latency_s"] == float(np.median(single))

    # Scores, digests, archives and merging are as of all runs.
    assert not list(problems(store))
    pack(store, bench.folder / "archive")
    back = Store(bench.folder / "back")
    merged = list(merge_results(Archive(bench.folder / "archive"), back))
    assert [m.kind for m in merged] == ["new"]
    assert not list(problems(back))
    copied = Store(bench.folder / "copied")
    assert [m.kind for m in merge_results(store, copied)] == ["new"]
    assert (copied.runs / receipt.run_id / "repetitions.parquet").is_file()

    code, said = bench("run", "--suite", str(path))
    assert "1 run wanted, 1 stored, 0 to do" in said
    code, said = bench("run", "--suite", str(path), "--seeds", "2", "--dry-run", *where)
    assert "time: about" in said
    code, said = bench("times", "--results", "archive")
    assert code == 0, said
    assert "| CutMix" in said
    assert "(1 thread)" in said


@pytest.fixture
def bench(tmp_path: Path, warm_cache: Path) -> Bench:
    return Bench(tmp_path, warm_cache)


def test_a_run_that_is_not_timed_is_stored_as_ever(bench: Bench) -> None:
    code, said = bench("run", "--suite", bench.suite("shortcut"))
    assert code == 0, said
    (receipt,) = receipts(bench.store)
    assert receipt.timings.keys() == {"setup_s", "fit_s", "score_s", "first_step_s"}
    assert "parameters" not in receipt.facts
    assert "disturbed" not in receipt.provenance
    assert receipt.files.keys() == {"log.txt", "scores.parquet"}
