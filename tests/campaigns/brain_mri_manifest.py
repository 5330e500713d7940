"""Make the manifest of Brain-MRI from an official copy: digests, and which normals are tested.

    python -m tests.campaigns.brain_mri_manifest data/brain_mri > brain_mri.json

It belongs in `bench/data/manifests`. Whoever changes what it holds raises the data version of the
card.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np

from bench.data.catalog import BRAIN_MRI
from bench.data.decode import decode_image, facts_of
from bench.data.listing import File, Listing, images_in
from bench.data.near_copies import pictures, thumbnail

SEED = 42
RULE = (
    "the pictures that the normals show (near copies are one), in order of their first path, are"
    f" shuffled by numpy RandomState({SEED}); a quarter of them is tested, each with all its files"
)


def quarter(paths: list[str], shown: list[str]) -> list[str]:
    """Return the tested ones of normal files, `shown` the picture of each."""
    groups: dict[str, list[str]] = {}
    for path, picture in sorted(zip(paths, shown, strict=True)):
        groups.setdefault(picture, []).append(path)
    ordered = list(groups.values())
    chosen = np.random.RandomState(SEED).permutation(len(ordered))[: round(len(ordered) / 4)]
    return sorted(path for i in chosen for path in ordered[i])


def make(root: Path) -> dict[str, object]:
    """Return the manifest of the copy in a folder."""
    images = [path for name in ("no", "yes") for path in images_in(root / name)]
    paths = sorted(path.relative_to(root).as_posix() for path in images)
    contents = [(root / path).read_bytes() for path in paths]
    decoded = [decode_image(root / p, c) for p, c in zip(paths, contents, strict=True)]
    pixels = [facts_of(p, c, *d).pixels for p, c, d in zip(paths, contents, decoded, strict=True)]
    stems = {path.rpartition(".")[0]: path for path in paths}
    by_hand = tuple(tuple(stems[stem] for stem in group) for group in BRAIN_MRI.copies_by_hand)
    files = tuple(File(path, "", "") for path in paths)
    listing = Listing(root, files, near_copies=True, copies_by_hand=by_hand)
    shown = pictures(listing, pixels, [thumbnail(rgb) for rgb, _ in decoded])
    normals = [(p, s) for p, s in zip(paths, shown, strict=True) if p.startswith("no/")]
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    return {
        "dataset": BRAIN_MRI.title,
        "rule": RULE,
        "test_normals": quarter([p for p, _ in normals], [s for _, s in normals]),
        "files": {p: [d, x] for p, d, x in zip(paths, digests, pixels, strict=True)},
    }


if __name__ == "__main__":
    text = json.dumps(make(Path(sys.argv[1])), indent=1)
    print(re.sub(r'\[\s+("\w{64}"),\s+("\w{64}")\s+\]', r"[\1, \2]", text))
