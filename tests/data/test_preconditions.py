"""What a category must hold once duplicates have left."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.preconditions import check_preconditions, unmet_preconditions
from bench.data.splits import DRAWN, split_category
from bench.errors import BenchError, DataError
from tests.fixtures.datasets import pictures_in

HARD = {"setting": "hard", "seen_defect": "a"}


def anomalies(n, defect="a"):
    return [(defect, f"{defect}{i}") for i in range(n)]


def unmet(*parts, **setting):
    return unmet_preconditions(*pictures_in(*parts), "nut", **setting)


def test_enough_of_everything_is_no_line():
    assert unmet("uvw", "xyz", anomalies(11)) == []
    assert unmet("u", "x", anomalies(10) + anomalies(10, "b"), **HARD) == []


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (
            ("uvw", "wvuu", anomalies(11)),
            "nut: 3 normal training images, of which 3 are also in test/good: 0 are left to train"
            " on; remove them from one of the two",
        ),
        (
            ("uv", "xu", [*anomalies(11), ("b", "v")]),
            "nut: 2 normal training images, of which 2 are also in test/b and test/good: 0 are left"
            " to train on; remove them from one of the two",
        ),
        (("", "x", anomalies(11)), "nut: 0 normal training images: 0 are left to train on; add 1"),
        (
            ("uv", "x", [*anomalies(11), ("b", "x")]),
            "nut: 1 normal test image, of which 1 are also in test/b: 0 are left to test on; remove"
            " them from one of the two",
        ),
        (
            ("uv", "x", anomalies(10)),
            "nut has 10 anomalies that differ; 10 are drawn for training and 1 more is needed to"
            " test on: add 1, or draw fewer: draw = 9 in the suite",
        ),
        (
            ("uv", "x", anomalies(6) * 3),
            "nut has 6 anomalies that differ (18 files); 10 are drawn for training and 1 more is"
            " needed to test on: add 5, or draw fewer: draw = 5 in the suite",
        ),
        (
            ("uv", "x", anomalies(1)),
            "nut has 1 anomalies that differ; 10 are drawn for training and 1 more is needed to"
            " test on: add 10, or draw = 0 in a suite of methods without labels alone",
        ),
    ],
)
def test_what_is_not_met_is_a_line_with_numbers_and_remedy(parts, line):
    assert unmet(*parts) == [line]
    with pytest.raises(DataError) as caught:
        check_preconditions(*pictures_in(*parts), "nut")
    assert str(caught.value) == line


def test_a_smaller_draw_needs_fewer_anomalies():
    for draw in range(10):
        assert unmet("uv", "x", anomalies(draw + 1), draw=draw) == []
        assert len(unmet("uv", "x", anomalies(draw), draw=draw)) == 1
    assert unmet("u", "x", anomalies(9) + anomalies(3, "b"), draw=9, **HARD) == []


def test_a_method_may_need_more_normals():
    assert unmet("uv", "x", anomalies(11), normals=2) == []
    assert unmet("uv", "u", anomalies(11), normals=2) == [
        "nut: 2 normal training images, of which 1 are also in test/good: 1 is left to train on and"
        " 2 are needed; remove them from one of the two"
    ]


def test_the_hard_setting_draws_from_one_type_and_tests_on_the_others():
    assert unmet("u", "x", anomalies(10), **HARD) == [
        "nut: hard setting with seen defect 'a'; possible: none (a is the only defect type, so that"
        " none would be unseen)"
    ]
    assert unmet("u", "x", anomalies(9) + anomalies(12, "b"), **HARD) == [
        "nut: hard setting with seen defect 'a'; possible: b (a has 9 images, fewer than 10)"
    ]
    assert unmet("u", "x", [*anomalies(9), ("a", "a0"), *anomalies(3, "b")], **HARD) == [
        "nut has 9 anomalies of seen defect 'a' that differ (10 files); 10 are drawn for training:"
        " add 1, or draw fewer: draw = 9 in the suite"
    ]
    assert unmet("u", "x", [*anomalies(12), ("b", "a3")], **HARD) == [
        "nut: 1 unseen anomalous image, of which 1 are also in test/a: 0 are left to test on;"
        " remove them from one of the two"
    ]


PICTURES = st.sampled_from([f"p{n}" for n in range(16)])
ANOMALIES = st.lists(st.tuples(st.sampled_from("ab"), PICTURES), max_size=30)


@given(
    st.lists(PICTURES, max_size=5),
    st.lists(PICTURES, max_size=5),
    ANOMALIES,
    st.sampled_from([{}, HARD]),
    st.integers(0, 50),
)
def test_whatever_is_met_can_be_split_trained_and_tested(train, normal, anomalous, setting, seed):
    files, pixels = pictures_in(train, normal, anomalous)
    problems = unmet_preconditions(files, pixels, "nut", **setting)
    with contextlib.suppress(BenchError) if problems else contextlib.nullcontext():
        split = split_category(files, pixels, seed=seed, dataset="nut", category="nut", **setting)
        if not problems:
            counted = [i for i, r in zip(split.tested, split.role, strict=True) if r == "test"]
            assert len(split.drawn) == DRAWN
            assert split.train_normal
            assert {files[i].anomalous for i in counted} == {True, False}
