"""The commands `bench show` and `bench compare`."""

import json
import shutil
from dataclasses import replace

import pytest

from bench.store.archive import pack
from tests.fixtures.runs import (
    CLOSE,
    ELSEWHERE,
    FAR,
    FIXTURES,
    ID,
    MIDDLE,
    OTHER,
    SCORES,
    SPEC,
    THIRD,
    bench,
    fail,
    publish,
    rewrite,
    staged,
    store_at,
    tree,
    truncate,
)

# bench show


def test_a_run_is_shown_by_the_beginning_of_its_id(store, capsys):
    publish(store)
    publish(store, OTHER)
    code, out, err = bench(capsys, "show", ID[:8], "--results", store.root)
    assert (code, err) == (0, "")
    assert out.startswith(f"run {ID}\n")
    for said in ("auroc", "0.75", "threads", "hole/2.png", "black=10", "warning: two"):
        assert said in out


def test_a_run_of_an_archive_is_shown(capsys):
    archive = FIXTURES / "archives/schema-1"
    code, out, err = bench(capsys, "show", "107e", "--results", archive)
    assert (code, err) == (0, "")
    assert "0.754" in out
    assert "107c993f3369d97013fad484f820b1e00974e5ac" in out


def test_a_run_that_failed_is_shown_with_its_last_reason_and_its_log(store, capsys):
    for reason in ("ValueError: [bold] of no avail", "ran into the time limit"):
        target = fail(store, staged(store), reason, kind="method", provenance={"threads": 2})
    code, out, err = bench(capsys, "show", ID[:8], "--results", store.root)
    assert (code, err) == (0, "")
    assert f"run {ID} has no result: it failed 2 times" in out
    assert "ran into the time limit" in out
    assert f"log: {target}/log.txt" in out
    publish(store)  # a result counts, whatever failed before
    assert bench(capsys, "show", ID[:8], "--results", store.root)[1].startswith(f"run {ID}\n")


def test_a_failure_of_an_earlier_bench_is_shown(store, capsys):
    shutil.copytree(FIXTURES / "failures/without-kind", store.failed, dirs_exist_ok=True)
    code, out, err = bench(capsys, "show", "107e", "--results", store.root)
    assert (code, err) == (0, "")
    assert "RuntimeError: no such luck" in out


def test_a_failure_that_says_little_is_shown_as_far_as_it_goes(store, capsys):
    folder = store.failed / ID / "1"
    folder.mkdir(parents=True)
    (folder / "failure.json").write_text('{"reason": "because"}')
    code, out, _ = bench(capsys, "show", ID[:8], "--results", store.root)
    assert code == 0
    assert "because" in out


def test_what_cannot_be_shown_is_one_line(store, capsys, tmp_path):
    publish(store)
    publish(store, OTHER)
    truncate(store.runs / ID / "scores.parquet")
    newer = store.runs / OTHER.run_id
    rewrite(newer, lambda r: r.update(schema=99))
    for arguments, said in (
        (["show", "x", "--results", store.root], "no run begins with 'x'"),
        (["show", "", "--results", store.root], "no run begins with ''"),
        (["show", ID, "--results", store.root], "scores.parquet does not agree"),
        (["show", OTHER.run_id, "--results", store.root], "update"),
        (["show", ID, "--results", tmp_path / "nowhere"], "neither a results folder"),
    ):
        code, out, err = bench(capsys, *arguments)
        assert (code, out) == (2, ""), arguments
        assert said in err
        assert err.count("\n") == 1


def test_a_run_is_shown_with_what_applies_by_defect_and_how_to_repeat_it(store, capsys):
    publish(store)
    _, out, _ = bench(capsys, "show", ID, "--results", store.root)
    assert out.index("\nmetrics\n") < out.index("\nspec\n")
    assert "  hole                     0.750 (2 images)" in out
    assert "  ap                       0.833333\n" in out
    assert "  scored                   5: 4 count, 1 drawn" in out
    assert "started 2026-01-02 03:04:05 UTC, finished 2026-01-02 03:04:07 UTC" in out
    assert "None" not in out
    assert "`bench run again.toml --seeds 0-0 --threads 2 --results again`" in out
    content = json.loads(bench(capsys, "show", ID, "--json", "--results", store.root)[1])
    assert content["metrics"]["auroc"] == 0.75
    assert content["auroc_by_defect"] == {"hole": [0.75, 2]}
    assert content["scored"] == {"test": 4, "drawn": 1}
    fail(store, staged(store, OTHER), "no such luck", spec=OTHER, kind="method")
    out = bench(capsys, "show", OTHER.run_id, "--json", "--results", store.root)[1]
    assert json.loads(out)[0]["reason"] == "no such luck"


