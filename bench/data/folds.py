"""Manifests of folds: which images of a folder are tested, by what the files hold."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bench.data.listing import content_digests
from bench.data.pixel_digests import PixelDigests
from bench.errors import StoreError


@dataclass(frozen=True)
class FoldManifest:
    """The fold, `train` or `test`, of each image of an official copy."""

    by_bytes: Mapping[str, str]
    """By the sha256 of the file, which a new name keeps."""
    by_pixels: Mapping[str, str]
    """By the digest of the decoded pixels, which another encoding keeps, too."""
    by_name: Mapping[str, str]
    """For files that hold neither, such as images that somebody has resized."""

    def folds(self, title: str, paths: Sequence[Path], known: PixelDigests) -> list[str]:
        """Return the fold of each file; `train` for one that is not known.

        Files are read, and decoded where their bytes are not known, each once. Raises DataError for
        a file that cannot be read.
        """
        contents = content_digests(paths, known.digests)
        other = [p for p, c in zip(paths, contents, strict=True) if c not in self.by_bytes]
        pixels = dict(zip(other, known.of_files(title, other), strict=True))
        for entries in (known.digests, known):
            with contextlib.suppress(StoreError):  # the next command reads them again
                entries.save()
        return [
            self.by_bytes.get(content)
            or self.by_pixels.get(pixels[path])
            or self.by_name.get(path.name, "train")
            for path, content in zip(paths, contents, strict=True)
        ]


def read_manifest(name: str) -> FoldManifest:
    """Return one of the project's manifests, as `brain_mri`.

    It has `train_normals` and `test_normals`, pixel digests by name, and `sha256`, those of the
    files.
    """
    text = (
        resources.files("bench.data").joinpath(f"manifests/{name}.json").read_text(encoding="utf-8")
    )
    manifest = json.loads(text)
    by_name: dict[str, str] = {}
    by_pixels: dict[str, str] = {}
    for fold in ("train", "test"):
        for file, pixels in manifest[f"{fold}_normals"].items():
            by_name[file] = by_pixels[pixels] = fold
    by_bytes = {digest: by_name[file] for file, digest in manifest["sha256"].items()}
    return FoldManifest(by_bytes, by_pixels, by_name)
