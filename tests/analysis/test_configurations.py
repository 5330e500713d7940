"""Runs of one configuration: what is averaged, and what is not."""

from dataclasses import replace
from datetime import timedelta

import pytest

from bench.analysis.configurations import Configuration
from tests.fixtures.runs import SCORES, SPEC, STARTED, receipt_of


def measured(seed, pixel_auroc, masks, hours):
    moment = STARTED + timedelta(hours=hours)
    metrics = {**SCORES.metrics(full=False), "scores_sha256": SCORES.digest(),
               "pixel_auroc": pixel_auroc}  # fmt: skip
    metrics |= {"masks_sha256": masks} if masks else {}
    return receipt_of(replace(SPEC, seed=seed), metrics=metrics,
                      started_at=moment, finished_at=moment)  # fmt: skip


def test_masks_that_were_put_right_count_where_most_runs_have_them():
    runs = (measured(0, 0.9, "b" * 64, 1), measured(1, 0.8, "b" * 64, 2), measured(2, 0.1, None, 3))
    assert set(Configuration(SPEC, "shortcut", runs).with_metric("pixel_auroc").by_seed) == {0, 1}


@pytest.mark.parametrize("old", ["a" * 64, None])
def test_a_pixel_metric_is_averaged_over_one_state_of_the_masks(old):
    runs = (measured(0, 0.4, old, 1), measured(1, 0.9, "b" * 64, 2), measured(2, 1.0, "b" * 64, 3))
    configuration = Configuration(SPEC, "shortcut", runs)
    pixels = configuration.with_metric("pixel_auroc")
    assert dict(pixels.by_seed) == {1: 0.9, 2: 1.0}
    assert len(configuration.with_metric("ap").by_seed) == 3, "masks touch nothing else"
    assert configuration.with_metric("box_recall") is None