# bench compare


@pytest.fixture
def first(tmp_path):
    return store_at(tmp_path / "first", SPEC, OTHER)


def test_compare_of_the_same_results(first, tmp_path, capsys):
    pack(first, tmp_path / "archive")
    before = tree(tmp_path)
    for second in (first.root, tmp_path / "archive"):
        code, out, err = bench(capsys, "compare", first.root, second)
        assert (code, err) == (0, "")
        assert out == (
            f"2 identical, 0 close, 0 different; 0 only in {first.root}, 0 only in {second}\n"
        )
    assert tree(tmp_path) == before


def test_compare_says_how_close_and_why(first, tmp_path, capsys):
    second = store_at(tmp_path / "second", OTHER, THIRD)
    publish(second, SPEC, CLOSE, provenance=ELSEWHERE)
    code, out, err = bench(capsys, "compare", first.root, second.root)
    assert (code, err) == (0, "")
    line, counts = out.splitlines()
    assert line.startswith(f"{SPEC.run_id} shortcut head_ct 10 shots seed 0: close: AUROC differs")
    assert "threads 2 and 1" in line
    gap = SCORES.gap(CLOSE)
    assert line.endswith(f"; scores by up to {gap:.2g}")
    assert counts == (
        f"1 identical, 1 close, 0 different; 0 only in {first.root}, 1 only in {second.root}"
    )


def test_compare_ends_with_1_where_results_differ(first, tmp_path, capsys):
    second = store_at(tmp_path / "second", SPEC, OTHER, scores=FAR)
    code, out, err = bench(capsys, "compare", first.root, second.root)
    assert (code, err) == (1, "")
    assert out.count("different: AUROC differs by -0.750000") == 2
    assert "0 identical, 0 close, 2 different" in out


def test_compare_groups_by_environment_and_counts_by_method(first, tmp_path, capsys):
    pair = replace(SPEC, method="devnet", parameters={})
    second = store_at(tmp_path / "second", OTHER, SPEC, scores=CLOSE, provenance=ELSEWHERE)
    publish(first, pair)
    publish(second, pair, MIDDLE, provenance=ELSEWHERE)
    code, out, _ = bench(capsys, "compare", first.root, second.root)
    head, worst, *lines = out.splitlines()
    assert (code, head) == (1, "3 runs: threads 2 and 1")
    assert "devnet head_ct 10 shots seed 0: different: AUROC differs by -0.250000, 0.7500" in worst
    assert len(lines) == 5
    assert lines[2:4] == [
        "devnet: 0 identical, 0 close, 1 different", "shortcut: 0 identical, 2 close, 0 different"
    ]  # fmt: skip
    assert out.count("threads") == 1
    code, out, _ = bench(capsys, "compare", first.root, second.root, "--margin", "0.3")
    assert (code, out.splitlines()[-1][:32]) == (0, "0 identical, 3 close, 0 different"[:32])
    code, out, _ = bench(capsys, "compare", first.root, second.root, "--json")
    content = json.loads(out)
    assert (code, content["counts"]) == (1, {"identical": 0, "close": 2, "different": 1})
    runs = {run["run_id"]: run for run in content["runs"]}
    assert runs[pair.run_id]["auroc_second"] == 0.5
    assert runs[ID]["environment"] == ["threads 2 and 1"]


def test_compare_of_other_images(first, tmp_path, capsys):
    other = type(SCORES)(
        ("x", *SCORES.file[1:]), SCORES.label, SCORES.defect, SCORES.role, SCORES.score
    )
    second = store_at(tmp_path / "second", SPEC, OTHER, scores=other, provenance=ELSEWHERE)
    code, out, _ = bench(capsys, "compare", first.root, second.root)
    assert code == 0
    assert "close: AUROC differs by +0.000000" in out
    assert "; other images" in out


