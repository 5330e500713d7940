"""Manifests of folds: which images of a dataset are tested, by what the files hold."""

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bench.data.listing import content_digests
from bench.data.pixel_digests import PixelDigests
from bench.errors import StoreError


@dataclass(frozen=True)
class FoldManifest:
    """The images of an official copy, and which of its normal ones are tested."""

    by_bytes: Mapping[str, str]
    """Paths by the sha256 of the file, which a new name keeps."""
    by_pixels: Mapping[str, str]
    """Paths by the digest of the decoded pixels, which another encoding keeps, too."""
    test_normals: Collection[str]
    """Paths, which also serve for files that hold neither, such as images somebody has resized."""

    def official_paths(
        self, title: str, root: Path, paths: Sequence[str], known: PixelDigests
    ) -> list[str]:
        """Return each file's path in the official copy; its own where it is not known.

        Files are read, and decoded where their bytes are not known, each once. Raises DataError for
        a file that cannot be read.
        """
        contents = content_digests([root / path for path in paths], known.digests)
        other = [p for p, c in zip(paths, contents, strict=True) if c not in self.by_bytes]
        digests = known.of_files(title, [root / path for path in other], thumbnails=True)
        pixels = dict(zip(other, digests, strict=True))
        for entries in (known.digests, known):
            with contextlib.suppress(StoreError):  # the next command reads them again
                entries.save()
        return [
            self.by_bytes.get(content) or self.by_pixels.get(pixels[path], path)
            for path, content in zip(paths, contents, strict=True)
        ]


def read_manifest(name: str) -> FoldManifest:
    """Return one of the project's manifests, as `brain_mri`.

    It has `test_normals`, paths, and `files`: two sha256 by path, of the bytes and of the pixels.
    """
    text = (
        resources.files("bench.data").joinpath(f"manifests/{name}.json").read_text(encoding="utf-8")
    )
    manifest = json.loads(text)
    digests = manifest["files"].items()
    by_bytes = {content: path for path, (content, _) in digests}
    by_pixels = {pixels: path for path, (_, pixels) in digests}
    return FoldManifest(by_bytes, by_pixels, frozenset(manifest["test_normals"]))
