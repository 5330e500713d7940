"""What `bench doctor` finds of datasets and weights."""

import hashlib
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.data.catalog import HEAD_CT
from bench.detector import BackboneSource
from bench.doctor import inputs
from bench.errors import MissingWeights, StoreError
from bench.planning.plan import Folders
from bench.system.digests import SETTLED
from bench.weights import BACKBONES, Weights
from tests.fixtures.findings import bottle, by_name


def test_datasets_that_are_absent_or_unofficial_are_noted(folders: Folders) -> None:
    found = by_name(inputs.check_datasets(folders, None))
    assert {name: f.state for name, f in found.items()} == {
        "mvtec_ad": "note",
        "brain_mri": "note",
        "head_ct": "note",
        "synthetic": "ok",
    }
    assert "kaggle.com" in found["head_ct"].todo
    assert found["mvtec_ad"].found.endswith("nor 14 more of 15 categories")
    bottle(folders.data, 1)
    found = by_name(inputs.check_datasets(folders, None))
    assert found["mvtec_ad"].found.endswith("nor 13 more of 15 categories")


def test_a_folder_that_cannot_be_read_is_a_line_for_each_dataset(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    folders.data.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", forbidden)
        patched.setattr(Path, "is_dir", forbidden)
        found = by_name(inputs.check_datasets(folders, None))
    assert list(found) == ["mvtec_ad", "brain_mri", "head_ct", "synthetic"]
    for name in ("mvtec_ad", "brain_mri", "head_ct"):
        assert found[name].state == "note"
        assert "Permission denied" in found[name].found


def test_colons_in_a_path_split_no_finding(tmp_path: Path) -> None:
    home = tmp_path / "a: b" / "c: put d"
    folders = Folders(*(home / name for name in ("data", "weights", "results", "cache")))
    found = by_name(inputs.check_datasets(folders, None))
    assert found["head_ct"].found == f"head_ct is not in {folders.data}"
    assert found["head_ct"].todo == HEAD_CT.remedy(folders.data)
    stray = folders.data / "head_ct/head_ct/stray.png"
    stray.parent.mkdir(parents=True)
    stray.touch()
    found = by_name(inputs.check_datasets(folders, None))
    assert found["head_ct"].found.startswith(f"{stray} is not one of Head-CT's")
    found = by_name(inputs.check_weights(folders, None))
    assert found["resnet18"].found.startswith("no ImageNet weights of resnet18 to stage 4 in ")
    assert found["resnet18"].found.endswith("c: put d/weights")
    assert found["resnet18"].todo.startswith("put https://download.pytorch.org/")


def test_each_weights_file_is_read_once(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    folders.weights.mkdir()
    for name in ("a.pth", "b.pth"):
        (folders.weights / name).write_bytes(name.encode())
    now, read = time.time_ns(), []
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * SETTLED)
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda f, k: read.append(f.name) or digest(f, k))
    for _ in range(2):
        assert {f.state for f in inputs.check_weights(folders, None)} == {"note"}
        assert len(read) == 2


def test_a_cache_that_cannot_be_written_ends_no_check_of_weights(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object) -> None:
        raise StoreError("cannot write")

    monkeypatch.setattr(inputs.FingerprintCache, "save", full)
    assert len(list(inputs.check_weights(folders, None))) == len(BACKBONES)


@pytest.mark.parametrize(("holds", "asked"), [(4, [4]), (3, [4, 3]), (0, [4, 3, 2, 1])])
def test_the_deepest_stage_that_fits_is_found_and_the_deepest_failure_told(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, holds: int, asked: list[int]
) -> None:
    tried: list[int] = []

    def find(backbone: str, stage: int, *_: object) -> Weights:
        tried.append(stage)
        if stage > holds:
            raise MissingWeights(f"none to stage {stage}: put x there")
        return Weights(BackboneSource(backbone, stage, None), "none", "title")

    monkeypatch.setattr(inputs, "find_weights", find)
    found = list(inputs.check_weights(folders, None))
    assert tried == asked * len(BACKBONES)
    said = f"to stage {holds}: title" if holds else "none to stage 4"
    assert [f.found for f in found] == [said] * len(BACKBONES)


def test_masks_that_cannot_be_used_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "mask_lines", iter)
    state: Any = SimpleNamespace(plan=SimpleNamespace(runs=["no pixel metrics of nuts: why"]))
    [found] = inputs.check_masks(state)
    assert (found.state, found.what, found.found) == ("note", "masks", state.plan.runs[0])
