"""Masks of defects, as MVTec's layout keeps them beside test images."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.decode import MAX_BYTES, decode_image, decoding_pool
from bench.data.listing import File, Listing, images_below, images_in
from bench.errors import DataError
from bench.system.digests import file_digest
from bench.system.untrusted import one_line, os_reason, read_regular

FOLDER = "ground_truth"
MARK = "_mask"
"""What the name of a mask may end in beside that of its image, in any letter case."""
JPEG_NOISE = 32
"""Brightness up to which a pixel of a JPEG is black: every edge has specks around it."""
SHOWN = 3
"""Problems that are named one by one."""

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Mask:
    """The files that mark one image's defect."""

    image: Path
    candidates: tuple[tuple[Path, ...], ...] = ()
    """Each marks the whole defect, the files of a folder together; one is enough."""
    expected: Path | None = None
    """Where a mask usually lies; None where the layout has no masks."""
    beside: bool = False
    """Whether there are masks of any name in its folder."""
    trouble: str = ""
    """Why its folder cannot be read."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of all candidates."""
        return tuple(path for files in self.candidates for path in files)


@dataclass(frozen=True)
class Masks:
    """Defect pixels of N images at one size."""

    pixels: NDArray[np.bool_]
    """(N, S, S), nothing for normal images."""
    problems: tuple[str, ...] = ()
    """One line for each anomalous image whose mask cannot be used."""
    doubts: tuple[str, ...] = ()
    """Lines about masks that can be used, and mark so much that they may be wrong."""


def find_masks(root: Path, files: Iterable[File]) -> list[Mask]:
    """Return the masks of the anomalous images, in order.

    `[category/]test/<defect>/<stem>.png` has `[category/]ground_truth/<defect>/<stem>_mask.png`,
    `<stem>.png`, or a folder `<stem>` of several images as in MVTec LOCO; with any suffix of an
    image, and with folders in any letter case. Nothing is opened.
    """
    files = list(files)
    defects = {file.defect for file in files}
    folders: dict[Path, tuple[Path, dict[str, list[tuple[Path, ...]]] | str]] = {}
    masks = []
    for file in files:
        if not file.anomalous:
            continue
        image = root / file.path
        *above, defect, name = PurePosixPath(file.path).parts
        if not above or above.pop() != "test":
            masks.append(Mask(image))
            continue
        usual, stem = root.joinpath(*above, FOLDER, defect), PurePosixPath(name).stem
        if usual not in folders:
            folders[usual] = _masks_of(usual, defects)
        folder, entries = folders[usual]
        expected = folder / f"{stem}{MARK}.png"
        if isinstance(entries, str):
            masks.append(Mask(image, expected=expected, trouble=entries))
        else:
            masks.append(Mask(image, tuple(entries.get(stem, ())), expected, bool(entries)))
    return masks


def _masks_of(
    usual: Path, defects: Collection[str]
) -> tuple[Path, dict[str, list[tuple[Path, ...]]] | str]:
    """Return the folder of a type's masks and what it holds, or why that is not known."""
    try:
        folders = _in_any_case(usual, defects)
    except OSError as error:
        return usual, f"cannot read {one_line(error.filename or usual)}: {os_reason(error)}"
    if len(folders) > 1:
        names = " and ".join(one_line(folder) for folder in folders)
        return usual, f"{names} differ in letter case alone; rename one to {one_line(usual.name)}"
    folder = folders[0] if folders else usual
    return folder, _by_stem(folder)


def _in_any_case(usual: Path, others: Collection[str]) -> list[Path]:
    """Return a folder as it is named, else those that differ in letter case alone.

    One that has the name of another defect type is that type's.
    """
    if usual.is_dir() or not usual.parent.is_dir():
        return [usual]
    return sorted(
        folder
        for folder in usual.parent.iterdir()
        if folder.name.casefold() == usual.name.casefold()
        and folder.name not in others
        and folder.is_dir()
    )


