"""The command `bench audit`."""

import pytest

from bench.cli import main
from bench.published.tables import published_tables
from tests.fixtures.audit import FOUND


@pytest.fixture
def page(monkeypatch, capsys):
    def run(*arguments, columns="80"):
        monkeypatch.setenv("COLUMNS", columns)
        with pytest.raises(SystemExit) as ended:
            main(["audit", *arguments])
        return ended.value.code, capsys.readouterr()

    return run


@pytest.mark.parametrize(("columns", "widest"), [("80", 80), ("120", 100)])
def test_the_command_prints_every_finding_in_the_width_there_is(page, columns, widest):
    code, (out, _) = page(columns=columns)
    assert not code
    assert widest - 5 < max(map(len, out.splitlines())) <= widest
    said = " ".join(out.split())
    for found in FOUND.values():
        for text in (found.text, *found.evidence, found.confidence):
            assert " ".join(text.split()) in said
    for table in published_tables().values():
        assert table.citation in said
    assert out.isascii()


def test_the_command_narrows(page):
    code, (out, _) = page("table 2")
    assert not code
    assert "SPADE" in out
    assert "\nDRA paper, Table 1\n" not in out
    code, (out, _) = page("text")
    assert not code
    assert "Equation 12" in out
    assert "The tables" not in out


def test_what_nothing_is_about_is_an_error_that_names_what_there_is(page):
    code, (out, err) = page("table 9")
    assert (code, out) == (2, "")
    assert "ATAC-Net paper, Table 2" in err
