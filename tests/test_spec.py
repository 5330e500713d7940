import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import RequestError
from bench.seeding import PURPOSES
from bench.spec import LATER, SPEC_VERSION, RunSpec

TEXT, WHOLE = st.text(max_size=12), st.integers(-(2**63), 2**63)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
PARAMETERS = st.dictionaries(TEXT, st.booleans() | WHOLE | FINITE | TEXT, max_size=5)
FIELDS = {
    "kind": TEXT,
    "method": TEXT,
    "method_version": WHOLE,
    "method_source": st.none() | TEXT,
    "parameters": PARAMETERS,
    "dataset": TEXT,
    "category": TEXT,
    "setting": TEXT,
    "shots": WHOLE,
    "seen_defect": st.none() | TEXT,
    "seed": WHOLE,
    "image_size": WHOLE,
    "resize": TEXT,
    "data_version": WHOLE,
    "fingerprint": TEXT,
    "external": st.none() | TEXT,
    "precision": st.none() | TEXT,
    "batch_size": st.none() | WHOLE,
    "backbone": st.none() | TEXT,
    "stage": st.none() | WHOLE,
    "weights": st.none() | TEXT,
    "masks": st.none() | TEXT,
    # No seed of the strategy above: an equal one becomes None, see the test of that.
    "draw_seed": st.none() | st.integers(2**63 + 1, 2**64),
    "draw": st.none() | st.integers(0, 9),
}
SPECS = st.builds(RunSpec, **FIELDS)
FULL = RunSpec(
    kind="accuracy",
    method="atacnet",
    method_version=3,
    method_source="mine.method:Mine@" + "5" * 64,
    parameters={"lr": 1e-3, "epochs": 30, "pseudo": True, "loss_form": "hinge"},
    dataset="mvtec_ad",
    category="metal_nut",
    setting="hard",
    shots=10,
    seen_defect="scratch",
    seed=4,
    image_size=224,
    resize="bilinear",
    data_version=1,
    fingerprint="a" * 64,
    external="b" * 64,
    precision="bfloat16",
    batch_size=16,
    backbone="resnet50",
    stage=3,
    weights="c" * 64,
)


SOME = {"masks": "d" * 64, "draw_seed": 7, "draw": 5}
"""A value of each later field."""


def written(value):
    return json.dumps(value, sort_keys=True)


def test_the_run_id_of_a_full_spec_is_golden():
    # Never edited while SPEC_VERSION stays 1: a change here orphans every stored run.
    assert SPEC_VERSION == 1
    assert FULL.run_id == "3d6238b444d58dcd"


def test_every_field_is_in_the_strategies_above():
    assert {f.name for f in fields(RunSpec)} == FIELDS.keys()


@given(SPECS)
def test_a_spec_survives_json(spec):
    back = RunSpec.from_dict(json.loads(json.dumps(spec.as_dict())))
    assert back == spec
    assert back.canonical() == spec.canonical()
    assert hash(back) == hash(spec)


@given(SPECS)
def test_the_canonical_form_holds_the_version_and_every_field(spec):
    assert json.loads(spec.canonical()) == {"spec_version": SPEC_VERSION, **spec.as_dict()}


@given(PARAMETERS.flatmap(lambda p: st.tuples(st.just(p), st.permutations(sorted(p)))))
def test_an_id_does_not_depend_on_the_order_of_parameters(drawn):
    parameters, order = drawn
    shuffled = {k: parameters[k] for k in order}
    assert replace(FULL, parameters=shuffled).run_id == replace(FULL, parameters=parameters).run_id


@given(SPECS, st.sampled_from(sorted(FIELDS)), st.data())
def test_an_id_differs_when_any_one_field_differs(spec, name, data):
    now = written(getattr(spec, name))
    other = data.draw(FIELDS[name].filter(lambda value: written(value) != now))
    assert replace(spec, **{name: other}).run_id != spec.run_id


def test_one_as_int_float_bool_and_text_gives_four_ids():
    assert len({replace(FULL, parameters={"x": x}).run_id for x in (1, 1.0, True, "1")}) == 4


def test_specs_with_different_ids_are_not_equal():
    assert replace(FULL, parameters={"x": 1}) != replace(FULL, parameters={"x": 1.0})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_parameter_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="lr of atacnet must be finite"):
        replace(FULL, parameters={"lr": value})
    with pytest.raises(RequestError, match="lr of atacnet must be finite"):
        RunSpec.from_dict({**FULL.as_dict(), "parameters": {"lr": value}})


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, (1,), b"x"])
def test_a_parameter_of_another_type_is_refused(value):
    with pytest.raises(RequestError, match="layers"):
        RunSpec.from_dict({**FULL.as_dict(), "parameters": {"layers": value}})