def surplus_masks(root: Path, files: Sequence[File]) -> list[Path]:
    """Return the files among masks that mark no anomalous image, sorted; raises OSError."""
    used = {path for mask in find_masks(root, files) for path in mask.files}
    parts = (PurePosixPath(file.path).parts for file in files if file.anomalous)
    tops = {root.joinpath(*p[:-3], FOLDER) for p in parts if p[-3:-2] == ("test",)}
    return sorted(
        path for top in tops if top.is_dir() for path in images_below(top) if path not in used
    )


def _by_stem(folder: Path) -> dict[str, list[tuple[Path, ...]]] | str:
    """Return a folder's masks by their images' stems, or why it does not read."""
    entries: dict[str, list[tuple[Path, ...]]] = {}
    try:
        for path in sorted(images_in(folder)):
            for stem in {path.stem, _without_mark(path.stem)}:
                entries.setdefault(stem, []).append((path,))
        for path in sorted(p for p in folder.iterdir() if p.is_dir()):
            if parts := tuple(sorted(images_in(path))):
                entries.setdefault(path.name, []).append(parts)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        return f"cannot read {one_line(error.filename or folder)}: {os_reason(error)}"
    return entries


def _without_mark(stem: str) -> str:
    return stem[: -len(MARK)] if stem.lower().endswith(MARK) else stem


def has_masks(masks: Sequence[Mask]) -> bool:
    """Whether the category has any masks.

    They may have other names, or lie in a folder that cannot be read.
    """
    return any(mask.beside or mask.trouble for mask in masks)


def masks_digest(
    masks: Sequence[Mask], root: Path, digest: Callable[[Path], str] = file_digest
) -> str | None:
    """Return the sha256 over images and their masks' digests; None without masks.

    What a mask is called does not count. `digest` gives that of a file and may raise OSError: a
    file that cannot be read counts as such.
    """
    if not has_masks(masks):
        return None
    lines = []
    for mask in sorted(masks, key=lambda m: m.image.relative_to(root).as_posix()):
        contents = [_digest_or_none(path, digest) for path in mask.files]
        lines.append("\0".join([mask.image.relative_to(root).as_posix(), *contents]))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def listed_masks_digest(listing: Listing) -> str | None:
    """Return the digest of a category's masks as they are now, None without masks."""
    return masks_digest(find_masks(listing.root, listing.files), listing.root)


def _digest_or_none(path: Path, digest: Callable[[Path], str]) -> str:
    try:
        return digest(path)
    except OSError:
        return ""


def read_mask(mask: Mask, size: Size) -> NDArray[np.bool_]:
    """Return an image's defect pixels, (height, width).

    Whatever is not black is defect, however bright; of a JPEG, what is brighter than its noise.
    `size` is that of the upright image. Raises DataError, one line, where there is no mask, one
    does not decode, has another shape or marks nothing, and where two candidates differ.
    """
    if mask.trouble:
        raise DataError(mask.trouble)
    if not mask.candidates:
        where = f"; it belongs at {one_line(mask.expected)}" if mask.expected else ""
        raise DataError(f"{one_line(mask.image)} has no mask{where}")
    unions = [np.any([_marked(path, size) for path in files], axis=0) for files in mask.candidates]
    first, *others = unions
    for files, other in zip(mask.candidates[1:], others, strict=True):
        if not np.array_equal(first, other):
            paths = f"{one_line(_name(mask.candidates[0]))} and {one_line(_name(files))}"
            raise DataError(f"{paths} are masks of one image and differ; remove one")
    if not first.any():
        path = one_line(_name(mask.candidates[0]))
        raise DataError(f"{path} marks no defect; replace or remove it")
    marked: NDArray[np.bool_] = first
    return marked


def _name(candidate: tuple[Path, ...]) -> Path:
    return candidate[0] if len(candidate) == 1 else candidate[0].parent


