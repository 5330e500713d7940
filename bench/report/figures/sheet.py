"""Tiles and words as one <svg>, with rasters in it.

A page holds many tiles, so they come as two rasters a sheet.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.overlay import heat
from bench.report.figures.svg import head

WIDTH = 360
"""Pixels of a sheet on a page."""
DENSITY = 2.0
"""Pixels of a raster for each that it is shown at, as long as no tile has over `LARGEST`."""
LARGEST = 160
QUALITY = 75
Box = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of a tile."""


@dataclass(frozen=True)
class Tile:
    """A square on a sheet."""

    x: int
    y: int
    side: int
    picture: Image.Image
    photo: bool
    """Whether it shows an image of a dataset, with or without a map on it."""
    box: Box | None = None


@dataclass(frozen=True)
class TextLine:
    """A line on a sheet, its baseline at y."""

    x: int
    y: int
    text: str
    bold: bool = False
    size: int = 11


@dataclass(frozen=True)
class Bar:
    """The colours of a map with the values at their ends; the top left at x, y."""

    x: int
    y: int
    width: int
    low: str
    high: str


BAR_HEIGHT = 8
BAR_STEPS = 32


def sheet(
    height: int,
    tiles: Sequence[Tile],
    words: Sequence[TextLine],
    bars: Sequence[Bar],
    alt: str,
) -> str:
    """Return a sheet as a policy-safe SVG element."""
    size = f'width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' {head(alt)} {size} viewBox="0 0 {WIDTH} {height}"'
        ' font-family="DejaVu Sans, sans-serif">',
        f'<rect {size} fill="#ffffff"/>',
    ]
    for photo in (True, False):
        chosen = [tile for tile in tiles if tile.photo == photo]
        if chosen:
            parts.append(f'<image {size} xlink:href="{_raster(height, chosen, photo)}"/>')
    parts += [_frame(tile) for tile in tiles]
    parts += [
        f'<text x="{w.x}" y="{w.y}" font-size="{w.size}" fill="#000000"'
        + (' font-weight="bold"' if w.bold else "")
        + f">{escape(w.text)}</text>"
        for w in words
    ]
    parts += map(_bar, bars)
    return "".join(parts) + "</svg>"


def _raster(height: int, tiles: Sequence[Tile], photo: bool) -> str:
    """Return tiles in their places as a data URI."""
    density = min(DENSITY, LARGEST / max(tile.side for tile in tiles))
    area = (round(WIDTH * density), round(height * density))
    canvas = Image.new("RGB", area, "white") if photo else Image.new("RGBA", area)
    how = Image.Resampling.BILINEAR if photo else Image.Resampling.NEAREST
    for tile in tiles:
        left, top = round(tile.x * density), round(tile.y * density)
        side = round(tile.side * density)
        canvas.paste(tile.picture.convert("RGB").resize((side, side), how), (left, top))
    sink = io.BytesIO()
    if photo:
        canvas.save(sink, "JPEG", quality=QUALITY)
    else:
        canvas.save(sink, "PNG", optimize=True)
    content = base64.b64encode(sink.getvalue()).decode()
    return f"data:image/{'jpeg' if photo else 'png'};base64,{content}"


def _bar(bar: Bar) -> str:
    """Draw colours in even steps, and a line below with both ends."""
    step = bar.width / BAR_STEPS
    colours = heat(np.linspace(0, 1, BAR_STEPS))
    steps = "".join(
        f'<rect x="{bar.x + i * step:.2f}" y="{bar.y}" width="{step + 0.2:.2f}"'
        f' height="{BAR_HEIGHT}" shape-rendering="crispEdges" fill="#{r:02x}{g:02x}{b:02x}"/>'
        for i, (r, g, b) in enumerate(colours)
    )
    line = f'y="{bar.y + BAR_HEIGHT + 12}" font-size="9" fill="#000000"'
    return (
        f'{steps}<text x="{bar.x}" {line}>{escape(bar.low)}</text>'
        f'<text x="{bar.x + bar.width}" {line} text-anchor="end">{escape(bar.high)}</text>'
    )


def _frame(tile: Tile) -> str:
    """Outline a tile, and what its box encloses."""
    outline = (
        f'<rect x="{tile.x}" y="{tile.y}" width="{tile.side}" height="{tile.side}" fill="none"'
        ' stroke="#767676" stroke-width="0.5"/>'
    )
    if tile.box is None:
        return outline
    left, top, right, bottom = (share * tile.side for share in tile.box)
    geometry = (
        f'x="{tile.x + left:.1f}" y="{tile.y + top:.1f}" width="{right - left:.1f}"'
        f' height="{bottom - top:.1f}" fill="none"'
    )
    return (  # a light line within a dark one is seen on any picture
        f'{outline}<rect {geometry} stroke="#000000" stroke-width="3"/>'
        f'<rect {geometry} stroke="#ffffff" stroke-width="1.5"/>'
    )


def coarse(values: NDArray[np.float32], top: float) -> Image.Image:
    """Return a map (h, w) in colours, strongest from `top`."""
    shares = values.astype(np.float64) / top if top > 0 else np.zeros(values.shape)
    return Image.fromarray(heat(shares))


def two_tone(active: NDArray[np.bool_]) -> Image.Image:
    """Return a map (h, w), active cells white, others black."""
    return Image.fromarray(np.where(active, 255, 0).astype(np.uint8))


def cut(picture: Image.Image, box: Box) -> Image.Image:
    """Return what a box encloses, one pixel at least."""
    left, top = int(box[0] * picture.width), int(box[1] * picture.height)
    right = max(left + 1, round(box[2] * picture.width))
    bottom = max(top + 1, round(box[3] * picture.height))
    return picture.crop((left, top, right, bottom))
