"""Variants of a method: told apart by what differs from the defaults."""

from bench.planning.variants import shared, variant_name, variant_of
from tests.fixtures.suites import SMALL


def test_variants_are_named_by_what_they_do_not_share(cells):
    text = SMALL + "[vary]\nblack = [10, 20]\n"
    small, large = (variant_of(c) for c in cells(text))
    assert small.key != large.key
    common = shared([small, large])
    assert "black" not in common
    assert variant_name(small, common) != variant_name(large, common)
    assert large.parameters()["black"] == 20
