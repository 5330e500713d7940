"""The embedded dataset: two textures and two objects, generated from a seed.

It exists so that the first command works without a download, and so that tests and pictures can
show images freely. It is no substitute for a benchmark. Normal images vary in phase, colour,
light, place and noise; each category has three defect types with masks, in MVTec's layout.
Everything is drawn from signed distances in pixels, so edges are smooth at any place.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.catalog import SYNTHETIC
from bench.data.listing import File, content_fingerprint
from bench.errors import DataError, StoreError
from bench.system.digests import FingerprintCache
from bench.system.files import staged_folder
from bench.system.untrusted import one_line, os_reason

SYNTHETIC_VERSION = 1
"""Raised when the images change; their fingerprint changes with them."""

DIGESTS = {
    "weave": "395745003f358cd0b008e8aced6737623ce504c2a6bf7514af3bad669fbfd5f8",
    "speckle": "ed152ea343cfd70879b100fd05bb590f8534f1b634ba49e08534f5d3257e1dfd",
    "washer": "29a250171bb5912edafa69a55c877cf7c1c784a33bfeb3648f4cfb48049a0697",
    "pellet": "bf024fb63a7538eb4c5e115499a1b917a28e00b7ac3acc2fa0adf44095689d51",
}
"""`content_digest` of each category, masks included: what every machine must generate."""

SIZE = 96

Array = NDArray[np.float64]
Random = np.random.RandomState

_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)


@dataclass(frozen=True)
class Picture:
    """A picture and its object's coverage, in [0, 1]."""

    rgb: Array
    """(S, S, 3)."""
    inside: Array
    """(S, S)."""


def _cover(distance: Array, softness: float = 0.7) -> Array:
    """Return coverage in [0, 1] of a signed distance in pixels, negative inside."""
    return np.clip(0.5 - distance / (2 * softness), 0.0, 1.0)


def _blend(picture: Array, colour: Array | float, cover: Array) -> Array:
    return picture * (1 - cover[..., None]) + np.asarray(colour) * cover[..., None]


