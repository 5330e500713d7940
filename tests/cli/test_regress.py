"""`bench regress`: exit codes for every kind of change, and the files that it writes."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from bench.store.archive import pack
from tests.fixtures.runs import (
    CLOSE,
    ELSEWHERE,
    FAR,
    HERE,
    MIDDLE,
    SPEC,
    bench,
    fail,
    flip,
    publish,
    staged,
    store_at,
)

SEEDS = [replace(SPEC, seed=seed) for seed in range(15)]
TIMED = replace(SPEC, kind="timing", seed=0)
TIMES = {"setup_s": 0.5, "fit_s": 1.5, "score_s": 0.5, "latency_s": 0.01, "yardstick_s": 0.005}


def timed(store, factor=1.0, **changes):
    for number in range(3):
        publish(
            store, replace(TIMED, seed=number),
            timings={**TIMES, "latency_s": 0.01 * factor}, **changes,
        )  # fmt: skip


@pytest.fixture
def reference(tmp_path):
    store = store_at(tmp_path / "reference", *SEEDS)
    timed(store)
    return store


@pytest.fixture
def regress(capsys, reference, store):
    def call(*given):
        return bench(
            capsys, "regress", "--reference", reference.root, "--results", store.root, *given
        )

    return call


def copied(store, change=lambda spec: {}, specs=SEEDS):
    for spec in specs:
        publish(store, spec, **change(spec))


def only(seed, **change):
    return lambda spec: change if spec.seed == seed else {}


def test_equal_results_are_no_regression(regress, store):
    copied(store)
    timed(store)
    assert regress() == (0, "No regression: 18 identical\n", "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (only(3, scores=CLOSE), "seed 3: changed (same version and environment)"),
        (only(3, scores=FAR), "seed 3: changed (same version and environment)"),
        (lambda _: {"scores": MIDDLE, "provenance": {**HERE, "source_sha256": "b" * 64}},
         "seed 14: changed"),
        (lambda _: {"scores": MIDDLE, "provenance": ELSEWHERE},
         "shortcut: worse, AUROC -0.2500 [-0.2500, -0.2500] over 15 pairs"),
    ],
    ids=["one ulp", "negated", "all lower by other code", "all lower elsewhere"],
)  # fmt: skip
def test_a_change_of_scores_is_a_regression(regress, store, change, said):
    copied(store, change)
    timed(store)
    code, out, _ = regress()
    assert (code, said in out) == (1, True), out
    assert out.splitlines()[-1].startswith("A regression: ")


def test_runs_that_are_gone_failed_or_damaged_are_a_regression(regress, store):
    copied(store, specs=SEEDS[:8])
    timed(store)
    code, out, _ = regress()
    assert (code, out.splitlines()[-1]) == (1, "A regression: 11 identical, 7 missing")
    fail(store, staged(store, SEEDS[8]), "no memory left", SEEDS[8])
    flip(store.folder(SEEDS[0].run_id) / "scores.parquet")
    code, out, _ = regress()
    assert code == 1
    assert "seed 8: failed (no memory left)" in out
    assert out.splitlines()[-1] == ("A regression: 10 identical, 6 missing, 1 failed, 1 damaged")


def test_a_raised_version_is_meant_and_an_accepted_method_too(regress, store):
    later = [replace(spec, method_version=2) for spec in SEEDS]
    copied(store, lambda _: {"scores": FAR}, later)
    assert regress()[0] == 1, "those of version 1 are wanted where no suite says what is"
    copied(store, lambda _: {"scores": FAR})
    timed(store)
    code, out, _ = regress("--accept", "shortcut")
    assert (code, out.splitlines()[-1]) == (0, "No regression: 3 identical, 15 meant")


def test_few_runs_of_another_environment_cannot_be_judged(regress, store):
    few = SEEDS[:3]
    copied(store, lambda _: {"scores": MIDDLE, "provenance": ELSEWHERE}, few)
    copied(store, specs=SEEDS[3:])
    timed(store)
    code, out, _ = regress()
    assert code == 2
    assert "fewer than 15 runs of a method: run reference and suite with --seeds 15" in out
    assert out.splitlines()[-1] == "Cannot be judged: 15 identical, 3 moved"


def test_slower_runs_are_a_regression_once_confirmed(regress, store, tmp_path):
    copied(store)
    timed(store, 3)
    code, out, _ = regress()
    assert code == 0
    assert "time of an image +200%, not confirmed yet" in out
    again = store_at(tmp_path / "again", *SEEDS)
    timed(again, 3)
    code, out, _ = regress("--again", again.root)
    assert (code, "time of an image +200%\n" in out) == (1, True)


def test_a_machine_that_gives_other_bits_the_second_time_is_unfit(regress, store, tmp_path):
    copied(store, only(2, scores=CLOSE))
    timed(store)
    again = store_at(tmp_path / "again", *SEEDS)
    code, out, _ = regress("--again", again.root)
    assert code == 3
    assert f"run {SEEDS[2].run_id} gave other scores the second time" in out


def test_a_disturbed_machine_is_unfit_unless_something_else_is_wrong(regress, store):
    copied(store)
    timed(store, provenance={**HERE, "disturbed": "other processes"})
    code, out, _ = regress()
    assert (code, "something else ran in every round" in out) == (3, True)


def test_it_writes_what_others_read(regress, store, tmp_path):
    copied(store, only(3, scores=FAR))
    timed(store)
    files = {name: tmp_path / name for name in ("junit", "summary", "history")}
    options = [word for name, path in files.items() for word in (f"--{name}", path)]
    code, out, _ = regress(*options, "--github")
    assert code == 1
    assert "::error title=Regression::shortcut on head_ct, seed 3: changed" in out
    suite = ElementTree.parse(files["junit"]).getroot()[0]
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("shortcut", "18", "1")
    (failure,) = suite.iter("failure")
    assert "seed 3" in failure.get("message")
    markdown = files["summary"].read_text()
    assert markdown.startswith("## A regression: 17 identical, 1 changed\n")
    assert "| shortcut, head\\_ct, 10 shots, seed 3 | changed | 0.7500 | 0.0000 |" in markdown
    (line,) = map(json.loads, files["history"].read_text().splitlines())
    assert (line["outcome"], line["states"]) == (1, {"identical": 17, "changed": 1})
    assert line["auroc"] == {"shortcut": 0.7}
    assert next(iter(line["times"].values()))["latency_s"] == 0.01


def test_earlier_nights_are_read_from_the_history(regress, store, tmp_path):
    history = tmp_path / "history"
    copied(store)
    timed(store)
    assert regress("--history", history)[0] == 0
    assert regress("--history", history)[0] == 0
    assert len(history.read_text().splitlines()) == 2
    history.write_text(history.read_text() + "{}\n")
    code, out, err = regress("--history", history)
    assert (code, out) == (2, "")
    assert err == f"bench: --history {history}, line 3 is no night: remove that line\n"


def test_results_without_a_counterpart_cannot_be_judged(capsys, reference, tmp_path):
    other = store_at(tmp_path / "other", replace(SPEC, method="devnet"))
    code, out, _ = bench(capsys, "regress", "--reference", other.root, "--results", reference.root)
    assert (code, out.splitlines()[-1]) == (1, "A regression: 1 missing")
    code, _, err = bench(
        capsys, "regress", "--reference", tmp_path / "nowhere", "--results", reference.root
    )
    assert (code, err.count("\n")) == (2, 1)


def test_json_holds_all_and_nothing_else_is_printed(regress, store):
    copied(store, only(3, scores=FAR))
    timed(store)
    code, out, _ = regress("--json")
    whole = json.loads(out)
    assert (code, whole["outcome"], len(whole["runs"])) == (1, 1, 18)
    (changed,) = [run for run in whole["runs"] if run["state"] == "changed"]
    assert (changed["seed"], changed["old"], changed["new"]) == (3, 0.75, 0.0)


def test_a_reference_is_renewed_as_a_whole_and_shows_old_beside_new(
    capsys, regress, reference, store, tmp_path
):
    copied(store, only(3, scores=FAR))
    with_archive = ("--reference", tmp_path / "archive", "--results", store.root)
    code, _, err = regress("--renew")
    assert (code, "3 missing: run them first" in err) == (2, True), err
    timed(store)
    code, _, err = regress("--renew")
    assert (code, "is no archive: make one with" in err) == (2, True), err
    pack(reference, tmp_path / "archive")
    code, out, _ = bench(capsys, "regress", *with_archive, "--renew")
    assert code == 0, out
    assert "archive has 18 runs now" in out
    row = next(line for line in out.splitlines() if line.startswith("| shortcut"))
    assert "1 changed" in row
    assert row.split(" | ")[1] != row.split(" | ")[2]
    assert not (tmp_path / "archive.new").exists()
    assert bench(capsys, "regress", *with_archive)[0] == 0
