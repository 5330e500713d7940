"""What PaDiM, PatchCore and SPADE must all do: as detectors, and as runs of the real command."""

import functools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from baselines.padim import PaDiM
from baselines.patchcore import PatchCore
from baselines.spade import SPADE
from bench.data.images import read_samples
from bench.data.synthetic import generated
from bench.detector import BackboneSource, Context, MethodError, Samples, Seeds, TrainingSet
from bench.execution.determinism import make_deterministic
from bench.execution.predict import predict_images, saved_model
from bench.execution.worker import _check_memory
from bench.metrics import auroc
from bench.store.models import model_bytes, read_model
from bench.store.results import receipts
from tests.fixtures.command import Bench
from tests.fixtures.planted import SIZE, pictures, separation

METHODS = [PaDiM, PatchCore, SPADE]
FEW: dict[Any, dict[str, Any]] = {
    PaDiM: {"channels": 40}, PatchCore: {"coreset": 0.05}, SPADE: {"k": 3},
}  # fmt: skip


def context_of(seed: int = 0, **changes: Any) -> Context:
    backbone = BackboneSource("resnet18", 3, None)
    given = {"seeds": Seeds(seed, "planted", "planted"), "backbone": backbone, **changes}
    return Context("cpu", **given)


def fitted(
    method: Any, seed: int = 0, normal: Samples | None = None, facts: Any = None, **changes: Any
) -> Any:
    """Fit on 24 pictures; random weights are the same for every seed."""
    make_deterministic(torch.get_num_threads(), 0)
    detector = method(method.Parameters(**FEW[method]))
    normal = pictures(24, False, 1) if normal is None else normal
    if facts is not None:
        changes["record"] = facts.__setitem__
    detector.fit(TrainingSet(normal, pictures(0, True, 2)), context_of(seed, **changes))
    return detector


@functools.cache
def ready(method: Any) -> Any:
    """Return a fitted detector that several tests only ask."""
    return fitted(method)


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_defect_is_found_and_shown_where_it_is(method: Any) -> None:
    detector = ready(method)
    assert separation(detector) > 0.99
    tested = pictures(20, True, 5)
    maps = detector.explain(tested).maps["score"]
    planted = (tested.images[:, 0] == 240).reshape(20, 8, 4, 8, 4).any((2, 4))
    found = [auroc(m.ravel(), p.ravel()) for m, p in zip(maps, planted, strict=True)]
    assert np.mean(found) > 0.75  # turned or mirrored maps stay below


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bits(method: Any, precision: str) -> None:
    tested = pictures(6, True, 5)
    first, again, other = (
        fitted(method, seed, precision=precision).score(tested) for seed in (0, 0, 1)
    )
    assert first.dtype == np.float32
    assert first.shape == (6,)
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (method is SPADE)


@pytest.mark.parametrize("method", METHODS)
def test_images_are_scored_alike_alone_in_other_batches_and_twice(method: Any) -> None:
    detector, tested = ready(method), pictures(11, True, 6)
    scores = detector.score(tested)
    assert np.array_equal(scores, detector.score(tested))
    one_by_one = [detector.score(pictures_of(tested, i, i + 1)) for i in range(11)]
    assert [s.shape for s in one_by_one] == [(1,)] * 11
    np.testing.assert_allclose(np.concatenate(one_by_one), scores, rtol=1e-4)
    threes = fitted(method, score_batch_size=3).score(tested)
    np.testing.assert_allclose(threes, scores, rtol=1e-4)


def pictures_of(samples: Samples, start: int, stop: int) -> Samples:
    fields = {name: value for name, value in vars(samples).items() if value is not None}
    return Samples(**{name: value[start:stop] for name, value in fields.items()})


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_those_of_the_image_averaged_over_cells_of_four_pixels(method: Any) -> None:
    detector, tested = ready(method), pictures(10, True, 6)
    explanation = detector.explain(tested)
    assert list(explanation.maps) == ["score"]
    assert explanation.boxes is None
    found = explanation.maps["score"]
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    with torch.inference_mode():
        maps = torch.cat([detector.maps(f) for f in detector._features(tested)])
    assert maps.shape == (10, SIZE, SIZE)
    np.testing.assert_allclose(found, maps.view(10, 8, 4, 8, 4).mean((2, 4)), rtol=1e-5)
    assert np.isfinite(detector.embed(tested)).all()
    assert detector.embed(tested).shape == (10, 256)


@pytest.mark.parametrize("method", METHODS)
def test_a_size_that_four_does_not_divide_is_no_trouble(method: Any) -> None:
    def odd(n: int, defective: bool, seed: int) -> Samples:
        even = pictures(n, defective, seed)
        larger = np.pad(even.images, ((0, 0), (0, 0), (0, 1), (0, 1)), "edge")
        return replace(even, images=larger)

    detector = fitted(method, normal=odd(12, False, 1))
    assert detector.explain(odd(3, True, 2)).maps["score"].shape == (3, 9, 9)
    scores = detector.score(odd(8, True, 3)), detector.score(odd(8, False, 4))
    assert scores[0].min() > scores[1].max()