def _segment(x0: float, y0: float, x1: float, y1: float, width: float) -> Array:
    """Signed distance to a stroke of the given width."""
    dx, dy = x1 - x0, y1 - y0
    t = np.clip(((_X - x0) * dx + (_Y - y0) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
    return np.asarray(np.hypot(_X - x0 - t * dx, _Y - y0 - t * dy) - width / 2)


def _blot(random: Random, x: float, y: float, radius: float) -> Array:
    """Signed distance to a round patch with a wavy rim."""
    angle = np.arctan2(_Y - y, _X - x)
    wave: Array | float = sum(
        random.uniform(-0.14, 0.14) * np.sin(k * angle + random.uniform(0, 6.3)) for k in (2, 3, 5)
    )
    return np.asarray(np.hypot(_X - x, _Y - y) - radius * (1 + wave))


def _smooth_noise(random: Random, cells: int) -> Array:
    """Value noise in about [-1, 1] with `cells` cells a side, bilinear between them."""
    grid = random.uniform(-1, 1, (cells + 1, cells + 1))
    u, v = _X / SIZE * cells, _Y / SIZE * cells
    i, j = u.astype(int), v.astype(int)
    fu, fv = u - i, v - j
    top = grid[j, i] * (1 - fu) + grid[j, i + 1] * fu
    bottom = grid[j + 1, i] * (1 - fu) + grid[j + 1, i + 1] * fu
    return np.asarray(top * (1 - fv) + bottom * fv)


def _lit(random: Random, rgb: Array) -> Array:
    """Add uneven light, exposure and sensor noise."""
    angle = random.uniform(0, 6.3)
    slope = ((_X - SIZE / 2) * np.cos(angle) + (_Y - SIZE / 2) * np.sin(angle)) / SIZE
    light = random.uniform(0.85, 1.12) * (1 + random.uniform(0, 0.18) * slope)
    lit: Array = np.clip(rgb * light[..., None] + random.normal(0, 0.018, rgb.shape), 0, 1)
    return lit


Defect = Callable[[Random, Picture], tuple[Array, Array]]


# Normal pictures


def _weave(random: Random) -> Picture:
    period = random.uniform(7.4, 8.2)
    tilt = random.uniform(-0.08, 0.08)
    u = (_X * np.cos(tilt) + _Y * np.sin(tilt)) * 2 * np.pi / period + random.uniform(0, 6.3)
    v = (_Y * np.cos(tilt) - _X * np.sin(tilt)) * 2 * np.pi / period + random.uniform(0, 6.3)
    over = np.sin(u / 2) * np.sin(v / 2) > 0
    height = np.where(over, np.abs(np.cos(u / 2)), np.abs(np.cos(v / 2)))
    warp = np.array([0.62, 0.54, 0.40]) + random.uniform(-0.03, 0.03, 3)
    weft = np.array([0.46, 0.42, 0.36]) + random.uniform(-0.03, 0.03, 3)
    rgb = np.where(over[..., None], warp, weft) * (0.55 + 0.45 * height[..., None])
    return Picture(rgb, np.ones((SIZE, SIZE)))


def _speckle(random: Random) -> Picture:
    base = np.array([0.52, 0.53, 0.55]) + random.uniform(-0.05, 0.05, 3)
    rgb = base + 0.05 * _smooth_noise(random, 6)[..., None]
    for _ in range(90):
        x, y = random.uniform(0, SIZE, 2)
        near = (slice(max(int(y) - 3, 0), int(y) + 5), slice(max(int(x) - 3, 0), int(x) + 5))
        grain = np.hypot(_X[near] - x, _Y[near] - y) - random.uniform(0.7, 2.1)
        rgb[near] = _blend(rgb[near], base * random.uniform(0.5, 1.4), _cover(grain) * 0.7)
    return Picture(rgb, np.ones((SIZE, SIZE)))


def _washer(random: Random) -> Picture:
    background = np.array([0.20, 0.22, 0.25]) + 0.02 * _smooth_noise(random, 5)[..., None]
    x, y = SIZE / 2 + random.uniform(-5, 5, 2)
    radius = np.hypot(_X - x, _Y - y)
    outer, inner = random.uniform(33, 36), random.uniform(13, 15)
    inside = _cover(np.maximum(radius - outer, inner - radius))
    angle = np.arctan2(_Y - y, _X - x) - random.uniform(0, 6.3)
    shine = 0.60 + 0.13 * np.cos(2 * angle) + 0.03 * np.sin(radius * 1.6)
    rgb = background * np.ones((SIZE, SIZE, 3))
    rgb = _blend(rgb, shine[..., None] * np.array([1.0, 0.97, 0.90]), inside)
    return Picture(rgb, inside)


def _pellet(random: Random) -> Picture:
    background = np.array([0.82, 0.83, 0.80]) + 0.02 * _smooth_noise(random, 5)[..., None]
    x, y = SIZE / 2 + random.uniform(-4, 4, 2)
    angle = random.uniform(-0.35, 0.35)
    u = (_X - x) * np.cos(angle) + (_Y - y) * np.sin(angle)
    v = (_Y - y) * np.cos(angle) - (_X - x) * np.sin(angle)
    distance = np.hypot(u - np.clip(u, -18, 18), v) - random.uniform(18.5, 20.5)
    inside = _cover(distance)
    left = np.array([0.72, 0.26, 0.22]) + random.uniform(-0.04, 0.04, 3)
    right = np.array([0.88, 0.76, 0.40]) + random.uniform(-0.04, 0.04, 3)
    rgb = _blend(np.ones((SIZE, SIZE, 3)) * left, right, _cover(-(u - random.uniform(-2, 2))))
    rgb = rgb * (0.72 + 0.35 * np.exp(-((v + 7) ** 2) / 90))[..., None]
    return Picture(_blend(np.ones((SIZE, SIZE, 3)) * background, rgb, inside), inside)


# Defects: each returns the picture and the coverage of what it changed


def _place(random: Random, inside: Array, margin: int = 14) -> tuple[float, float]:
    """Return a random point that lies well inside the object."""
    ys, xs = np.nonzero(inside[margin:-margin, margin:-margin] > 0.99)
    i = random.randint(len(xs))
    return float(xs[i] + margin), float(ys[i] + margin)


def _stroke(random: Random, picture: Picture, length: tuple[float, float], width: float) -> Array:
    x, y = _place(random, picture.inside)
    angle, half = random.uniform(0, np.pi), random.uniform(*length) / 2
    dx, dy = half * np.cos(angle), half * np.sin(angle)
    return _cover(_segment(x - dx, y - dy, x + dx, y + dy, width)) * picture.inside


def _dark_cut(random: Random, picture: Picture) -> tuple[Array, Array]:
    cover = _stroke(random, picture, (22, 40), random.uniform(3.0, 4.5))
    return _blend(picture.rgb, 0.08, cover * 0.9), cover


def _bright_scratch(random: Random, picture: Picture) -> tuple[Array, Array]:
    cover = _stroke(random, picture, (24, 44), random.uniform(2.2, 3.4))
    return _blend(picture.rgb, 0.97, cover * 0.85), cover


def _stain(random: Random, picture: Picture) -> tuple[Array, Array]:
    x, y = _place(random, picture.inside)
    cover = _cover(_blot(random, x, y, random.uniform(8, 13)), 1.5) * picture.inside
    colour = np.array(
        [(0.20, 0.30, 0.45), (0.38, 0.20, 0.10), (0.16, 0.34, 0.18)][random.randint(3)]
    )
    return _blend(picture.rgb, colour, cover * 0.75), cover


def _smear(random: Random, picture: Picture) -> tuple[Array, Array]:
    """Flatten the texture in a patch: the colour stays, the structure goes."""
    x, y = _place(random, picture.inside)
    cover = _cover(_blot(random, x, y, random.uniform(11, 16)), 2.0) * picture.inside
    mean = (picture.rgb * cover[..., None]).sum((0, 1)) / cover.sum()
    return _blend(picture.rgb, mean, cover), cover


def _hole(random: Random, picture: Picture) -> tuple[Array, Array]:
    x, y = _place(random, picture.inside)
    cover = _cover(np.hypot(_X - x, _Y - y) - random.uniform(5, 7.5)) * picture.inside
    return _blend(picture.rgb, np.array([0.10, 0.10, 0.11]), cover), cover


def _chip(random: Random, picture: Picture) -> tuple[Array, Array]:
    """Bite a piece off the rim: the background shows where the object was."""
    ys, xs = np.nonzero((picture.inside > 0.3) & (picture.inside < 0.7))
    far = np.hypot(xs - xs.mean(), ys - ys.mean()) > 24
    i = random.choice(np.flatnonzero(far))
    bite = _cover(_blot(random, float(xs[i]), float(ys[i]), random.uniform(9, 13)))
    background = np.median(picture.rgb[picture.inside < 0.01], axis=0)
    cover = bite * picture.inside
    return _blend(picture.rgb, background, cover), cover


CATEGORIES: dict[str, tuple[Callable[[Random], Picture], dict[str, Defect]]] = {
    "weave": (_weave, {"cut": _dark_cut, "smear": _smear, "stain": _stain}),
    "speckle": (_speckle, {"scratch": _bright_scratch, "smear": _smear, "stain": _stain}),
    "washer": (_washer, {"chip": _chip, "hole": _hole, "stain": _stain}),
    "pellet": (_pellet, {"chip": _chip, "crack": _dark_cut, "stain": _stain}),
}


def render_picture(
    category: str, defect: str, index: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a uint8 picture (S, S, 3) and its mask (S, S).

    `index` counts within a defect type (or `good`). The same arguments give the same bytes: each
    picture has a generator of its own.
    """
    normal, defects = CATEGORIES[category]
    kinds = ["good", *defects]
    kind = sorted(CATEGORIES).index(category) * 100 + kinds.index(defect)
    random = np.random.RandomState([SYNTHETIC_VERSION, kind, index])
    picture = normal(random)
    rgb, cover = picture.rgb, np.zeros((SIZE, SIZE))
    if defect != "good":
        rgb, cover = defects[defect](random, picture)
    pixels = np.round(_lit(random, rgb) * 255).astype(np.uint8)
    return pixels, np.where(cover > 0.5, 255, 0).astype(np.uint8)


def generated(cache: Path, category: str | None = None) -> Path:
    """Return the synthetic dataset's folder, made if needed.

    What is missing there or differs from `DIGESTS` in any bit is made again; that costs the look-up
    of each file's size and times. The files are bitmaps: their bytes, and so the fingerprint,
    depend on no compressor's version.
    """
    folder = cache / "datasets" / f"synthetic-v{SYNTHETIC_VERSION}"
    digests = FingerprintCache(cache)
    for name in CATEGORIES if category is None else (category,):
        if content_digest(folder / name, digests) == DIGESTS[name]:
            continue
        failure: OSError | None = None
        try:
            with staged_folder(folder / name, ".staging-", replace=True) as staging:
                _write_category(staging, name)
        except OSError as error:  # perhaps because another process was faster
            failure = error
        if content_digest(folder / name, digests) == DIGESTS[name]:
            continue
        if failure:
            reason = f"cannot write to the cache {one_line(cache)}: {os_reason(failure)}"
            raise StoreError(reason) from failure
        raise DataError(
            f"synthetic/{name} comes out different on this machine with numpy {np.__version__}:"
            " please report it, and leave synthetic out"
        )
    digests.save()
    return folder


def content_digest(folder: Path, digests: FingerprintCache) -> str:
    """Return a folder's content sha256; empty if unreadable."""
    try:
        paths = sorted(os.path.join(top, n) for top, _, names in os.walk(folder) for n in names)
        files = [File(os.path.relpath(p, folder), "", "") for p in paths]
        return content_fingerprint(files, [digests.sha256(Path(p)) for p in paths])
    except (OSError, ValueError):  # ValueError: a name that is not UTF-8
        return ""


def _write_category(folder: Path, category: str) -> None:
    facts = SYNTHETIC.categories[category]
    defects = list(CATEGORIES[category][1])
    per_type = facts.test_anomalous // len(defects)
    for fold, defect, first, count in (
        *(("train", "good", 0, facts.train), ("test", "good", facts.train, facts.test_normal)),
        *(("test", defect, 0, per_type) for defect in defects),
    ):
        for i in range(count):
            pixels, mask = render_picture(category, defect, first + i)
            _save(folder / fold / defect / f"{i:03d}.bmp", pixels)
            if defect != "good":
                _save(folder / "ground_truth" / defect / f"{i:03d}_mask.bmp", mask)


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
