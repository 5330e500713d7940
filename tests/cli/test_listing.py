"""`bench list`, and the forms in which commands print rows."""

import csv
import io
import json
from dataclasses import replace

import pytest

from bench.store.folder import Store
from tests.fixtures.runs import FAR, OTHER, SPEC, THIRD, bench, publish, store_at, truncate

PAIR = replace(SPEC, method="devnet", parameters={}, dataset="mvtec_ad", category="pill")
TIMED = replace(SPEC, kind="timing")


@pytest.fixture
def results(tmp_path, monkeypatch):
    store = store_at(tmp_path / "results", SPEC, OTHER, THIRD, TIMED)
    publish(store, PAIR, FAR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return store.root


def listed(capsys, *arguments):
    code, out, err = bench(capsys, "list", "runs", "--json", *arguments)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_runs_are_listed_with_id_data_auroc_and_date(results, capsys):
    code, out, err = bench(capsys, "list", "runs")
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == ["run", "data", "method", "shots", "seed", "auroc", "finished", "stale"]
    assert len(rows) == 5
    (row,) = (line for line in rows if PAIR.run_id[:8] in line)
    assert row.split()[:6] == [PAIR.run_id[:8], "mvtec_ad/pill", "devnet", "10", "0", "0.000"]
    assert "2026-01-02 03:04" in row
    (timed,) = (line for line in rows if TIMED.run_id[:8] in line)
    assert "shortcut (timing)" in timed
    assert "0.750" not in timed


def test_runs_are_selected_as_suites_are(results, capsys):
    def ids(*arguments):
        return {row["run"] for row in listed(capsys, *arguments)}

    assert ids("--methods", "dev*") == ids("--datasets", "mvtec_ad") == {PAIR.run_id}
    assert ids("--categories", "p?ll", "--shots", "10") == {PAIR.run_id}
    assert ids("--seeds", "1-2") == ids("--seeds", "2,1") == {OTHER.run_id, THIRD.run_id}
    assert ids("--seeds", "1") == {SPEC.run_id, TIMED.run_id, PAIR.run_id}
    assert ids("--where", "kind=timing") == {TIMED.run_id}
    assert ids("--where", "method!=devnet", "--where", "kind!=timing", "--seeds", "0-0") == {
        SPEC.run_id
    }


def test_every_form_holds_the_same_rows(results, capsys):
    rows = listed(capsys, "--methods", "shortcut", "--where", "kind=accuracy")
    assert [row["seed"] for row in rows] == [0, 1, 2]
    assert rows[0]["finished"] == "2026-01-02T03:04:07Z"
    options = ("--methods", "shortcut", "--where", "kind=accuracy", "--format")
    table = csv.DictReader(io.StringIO(bench(capsys, "list", "runs", *options, "csv")[1]))
    assert [(r["run"], float(r["auroc"])) for r in table] == [(r["run"], r["auroc"]) for r in rows]
    assert bench(capsys, "list", "runs", *options, "md")[1].startswith("| run | kind | data |")
    assert r"\toprule" in bench(capsys, "list", "runs", *options, "latex")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runz"], "bench list takes suites, methods, datasets, runs, not 'runz'"),
        (["runs", "--methods", "devnt"], "of method 'devnt' (did you mean devnet?); there are"),
        (["runs", "--datasets", "x*"], "no dataset fits 'x*'"),
        (["runs", "--where", "nosuch=1"], "no stored run has a setting of that name"),
        (["runs", "--json", "--format", "csv"], "ask for two formats"),
        (["runs", "--format", "xml"], "Invalid value for '--format'"),
        (["runs", "--results", "typo"], "neither a results folder"),
        (["methods", "--seeds", "3"], "--seeds selects runs: `bench list runs`, not methods"),
        (["suites", "--where", "a=1"], "--where selects runs"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_cannot_be_listed_is_one_line(results, capsys, arguments, said):
    code, out, err = bench(capsys, "list", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


@pytest.mark.parametrize("what", ["suite", "method", "dataset"])
def test_the_singular_lists_the_same_and_so_does_json(results, capsys, what):
    code, out, _ = bench(capsys, "list", what)
    assert (code, out) == bench(capsys, "list", f"{what}s")[:2]
    names = [row[what] for row in json.loads(bench(capsys, "list", what, "--json")[1])]
    assert names == [line.split()[0] for line in out.splitlines()]


def test_a_table_is_printed_in_every_form(results, capsys):
    publish(Store(results), replace(SPEC, parameters={"black": 9}), FAR)
    rows = json.loads(bench(capsys, "table", "--against", "black=10", "--json")[1])
    first = next(row for row in rows if row["configuration"] == "shortcut black=9")
    assert (first["seeds"], first["mean"], first["difference"]) == (1, 0.0, -0.75)
    assert first["finished"].startswith("2026-01-02T")
    assert next(r for r in rows if r["configuration"] == "shortcut black=10")["seeds"] == 3
    table = csv.DictReader(io.StringIO(bench(capsys, "table", "--format", "csv")[1]))
    assert {r["configuration"] for r in table} == {r["configuration"] for r in rows}
    latex = bench(capsys, "table", "--against", "black=10", "--format", "latex")[1]
    assert latex.count(r"\begin{table}") == 2
    text = bench(capsys, "table", "--format", "text")[1]
    assert "0.750 ± 0.000 (3)" in text


def test_several_differences_are_one_family(results, capsys):
    store = Store(results)
    others = [replace(SPEC, parameters={"black": black}) for black in (9, 8)]
    for other in others:
        publish(store, other, FAR)
        publish(store, replace(other, seed=1), FAR)
    options = ("table", "--where", "method=shortcut", "--against", "black=10")
    both = (*options, "--against", "black=9")
    out = bench(capsys, *both)[1]
    assert "Minus black=10 and black=9, with 95 % intervals" in out
    assert "p of 3 differences together (Holm):" in out
    assert out.count(" minus black=9: ") == 1, "10 against 9 is 9 against 10"
    assert "p of 2 differences together (Holm):" in bench(capsys, *options)[1]
    rows = json.loads(bench(capsys, *both, "--json")[1])
    assert [r["against"] for r in rows if r["difference"] is not None] == [
        "black=10", "black=9", "black=10",
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [None, "80"])
def test_lines_for_programs_are_whole_and_those_for_terminals_fit(
    results, capsys, monkeypatch, columns
):
    name = "a_dataset_of_ones_own_with_a_name_that_is_long_enough_for_a_terminal"
    long = replace(SPEC, dataset=name, category=name)
    publish(Store(results), long, FAR)
    monkeypatch.delenv("COLUMNS")
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    piped = not columns
    for arguments in (("list", "runs"), ("table", "--format", "text"), ("audit", "table 2")):
        code, out, _ = bench(capsys, *arguments)
        assert code == 0
        assert (max(map(len, out.splitlines())) > 80) == piped, arguments
    (row,) = [li for li in bench(capsys, "list", "runs")[1].splitlines() if long.run_id[:8] in li]
    assert (name in row) == piped


def test_damaged_runs_are_named_with_what_to_do(results, capsys):
    truncate(results / "runs" / OTHER.run_id / "scores.parquet")
    code, out, err = bench(capsys, "list", "runs", "--json")
    assert (code, len(json.loads(out))) == (0, 4)
    assert err == "note: 1 damaged run left out: `bench verify` says which\n"
    code, out, err = bench(capsys, "table")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"run {OTHER.run_id} is damaged" in err
    assert "`bench run` sets it aside" in err


def test_no_shared_seed_is_a_reason(results, capsys):
    code, out, err = bench(capsys, "table", "--against", "devnet")
    assert (code, out) == (2, "")
    assert "--against devnet: no other column shares a seed with it" in err
