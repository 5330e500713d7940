"""The command `bench report`."""

import pytest

from bench.report.pictures import Pictures
from bench.store.archive import pack
from tests.campaigns.big_report import METHODS, SEEDS, MadeUp, measured
from tests.fixtures.runs import bench


def test_the_command_writes_the_page(store, tmp_path, capsys):
    page = tmp_path / "deep" / "page.html"
    code, out, _ = bench(capsys, "report", "--results", str(store.root), "--out", str(page))
    assert code == 0
    assert out.startswith(f"{page}: 0.")
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_command_takes_digests_of_data_from_the_cache_folder(
    store, tmp_path, capsys, monkeypatch, by
):
    data, cache = tmp_path / "data", tmp_path / "own-cache"
    data.mkdir()
    asked = []

    class Asked(Pictures):
        def __init__(self, *folders):
            asked.append(folders)
            super().__init__(*folders)

    monkeypatch.setattr("bench.report.content.Pictures", Asked)
    monkeypatch.setattr("bench.report.content.draw_figures", lambda sources: ())
    options = ["--cache", cache] if by == "option" else []
    if by == "environment":
        monkeypatch.setenv("BENCH_CACHE", str(cache))
    code, _, err = bench(capsys, "report", "--results", store.root, "--data", data, *options,
                         "--out", tmp_path / "p.html")  # fmt: skip
    assert (code, asked) == (0, [(data, cache)]), err


def test_a_data_folder_that_is_not_there_is_refused(store, tmp_path, capsys):
    code, _, err = bench(capsys, "report", "--results", store.root, "--data", tmp_path / "no",
                         "--out", tmp_path / "p.html")  # fmt: skip
    assert code == 2
    assert "there is no such folder" in err
    assert not (tmp_path / "p.html").exists()


def test_the_page_of_many_runs_stays_small_and_quick(tmp_path):
    """Of several ways to run a method, only the one that a table shows brings its runs along."""
    places = 3
    one_way, in_table_2 = places * 2 * len(METHODS) * SEEDS, places * 2 * SEEDS
    pack(MadeUp(one_way + 900, places), tmp_path / "archive")
    found = measured(tmp_path / "archive", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert len(page) < 1.2e6
    assert found["peak_bytes"] < 2**30
    assert found["cpu_seconds"] < 24
    assert page.count("<code>") == one_way + in_table_2
