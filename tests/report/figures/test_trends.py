"""Trends over shots and types of defect."""

from dataclasses import replace

from bench.report.figures.trends import defect_auroc
from tests.fixtures.runs import SCORES


def test_one_type_of_defect_against_all_normals_by_hand():
    mixed = replace(
        SCORES, defect=("good", "good", "hole", "cut", "hole"),
        role=("test", "test", "test", "test", "drawn"),
    )  # fmt: skip
    assert defect_auroc(mixed, "hole") == 0.5  # 0.35 against 0.1 and 0.4; the drawn one is out
    assert defect_auroc(mixed, "cut") == 1
    assert defect_auroc(mixed, "crack") is None
