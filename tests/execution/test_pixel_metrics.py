"""Pixel metrics follow the masks: one run, whose masks are put right afterwards."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench.data import masks as masks_module
from bench.data.catalog import find_dataset
from bench.data.layouts import list_category
from bench.data.listing import File
from bench.data.masks import listed_masks_digest
from bench.execution.pixel_metrics import pixel_metrics
from bench.store.archive import pack
from bench.store.explanations import Explanations
from bench.store.folder import Store
from bench.store.receipt import Receipt
from bench.store.results import receipts
from tests.fixtures.command import Bench
from tests.fixtures.runs import bench, rewrite

METHOD = """
from dataclasses import dataclass
import numpy as np
from bench.detector import Explanation

class Redness:
    name, version, supervision, settings = "redness", 1, "unsupervised", frozenset()

    @dataclass(frozen=True)
    class Parameters:
        pass

    def __init__(self, parameters):
        pass

    def fit(self, train, context):
        with open("fitted", "a") as file:
            file.write("once ")

    def red(self, samples):
        return samples.images[:, 0].astype(np.float32)

    def score(self, samples):
        return self.red(samples).max((1, 2))

    def explain(self, samples):
        return Explanation({"red": self.red(samples)})
"""
SUITE = """
methods = ["shortcut"]
data = ["nuts"]
shots = [0]
[set]
image_size = 16
"""
RUN = ("run", "--suite", "mine.toml", "--method", "redness:Redness", "--threads", "1")


def draw(data: Path, *, right: bool) -> None:
    """Write pictures with a red spot, and masks of the spot or of all but the spot."""
    noise = np.random.RandomState(0).randint(0, 90, (32, 16, 16, 3), np.uint8)
    for i, picture in enumerate(noise):
        fold = ("train/good", "test/good", "test/spot", "test/spot")[i // 8]
        spot = np.zeros((16, 16), bool)
        if fold == "test/spot":
            spot[i % 8 : i % 8 + 4, 3:9] = True
            picture[spot, 0] = 255
            save(data / f"nuts/ground_truth/spot/{i:02}.png", (spot == right).astype(np.uint8))
        save(data / f"nuts/{fold}/{i:02}.png", picture)


def save(path: Path, values: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, warm_cache: Path) -> Bench:
    """A run of which the maps are kept, with masks of which four are spoilt."""
    command = Bench(tmp_path_factory.mktemp("made"), warm_cache)
    (command.folder / "redness.py").write_text(METHOD)
    (command.folder / "mine.toml").write_text(SUITE)
    draw(command.folder / "data", right=True)
    masks = sorted((command.folder / "data/nuts/ground_truth/spot").iterdir())
    masks[0].write_bytes(b"no picture")
    save(masks[1], np.zeros((16, 16), np.uint8))
    save(masks[2], np.ones((8, 8), np.uint8))
    masks[3].unlink()
    code, said = command(*RUN, "--save-maps")
    assert code == 0, said
    assert "no pixel metrics of nuts: " in said
    return command


Command = Callable[..., tuple[int, str]]


@pytest.fixture
def store(made: Bench, tmp_path: Path) -> Store:
    """A copy of the run, beside its data, to be changed by the test."""
    shutil.copytree(made.folder, tmp_path, dirs_exist_ok=True)
    return Store(tmp_path / "results")


@pytest.fixture
def command(
    made: Bench,
    store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    """The command beside the copy, in this process."""
    monkeypatch.chdir(store.root.parent)
    monkeypatch.syspath_prepend(store.root.parent)
    monkeypatch.setenv("BENCH_CACHE", str(made.cache))

    def call(*arguments: str) -> tuple[int, str]:
        code, out, err = bench(capsys, *arguments)
        return code, out + err

    return call


def stored(store: Store) -> Receipt:
    [receipt] = receipts(store)
    return receipt


def test_spoilt_masks_cost_the_pixel_metrics_and_are_named(store: Store) -> None:
    receipt = stored(store)
    assert (receipt.metrics.pixel_auroc, receipt.metrics.auroc) == (None, 1)
    [warning] = receipt.warnings
    assert warning.startswith("no pixel metrics: ground_truth/spot/16.png does not decode")
    assert "; ground_truth/spot/17.png marks no defect" in warning
    assert "; ground_truth/spot/18.png has 8x8 pixels and its image 16x16" in warning
    assert warning.endswith("; and 1 more")


def test_corrected_masks_give_other_pixel_metrics_without_training(
    store: Store, command: Command
) -> None:
    before = stored(store)
    draw(store.root.parent / "data", right=False)
    assert command(*RUN)[0] == 0
    wrong = stored(store)
    assert wrong.metrics.number("pixel_auroc") is not None
    assert wrong.metrics.pixel_auroc != 1
    assert wrong.warnings == (  # the number stays
        "doubtful masks: masks of spot mark more than half of every image: are they inverted?",
    )
    assert command("verify")[0] == 0
    draw(store.root.parent / "data", right=True)
    code, said = command("verify")
    assert (code, f"run {wrong.run_id}: masks of nuts have changed since" in said) == (1, True)
    code, said = command(*RUN)
    assert code == 0
    again = "their pixel metrics are made again, without training"
    assert f"masks have changed for 1 stored run: {again}" in said
    assert f"pixel AUROC by today's masks 1.0000, before {wrong.metrics.pixel_auroc:.4f}" in said
    assert (store.root.parent / "fitted").read_text() == "once "
    after = stored(store)
    assert after.metrics.pixel_auroc == 1
    assert len({r.metrics.masks_sha256 for r in (before, wrong, after)}) == 3
    for name in ("files", "draw", "split", "timings", "started_at", "finished_at", "provenance"):
        assert getattr(after, name) == getattr(before, name)
    assert len([*store.superseded.glob("*/run.json")]) == 2
    assert command("verify")[0] == 0
    assert "masks have changed" not in command(*RUN, "--save-maps")[1]
    assert stored(store) == after


def test_compare_and_merge_say_that_masks_differ(
    store: Store, command: Command, made: Bench
) -> None:
    pack(made.store, store.root.parent / "archive")
    draw(store.root.parent / "data", right=True)
    assert command(*RUN)[0] == 0
    after = stored(store)
    for name in (("compare", "results", "archive"), ("merge", "archive")):
        code, said = command(*name)
        assert (code, "identical; pixel metrics of other masks (" in said) == (0, True)
    assert stored(store) == after


def test_a_run_of_before_the_digest_gets_one_where_maps_are_wanted(
    store: Store, command: Command
) -> None:
    draw(store.root.parent / "data", right=True)
    assert command(*RUN)[0] == 0
    before = stored(store)
    rewrite(store.folder(before.run_id), lambda receipt: receipt["metrics"].pop("masks_sha256"))
    assert stored(store).metrics.masks_sha256 is None
    assert "masks have changed" not in command(*RUN)[1]
    assert "masks have changed" in command(*RUN, "--save-maps")[1]
    assert stored(store) == before


def test_masks_that_have_gone_leave_the_metrics_as_they_are(store: Store, command: Command) -> None:
    shutil.rmtree(store.root.parent / "data/nuts/ground_truth")
    before = stored(store)
    assert "masks have changed" not in command(*RUN, "--save-maps")[1]
    assert command("verify")[0] == 0
    assert stored(store) == before


def test_masks_of_several_runs_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path, right=True)
    root = tmp_path / "nuts"
    tested = [File(f"test/spot/{i}.png", "test", "spot") for i in range(16, 32)]
    tested.insert(0, File("test/good/08.png", "test", "good"))
    maps = Explanations(
        tuple(f.path for f in tested), {"m": np.zeros((17, 16, 16), np.float32)}, None, {}
    )
    read: list[Any] = []
    real = masks_module.read_mask
    monkeypatch.setattr(masks_module, "read_mask", lambda *a: read.append(a) or real(*a))
    loaded: dict[object, Any] = {}
    for counted in (np.arange(17) < 9, np.arange(17) % 2 == 0):
        arguments = (maps, root, tested, counted, 16, lambda _: (16, 16))
        once = pixel_metrics(*arguments, loaded)
        assert len(read) == 16
        assert once == pixel_metrics(*arguments)
        del read[16:]


# A method that trains on masks

WITH_MASKS = """
from dataclasses import dataclass
import numpy as np