def _marked(path: Path, size: Size) -> NDArray[np.bool_]:
    """Return where a mask file is not black; raises DataError."""
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {one_line(path)}: {os_reason(error)}") from error
    rgb, _ = decode_image(path, content)
    if rgb.size != size:
        raise DataError(
            f"{one_line(path)} has {rgb.width}x{rgb.height} pixels and its image"
            f" {size[0]}x{size[1]}; a mask has the shape of its image"
        )
    brightness = np.asarray(rgb).max(2)
    marked: NDArray[np.bool_] = brightness > (JPEG_NOISE if content.startswith(b"\xff\xd8") else 0)
    return marked


def load_masks(
    root: Path, files: Sequence[File], side: int, size_of: Callable[[File], Size]
) -> Masks:
    """Return the defect pixels of images, resized to the nearest pixel.

    `size_of` gives an upright image's own size, and may raise DataError. Where a mask cannot be
    used, its image counts as unmarked and a problem says why.
    """
    pixels = np.zeros((len(files), side, side), bool)
    problems, shares = [], []
    anomalous = [(i, file) for i, file in enumerate(files) if file.anomalous]
    for mask, (i, file) in zip(find_masks(root, files), anomalous, strict=True):
        try:
            marked = read_mask(mask, size_of(file))
            pixels[i] = resized(marked, side)
            shares.append((file.defect, mask, float(marked.mean())))
        except DataError as error:
            problems.append(str(error))
    return Masks(pixels, tuple(problems), tuple(_doubts(shares)))


def _doubts(shares: Sequence[tuple[str, Mask, float]]) -> list[str]:
    """Return lines about masks that may be wrong, of defect types and marked shares of images."""
    whole = [mask for _, mask, share in shares if share == 1]
    by_type: dict[str, list[float]] = {}
    for defect, _, share in shares:
        by_type.setdefault(defect, []).append(share)
    return [
        *(
            f"masks of {one_line(defect)} mark more than half of every image: are they inverted?"
            for defect, marked in by_type.items()
            if 0.5 < min(marked) < 1
        ),
        *(f"{one_line(_name(mask.candidates[0]))} marks the whole image" for mask in whole),
    ]


def resized(marked: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Return defect pixels (side, side) of (height, width), never none of some."""
    grey = Image.fromarray(marked.astype(np.uint8) * 255)
    for rule in (Image.Resampling.NEAREST, Image.Resampling.BOX):  # a small defect lies between
        pixels: NDArray[np.bool_] = np.asarray(grey.resize((side, side), rule)) > 0
        if pixels.any():
            return pixels
    rows, columns = np.nonzero(marked)
    pixels = np.zeros((side, side), bool)
    pixels[rows * side // marked.shape[0], columns * side // marked.shape[1]] = True
    return pixels


def mask_problems(root: Path, files: Sequence[File], size_of: Callable[[File], Size]) -> list[str]:
    """Return a line for each mask that cannot be used; none without any masks."""
    return check_masks(root, files, size_of)[0]


def check_masks(
    root: Path, files: Sequence[File], size_of: Callable[[File], Size]
) -> tuple[list[str], list[str]]:
    """Return `mask_problems`, and lines about masks that may be wrong."""
    masks, anomalous = find_masks(root, files), [f for f in files if f.anomalous]
    if not has_masks(masks):
        return [], []

    def look(mask: Mask, file: File) -> tuple[str, float]:
        try:
            return "", float(read_mask(mask, size_of(file)).mean())
        except DataError as error:
            return str(error), 0

    with decoding_pool() as pool:
        looks = list(pool.map(look, masks, anomalous))
    usable = [
        (file.defect, mask, share)
        for file, mask, (problem, share) in zip(anomalous, masks, looks, strict=True)
        if not problem
    ]
    return [problem for problem, _ in looks if problem], _doubts(usable)


def first_of(problems: Sequence[str], shown: int = SHOWN) -> str:
    """Write the first problems and the number of others."""
    more = f"; and {len(problems) - shown} more" if len(problems) > shown else ""
    return "; ".join(problems[:shown]) + more