@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_model_gives_the_same_scores_and_maps(method: Any) -> None:
    detector, tested = ready(method), pictures(9, True, 6)
    saved = read_model(model_bytes(detector.state()))
    torch.manual_seed(5)
    loaded = method(method.Parameters(**FEW[method]))
    loaded.load_state(saved, context_of(seed=3))
    assert np.array_equal(loaded.score(tested), detector.score(tested))
    for ask in ("explain", "embed"):
        said = [getattr(d, ask)(tested) for d in (detector, loaded)]
        maps = [s.maps["score"] if ask == "explain" else s for s in said]
        assert np.array_equal(*maps)
    assert read_model(model_bytes(loaded.state())).keys() == saved.keys()

    for name in method.memory_of:
        less = {k: v for k, v in saved.items() if k != name}
        with pytest.raises(MethodError, match=f"the saved model does not fit: '{name}'"):
            method(method.Parameters()).load_state(less, context_of())
    wrong = context_of(backbone=BackboneSource("mobilenet_v2", 3, None))
    with pytest.raises(MethodError, match="the saved model does not fit"):
        method(method.Parameters()).load_state(saved, wrong)


@pytest.mark.parametrize("method", METHODS)
def test_what_it_cannot_do_without_is_said(method: Any) -> None:
    train = TrainingSet(pictures(4, False, 1), pictures(0, True, 2))
    with pytest.raises(MethodError, match="needs a backbone"):
        method(method.Parameters()).fit(train, context_of(backbone=None))
    with pytest.raises(MethodError, match="which is cut after stage 2: --set stage=3"):
        method(method.Parameters()).fit(
            train, context_of(backbone=BackboneSource("resnet18", 2, None))
        )


@pytest.mark.parametrize("method", METHODS)
def test_it_records_the_bytes_that_it_remembers_and_foretold_as_many(method: Any) -> None:
    facts: dict[str, Any] = {}
    detector = fitted(method, facts=facts)
    assert facts.keys() == {"bank_vectors", "bank_bytes"}
    held = sum(getattr(detector, name).nbytes for name in method.memory_of)
    assert 0 < facts["bank_bytes"] <= held
    told = detector.memory(24, SIZE, context_of())
    assert held < 1.01 * told
    assert detector.memory(48, SIZE, context_of()) > 1.05 * told
    assert detector.memory(24, 2 * SIZE, context_of()) > 1.5 * told


# Room for what is remembered


@pytest.mark.parametrize("method", METHODS)
def test_where_there_is_no_room_it_is_refused_before_it_begins(
    method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = method(method.Parameters(**FEW[method]))
    needed = detector.memory(5000, 224, context_of())
    spec = SimpleNamespace(method=method.name, image_size=224)
    job: Any = SimpleNamespace(spec=spec, device="cpu")
    for free, refused in ((None, False), (needed, False), (needed - 1, True)):
        monkeypatch.setattr("bench.execution.worker.free_memory", lambda device, free=free: free)
        if not refused:
            _check_memory(detector, job, 5000, context_of())
            continue
        with pytest.raises(MemoryError) as error:
            _check_memory(detector, job, 5000, context_of())
        gib = rf"{needed / 2**30:.1f} GiB"
        assert str(error.value) == (
            f"{method.name} needs about {gib} for 5000 normal images of 224 px, and {gib} are"
            " free: take a smaller image_size or backbone, fewer --slots, or another machine"
        )


# The real command

GREEDY = """
from pathlib import Path
from baselines.spade import SPADE

CROWDED = Path(__file__).with_name("crowded")

class Greedy(SPADE):
    name = "greedy"

    def memory(self, normals, size, context):
        return 1 << 60 if CROWDED.exists() else super().memory(normals, size, context)

    def fit(self, train, context):
        assert not CROWDED.exists(), "it was let in"
        super().fit(train, context)
"""
SUITE = """
data = ["synthetic/washer"]
shots = [1, 10]
[set]
image_size = 64
backbone = "resnet18"
stage = 3
weights = "none"
patchcore.coreset = 0.01
[[block]]
methods = ["padim", "patchcore", "spade"]
seeds = 2
"""
AND_GREEDY = """
[[block]]
methods = ["greedy:Greedy"]
"""
COMMAND = ("run", "--suite", "several.toml", "--threads", "1", "--save-models")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, warm_cache: Path) -> Iterator[tuple[Bench, str]]:
    """Runs of the three methods; a fourth, that wants too much memory, has failed."""
    command = Bench(tmp_path_factory.mktemp("unsupervised"), warm_cache)
    (command.folder / "several.toml").write_text(SUITE + AND_GREEDY)
    (command.folder / "greedy.py").write_text(GREEDY)
    (command.folder / "crowded").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(command.folder)
        code, said = command(*COMMAND)
        assert code == 1, said
        assert "7 runs wanted, 0 stored, 7 to do" in said
        assert "1 run failed" in said
        yield command, said


