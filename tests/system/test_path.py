"""The path to import from, without the current folder."""

import os
import sys

import pytest

from bench.system import path
from bench.system.path import is_installed, safe_environment, safe_path

STANDARD = os.path.dirname(os.__file__)
PACKAGES = f"{STANDARD}/site-packages"


@pytest.fixture
def at(tmp_path, monkeypatch):
    """Enter a folder with a path and a PYTHONPATH, and give the safe path."""
    monkeypatch.chdir(tmp_path)

    def entered(*entries, named="", root="/checkout"):
        monkeypatch.setattr(sys, "path", list(entries))
        monkeypatch.setattr(path, "_ROOT", str(root))
        monkeypatch.setenv("PYTHONPATH", named)
        return safe_path()

    return entered


@pytest.mark.parametrize("first", ["", ".", "{here}", "{here}/sub/.."])
def test_the_current_folder_leaves_the_path_however_it_is_written(at, tmp_path, first):
    first = first.format(here=tmp_path)
    assert at(first, STANDARD, PACKAGES, "") == [STANDARD, PACKAGES]


def test_what_pythonpath_names_stays_where_it_is(at, tmp_path):
    entries = ["/lib", str(tmp_path), STANDARD]
    assert at(*entries, named="/lib:.") == entries
    assert at("", *entries, named=f"{tmp_path}:/lib") == [str(tmp_path), "/lib", STANDARD]


def test_an_empty_entry_of_pythonpath_names_nothing(at, tmp_path):
    assert at(str(tmp_path), "/lib", STANDARD, named=":/lib") == ["/lib", STANDARD]


def test_a_checkout_in_the_current_folder_comes_after_the_standard_library(at, tmp_path):
    here = str(tmp_path)
    assert at(here, STANDARD, PACKAGES, root=here) == [STANDARD, here, PACKAGES]
    assert at(STANDARD, here, PACKAGES, root=here) == [STANDARD, here, PACKAGES]
    assert at(here, STANDARD, PACKAGES, here, root=here) == [STANDARD, PACKAGES, here]
    assert at(STANDARD, PACKAGES, root=here) == [STANDARD, PACKAGES]


def test_a_current_folder_that_is_gone_breaks_nothing(at, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert at("", "relative", STANDARD) == ["relative", STANDARD]


def test_a_new_interpreter_gets_the_path_by_its_variables(at, tmp_path):
    at("", "/lib", "/with:colon", STANDARD, named="/first")
    assert safe_environment() == {
        "PYTHONPATH": f"/first:/lib:{STANDARD}",
        "PYTHONSAFEPATH": "1",
    }


@pytest.mark.parametrize(
    ("file", "installed"),
    [
        (os.__file__, True),
        (pytest.__file__, True),
        ("/usr/lib/python3/dist-packages/numpy/__init__.py", True),
        ("/home/me/my-site-packages/mine.py", False),
        (f"{STANDARD}-of-mine/mine.py", False),
    ],
)
def test_installed_are_the_standard_library_and_packages(file, installed):
    assert is_installed(file) == installed
