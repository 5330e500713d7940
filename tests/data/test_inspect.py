"""`bench data verify`: what is said of official copies, other copies, damaged ones, duplicates."""

import shutil
import time
from pathlib import Path

import pytest
from PIL import Image

from bench.cli import main
from bench.data.catalog import BRAIN_MRI, HEAD_CT, MVTEC_AD, SYNTHETIC, Dataset
from bench.data.inspect import Inspection, inspect, inspection_lines, named_categories
from bench.data.layouts import list_category
from bench.data.listing import fingerprint
from bench.errors import DataError, MissingData, RequestError
from bench.system.digests import SETTLED, FingerprintCache


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder of one's own: a category of 17 different pictures."""
    for n, place in enumerate(("train/good", "test/good", "test/hole", "test/cut")):
        folder = tmp_path / "data" / "parts" / "nut" / place
        folder.mkdir(parents=True)
        for m in range((2, 2, 7, 6)[n]):
            Image.new("RGB", (20, 20), (40 * n, 30 * m, 0)).save(folder / f"{m}.png")
    return tmp_path / "data" / "parts" / "nut"


def looked(parts: Path, cache: Path) -> Inspection:
    [(dataset, category)] = named_categories(["parts"], parts.parents[1])
    return inspect(dataset, category, parts.parents[1], cache, FingerprintCache(cache))


def said(found: Inspection) -> str:
    lines = list(inspection_lines(found))
    assert all(len(line) <= 100 or max(map(len, line.split())) > 60 for line in lines)
    return "\n".join(lines)


# Official and other copies


@pytest.mark.parametrize(("dataset", "surplus"), [(HEAD_CT, 1), (BRAIN_MRI, 25)])
def test_the_official_copies_are_official(
    shared: Path, warm_cache: Path, dataset: Dataset, surplus: int
) -> None:
    digests = FingerprintCache(warm_cache)
    found = inspect(dataset, dataset.name, shared / "data", warm_cache, digests)
    assert found.good
    assert found.fingerprint == dataset.fingerprint
    assert sum(len(g) - 1 for g in found.duplicates) == surplus
    text = said(found)
    assert f"{dataset.name}: the official copy\n" in text
    assert "(the official one)" in text
    assert "normal and anomalous alike" not in text


def test_a_copy_of_other_counts_and_sizes_is_not(shared: Path, warm_cache: Path) -> None:
    digests = FingerprintCache(warm_cache)
    found = inspect(MVTEC_AD, "capsule", shared / "data", warm_cache, digests)
    assert not found.good
    assert found.differences == ("15 of 23 normal test images", "256x256 px, not 1000x1000")
    assert not found.duplicates
    assert "this is not the official copy" in said(found)


def test_the_embedded_dataset_is_official(warm_cache: Path) -> None:
    digests = FingerprintCache(warm_cache)
    found = inspect(SYNTHETIC, "washer", Path("nowhere"), warm_cache, digests)
    assert found.good
    assert "96x96 px, native" in said(found)


def test_what_is_not_there_cannot_be_used(tmp_path: Path, cache: Path) -> None:
    found = inspect(MVTEC_AD, "pill", tmp_path, cache, FingerprintCache(cache))
    assert not found.good
    assert "mvtec_ad/pill: cannot be used" in said(found)
    assert MVTEC_AD.source in said(found)


def test_a_folder_of_ones_own_is_good_if_its_files_are(parts: Path, cache: Path) -> None:
    found = looked(parts, cache)
    assert found.good
    assert found.place == "parts/nut"
    assert "17: train 2 normal; test 2 normal, 13 anomalous of 2 defect types" in said(found)
    assert "parts/nut: every file can be used" in said(found)
    assert "defect types hole 7, cut 6" in said(found)
    assert "no two files" in said(found)
    assert "RGB 17; files .png 17" in said(found)


