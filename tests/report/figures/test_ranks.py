"""Ranks of methods over datasets."""

from dataclasses import replace

from bench.analysis.statistics import Ranking, ranking
from bench.report.figures.ranks import alike, complete_places


def test_the_largest_set_of_places_that_three_methods_share():
    ten = [("d", f"c{i}") for i in range(12)]
    methods = {"a": frozenset(ten), "b": frozenset(ten), "c": frozenset(ten[:11]),
               "d": frozenset(ten[:10]), "e": frozenset(ten[3:])}  # fmt: skip
    places, ranked = complete_places(methods)
    assert places == sorted(ten[:11])
    assert ranked == ["a", "b", "c"]
    assert complete_places({m: frozenset(ten[:9]) for m in "abc"}) is None
    assert complete_places({m: frozenset(ten) for m in "ab"}) is None


def test_bars_join_what_does_not_differ():
    pairs = {("a", "b"): 0.6, ("a", "c"): 0.01, ("a", "d"): 0.01, ("b", "c"): 0.2, ("b", "d"): 0.01,
             ("c", "d"): 0.04}  # fmt: skip
    found = Ranking({"a": 1.2, "b": 1.9, "c": 3.0, "d": 3.9}, 10, 0.01, pairs)
    assert alike(found) == [("a", "b"), ("b", "c")]
    assert alike(replace(found, pairs=dict.fromkeys(pairs, 1.0))) == [("a", "d")]
    same = ranking({m: [0.5, 0.6, 0.7] for m in "abc"})
    assert alike(same) == [("a", "c")]
