"""Models that are saved with a run, and what they say of images of one's own."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.data.synthetic import generated
from bench.detector import Samples
from bench.errors import DataError, RequestError
from bench.execution.parts import in_parts, spans
from bench.execution.predict import (
    Decoded,
    find_images,
    predict_images,
    saved_model,
)
from bench.execution.predictions import overlay_name
from bench.store.archive import pack
from bench.store.artifacts import MODEL
from bench.store.folder import Store
from bench.store.results import receipts
from bench.store.verify import problems
from tests.fixtures.command import Bench
from tests.fixtures.runs import bench, flip

ALL = ("atacnet", "cutmix", "devnet", "dra", "saoe", "shortcut")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, warm_cache: Path) -> tuple[Bench, str]:
    """Runs of all weak methods with their models."""
    command = Bench(tmp_path_factory.mktemp("saved"), warm_cache)
    suite = command.suite(*ALL)
    code, said = command("run", "--suite", suite, "--save-models", "--threads", "1")
    assert code == 0, said
    return command, suite


@pytest.fixture(scope="module")
def bent(tmp_path_factory: pytest.TempPathFactory, warm_cache: Path) -> Bench:
    """Runs with models of what differs from the plain path."""
    command = Bench(tmp_path_factory.mktemp("bent"), warm_cache)
    suite = command.suite("atacnet", "devnet", "dra")
    settings = ("precision=bfloat16", "scales=2", "dra.reference_set=redrawn", "dra.sampler=thirds",
                "atacnet.view=random", "image_size=16")  # fmt: skip
    told = [part for text in settings for part in ("--set", text)]
    code, said = command("run", "--suite", suite, "--save-models", "--threads", "1", *told)
    assert code == 0, said
    return command


def run_of(store: Store, method: str) -> dict[str, Any]:
    return next(r for r in receipts(store) if r.spec.method == method)


def where(receipt: dict[str, Any]) -> str:
    """The device that made the run: another one's last digits differ."""
    return str(receipt.provenance.device)


@pytest.mark.parametrize("method", ALL)
def test_a_loaded_models_scores_are_the_stored_ones(
    saved: tuple[Bench, str], warm_cache: Path, method: str
) -> None:
    store = saved[0].store
    run_id = run_of(store, method).run_id
    receipt, model = saved_model(store, run_id)
    stored = store.scores(run_id)
    root = generated(warm_cache, "washer")
    parts = list(predict_images(receipt, model, [root / f for f in stored.file], where(receipt), 1))
    assert len(parts) > 1
    assert np.array_equal(np.concatenate([p.scores for p in parts]), stored.score)


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("atacnet", {"view": "random"}),
        ("devnet", {"scales": 2}),
        ("dra", {"scales": 2, "reference_set": "redrawn"}),
    ],
)
def test_a_loaded_models_scores_are_the_stored_ones_whatever_was_set(
    bent: Bench, warm_cache: Path, method: str, wanted: dict[str, Any]
) -> None:
    run = run_of(bent.store, method)
    assert run.spec.precision == "bfloat16"
    assert wanted.items() <= run.spec.parameters.items()
    receipt, model = saved_model(bent.store, run.run_id)
    assert ("references.pool" in model) == (method == "dra")
    stored = bent.store.scores(run.run_id)
    files = [generated(warm_cache, "washer") / f for f in stored.file]
    parts = list(predict_images(receipt, model, files, where(receipt), 1))
    drawn = {"view", "reference_set"} & wanted.keys()  # anew by each call: so it is a single one
    assert (len(parts) == 1) == bool(drawn)
    assert np.array_equal(np.concatenate([p.scores for p in parts]), stored.score)
    assert len(set(stored.score.tolist())) > 1


def test_verify_checks_models_and_archives_leave_them_behind(
    saved: tuple[Bench, str], tmp_path: Path
) -> None:
    store = saved[0].store
    assert list(problems(store)) == []
    pack(store, tmp_path / "archive")
    assert not list((tmp_path / "archive").glob("*.safetensors"))
    copy = tmp_path / "results"
    shutil.copytree(store.root, copy)
    run_id = run_of(store, "devnet").run_id
    flip(copy / "runs" / run_id / MODEL)
    assert any(MODEL in text for text in problems(Store(copy)))


def test_a_run_without_a_model_runs_again_for_it_and_its_scores_stay(
    tmp_path: Path, warm_cache: Path
) -> None:
    command = Bench(tmp_path, warm_cache)
    suite = command.suite("shortcut", "cutmix")
    assert command("run", "--suite", suite)[0] == 0
    before = {r.run_id: r.metrics.scores_sha256 for r in receipts(command.store)}
    code, said = command("run", "--suite", suite, "--save-models")
    assert code == 0, said
    assert said.count("run again for its model: identical") == 2
    after = list(receipts(command.store))
    assert {r.run_id: r.metrics.scores_sha256 for r in after} == before
    assert all(MODEL in r.files for r in after)
    assert not any((tmp_path / "results/superseded").glob("*/*"))
    code, said = command("run", "--suite", suite, "--save-models")
    assert "0 to do" in said


