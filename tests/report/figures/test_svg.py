"""Figures as SVG: few digits, one look for a method."""

import re

from bench.report.figures.svg import marks, panels, plotting, prints, svg
from tests.fixtures.figures import checked


def test_numbers_lose_digits_as_coordinates_not_as_text():
    with plotting("key") as plt:
        figure, (axis,) = panels(plt, 1.0)
        axis.plot([0.123456, 0.2], [0.1, 0.98765])
        axis.text(0, 0, "0.98765")
        drawn = checked(svg(figure, "0.12345"))
    assert ">0.98765</text>" in drawn
    assert 'aria-label="0.12345"' in drawn
    assert not re.search(r' d="[^"]*\.\d{3}', drawn)


def test_a_font_is_said_once_and_only_turned_words_are_turned():
    with plotting("key") as plt:
        figure, (axis,) = panels(plt, 1.0)
        axis.set(xlabel="across", ylabel="up", title="title")
        drawn = checked(svg(figure, "alt"))
    assert drawn.count("<text") > 10
    assert drawn.count("font-family") == 1
    assert re.findall(r"rotate\((\S+)", drawn) == ["-90"]


def test_a_method_looks_the_same_in_every_figure():
    one, two = marks(["ATAC-Net", "PaDiM", "shortcut"]), marks(["CutMix", "ATAC-Net"])
    assert one[0] == two[1]
    everyone = marks(["ATAC-Net", "DevNet", "mine", "DRA", "SAOE", "CutMix", "shortcut"])
    for what in ("color", "marker", "linestyle"):
        assert len({str(mark[what]) for mark in everyone}) == 7


def test_figures_come_as_pdf_and_png_where_they_are_wanted():
    def draw():
        with plotting("key") as plt:
            figure, (axis,) = panels(plt, 1.0)
            axis.plot([0, 1], [0, 1])
            return svg(figure, "alt")

    plain = draw()
    with prints() as collected:
        drawn = draw()
    assert drawn == plain
    assert collected[drawn]["pdf"].startswith(b"%PDF")
    assert collected[drawn]["png"].startswith(b"\x89PNG")
    assert draw() == plain
    assert [*collected] == [plain]
