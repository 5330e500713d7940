"""Our AUROC against the published one."""

from dataclasses import replace

from bench.report.figures.agreement import draw
from tests.fixtures.times import ATACNET, content_of_times, scored


def test_a_number_that_agrees_to_the_last_digit_counts_as_one_that_was_run():
    devnet = replace(ATACNET, method="devnet", parameters={"lr": 2e-4})
    found = content_of_times(scored(ATACNET, 1.0), scored(devnet, 0.8))
    (figure,) = draw(found.tables)
    assert len(figure.numbers[0].rows) == 2
    (same,) = [row for row in figure.numbers[0].rows if row[0].startswith("ATAC-Net")]
    assert same[1:4] == ("1.000", "1.000", "+0.000")
    assert "1 of 2 below the published number, 1 within 0.01 of it" in figure.note
