"""How far two results of one run agree, and what two results folders have in common."""

import pytest

from bench.store.agreement import CLOSE as MARGIN
from bench.store.agreement import ENVIRONMENT, agreement
from bench.store.archive import pack
from tests.fixtures.runs import (
    CLOSE,
    ELSEWHERE,
    FAR,
    FIXTURES,
    OTHER,
    SCORES,
    SPEC,
    THIRD,
    bench,
    content,
    publish,
    store_at,
    tree,
    truncate,
)


def result(auroc=0.75, digest="5", **provenance):
    metrics = {"auroc": auroc, "ap": 0.5, "scores_sha256": digest * 64}
    return content(metrics=metrics, provenance={"threads": 2, **provenance})


def test_the_same_bits_are_identical_wherever_they_come_from():
    found = agreement(result(), result(threads=1, cpu="other"))
    assert (found.kind, found.auroc_gap, str(found)) == ("identical", 0.0, "identical")


@pytest.mark.parametrize("gap", [0.0, 0.009, -0.009, 0.011, -0.011, 0.5, -0.5])
def test_other_bits_of_another_environment_are_close_or_different_by_their_auroc(gap):
    assert MARGIN == 0.010
    found = agreement(result(), result(0.75 + gap, "6", threads=1))
    assert found.kind == ("close" if abs(gap) < 0.01 else "different")
    assert found.auroc_gap == pytest.approx(gap)


@pytest.mark.parametrize("gap", [0.0, 0.001, -0.5])
def test_other_bits_of_the_same_environment_are_different_however_close(gap):
    """There the same spec gives the same bits: one of the two is not to be trusted."""
    same = {"hostname": "other", "load_average": 3.0, "commit": "c" * 40, "dirty": "yes"}
    found = agreement(result(), result(0.75 + gap, "6", **same))
    assert found.kind == "different"
    assert found.environment == ()
    assert "the environment is the same" in str(found)


@pytest.mark.parametrize("key", ENVIRONMENT)
def test_anything_that_differs_in_the_environment_makes_it_another(key):
    first, second = result(**{key: "one"}), result(0.751, "6", **{key: "two"})
    found = agreement(first, second)
    assert found.kind == "close"
    assert len(found.environment) == 1
    assert found.environment[0].endswith(" one and two")
    del second["provenance"][key]
    (difference,) = agreement(first, second).environment
    assert difference.endswith(" one and none")


def test_it_is_said_in_one_line():
    first, second = result(source_sha256="a" * 64), result(0.7525, "6", source_sha256="b" * 64)
    assert str(agreement(first, second)) == (
        "close: AUROC differs by +0.002500 (source aaaaaaaa and bbbbbbbb)"
    )
    second["provenance"] = {"device_name": "H200", "source_sha256": ""}
    assert str(agreement(first, second)) == (
        "close: AUROC differs by +0.002500"
        " (source aaaaaaaa and none, device none and H200, threads 2 and none)"
    )
    assert str(agreement(result(), result(0.5, "6"))) == (
        "different: AUROC differs by -0.250000 (the environment is the same)"
    )


# The command


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


def test_compare_of_other_images(first, tmp_path, capsys):
    other = type(SCORES)(("x", *SCORES.file[1:]), SCORES.label, SCORES.defect, SCORES.role,
                         SCORES.score)  # fmt: skip
    second = store_at(tmp_path / "second", SPEC, scores=other, provenance=ELSEWHERE)
    code, out, _ = bench(capsys, "compare", first.root, second.root)
    assert code == 0
    assert "close: AUROC differs by +0.000000" in out
    assert "; other images" in out


def test_what_cannot_be_compared_is_one_line_with_exit_code_2(first, tmp_path, capsys):
    apart = store_at(tmp_path / "apart", THIRD)
    damaged = store_at(tmp_path / "damaged", SPEC)
    truncate(damaged.runs / SPEC.run_id / "scores.parquet")
    for one, other, said in (
        (first.root, apart.root, "share no run"),
        (first.root, damaged.root, "scores.parquet does not agree with its digest"),
        (first.root, tmp_path / "nowhere", "neither a results folder"),
        (tmp_path / "nowhere", first.root, "neither a results folder"),
        (FIXTURES / "archives/schema-1", apart.root, "share no run"),
    ):
        code, out, err = bench(capsys, "compare", one, other)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1
