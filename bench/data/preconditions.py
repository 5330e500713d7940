"""What a category must hold for a run, once duplicates have left."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from bench.data.listing import File
from bench.data.splits import DRAWN, hard_setting_gaps, seen_defects
from bench.errors import DataError
from bench.text import counted, joined


def check_preconditions(
    files: Sequence[File],
    pixels: Sequence[str],
    name: str,
    *,
    setting: str = "general",
    seen_defect: str | None = None,
    normals: int = 1,
    draw: int = DRAWN,
) -> None:
    """Raise DataError with the first of `unmet_preconditions`."""
    for problem in unmet_preconditions(
        files, pixels, name, setting=setting, seen_defect=seen_defect, normals=normals, draw=draw
    ):
        raise DataError(problem)


def unmet_preconditions(
    files: Sequence[File],
    pixels: Sequence[str],
    name: str,
    *,
    setting: str = "general",
    seen_defect: str | None = None,
    normals: int = 1,
    draw: int = DRAWN,
) -> list[str]:
    """Return a line with numbers and remedy for each unmet precondition.

    `pixels[i]` is the digest of what `files[i]` shows; `name` is the category for people; `normals`
    is how many normal training images the method needs, `draw` how many anomalies are drawn. What
    holds here holds for every seed: see `bench.data.splits.split_category`.
    """
    shown = list(zip(files, pixels, strict=True))
    hard = setting == "hard"
    if hard and seen_defect not in seen_defects(files, draw):
        possible = ", ".join(seen_defects(files, draw)) or "none"
        gaps = "; ".join(hard_setting_gaps(files, draw))
        why = f" ({gaps})" if gaps else ""
        return [f"{name}: hard setting with seen defect {seen_defect!r}; possible: {possible}{why}"]
    candidates = [(f, p) for f, p in shown if f.anomalous and (not hard or f.defect == seen_defect)]
    test = [(f, p) for f, p in shown if f.fold == "test"]
    train = [(f, p) for f, p in shown if f.fold == "train"]
    tested = [(f, p) for f, p in test if not f.anomalous]
    problems = [
        *_too_few_left(name, "normal training", "train on", train, test, normals),
        *_too_few_left(name, "normal test", "test on", tested, candidates),
        *_too_few_to_draw(name, candidates, seen_defect if hard else None, draw),
    ]
    if hard:
        unseen = [(f, p) for f, p in shown if f.anomalous and f.defect != seen_defect]
        problems += _too_few_left(name, "unseen anomalous", "test on", unseen, candidates)
    return problems


Shown = Sequence[tuple[File, str]]
"""Files and the digests of what they show."""


def _too_few_left(
    name: str, kind: str, purpose: str, images: Shown, others: Shown, needed: int = 1
) -> Iterator[str]:
    """Yield a line where `others` show too many of `images`."""
    leaving = {p for _, p in others}
    duplicates = {p for _, p in images if p in leaving}
    gone = sum(p in duplicates for _, p in images)
    left = len(images) - gone
    if left >= needed:
        return
    also, remedy = "", f"add {needed - left}"
    if gone:
        places = joined(sorted({_folder(f) for f, p in others if p in duplicates}))
        also, remedy = f", of which {gone} are also in {places}", "remove them from one of the two"
    short = f" and {needed} are needed" if needed > 1 else ""
    yield (
        f"{name}: {counted(len(images), f'{kind} image')}{also}:"
        f" {left} {'is' if left == 1 else 'are'} left to {purpose}{short}; {remedy}"
    )


def _too_few_to_draw(
    name: str, candidates: Shown, seen_defect: str | None, draw: int
) -> Iterator[str]:
    """Yield a line where the draw leaves nothing, or cannot be made."""
    needed = draw if seen_defect is not None else draw + 1
    different = len({p for _, p in candidates})
    if different >= needed:
        return
    kind = "anomalies" if seen_defect is None else f"anomalies of seen defect {seen_defect!r}"
    duplicates = f" ({len(candidates)} files)" if different < len(candidates) else ""
    rest = "" if seen_defect is not None else " and 1 more is needed to test on"
    fewer = different - (seen_defect is None)
    remedy = f", or draw fewer: draw = {fewer} in the suite" if fewer else ""
    if not fewer and different:
        remedy = ", or draw = 0 in a suite of methods without labels alone"
    yield (
        f"{name} has {different} {kind} that differ{duplicates}; {draw} are drawn for"
        f" training{rest}: add {needed - different}{remedy}"
    )


def _folder(file: File) -> str:
    return PurePosixPath(file.path).parent.as_posix()
