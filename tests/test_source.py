"""The hash of a method's source: what changes it and what does not."""

import functools
import json
import re
import sys
from importlib import resources
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from bench import source
from bench.registry import METHODS
from bench.source import (
    METHOD_PACKAGES,
    OWN_PACKAGES,
    Proof,
    Standing,
    method_code,
    outside_hash,
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


# A method from outside


@pytest.mark.parametrize(
    ("statement", "helper"),
    [
        ("from lib.helper import rate", "lib__helper"),
        ("import lib.deep.helper", "lib__deep/helper"),
        ("def late():\n    from lib import helper", "lib__helper"),
        ("from between import rate", "lib__helper"),
        ("from pack.between import rate", "pack__helper"),
        ("import pack.other", "pack____init__"),
        ("from baselines.blocks import loop\nfrom between import rate", "lib__helper"),
    ],
)
def test_all_that_a_method_imports_from_outside_counts(write, statement, helper):
    rates = dict.fromkeys(("lib__helper", "pack__helper", "pack__other", helper), "rate = 1")
    write(**{
        "mine": statement,
        "between": "from lib.helper import rate\n",
        "pack____init__": "",
        "pack__between": "from .helper import rate\n",
        **rates,
    })  # fmt: skip
    before, beside = outside_hash("mine"), source_hash("mine")
    write(**{helper: "rate = 2"})
    assert outside_hash("mine") != before
    assert source_hash("mine") == beside


def test_a_folder_on_the_path_counts_and_an_installed_package_does_not(
    write, tmp_path, monkeypatch
):
    write(mine="import other, extra.part, installed, numpy\n")
    files = {name: tmp_path / name for name in ("a/other.py", "b/extra/part.py")}
    files["installed"] = tmp_path / "site-packages" / "installed.py"
    for file in files.values():
        file.parent.mkdir(parents=True)
        file.write_text("rate = 1")
    for folder in ("a", "b", "site-packages"):
        monkeypatch.syspath_prepend(tmp_path / folder)
    hashes = [outside_hash("mine")]
    for file in files.values():
        file.write_text("rate = 2")
        write()
        hashes.append(outside_hash("mine"))
    assert len(set(hashes[:3])) == 3
    assert hashes[3] == hashes[2]


def test_what_a_method_of_one_file_had_as_its_hash_stays(write):
    write(mine="import numpy\nfrom bench.errors import MethodError\nrate = 1\n")
    assert outside_hash("mine") == tree_hash("mine", ("mine",))
    write(pack____init__='"""Nothing."""\n', pack__mine="import numpy\n")
    assert outside_hash("pack.mine") == tree_hash("pack.mine", ())


def test_a_compiled_module_counts_by_its_bytes(write, tmp_path):
    write(mine="import fast\n")
    compiled = tmp_path / "src" / f"fast{EXTENSION_SUFFIXES[0]}"
    hashes = set()
    for content in (b"1", b"2"):
        compiled.write_bytes(content)
        write()
        hashes.add(outside_hash("mine"))
    assert len(hashes) == 2


def test_an_installed_method_counts_with_its_own_package(write, tmp_path, monkeypatch):
    folder = tmp_path / "site-packages" / "method"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from . import part\nimport other")
    (folder.parent / "other.py").write_text("rate = 1")
    hashes = []
    monkeypatch.syspath_prepend(folder.parent)
    for file, text in (("part", "rate = 1"), ("part", "rate = 2"), ("../other", "rate = 2")):
        (folder / f"{file}.py").write_text(text)
        write()
        hashes.append(outside_hash("method"))
    assert hashes[0] != hashes[1]
    assert hashes[1] == hashes[2]


def test_the_projects_part_of_a_method_counts_beside_it_also_by_way_of_a_helper(write):
    write(mine="import helper\n", helper="from baselines import shortcut\n")
    with_block = source_hash("mine"), outside_hash("mine")
    assert method_code("mine").keys() == {"mine", "helper", "baselines.shortcut", "baselines"}
    write(helper="rate = 1\n")
    assert source_hash("mine") != with_block[0]


@pytest.mark.parametrize("text", ["", "[]", "{}x", '{"a.py": 1}', '{"/dev/zero": "1"}', "[[1]]"])
def test_a_damaged_list_of_loaded_files_counts_as_changed(write, text):
    write(mine="rate = 1\n")
    assert source.loaded_files_changed("mine", text)


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