@pytest.fixture
def photos(tmp_path: Path, warm_cache: Path) -> Path:
    """Three pictures in two folders, two of one name, one of another size and mode."""
    root = generated(warm_cache, "washer") / "washer" / "test"
    defect = next(p for p in sorted(root.iterdir()) if p.name != "good")
    folder = tmp_path / "photos"
    for place, source in (("a", root / "good"), ("b", defect)):
        (folder / place).mkdir(parents=True)
        shutil.copy(min(source.iterdir()), folder / place / "one.bmp")
    Image.new("L", (90, 40), 77).save(folder / "b" / "two wide.PNG")
    (folder / "notes.txt").write_text("not an image")
    return folder


def command_of(saved: tuple[Bench, str], method: str) -> tuple[str, str, str, str]:
    store = saved[0].store
    run_id = run_of(store, method).run_id
    return "predict", run_id[:8], "--results", str(store.root)


def test_predict_writes_scores_boxes_maps_and_pictures(
    saved: tuple[Bench, str], photos: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    arguments = (*command_of(saved, "atacnet"), "--out", str(out))
    code, said, err = bench(capsys, *arguments, str(photos))
    assert (code, err) == (0, "")
    assert "one.bmp" in said
    rows = pq.read_table(out / "predictions.parquet").to_pylist()
    assert [Path(r["file"]).relative_to(photos).as_posix() for r in rows] == [
        "a/one.bmp", "b/one.bmp", "b/two wide.PNG",
    ]  # fmt: skip
    wide = rows[2]
    assert (wide["width"], wide["height"]) == (90, 40)
    assert 0 <= wide["box_left"] < wide["box_right"] <= 90
    assert 0 <= wide["box_top"] < wide["box_bottom"] <= 40
    assert len(wide["map_score"]) == wide["map_score_height"] * wide["map_score_width"] == 64
    assert (wide["part_raw"] + wide["part_zoomed"]) / 2 == pytest.approx(wide["score"], abs=1e-5)
    pictures = sorted((out / "overlays").iterdir())
    assert [p.name for p in pictures] == [
        "00000_one.png", "00001_one.png", "00002_two_wide.png",
    ]  # fmt: skip
    with Image.open(pictures[2]) as picture:
        assert picture.size == (90, 40)
    code, _, err = bench(capsys, *arguments, str(photos))
    assert code == 2
    assert "is there already" in err


def test_predict_ranks_and_judges_by_the_runs_own_normal_images(
    saved: tuple[Bench, str], photos: Path, tmp_path: Path, capsys: Any
) -> None:
    arguments = (*command_of(saved, "shortcut"), str(photos), "--threshold", "fpr=0.1")
    code, said, err = bench(capsys, *arguments, "--out", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    defects = sum(row["verdict"] == "defect" for row in rows)
    assert {row["verdict"] for row in rows} <= {"ok", "defect"}
    assert f"{defects} defect{'s' * (defects != 1)} of 3 images" in said
    assert "of the run's own test images" in said
    (head, *_) = said.splitlines()
    assert head.split() == ["file", "score", "above", "normals", "verdict"]
    code, said, err = bench(capsys, *arguments, "--json", "--out", str(tmp_path / "json"))
    assert json.loads(said) == rows
    assert err == f"{tmp_path / 'json'}: predictions.parquet\n"
    code, said, _ = bench(capsys, *arguments, "--format", "csv", "--out", str(tmp_path / "csv"))
    table = list(csv.DictReader(io.StringIO(said)))
    assert [(r["verdict"], float(r["rank"])) for r in table] == [
        (r["verdict"], r["rank"]) for r in rows
    ]


def test_a_method_without_maps_has_scores_alone(
    saved: tuple[Bench, str], photos: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    code, said, _ = bench(capsys, *command_of(saved, "shortcut"), "--out", str(out), str(photos))
    assert code == 0
    assert "overlays" not in said
    (row, *_) = pq.read_table(out / "predictions.parquet").to_pylist()
    assert row["box_left"] is None
    assert [p.name for p in out.iterdir()] == ["predictions.parquet"]


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda p: [f.write_bytes(b"no image") for f in p.rglob("*.*")], "one.bmp does not decode"),
        (lambda p: shutil.rmtree(p), "there is no file or folder"),
        (lambda p: [f.unlink() for f in p.rglob("*.*")], "no images in"),
    ],
)
def test_bad_images_end_in_one_line_and_leave_nothing(
    saved: tuple[Bench, str], photos: Path, tmp_path: Path, capsys: Any, break_it: Any, said: str
) -> None:
    break_it(photos)
    before = sorted(tmp_path.iterdir())
    out = tmp_path / "out"
    code, _, err = bench(capsys, *command_of(saved, "devnet"), "--out", str(out), str(photos))
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_broken_file_is_named_and_the_others_are_scored(
    saved: tuple[Bench, str], photos: Path, tmp_path: Path, capsys: Any
) -> None:
    out, sound = tmp_path / "out", tmp_path / "sound"
    arguments = (*command_of(saved, "atacnet"), str(photos), "--out")
    assert bench(capsys, *arguments, str(sound))[0] == 0
    (photos / "b" / "one.png").write_bytes(b"no image")
    code, said, err = bench(capsys, *arguments, str(out))
    assert code == 1
    assert err.startswith(f"left out: {photos}/b/one.png does not decode")
    assert err.count("\n") == 1
    assert "predictions.parquet and overlays/" in said
    rows = pq.read_table(out / "predictions.parquet").to_pylist()
    assert [Path(r["file"]).name for r in rows] == ["one.bmp", "one.bmp", "one.png", "two wide.PNG"]
    broken = rows.pop(2)
    assert f"left out: {broken.pop('problem')}\n" == err
    assert broken.pop("file") == str(photos / "b" / "one.png")
    assert {*broken.values()} == {None}
    assert rows == pq.read_table(sound / "predictions.parquet").to_pylist()
    pictures = [p.name for p in sorted((out / "overlays").iterdir())]
    assert pictures == ["00000_one.png", "00001_one.png", "00003_two_wide.png"]
    for picture, same in zip(pictures, sorted((sound / "overlays").iterdir()), strict=True):
        assert (out / "overlays" / picture).read_bytes() == same.read_bytes()


