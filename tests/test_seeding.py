import inspect

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench.seeding import PURPOSES, Seeds, sub_seed

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,10}", fullmatch=True)
WANTED = st.tuples(st.integers(0, 10_000), st.sampled_from(PURPOSES), NAMES, NAMES)


def test_a_sub_seed_is_golden():
    # Never edited: a change here draws other anomalies for every stored run.
    assert sub_seed(0, "draw", "mvtec_ad", "bottle") == 414418075170974033


@given(WANTED, WANTED)
def test_sub_seeds_differ_by_seed_purpose_dataset_and_category(one, other):
    assume(one != other)
    assert sub_seed(*one) != sub_seed(*other)


@given(WANTED, st.integers(0, 3), st.data())
def test_sub_seeds_differ_when_one_argument_differs(wanted, place, data):
    other = list(wanted)
    other[place] = data.draw(WANTED)[place]
    assume(other[place] != wanted[place])
    assert sub_seed(*other) != sub_seed(*wanted)


def test_sub_seeds_fill_63_bits():
    seeds = [sub_seed(n, "init", "head_ct", "head_ct") for n in range(200)]
    assert all(0 <= s < 2**63 for s in seeds)
    assert max(seeds) >= 2**62
    assert min(seeds) < 2**62


def test_dataset_and_category_are_kept_apart():
    assert sub_seed(0, "draw", "ab", "c") != sub_seed(0, "draw", "a", "bc")


def test_an_unknown_purpose_is_refused():
    with pytest.raises(ValueError, match=r"'colour'.*draw"):
        sub_seed(0, "colour", "head_ct", "head_ct")
    with pytest.raises(ValueError, match="'colour'"):
        Seeds(0, "head_ct", "head_ct")["colour"]


def test_the_seeds_of_a_run_are_its_sub_seeds():
    seeds = Seeds(3, "mvtec_ad", "pill")
    assert [seeds[p] for p in PURPOSES] == [sub_seed(3, p, "mvtec_ad", "pill") for p in PURPOSES]


def test_a_draw_seed_touches_the_draw_alone():
    seeds = Seeds(3, "mvtec_ad", "pill", draw_seed=5)
    wanted = {p: sub_seed(3 + 2 * (p == "draw"), p, "mvtec_ad", "pill") for p in PURPOSES}
    assert {p: seeds[p] for p in PURPOSES} == wanted


def test_nothing_but_seed_purpose_and_data_enters_a_sub_seed():
    assert list(inspect.signature(sub_seed).parameters) == [
        "seed",
        "purpose",
        "dataset",
        "category",
    ]