def test_what_is_passed_over_is_counted_and_named(parts: Path, cache: Path) -> None:
    (parts / "train/good/more").mkdir()
    (parts / "train/good/1.png").rename(parts / "train/good/more/1.png")
    (parts / "test/cut/a.webp").write_bytes(b"")
    found = looked(parts, cache)
    assert found.good
    assert said(found).splitlines()[:3] == [
        "parts/nut: every file can be used; 2 more files looking like images not used",
        "  not used     1 in test/cut (.webp 1): save them as PNG, JPEG, BMP or TIFF",
        "  not used     1 in train/good/more (.png 1): move them into train/good",
    ]


def test_masks_of_no_anomalous_image_are_counted_and_named(parts: Path, cache: Path) -> None:
    for i in range(5):
        path = parts / f"ground_truth/good/{i}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = looked(parts, cache)
    assert found.good
    first = "; ".join(f"nut/ground_truth/good/{i}_mask.png" for i in range(3))
    text = " ".join(said(found).split())
    assert f"not used 5 masks of no anomalous image: {first}; and 2 more" in text


def test_masks_that_mark_all_are_a_warning(parts: Path, cache: Path) -> None:
    for image in [*parts.glob("test/hole/*"), *parts.glob("test/cut/*")]:
        path = parts / "ground_truth" / image.parent.name / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(image) as opened:
            Image.new("L", opened.size, 255).save(path)
    found = looked(parts, cache)
    assert found.good
    text = " ".join(said(found).split())
    assert f"warning {parts}/ground_truth/cut/0.png marks the whole image;" in text
    assert "marks the whole image; and 10 more" in text


# Damage


def test_every_file_that_cannot_be_used_is_named(parts: Path, cache: Path) -> None:
    (parts / "test/hole/0.png").write_bytes(b"")
    (parts / "train/good/1.png").write_bytes(b"hello")
    Image.new("CMYK", (9, 9)).save(parts / "test/cut/9.tif")
    found = looked(parts, cache)
    assert not found.good
    text = " ".join(said(found).split())
    for line in (
        "hole/0.png does not decode (is empty)",
        "good/1.png does not decode (is not a",
        "cut/9.tif has mode CMYK",
        "3 of 18 files cannot be used",
    ):
        assert line in text
    assert found.fingerprint  # they were read


def test_a_file_that_is_gone_when_it_is_read_is_named(
    parts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(dataset, category)] = named_categories(["parts"], parts.parents[1])
    listing = list_category(dataset, category, parts.parents[1], cache)
    (parts / "test/hole/0.png").unlink()
    monkeypatch.setattr("bench.data.inspect.list_category", lambda *_: listing)
    found = looked(parts, cache)
    assert "hole/0.png: No such file" in " ".join(said(found).split())
    assert found.fingerprint == ""
    assert "not all files can be read" in said(found)


def test_a_name_that_is_refused_is_said(parts: Path, cache: Path) -> None:
    (parts / "test/hole/a\nb.png").write_bytes(b"")
    found = looked(parts, cache)
    assert not found.good
    assert r"a\nb.png" in said(found)


