"""What a plan says of masks before anything runs."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from bench.data.catalog import find_dataset
from bench.data.layouts import list_category
from bench.planning.masks import lost_mask_lines, mask_lines
from bench.planning.plan import Plan
from bench.store.groups import Metrics


@pytest.fixture
def nuts(tmp_path: Path) -> Path:
    """A dataset of one's own with a mask for its one anomaly."""
    folder = tmp_path / "nuts"
    for name in ("train/good/0", "test/good/0", "test/bent/0", "ground_truth/bent/0_mask"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 6), 9).save(folder / f"{name}.png")
    return folder


def run_of(nuts: Path, **abilities: bool) -> Any:
    """Return a run of a method that explains."""
    dataset = find_dataset("nuts", nuts.parent)
    return SimpleNamespace(
        run_id="1",
        spec=SimpleNamespace(dataset="nuts", category="nuts"),
        planned=SimpleNamespace(method=SimpleNamespace(abilities=abilities or {"explain"})),
        listing=list_category(dataset, "nuts", nuts.parent, nuts.parent),
    )


def lines(nuts: Path, **abilities: bool) -> list[str]:
    """Return what is said of two runs of a method that explains."""
    run = run_of(nuts, **abilities)
    return list(mask_lines([run, run]))


def test_masks_that_can_be_used_are_no_matter(nuts: Path) -> None:
    assert lines(nuts) == []


def test_a_category_whose_masks_cannot_be_used_has_one_line(nuts: Path) -> None:
    mask = nuts / "ground_truth" / "bent" / "0_mask.png"
    Image.new("L", (8, 6)).save(mask)
    assert lines(nuts, embed=True) == []
    assert lines(nuts) == [
        f"no pixel metrics of nuts: {mask} marks no defect; replace or remove it"
    ]
    for i in range(1, 6):
        Image.new("L", (8, 6)).save(nuts / "test" / "bent" / f"{i}.png")
    [line] = lines(nuts)
    assert line.startswith(f"no pixel metrics of nuts: {mask} marks no defect;")
    assert line.endswith("; and 3 more")
    mask.unlink()
    mask.parent.rmdir()
    assert lines(nuts) == [
        f"no pixel metrics of nuts: there are no masks; the first belongs at {mask}"
    ]


def test_masks_that_are_gone_since_a_run_have_one_line(nuts: Path) -> None:
    run = run_of(nuts)
    receipts: Any = [
        SimpleNamespace(metrics=Metrics({"masks_sha256": m})) for m in ("0" * 64, None)
    ]
    marked, unmarked = ({run.run_id: receipt} for receipt in receipts)
    assert list(lost_mask_lines([run], marked)) == []
    shutil.rmtree(nuts / "ground_truth")
    gone = "masks of nuts are gone: the stored pixel metrics stay"
    assert list(lost_mask_lines([run, run], marked)) == [gone]
    assert list(lost_mask_lines([run], unmarked)) == list(lost_mask_lines([run], {})) == []


def test_the_embedded_masks_are_all_right(plan: Plan) -> None:
    assert list(mask_lines(plan.runs)) == []