class Traced:
    name, version, supervision, settings = "traced", 1, "weak", frozenset({"masks"})

    @dataclass(frozen=True)
    class Parameters:
        pass

    def __init__(self, parameters):
        pass

    def fit(self, train, context):
        assert train.normal.masks is None
        masks = train.anomalous.masks
        assert masks.shape == (len(train.anomalous), 16, 16) and masks.dtype == bool
        reds = train.anomalous.images[:, 0]
        context.record("red inside", int(reds[masks].min()))
        context.record("red outside", int(reds[~masks].max()))

    def score(self, samples):
        return samples.images[:, 0].astype(np.float32).max((1, 2))
"""


def test_masks_that_a_method_trains_on_are_part_of_the_id(
    store: Store, command: Command, made: Bench
) -> None:
    folder = store.root.parent
    (folder / "traced.py").write_text(WITH_MASKS)
    (folder / "mine.toml").write_text(SUITE.replace("[0]", "[5]"))
    run = ("run", "--suite", "mine.toml", "--method", "traced:Traced", "--threads", "1")
    code, said = command(*run)
    assert code == 2
    assert "missing: the method trains on masks: " in said
    assert "nuts/ground_truth/spot/16.png does not decode" in said
    draw(folder / "data", right=True)
    code, said = Bench(folder, made.cache)(*run)
    assert code == 0, said
    [receipt] = [r for r in receipts(store) if r.spec.method == "traced"]
    dataset = find_dataset("nuts", folder / "data")
    listing = list_category(dataset, "nuts", folder / "data", folder)
    assert receipt.spec.masks == listed_masks_digest(listing)
    assert dict(receipt.facts) == {"red inside": 255, "red outside": 89}
    assert "done     1" in command("status", *run[1:5])[1]
    draw(folder / "data", right=False)
    assert "done     0" in command("status", *run[1:5])[1]