def test_every_mask_that_cannot_be_used_is_named(
    parts: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = parts / "ground_truth" / "hole"
    folder.mkdir(parents=True)
    Image.new("L", (20, 20), 255).save(folder / "0.png")
    Image.new("L", (20, 20)).save(folder / "1_mask.png")
    found = looked(parts, cache)
    assert not found.good
    text = " ".join(said(found).split())
    assert text.startswith(
        "parts/nut: every file can be used; 12 masks cannot be used: no pixel metrics"
    )
    assert "ground_truth/hole/1_mask.png marks no defect" in text
    assert "test/cut/0.png has no mask; it belongs at" in text
    with pytest.raises(SystemExit) as ended:
        main(["data", "verify", "parts", f"--data={parts.parents[1]}", f"--cache={cache}"])
    assert ended.value.code == 1
    assert "1_mask.png" in capsys.readouterr().out
    shutil.rmtree(folder)
    assert looked(parts, cache).good


# Duplicates


def test_duplicates_are_named_by_where_they_are(parts: Path, cache: Path) -> None:
    def copy(source: str, target: str) -> None:
        with Image.open(parts / source) as image:
            image.save(parts / target)  # the same pixels, in another file format

    copy("train/good/0.png", "train/good/2.bmp")
    copy("train/good/1.png", "test/good/2.bmp")
    copy("test/hole/0.png", "test/cut/2.bmp")
    copy("test/hole/1.png", "test/good/3.bmp")
    copy("test/hole/1.png", "train/good/3.bmp")
    found = looked(parts, cache)
    assert found.good
    lines = [" ".join(line.split()) for line in inspection_lines(found)]
    start = lines.index("same pixels normal and anomalous alike: 2 files more than pictures")
    assert lines[start:] == [
        "same pixels normal and anomalous alike: 2 files more than pictures",
        "nut/test/good/3.bmp = nut/test/hole/1.png = nut/train/good/3.bmp",
        "same pixels in both train and test: 1 file more than pictures",
        "nut/test/good/2.bmp = nut/train/good/1.png",
        "same pixels within test: 1 file more than pictures",
        "nut/test/cut/2.bmp = nut/test/hole/0.png",
        "same pixels within train: 1 file more than pictures",
        "nut/train/good/0.png = nut/train/good/2.bmp",
    ]


# Names, the cache, the command


def test_names_stand_for_categories_once(parts: Path) -> None:
    data = parts.parents[1]
    shutil.copytree(parts, parts.with_name("bolt"))
    found = [(d.name, c) for d, c in named_categories(["parts/nut", "parts", "head_ct"], data)]
    assert found == [("parts", "nut"), ("parts", "bolt"), ("head_ct", "head_ct")]
    with pytest.raises(RequestError, match=r"parts has no category 'nit'; it has: bolt, nut"):
        named_categories(["parts/nit"], data)
    with pytest.raises(MissingData, match="nosuch"):
        named_categories(["nosuch"], data)
    with pytest.raises((RequestError, DataError)) as caught:
        named_categories(["a" * 300], data)
    assert str(caught.value).isprintable()


def test_prepare_takes_names_as_verify_does(
    parts: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(parts, parts.with_name("bolt"))
    where = ["--data", str(parts.parents[1]), "--cache", str(cache)]
    for names, said in ((["parts", "parts/nut"], 0), (["parts/"], 2), (["parts/nit"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(["data", "prepare", *names, "--image-size", "32", *where])
        assert ended.value.code == said
        out, err = capsys.readouterr()
        assert [line.partition(":")[0] for line in out.splitlines()] == (
            [] if said else ["parts/bolt", "parts/nut"]
        )
        assert ("it has: bolt, nut" in err) == bool(said)


def test_what_the_cache_knew_wrongly_is_put_right(
    parts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * SETTLED)
    [(dataset, category)] = named_categories(["parts"], parts.parents[1])
    listing = list_category(dataset, category, parts.parents[1], cache)
    digests = FingerprintCache(cache)
    right = fingerprint(listing, digests)
    wrong = str(parts / "test/cut/0.png")
    digests._known[wrong][3] = "0" * 64
    assert fingerprint(listing, digests) != right
    found = inspect(dataset, category, parts.parents[1], cache, digests)
    assert found.fingerprint == right == fingerprint(listing, digests)
    assert digests.corrected == [Path(wrong)]


def test_the_command_says_so_and_changes_nothing(
    parts: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    data = parts.parents[1]
    before = sorted((p, p.stat().st_mtime_ns) for p in data.rglob("*"))
    arguments = ["data", "verify", "parts", "--data", str(data), "--cache", str(cache)]

    def code() -> object:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return ended.value.code

    assert code() in (0, None)
    assert sorted((p, p.stat().st_mtime_ns) for p in data.rglob("*")) == before
    assert {p.name for p in cache.rglob("*")} <= {"sha256.json"}
    assert "every file can be used" in capsys.readouterr().out
    (parts / "test/cut/0.png").write_bytes(b"")
    assert code() == 1
    out, err = capsys.readouterr()
    assert "1 of 17 files cannot be used" in out
    assert err == ""
    arguments[2] = "nosuch"
    assert code() == 2
    assert capsys.readouterr().err.count("\n") == 1
