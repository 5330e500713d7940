"""The hash of a method's source: what changes it and what does not."""

import sys

import pytest

from bench.source import source_hash


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
    before = source_hash("plain", ("plain",))
    write(plain=text)
    assert source_hash("plain", ("plain",)) == before


def test_the_text_below_an_attribute_does_not_change_the_hash(write):
    write(plain="class A:\n    x: int = 1\n")
    before = source_hash("plain", ("plain",))
    write(plain='class A:\n    x: int = 1\n    """What x is."""\n')
    assert source_hash("plain", ("plain",)) == before


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
    before = source_hash("plain", ("plain",))
    write(plain=text)
    assert source_hash("plain", ("plain",)) != before


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
    before = source_hash("pack.method", ("pack",))
    write(pack__helper="rate = 2")
    assert source_hash("pack.method", ("pack",)) != before


@pytest.mark.parametrize("statement", ["from .helper import rate", "from . import helper"])
def test_the_hash_follows_imports_of_a_package_relative_to_itself(write, statement):
    write(pack____init__=statement, pack__helper="rate = 1")
    before = source_hash("pack", ("pack",))
    write(pack__helper="rate = 2")
    assert source_hash("pack", ("pack",)) != before


def test_the_hash_does_not_follow_imports_from_elsewhere(write):
    write(mine="import other\n", other="rate = 1\n")
    before = source_hash("mine", ("mine",))
    write(other="rate = 2\n")
    assert source_hash("mine", ("mine",)) == before
    assert source_hash("mine", ("mine", "other")) != before


def test_modules_that_import_each_other_have_a_hash(write):
    write(pack____init__="", pack__one="import pack.two", pack__two="import pack.one")
    assert source_hash("pack.one", ("pack",)) == source_hash("pack.two", ("pack",))


def test_hashing_a_method_imports_nothing_that_it_uses(write):
    write(pack____init__="", pack__method="from pack.heavy import thing", pack__heavy="thing = 1")
    source_hash("pack.method", ("pack",))
    assert "pack.heavy" not in sys.modules


def test_the_hash_of_an_own_method_covers_the_blocks_it_uses():
    hashes = [
        source_hash("atacnet.detector", ("bench", "baselines", "atacnet")[i:]) for i in range(3)
    ]
    assert len(set(hashes)) == 3