def test_compare_ends_with_1_where_runs_are_gone_failed_or_damaged(first, tmp_path, capsys):
    second = store_at(tmp_path / "second", SPEC)
    code, out, _ = bench(capsys, "compare", first.root, second.root)
    assert (code, f"; 1 only in {first.root}, 0 only" in out) == (1, True)
    assert bench(capsys, "compare", second.root, first.root)[0] == 0, "what is new is no loss"
    fail(second, staged(second, OTHER), spec=OTHER)
    code, out, _ = bench(capsys, "compare", first.root, second.root)
    assert (code, f"1 only in {first.root} (1 failed in {second.root})" in out) == (1, True)
    publish(second, OTHER)
    truncate(second.folder(OTHER.run_id) / "scores.parquet")
    code, out, _ = bench(capsys, "compare", first.root, second.root)
    assert (code, out.splitlines()[0]) == (
        1, f"{OTHER.run_id} is damaged: `bench verify` says where"
    )  # fmt: skip
    assert "1 identical, 0 close, 0 different" in out


def test_compare_says_what_is_slower(first, tmp_path, capsys):
    second = store_at(tmp_path / "second", SPEC, OTHER)
    timed = replace(SPEC, kind="timing")
    times = {"setup_s": 0.5, "fit_s": 1.5, "score_s": 0.5, "yardstick_s": 0.005}
    publish(first, timed, timings={**times, "latency_s": 0.01})
    publish(second, timed, timings={**times, "latency_s": 0.03})
    code, out, _ = bench(capsys, "compare", first.root, second.root)
    assert (code, "shortcut on head_ct: time of an image +200%" in out) == (1, True)
    assert bench(capsys, "compare", second.root, first.root)[0] == 0


def test_what_cannot_be_compared_is_one_line_with_exit_code_2(first, tmp_path, capsys):
    apart = store_at(tmp_path / "apart", THIRD)
    for one, other, said in (
        (first.root, apart.root, "share no run"),
        (first.root, tmp_path / "nowhere", "neither a results folder"),
        (tmp_path / "nowhere", first.root, "neither a results folder"),
        (FIXTURES / "archives/schema-1", apart.root, "share no run"),
    ):
        code, out, err = bench(capsys, "compare", one, other)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1


# bench forget


def test_failures_are_listed_and_forgotten_by_id_or_selection(store, capsys):
    pair = replace(SPEC, method="devnet", parameters={})
    for spec in (SPEC, OTHER, pair):
        fail(store, staged(store, spec), f"ValueError: {spec.seed}\nand more", spec=spec)
    publish(store, THIRD)

    def forget(*arguments):
        code, out, err = bench(capsys, "forget", *arguments, "--results", store.root)
        assert (code, err) == (0, "")
        return out.splitlines()

    before = tree(store.root)
    *rows, last = forget()
    assert last == "3 failed runs recorded: name ids, select, or give --all to forget them"
    assert any(row.startswith(f"{OTHER.run_id} shortcut head_ct") for row in rows)
    assert "and more" not in " ".join(rows)
    assert forget("--methods", "dev*", "--dry-run")[-1] == "1 failed run would be forgotten"
    assert tree(store.root) == before
    assert forget("--methods", "dev*")[-1] == "1 failed run forgotten"
    assert store.failed_ids() == sorted([SPEC.run_id, OTHER.run_id])
    assert forget(OTHER.run_id[:9])[-1] == "1 failed run forgotten"
    assert forget("--all")[-1] == "1 failed run forgotten"
    assert (store.failed_ids(), store.ids()) == ([], [THIRD.run_id])
    assert forget() == ["0 failed runs recorded"]
    code, _, err = bench(capsys, "forget", "zz", "--results", store.root)
    assert (code, err) == (2, "bench: no failed run begins with 'zz'\n")


def test_an_archive_that_is_replaced_is_named(first, tmp_path, capsys):
    for said in ("", " (it replaces the archive that was there)"):
        arguments = ("archive", "--out", tmp_path / "packed", "--results", first.root)
        code, out, _ = bench(capsys, *arguments)
        assert code == 0
        assert out.endswith(f" MB{said}\n")
