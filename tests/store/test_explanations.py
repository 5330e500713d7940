"""Explanations: what a method may return of what it saw, and their file."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.detector import Explanation
from bench.errors import MethodError
from bench.execution.contract import explained
from bench.store.explanations import Explanations, explanations_bytes, read_explanations
from tests.fixtures.runs import EXPLAINED, SCORES, explanations_of, noise

FILE = SCORES.file
SOUND = Explanation({"score": noise(5, 2, 3)}, noise(5, 4), {"raw": noise(5)})

names = st.text(
    st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1,
    max_size=9,
).filter(lambda n: not n.endswith(("_height", "_width")))  # fmt: skip


def equal(one, other):
    def same(ours, theirs):
        return list(ours) == list(theirs) and all(
            (ours[n].dtype, ours[n].shape) == (theirs[n].dtype, theirs[n].shape)
            and ours[n].tobytes() == theirs[n].tobytes()
            for n in ours
        )

    boxes = [None if e.boxes is None else e.boxes.tolist() for e in (one, other)]
    return (
        one.file == other.file
        and boxes[0] == boxes[1]
        and same(one.maps, other.maps)
        and same(one.parts, other.parts)
    )


# What a method returns


def test_what_is_sound_is_kept_as_it_is():
    found = explained(list(FILE), SOUND)
    assert found.file == FILE
    assert equal(found, Explanations(FILE, SOUND.maps, SOUND.boxes, SOUND.parts))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"maps": {}}, "at least one map"),
        ({"maps": [noise(5, 2, 3)]}, "maps must be arrays by name, not list"),
        ({"maps": None}, "maps must be arrays by name, not NoneType"),
        ({"maps": {3: noise(5, 2, 3)}}, "named by a text, not 3"),
        ({"maps": {"": noise(5, 2, 3)}}, "named by a text, not ''"),
        ({"maps": {"a\nb": noise(5, 2, 3)}}, r"named by a text, not 'a\\nb'"),
        ({"maps": {"field_width": noise(5, 2, 3)}}, "must not end in _height or _width"),
        ({"maps": {"a": None}}, r"maps\['a'\] must be a float32 array, not NoneType"),
        ({"maps": {"a": noise(5, 2, 3).astype(float)}}, "a float32 array, not float64"),
        ({"maps": {"a": np.ma.zeros((5, 2, 3), np.float32)}}, "not MaskedArray"),
        ({"maps": {"a": noise(5, 6)}}, r"shape \(5, any, any\), not \(5, 6\)"),
        ({"maps": {"a": noise(5, 1, 2, 3)}}, r"shape \(5, any, any\), not \(5, 1, 2, 3\)"),
        ({"maps": {"a": noise(4, 2, 3)}}, r"shape \(5, any, any\), not \(4, 2, 3\)"),
        ({"maps": {"a": noise(5, 0, 3)}}, r"not \(5, 0, 3\)"),
        ({"maps": {"a": noise(5, 2, 3) * np.float32(np.inf)}}, "holds 30 values that are not"),
        ({"boxes": noise(5, 3)}, r"boxes must have shape \(5, 4\), not \(5, 3\)"),
        ({"boxes": [[0, 0, 1, 1]] * 5}, "boxes must be a float32 array, not list"),
        ({"boxes": np.full((5, 4), np.nan, np.float32)}, "boxes holds 20 values"),
        ({"parts": {"raw": noise(5, 1)}}, r"parts\['raw'\] must have shape \(5\), not \(5, 1\)"),
        ({"parts": {"raw": noise(6)}}, r"shape \(5\), not \(6,\)"),
        ({"parts": {"\x1b[2J": noise(5)}}, "parts must be named by a text"),
        ({"parts": 3}, "parts must be arrays by name, not int"),
    ],
)
def test_what_is_not_sound_is_a_broken_contract(changes, said):
    with pytest.raises(MethodError, match=said) as caught:
        explained(FILE, replace(SOUND, **changes))
    assert "\n" not in str(caught.value)


def test_what_is_no_explanation_is_a_broken_contract():
    with pytest.raises(MethodError, match="must return an Explanation, not dict"):
        explained(FILE, {"maps": SOUND.maps})


# The file


@given(
    st.lists(names, min_size=1, max_size=4, unique=True),
    st.lists(names, max_size=3, unique=True),
    st.booleans(),
    st.integers(1, 4),
)
def test_explanations_that_are_written_are_read_back(maps, parts, boxes, n):
    """In their order: the first map is the one to draw."""
    made = explanations_of([f"{i}.png" for i in range(n)], *maps, boxes=boxes, parts=parts)
    assert equal(read_explanations(explanations_bytes(made)), made)
    twice = pa.concat_tables([made.table(), made.table()])
    for start in (0, n):
        assert equal(Explanations.from_table(twice.slice(start, n)), made)


def test_other_tools_find_a_column_for_each_side_part_and_map():
    assert EXPLAINED.table().to_pylist()[1] == {
        "file": "good/1.png",
        "box_left": 0.25, "box_top": 0.0, "box_right": 0.75, "box_bottom": 0.5,
        "part_raw": EXPLAINED.parts["raw"][1],
        "part_zoomed": EXPLAINED.parts["zoomed"][1],
        "map_score": EXPLAINED.maps["score"][1].ravel().tolist(),
        "map_score_height": 2, "map_score_width": 3,
        "map_attention": EXPLAINED.maps["attention"][1].ravel().tolist(),
        "map_attention_height": 3, "map_attention_width": 3,
    }  # fmt: skip


TABLE = EXPLAINED.table()


def with_column(name, values, kind):
    return TABLE.set_column(TABLE.column_names.index(name), name, pa.array(values, kind))


LISTS = pa.list_(pa.float32())
SIX = [[1.0] * 6] * 4


@pytest.mark.parametrize(
    "table",
    [
        pa.table({}),
        TABLE.slice(0, 0),
        TABLE.drop_columns("file"),
        TABLE.drop_columns("box_top"),
        TABLE.drop_columns("map_score"),
        TABLE.drop_columns("map_score_width"),
        TABLE.select([n for n in TABLE.column_names if not n.startswith("map_")]),
        TABLE.append_column("more", pa.array([1] * 5)),
        TABLE.append_column("part_raw", pa.array(noise(5))),
        with_column("file", ["a"] * 4 + [None], pa.string()),
        with_column("file", [b"a"] * 5, pa.binary()),
        with_column("box_top", [0.5] * 4 + [None], pa.float32()),
        with_column("box_top", [None] * 5, pa.float32()),
        with_column("box_top", [0.5] * 5, pa.float64()),
        with_column("box_top", [np.nan] * 5, pa.float32()),
        with_column("part_raw", [0.5] * 4 + [None], pa.float32()),
        with_column("part_raw", [0.5] * 5, pa.float64()),
        with_column("part_raw", ["a"] * 5, pa.string()),
        with_column("map_score", [*SIX, None], LISTS),
        with_column("map_score", [*SIX, [1.0] * 5 + [None]], LISTS),
        with_column("map_score", [*SIX, [1.0] * 5 + [np.inf]], LISTS),
        with_column("map_score", [*SIX, [1.0] * 5], LISTS),
        with_column("map_score", [[1.0] * 4] * 5, LISTS),
        with_column("map_score", [[1.0] * 6] * 5, pa.list_(pa.float64())),
        with_column("map_score", [1.0] * 5, pa.float32()),
        with_column("map_score_height", [2, 2, 2, 2, 3], pa.int64()),
        with_column("map_score_height", [2, 2, 2, 2, None], pa.int64()),
        with_column("map_score_height", [-2] * 5, pa.int64()),
        with_column("map_score_height", ["2"] * 5, pa.string()),
    ],
)
def test_a_table_of_another_form_is_an_error(table):
    with pytest.raises(ValueError, match="explanations"):
        Explanations.from_table(table)


def test_what_is_no_file_of_explanations_raises_nothing_but_value_error():
    whole = explanations_bytes(EXPLAINED)
    for length in range(0, len(whole), 31):
        with pytest.raises(ValueError, match="does not read"):
            read_explanations(whole[:length])
