"""Pictures with the heat of a map and its box."""

import numpy as np
from PIL import Image

from bench.data.overlay import BOX, heat, overlay


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


def test_heat_runs_from_black_to_light() -> None:
    brightness = heat(np.linspace(0, 1, 50)).astype(int).sum(1)
    assert (np.diff(brightness) >= 0).all()