# Parts


def decoded(count: int, broken: set[int] = frozenset()) -> Iterator[Decoded]:
    one = np.zeros(1, np.int64)
    image = np.zeros((1, 3, 4, 4), np.uint8)
    for i in range(count):
        samples = Samples(image, (str(i),), one, one, ("RGB",), one)
        yield Path(str(i)), DataError(f"{i} is broken") if i in broken else samples


def has_image(item: Decoded) -> bool:
    return isinstance(item[1], Samples)


@pytest.mark.parametrize(
    ("count", "broken", "parts"),
    [
        (3, (), [3]),
        (4, (), [4]),
        (7, (), [7]),
        (8, (), [4, 4]),
        (9, (), [4, 5]),
        (13, (0, 5, 12), [5, 8]),
        (14, (1, 2, 3, 4), [8, 6]),
        (6, (4, 5), [6]),
    ],
)
def test_parts_hold_as_many_images_and_the_last_is_no_remnant(
    count: int, broken: tuple[int, ...], parts: list[int]
) -> None:
    seen = list(in_parts(decoded(count, {*broken}), 4, has_image))
    assert [int(str(path)) for part in seen for path, _ in part] == list(range(count))
    assert [len(part) for part in seen] == parts
    images = [sum(isinstance(image, Samples) for _, image in part) for part in seen]
    assert images == [s.stop - s.start for s in spans(count - len(broken), 4)]


def test_images_are_decoded_as_they_are_needed(tmp_path: Path) -> None:
    asked = []

    def ask() -> Iterator[Decoded]:
        for item in decoded(1000):
            asked.append(item)
            yield item

    for i, _ in enumerate(in_parts(ask(), 8, has_image)):
        assert len(asked) <= 8 * (i + 2)


def test_a_run_without_a_model_says_how_to_get_one(
    saved: tuple[Bench, str], photos: Path, tmp_path: Path, capsys: Any
) -> None:
    pack(saved[0].store, tmp_path / "archive")
    name, run_id, *_ = command_of(saved, "devnet")
    code, _, err = bench(
        capsys, name, run_id, "--results", str(tmp_path / "archive"), str(photos)
    )  # fmt: skip
    assert code == 2
    assert "has no saved model: give its `bench run` command again with --save-models" in err


def test_a_damaged_model_is_not_used(
    saved: tuple[Bench, str], photos: Path, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(saved[0].store.root, tmp_path / "results")
    name, run_id, *_ = command_of(saved, "devnet")
    (model,) = (tmp_path / "results" / "runs").glob(f"{run_id}*/{MODEL}")
    flip(model)
    code, _, err = bench(
        capsys, name, run_id, "--results", str(tmp_path / "results"), str(photos)
    )  # fmt: skip
    assert code == 2
    assert "is damaged" in err
    assert MODEL in err


# Images and pictures


def test_images_are_found_once_in_their_order(photos: Path) -> None:
    one = photos / "b" / "one.bmp"
    found = find_images([one, photos])
    assert found[0] == one
    assert len(found) == len(set(found)) == 3
    with pytest.raises(RequestError, match="no file or folder"):
        find_images([photos / "nowhere"])


def test_an_overlays_name_holds_nothing_but_plain_characters() -> None:
    assert overlay_name(7, Path("/x/Größe [bold] .png")) == "00007_Gr__e__bold__.png"
    assert len(overlay_name(1, Path("y" * 200 + ".png"))) < 100