def test_a_suite_of_them_runs_on_normal_images_alone_and_is_scored_on_both_test_sets(
    ran: tuple[Bench, str],
) -> None:
    store = ran[0].store
    kept = {(r.spec.method, r.spec.seed): r for r in receipts(store)}
    kept.pop(("greedy", 0), None)
    assert kept.keys() == {(method.name, seed) for method in METHODS for seed in (0, 1)}
    for receipt in kept.values():
        assert receipt.spec.shots == 0
        assert "seedless" not in receipt.provenance  # the backbone's weights are random
        assert receipt.facts["bank_bytes"] > 0
        scores = store.scores(receipt.run_id)
        assert len(receipt.draw) == 10  # who leaves the test set, though none is trained on
        counted = [role == "test" for role in scores.role]
        assert sum(counted) == len(scores.file) - 10
        metrics = receipt.metrics
        assert metrics["auroc"] == auroc(scores.score[counted], scores.label[counted])
        assert metrics["auroc_full"] == auroc(scores.score, scores.label)
        assert metrics["auroc"] != metrics["auroc_full"]
    for method in METHODS:
        one, other = (kept[method.name, seed].metrics.scores_sha256 for seed in (0, 1))
        assert one != other


def test_a_run_without_room_is_a_recorded_failure_and_tried_again_by_the_same_command(
    ran: tuple[Bench, str],
) -> None:
    command, said = ran
    assert "greedy needs about 1073741824.0 GiB for 64 normal images of 64 px" in said
    (folder,) = command.store.failed.iterdir()
    (failure,) = command.store.failures(folder.name)
    assert failure.kind == "memory"
    assert failure.reason.startswith("MemoryError: greedy needs about")
    assert failure.run_id not in command.store.ids()

    (command.folder / "crowded").unlink()
    code, said = command(*COMMAND)
    assert code == 0, said
    assert "6 stored, 1 to do" in said
    assert failure.run_id in command.store.ids()


def test_a_dry_run_foretells_the_memory_of_each(
    ran: tuple[Bench, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "three.toml").write_text(SUITE)
    command, results = ran[0], str(tmp_path / "results")  # a process of its own, as a user has it
    code, said = command.apart(
        "run", "--suite", str(tmp_path / "three.toml"), "--dry-run", "--results", results
    )
    assert code == 0
    rows = dict(re.findall(r"^(padim|patchcore|spade) .*?([\d.]+) GiB", said, re.MULTILINE))
    assert rows.keys() == {"padim", "patchcore", "spade"}
    for receipt in receipts(ran[0].store):
        about = receipt.provenance
        peak = about.get("peak_gpu_memory_bytes", about["peak_memory_bytes"]) / 2**30
        told = float(rows.get(receipt.spec.method, rows["spade"]))  # to a tenth
        assert peak - 0.05 < told
        assert told < 3 * peak or about["device"] != "cpu"  # told as for a CPU, libraries and all


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_models_scores_are_the_stored_ones(
    ran: tuple[Bench, str], warm_cache: Path, method: Any
) -> None:
    store = ran[0].store
    run_id = next(r.run_id for r in receipts(store) if r.spec.method == method.name)
    receipt, model = saved_model(store, run_id)
    stored = store.scores(run_id)
    files = [generated(warm_cache, "washer") / f for f in stored.file[:24]]  # three batches
    threads = torch.get_num_threads()
    (found,) = predict_images(receipt, model, files, receipt.provenance.device, 1)
    torch.set_num_threads(threads)
    assert np.array_equal(found.scores, stored.score[:24])
    assert found.explanation is not None
    assert found.explanation.maps["score"].shape == (24, 16, 16)


# Real images and weights


@pytest.fixture(scope="module")
def bottles(shared: Path) -> tuple[Samples, Samples, list[bool]]:
    """A few normal images of MVTec AD's bottles at 96 px, tested ones, and which are broken."""
    folder = shared / "data/mvtec_ad/bottle"
    normal = sorted((folder / "train/good").iterdir())[::12]
    good = sorted((folder / "test/good").iterdir())[::2]
    broken = [p for kind in ("broken_large", "broken_small", "contamination")
              for p in sorted((folder / "test" / kind).iterdir())[:4]]  # fmt: skip
    tested = read_samples([*good, *broken], 96, "bilinear")
    labels = [False] * len(good) + [True] * len(broken)
    return read_samples(normal, 96, "bilinear"), tested, labels


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "strides", "file"),
    [
        ("resnet50", "v1", "resnet50_v1_imagenet_to_layer3.pth"),
        ("mobilenet_v2", "v1.5", "mobilenet_v2_imagenet_features.pth"),
    ],
    ids=["resnet50", "mobilenet_v2"],
)
def test_broken_bottles_are_told_from_sound_ones(
    shared: Path, bottles: Any, method: Any, name: str, strides: str, file: str
) -> None:
    normal, tested, labels = bottles
    source = BackboneSource(name, 3, shared / "weights" / file, strides)
    parameters = {PaDiM: {"channels": 100}}.get(method, FEW[method])
    detector = method(method.Parameters(**parameters))
    detector.fit(TrainingSet(normal, pictures(0, True, 0)), context_of(backbone=source))
    assert auroc(detector.score(tested), labels) > 0.9
