"""Training, drawn and test images: seeded, the same for every method."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.data.listing import File
from bench.errors import DataError, RequestError
from bench.seeding import sub_seed
from bench.spec import USUAL_DRAW, place_name
from bench.text import counted

DRAWN = USUAL_DRAW
"""Anomalies drawn for a seed, unless a suite says otherwise."""

SETTINGS = ("general", "hard")


@dataclass(frozen=True)
class Split:
    """Indices into the category's sorted files.

    Every method scores the whole test fold. `role` says of each tested file whether it counts:
    `test`, or why it does not (`drawn`, `duplicate`, `seen`).
    """

    train_normal: tuple[int, ...]
    drawn: tuple[int, ...]
    """The drawn anomalies in drawing order, ten by default; k shots are the first k."""
    tested: tuple[int, ...]
    role: tuple[str, ...]
    left_out: tuple[int, ...]
    """Training normals that are left out because the test fold shows the same pictures."""

    def counted(self) -> np.ndarray:
        """Return which tested files count, (len(tested),) bool."""
        return np.array([r == "test" for r in self.role])


def split_category(
    files: Sequence[File],
    pixels: Sequence[str],
    *,
    seed: int,
    dataset: str,
    category: str,
    setting: str = "general",
    seen_defect: str | None = None,
    draw: int = DRAWN,
) -> Split:
    """Split one category for one seed.

    `files` are sorted by path; `pixels[i]` is the digest of what `files[i]` shows, equal for
    duplicates and, where the card says so, for near copies, whatever their class. They never
    straddle training and test: a training normal that the test fold shows again is left out, and a
    duplicate of a drawn anomaly is not counted in the test. The draw walks a seeded permutation of
    the sorted anomalies and skips what it has already shown, so ten shots are ten pictures. A
    smaller `draw` holds the first of them.
    In the `hard` setting all labelled anomalies are of `seen_defect` and no image of that type
    counts in the test. Raises RequestError or DataError where that cannot be done.
    """
    if setting not in SETTINGS:
        raise RequestError(f"setting is one of {', '.join(SETTINGS)}, not {setting!r}")
    name = place_name(dataset, category)
    test_pixels = {p for f, p in zip(files, pixels, strict=True) if f.fold == "test"}
    train = [i for i, f in enumerate(files) if f.fold == "train"]
    left_out = tuple(i for i in train if pixels[i] in test_pixels)
    tested = [i for i, f in enumerate(files) if f.fold == "test"]
    candidates = [i for i in tested if files[i].anomalous]
    if setting == "hard":
        if seen_defect not in seen_defects(files, draw):
            possible = ", ".join(seen_defects(files, draw)) or "none"
            raise RequestError(f"{name}: hard setting with {seen_defect!r}; possible: {possible}")
        candidates = [i for i in candidates if files[i].defect == seen_defect]
    generator = np.random.RandomState(sub_seed(seed, "draw", dataset, category) % 2**32)
    drawn: list[int] = []
    drawn_pixels: set[str] = set()
    for i in (candidates[j] for j in generator.permutation(len(candidates))):
        if len(drawn) < draw and pixels[i] not in drawn_pixels:
            drawn.append(i)
            drawn_pixels.add(pixels[i])

    if len(drawn) < draw:
        raise DataError(f"{name} has {len(drawn)} anomalies that differ; {draw} are drawn")

    def role(i: int) -> str:
        if i in drawn:
            return "drawn"
        if pixels[i] in drawn_pixels:
            return "duplicate"
        return "seen" if setting == "hard" and files[i].defect == seen_defect else "test"

    roles = tuple(role(i) for i in tested)
    if not any(r == "test" and files[i].anomalous for i, r in zip(tested, roles, strict=True)):
        raise DataError(f"{name} has {len(candidates)} anomalies: none is left to test on")
    return Split(
        train_normal=tuple(i for i in train if i not in set(left_out)),
        drawn=tuple(drawn),
        tested=tuple(tested),
        role=roles,
        left_out=left_out,
    )


def near_copies_left_out(split: Split, pixels: Sequence[str]) -> tuple[int, int]:
    """Count what training and test lose by near copies.

    These are the images left out whose pixels are not those of the image that they copy.
    """
    tested, drawn = ({pixels[i] for i in part} for part in (split.tested, split.drawn))
    roles = zip(split.tested, split.role, strict=True)
    return (
        sum(pixels[i] not in tested for i in split.left_out),
        sum(role == "duplicate" and pixels[i] not in drawn for i, role in roles),
    )


def seen_defects(files: Sequence[File], draw: int = DRAWN) -> list[str]:
    """Return defect types allowed in the hard setting.

    PROTOCOL: types with fewer images than are drawn are skipped; a category with one defect type
    has no hard setting.
    """
    counts = defect_counts(files)
    return [d for d, n in counts.items() if n >= draw] if len(counts) > 1 else []


def hard_setting_gaps(files: Sequence[File], draw: int = DRAWN) -> list[str]:
    """Return why defect types are no seen defects; none if all are."""
    counts = defect_counts(files)
    if len(counts) == 1:
        return [f"{next(iter(counts))} is the only defect type, so that none would be unseen"]
    return [
        f"{defect} has {counted(n, 'image')}, fewer than {draw}"
        for defect, n in counts.items()
        if n < draw
    ]


def defect_counts(files: Sequence[File]) -> dict[str, int]:
    """Return the number of images by defect type, sorted."""
    return dict(sorted(Counter(f.defect for f in files if f.anomalous).items()))


def draw_manifest(
    split: Split, files: Sequence[File], digests: Sequence[str]
) -> list[dict[str, str]]:
    """Return the drawn anomalies in drawing order."""
    return [
        {"file": files[i].path, "defect": files[i].defect, "pixels_sha256": digests[i]}
        for i in split.drawn
    ]
