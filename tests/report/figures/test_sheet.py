"""Sheets of pictures."""

import numpy as np
from PIL import Image

from bench.report.figures.sheet import LARGEST, Bar, TextLine, Tile, coarse, cut, sheet
from tests.fixtures.figures import HOSTILE, checked


def test_what_a_box_cuts_out():
    picture = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    assert np.asarray(cut(picture, (0.5, 0, 1, 0.5))).tolist() == [[2, 3], [6, 7]]
    assert cut(picture, (0.5, 0.5, 0.5, 0.5)).size == (1, 1)


def test_a_sheet_keeps_photos_and_maps_apart_and_small():
    noise = np.random.RandomState(0).randint(0, 255, (900, 900, 3)).astype(np.uint8)
    photo = Tile(0, 0, 112, Image.fromarray(noise), True, (0.25, 0.25, 0.5, 0.5))
    tile = Tile(120, 0, 66, coarse(np.eye(7, dtype=np.float32), 1.0), False)
    words, bar = [TextLine(0, 10, HOSTILE)], Bar(0, 100, 64, "0", HOSTILE)
    both = checked(sheet(120, [photo, tile], words, [bar], HOSTILE))
    assert both == sheet(120, [photo, tile], words, [bar], HOSTILE)
    assert (both.count("data:image/jpeg"), both.count("data:image/png")) == (1, 1)
    assert len(both) < 60_000
    alone = checked(sheet(120, [tile], [], [], "a map"))
    assert "jpeg" not in alone
    assert len(alone) < 3_000
    assert LARGEST <= 160