@pytest.mark.parametrize("value", [None, 3, "lr", ["lr"]])
def test_parameters_that_are_no_table_are_refused(value):
    with pytest.raises(RequestError):
        RunSpec.from_dict({**FULL.as_dict(), "parameters": value})


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - LATER))
def test_a_missing_field_is_refused_by_name(name):
    values = FULL.as_dict()
    del values[name]
    with pytest.raises(RequestError, match=name):
        RunSpec.from_dict(values)


@pytest.mark.parametrize("name", sorted(LATER))
def test_a_later_field_is_left_out_where_it_is_none(name):
    assert name not in FULL.as_dict()
    assert name not in json.loads(FULL.canonical())
    assert RunSpec.from_dict({**FULL.as_dict(), name: None}).run_id == FULL.run_id
    value = SOME[name]
    given = replace(FULL, **{name: value})
    assert given.as_dict()[name] == value
    assert RunSpec.from_dict(given.as_dict()) == given != FULL


def test_an_unknown_field_is_refused_by_name():
    with pytest.raises(RequestError, match="colour"):
        RunSpec.from_dict({**FULL.as_dict(), "colour": "red"})


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - {"parameters"}))
def test_a_mistyped_field_is_refused_by_name(name):
    right = type(SOME[name]) if name in LATER else type(getattr(FULL, name))
    for wrong in (True, 1, 1.0, "1", [], {}):
        if type(wrong) is not right:
            with pytest.raises(RequestError, match=name):
                RunSpec.from_dict({**FULL.as_dict(), name: wrong})


@pytest.mark.parametrize("name", ["kind", "seed", "shots", "fingerprint"])
def test_a_field_that_is_always_there_is_never_none(name):
    with pytest.raises(RequestError, match=name):
        RunSpec.from_dict({**FULL.as_dict(), name: None})


def test_runs_that_differ_by_their_seed_alone_share_a_row():
    assert replace(FULL, seed=7).row == FULL.row
    assert replace(FULL, shots=1).row != FULL.row


def test_a_draw_seed_that_is_the_seed_makes_a_plain_run():
    assert replace(FULL, draw_seed=4).run_id == FULL.run_id
    assert replace(FULL, draw_seed=4).draw_seed is None
    assert replace(replace(FULL, draw_seed=2), seed=2) == replace(FULL, seed=2)
    assert RunSpec.from_dict({**FULL.as_dict(), "draw_seed": 4}) == FULL


def test_a_draw_of_ten_is_the_usual_one_and_no_part_of_the_id():
    assert replace(FULL, draw=10).run_id == FULL.run_id
    assert (replace(FULL, draw=10).draw, FULL.drawn) == (None, 10)
    few = replace(FULL, draw=5)
    assert (few.drawn, few.run_id == FULL.run_id) == (5, False)
    assert str(few) == "atacnet mvtec_ad/metal_nut 10 shots of 5 drawn seed 4"


def test_no_draws_share_a_row_and_draw_0_is_no_plain_row():
    crossed = [replace(FULL, seed=s, draw_seed=d) for d in range(3) for s in range(3)]
    rows = {}
    for spec in crossed:
        rows.setdefault(spec.row, []).append((spec.draw_seed, spec.seed))
    assert sorted(rows.values(), key=str) == [
        [(0, 1), (0, 2)], [(1, 0), (1, 2)], [(2, 0), (2, 1)], [(None, 0), (None, 1), (None, 2)],
    ]  # fmt: skip
    assert all(row.row == row for row in rows)


def test_the_draw_seed_gives_the_draw_and_the_seed_all_else():
    plain, crossed = FULL.seeds, replace(FULL, draw_seed=2).seeds
    differ = {p for p in PURPOSES if plain[p] != crossed[p]}
    assert differ == {"draw"}
    assert crossed["draw"] == replace(FULL, seed=2).seeds["draw"]


def test_a_dataset_without_categories_is_named_once():
    assert replace(FULL, dataset="head_ct", category="head_ct").place == "head_ct"
    assert str(FULL) == "atacnet mvtec_ad/metal_nut 10 shots seed 4"
    assert str(replace(FULL, shots=1)) == "atacnet mvtec_ad/metal_nut 1 shot seed 4"
    assert str(replace(FULL, draw_seed=0)) == "atacnet mvtec_ad/metal_nut 10 shots seed 4 draw 0"
