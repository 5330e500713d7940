"""Where scores of own images lie among a run's own test scores."""

import numpy as np
import pytest

from bench.errors import RequestError
from bench.execution.thresholds import OwnScores, too_fine
from bench.store.scores import Scores
from tests.fixtures.runs import SCORES

HUNDRED = Scores(
    file=tuple(f"{i}.png" for i in range(103)),
    label=np.array([False] * 100 + [True] * 3),
    defect=("good",) * 100 + ("hole",) * 3,
    role=("test",) * 102 + ("drawn",),
    score=np.array([*range(100), 98.5, 500, 900], np.float32),
)


@pytest.mark.parametrize(
    ("threshold", "value", "false"),
    [("fpr=0.01", 98, 1), ("fpr=0", 99, 0), ("fpr=0.05", 94, 5), ("fpr=0.019", 98, 1),
     ("score=9.5", 9.5, 90), ("fpr = 0.29", 70, 29)],
)  # fmt: skip
def test_a_threshold_lets_at_most_that_share_of_normal_images_pass(threshold, value, false):
    test = OwnScores.of_run(HUNDRED, threshold)
    assert test.threshold == value
    assert (test.normal > test.threshold).sum() == false
    assert f"{false} of 100 normal and " in test.reading
    assert "of 2 anomalous" in test.reading


def test_ranks_and_verdicts_follow_the_runs_normal_test_images():
    test = OwnScores.of_run(HUNDRED, "fpr=0.01")
    scores = np.float32([-1, 0, 50, 98, 98.5, 1000])
    assert test.ranks(scores).tolist() == [0, 0, 0.5, 0.98, 0.99, 1]
    assert test.verdicts(scores) == ["ok"] * 4 + ["defect"] * 2
    plain = OwnScores.of_run(SCORES)
    assert (plain.verdicts(scores[:1]), plain.reading) == ([None], "")
    assert plain.ranks(np.float32([0.2])).tolist() == [0.5]


@pytest.mark.parametrize("text", ["0.01", "fpr", "fpr=", "fpr=1", "fpr=-0.1", "fpr=nan", "x=1",
                                  "score=inf"])  # fmt: skip
def test_another_threshold_is_refused(text):
    with pytest.raises(RequestError, match=r"--threshold takes fpr=SHARE, say fpr=0.01"):
        OwnScores.of_run(HUNDRED, text)


def test_a_rate_finer_than_the_images_can_tell_is_said():
    assert too_fine("fpr=0.01", OwnScores.of_run(HUNDRED, "fpr=0.01")) == ""
    few = OwnScores.of_run(SCORES, "fpr=0.01")
    assert "2 normal test images cannot tell a rate below 0.5" in too_fine("fpr=0.01", few)
    assert too_fine("score=1", few) == too_fine(None, few) == ""
