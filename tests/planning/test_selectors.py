"""Words that select runs: name patterns, seeds and shards."""

import pytest

from bench.errors import BenchError, RequestError
from bench.planning.matrix import Selection, expand
from bench.planning.selectors import in_shard, read_seeds, read_shard, with_names
from bench.planning.suite import read_suite, read_suites
from tests.fixtures.suites import SMALL, of


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", 3), ("0-4", (0, 1, 2, 3, 4)), ("0,3", (0, 3)), ("7-7", (7,)), ("5, 0-1,1", (5, 0, 1))],
)
def test_seeds_are_a_number_a_range_or_a_list(text, seeds):
    assert read_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *((t, "--seeds takes how many") for t in ("", "x", "-1", "1.5", "0,", "0-", "0--2", "3;4")),
        ("4-0", "4-0 is empty"),
        ("0-999999999", "1 to 1000 at once"),
    ],
)
def test_other_seeds_are_refused_at_once(text, said):
    with pytest.raises(RequestError, match=said):
        read_seeds(text)


@pytest.mark.parametrize("text", ["", "2", "2/", "/8", "9/8", "0/0", "-1/8", "1/8/2", "1.5/8"])
def test_a_shard_is_i_of_n(text):
    with pytest.raises(RequestError, match=r"--shard takes I/N such as 2/8"):
        read_shard(text)


def test_shards_are_disjoint_whole_and_stable():
    ids = [f"{i * 0x9E3779B97F4A7C15 % 2**64:016x}" for i in range(200)]
    for count in (1, 3, 8):
        shards = [{i for i in ids if in_shard(i, read_shard(f"{n}/{count}"))} for n in range(count)]
        assert sum(map(len, shards)) == len(set().union(*shards)) == 200
        assert {i for i in ids if in_shard(i, (count, count))} == shards[0]
    assert in_shard("000000000000000a", (2, 8))
    assert not in_shard("000000000000000b", (2, 8))


def test_patterns_become_the_names_that_fit():
    known = ("spade", "patchcore", "patchsvdd")
    assert with_names(("patch*", "spade", "nosuch"), known, "method") == (
        "patchcore", "patchsvdd", "spade", "nosuch",
    )  # fmt: skip
    assert with_names(None, known, "method") is None
    with pytest.raises(RequestError, match=r"no method fits 'x\*'; there are: spade"):
        with_names(("x*",), known, "method")


def test_seeds_by_name_are_those_that_run(cells):
    assert of(cells(SMALL + "seeds = 2", seeds=(3, 1)), "seed") == [(3,), (1,)]
    assert of(cells('methods = ["spade"]\ndata = ["head_ct"]', seeds=(0, 2)), "seed") == [(0,)]
    with pytest.raises(RequestError, match="nothing is left"):  # nothing in it is random
        cells('methods = ["spade"]\ndata = ["head_ct"]', seeds=(1, 2))


def test_methods_datasets_and_categories_take_patterns(cells):
    text = 'methods = ["shortcut", "cutmix", "cavga"]\ndata = ["mvtec_ad", "head_ct"]\nshots = [1]'
    chosen = cells(text, methods=("c*",), datasets=("mv*",), categories=("b*", "?ipper"))
    assert {(c.method.name, c.category) for c in chosen} == {
        (m, c) for m in ("cutmix", "cavga") for c in ("bottle", "zipper")
    }
    with pytest.raises(RequestError, match=r"no category of suite mine fits 'q\*'"):
        cells(text, categories=("q*",))


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        ({"methods": ("shortcutt",)}, "did you mean shortcut?"),
        ({"datasets": ("head_cd",)}, "did you mean head_ct?"),
        ({"categories": ("head_c",)}, "did you mean head_ct?"),
    ],
)
def test_a_name_that_is_nearly_one_is_named(cells, selection, said):
    with pytest.raises(BenchError) as refused:
        cells(SMALL, **selection)
    assert said in str(refused.value)
    with pytest.raises(RequestError, match=r"'smok' \(did you mean smoke\?\); one of"):
        read_suite("smok")


def test_a_table_of_a_method_that_the_suite_does_not_run_is_refused(cells):
    with pytest.raises(RequestError, match=r"\[set.devnet\] is for no method of it; it runs short"):
        cells(SMALL + "[set.devnet]\nlr = 1e-4")
    both = 'methods = ["shortcut", "devnet"]\ndata = ["head_ct"]\nshots = [1]\n'
    assert cells(both + "[set.devnet]\nlr = 1e-4", methods=("shortcut",))


def test_several_suites_are_one_request(tmp_path, registry):
    for name, methods in (("one", '"shortcut"'), ("two", '"shortcut", "cutmix"')):
        text = f'methods = [{methods}]\ndata = ["synthetic/washer"]\nshots = [1]'
        (tmp_path / f"{name}.toml").write_text(text)
    suite = read_suites([str(tmp_path / f"{name}.toml") for name in ("one", "two", "one")])
    assert (suite.name, len(suite.blocks)) == ("one and two", 2)
    planned = expand(suite, Selection(methods=("cut*", "shortcut")), registry, tmp_path)
    assert planned[0].method.name == "shortcut"
    assert len(planned) == 2
    both = read_suites(["timing", "smoke"])
    kinds = [p.kind for p in expand(both, Selection(), registry, tmp_path)]
    assert kinds == sorted(kinds)  # timing after all others
    assert {*kinds} == {"accuracy", "timing"}
    with pytest.raises(RequestError, match="which suite"):
        read_suites([])


def test_the_ids_of_a_plan_do_not_depend_on_what_is_stored(plan, tmp_path):
    """A shard is taken from the ids of all that is wanted: nothing else enters it."""
    shards = [{r.run_id for r in plan.runs if in_shard(r.run_id, (i, 7))} for i in range(7)]
    assert set().union(*shards) == {r.run_id for r in plan.runs}
    assert sum(map(len, shards)) == len(plan.runs) == 480
    assert min(map(len, shards)) > 40
