"""A score map drawn over its image."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

ANCHORS = np.array(
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64
)
"""Colours from nothing to the highest score; brightness rises with them."""
STRENGTH = 0.65
"""Opacity of the highest score; a score of zero is transparent."""
LARGEST = 1024
"""Longest side of a drawn picture in pixels."""
BOX = (0, 220, 255)
DEFECT = (0, 200, 0)
CAPTIONED = 160
"""Pixels of the narrowest picture that gets a caption."""


def heat(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return colours (..., 3) of values in [0, 1]."""
    positions = values.clip(0, 1) * (len(ANCHORS) - 1)
    channels = [np.interp(positions, np.arange(len(ANCHORS)), ANCHORS[:, c]) for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def overlay(
    image: Image.Image,
    score_map: NDArray[np.float32],
    top: float,
    box: NDArray[np.float64] | None = None,
) -> Image.Image:
    """Draw a map and a box over an image.

    The map is (h, w), the box in pixels of the RGB image. A value of `top` or more has the
    strongest colour, zero or less none. Images over 1024 px are shrunk.
    """
    shrink = min(1.0, LARGEST / max(image.size))
    size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
    picture = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    scaled = np.clip(score_map / top, 0, 1) if top > 0 else np.zeros_like(score_map)
    spread = Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    values = np.asarray(spread, np.float64)
    opacity = Image.fromarray((values * STRENGTH * 255).round().astype(np.uint8))
    picture.paste(Image.fromarray(heat(values)), (0, 0), opacity)
    if box is not None:
        left, upper, right, lower = (float(v) * shrink for v in box)
        corner = (left, upper, max(left, right - 1), max(upper, lower - 1))
        ImageDraw.Draw(picture).rectangle(corner, outline=BOX, width=max(1, min(size) // 128))
    return picture


def outlined(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """Draw a line around what a mask of any size marks, just outside of it."""
    marked = mask.convert("L").point(lambda v: 255 * (v > 0))
    marked = marked.resize(picture.size, Image.Resampling.NEAREST)
    around = marked.filter(ImageFilter.MaxFilter(5))
    edge = ImageChops.subtract(around, marked)
    drawn = picture.copy()
    drawn.paste(DEFECT, (0, 0, *picture.size), edge)
    return drawn


def captioned(picture: Image.Image, scale: str, top: float, words: str) -> Image.Image:
    """Return a picture with a strip below: the map's colours, their ends, and words.

    A picture of fewer than 160 px is returned as it is: it has no room for them.
    """
    if picture.width < CAPTIONED:
        return picture
    height = max(12, picture.width // 40)
    font = ImageFont.load_default(height)
    strip = Image.new("RGB", (picture.width, 3 * height + 6), "white")
    draw = ImageDraw.Draw(strip)
    ramp = heat(np.linspace(0, 1, picture.width // 3)[None].repeat(height, 0))
    draw.text((2, 1), words, "black", font)
    left = draw.textlength(f"{scale} 0 ", font)
    draw.text((2, height + 5), f"{scale} 0", "black", font)
    strip.paste(Image.fromarray(ramp), (int(left) + 4, height + 6))
    draw.text((left + ramp.shape[1] + 8, height + 5), f"{top:.3g}", "black", font)
    whole = Image.new("RGB", (picture.width, picture.height + strip.height))
    whole.paste(picture, (0, 0))
    whole.paste(strip, (0, picture.height))
    return whole
