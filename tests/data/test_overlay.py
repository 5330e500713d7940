"""Pictures with the heat of a map and its box."""

import numpy as np
from PIL import Image

from bench.data.overlay import BOX, CAPTIONED, DEFECT, captioned, heat, outlined, overlay


def test_an_overlay_is_strong_where_the_score_is_and_leaves_the_rest() -> None:
    image = Image.new("RGB", (64, 32), (100, 100, 100))
    score_map = np.zeros((4, 8), np.float32)
    score_map[1, 6] = 2.0
    picture = np.asarray(overlay(image, score_map, 2.0))
    assert (picture[:, :16] == 100).all()
    assert picture[12, 52].tolist() != [100] * 3
    assert (np.asarray(overlay(image, score_map, 0.0)) == 100).all()
    box = np.array([8.0, 4.0, 40.0, 28.0])
    drawn = np.asarray(overlay(image, np.zeros((4, 8), np.float32), 1.0, box))
    assert tuple(drawn[4, 8]) == tuple(drawn[27, 39]) == BOX
    assert (drawn[10, 20] == 100).all()


def test_a_large_picture_is_shrunk_with_its_box() -> None:
    picture = overlay(
        Image.new("RGB", (2048, 512)),
        np.zeros((2, 2), np.float32),
        1.0,
        np.array([0.0, 0.0, 2048.0, 512.0]),
    )
    assert picture.size == (1024, 256)
    assert picture.getpixel((1023, 255)) == BOX


def test_an_outline_lies_around_what_is_marked_and_leaves_the_rest() -> None:
    image = Image.new("RGB", (64, 64), (9, 9, 9))
    marked = np.zeros((16, 16), bool)
    marked[4:8, 4:12] = True  # 16 to 32 down, 16 to 48 across
    drawn = np.asarray(outlined(image, Image.fromarray(marked)))
    green = (drawn == DEFECT).all(2)
    assert green[14:16, 14:50].all()
    assert green[32:34, 14:50].all()
    assert not green[16:32, 16:48].any(), "the defect itself stays to be seen"
    assert (drawn[~green] == 9).all()
    assert green.sum() == 36 * 20 - 32 * 16
    nothing = outlined(image, Image.new("L", (5, 5)))
    assert (np.asarray(nothing) == 9).all()


def test_heat_runs_from_black_to_light() -> None:
    brightness = heat(np.linspace(0, 1, 50)).astype(int).sum(1)
    assert (np.diff(brightness) >= 0).all()


def test_a_caption_stands_below_the_picture_where_there_is_room() -> None:
    small, large = (Image.new("RGB", (side, 90), (1, 2, 3)) for side in (CAPTIONED - 1, 400))
    assert captioned(small, "score map", 2.0, "ok") is small
    picture = captioned(large, "score map", 2.0, "defect  score 0.7, above 98.0% of normal ones")
    assert picture.width == 400
    assert 100 < picture.height < 180
    assert picture.crop((0, 0, 400, 90)).tobytes() == large.tobytes()
    strip = np.asarray(picture)[90:]
    assert {tuple(c) for c in strip.reshape(-1, 3)} > {(255, 255, 255), (0, 0, 0)}
    assert len({tuple(c) for c in strip.reshape(-1, 3)}) > 30  # the scale
