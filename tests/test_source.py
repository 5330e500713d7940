"""The hash of a method's source: what changes it and what does not."""

import functools
import json
import re
import sys
from importlib import resources

import pytest

from bench import source
from bench.registry import METHODS
from bench.source import (
    METHOD_PACKAGES,
    OWN_PACKAGES,
    Proof,
    Standing,
    source_hash,
    standing,
    tree_hash,
)


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    # why\n    return x + 1  # there\n",
        '"""The module."""\n\n\ndef f(x):\n    """Add one."""\n\n    return x + 1\n',
        "def f(\n    x,\n):\n    return (x + 1)\n",
    ],
)
def test_comments_docstrings_and_layout_do_not_change_the_hash(write, text):
    write(plain="def f(x):\n    return x + 1\n")
    before = tree_hash("plain", ("plain",))
    write(plain=text)
    assert tree_hash("plain", ("plain",)) == before


def test_the_text_below_an_attribute_does_not_change_the_hash(write):
    write(plain="class A:\n    x: int = 1\n")
    before = tree_hash("plain", ("plain",))
    write(plain='class A:\n    x: int = 1\n    """What x is."""\n')
    assert tree_hash("plain", ("plain",)) == before


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    return x + 2\n",
        "def f(x):\n    return x + 1.0\n",
        "def f(x):\n    return x - 1\n",
        "def f(y):\n    return y + 1\n",
        "def f(x=None):\n    return x + 1\n",
        "def f(x):\n    return x + 1\nf(0)\n",
        "def f(x):\n    x + 1\n",
        "async def f(x):\n    return x + 1\n",
    ],
)
def test_code_changes_the_hash(write, text):
    write(plain="def f(x):\n    return x + 1\n")
    before = tree_hash("plain", ("plain",))
    write(plain=text)
    assert tree_hash("plain", ("plain",)) != before


@pytest.mark.parametrize(
    "statement",
    [
        "from pack.helper import rate",
        "from pack import helper",
        "import pack.helper",
        "from .helper import rate",
        "from . import helper",
        "def late():\n    from pack.helper import rate",
        "from .between import rate",
    ],
)
def test_the_hash_follows_imports(write, statement):
    between = "from .helper import rate\n"
    write(pack____init__="", pack__method=statement, pack__between=between, pack__helper="rate = 1")
    before = tree_hash("pack.method", ("pack",))
    write(pack__helper="rate = 2")
    assert tree_hash("pack.method", ("pack",)) != before


@pytest.mark.parametrize("statement", ["from .helper import rate", "from . import helper"])
def test_the_hash_follows_imports_of_a_package_relative_to_itself(write, statement):
    write(pack____init__=statement, pack__helper="rate = 1")
    before = tree_hash("pack", ("pack",))
    write(pack__helper="rate = 2")
    assert tree_hash("pack", ("pack",)) != before


def test_the_hash_does_not_follow_imports_from_elsewhere(write):
    write(mine="import other\n", other="rate = 1\n")
    before = tree_hash("mine", ("mine",))
    write(other="rate = 2\n")
    assert tree_hash("mine", ("mine",)) == before
    assert tree_hash("mine", ("mine", "other")) != before


def test_modules_that_import_each_other_have_a_hash(write):
    write(pack____init__="", pack__one="import pack.two", pack__two="import pack.one")
    assert tree_hash("pack.one", ("pack",)) == tree_hash("pack.two", ("pack",))


def test_hashing_a_method_imports_nothing_that_it_uses(write):
    write(pack____init__="", pack__method="from pack.heavy import thing", pack__heavy="thing = 1")
    tree_hash("pack.method", ("pack",))
    assert "pack.heavy" not in sys.modules


def test_the_hash_of_an_own_method_covers_the_blocks_it_uses():
    hashes = [tree_hash("atacnet.detector", METHOD_PACKAGES[i:]) for i in range(2)]
    assert len(set(hashes)) == 2


def test_the_harness_counts_by_the_version_of_the_contract_alone(write, monkeypatch):
    write(mine="from bench.errors import MethodError\nfrom bench.seeding import Seeds\n")
    before = source_hash("mine")
    assert tree_hash("mine", OWN_PACKAGES) != tree_hash("mine", METHOD_PACKAGES)
    monkeypatch.setattr(source, "CONTRACT_VERSION", source.CONTRACT_VERSION + 1)
    source_hash.cache_clear()
    assert source_hash("mine") != before


# Standing


@pytest.fixture
def proofs(write, monkeypatch):
    """Return today's hash of a method, and a way to make proofs of (one hash, other, device)."""
    write(mine="rate = 1\n")

    def proved(*pairs):
        made = tuple(Proof(frozenset((one, other)), device) for one, other, device in pairs)
        monkeypatch.setattr(source, "equivalences", lambda: made)
        standing.cache_clear()
        return functools.partial(standing, "mine:Mine")

    return source_hash("mine"), proved


def test_without_a_proof_only_todays_hash_is_not_stale(proofs):
    today, proved = proofs
    assert proved()(today, "cpu") == Standing(stale=False)
    assert proved()("old", "cpu").stale
    assert proved(("old", "older", "any"))("old", "cpu").stale
    assert proved()(None, "cpu").stale


def test_a_proof_holds_for_its_device_and_is_named_elsewhere(proofs):
    today, proved = proofs
    old = proved(("old", today, "cpu"))
    assert old("old", "cpu") == Standing(stale=False)
    assert old("old", "cuda:1") == Standing(stale=False, proved_on="cpu")
    assert proved(("old", today, "cuda"))("old", "cuda:1") == Standing(stale=False)


def test_a_proof_without_runs_holds_everywhere(proofs):
    today, proved = proofs
    for device in ("cpu", "cuda:0"):
        assert proved((today, "old", "any"))("old", device) == Standing(stale=False)


def test_proofs_chain_and_the_weakest_link_says_where(proofs):
    today, proved = proofs
    old = proved(("a", "b", "any"), ("c", "b", "cuda"), ("c", today, "cpu"), ("x", "y", "cpu"))
    assert old("a", "cuda:0") == Standing(stale=False, proved_on="cpu")
    assert old("a", "cpu") == Standing(stale=False, proved_on="cuda")
    assert old("a", "mps") == Standing(stale=False, proved_on="cpu and cuda")
    assert old("c", "mps") == Standing(stale=False, proved_on="cpu")
    assert old("x", "cpu").stale


def test_the_hash_of_the_older_rule_is_no_other_code(proofs):
    _, proved = proofs
    assert proved()(tree_hash("mine", OWN_PACKAGES), "cpu") == Standing(stale=False)


def test_hashes_are_equal_where_a_proof_on_that_device_says_so(proofs):
    _, proved = proofs
    proved(("a", "b", "cuda"))
    assert source.proved_equal("a", "a", "cpu")
    assert source.proved_equal("b", "a", "cuda:1")
    assert not source.proved_equal("a", "b", "cpu")
    assert not source.proved_equal(None, "b", "cuda:0")


def test_the_committed_proofs_have_what_a_reader_needs():
    for proof in json.loads(resources.files("bench").joinpath("equivalences.json").read_text()):
        assert proof["by"] in ("rule", "same_numbers")
        assert proof["hashes"].keys() <= METHODS.keys()
        assert all(
            re.fullmatch(r"[0-9a-f]{64}", h) for pair in proof["hashes"].values() for h in pair
        )
        if proof["by"] == "rule":
            assert proof["device"] == source.ANY_DEVICE
        else:
            assert proof["runs"] > 0
            assert proof["machine"]
            assert proof["versions"].keys() >= {"torch", "numpy"}
