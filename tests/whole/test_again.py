"""Runs made again: damaged, of other code, in other circumstances."""

from dataclasses import replace

from bench.store.folder import Store
from bench.store.groups import Provenance
from bench.store.receipt import seal
from bench.store.results import receipts
from tests.fixtures.command import Bench


def test_a_damaged_run_is_set_aside_and_run_again(bench: Bench) -> None:
    suite = bench.suite("shortcut")
    assert bench("run", "--suite", suite)[0] == 0
    (run_id,) = bench.store.ids()
    before = bench.store.read(run_id).metrics
    scores = bench.store.runs / run_id / "scores.parquet"
    content = bytearray(scores.read_bytes())
    content[len(content) // 2] ^= 1
    scores.write_bytes(content)
    code, said = bench("run", "--suite", suite)
    assert code == 0
    assert "did not verify" in said
    assert bench.store.read(run_id).metrics == before
    assert len(list(bench.store.quarantine.iterdir())) == 1


def test_a_run_of_other_code_is_stale_and_run_again_where_asked(bench: Bench) -> None:
    """The project's own methods keep their id when their code changes: only the hash tells."""
    suite = bench.suite("shortcut")
    assert bench("run", "--suite", suite)[0] == 0
    (receipt,) = receipts(bench.store)
    run = bench.store.runs / receipt.run_id
    older = Provenance({**receipt.provenance, "source_sha256": "0" * 64})
    (run / "run.json").write_bytes(seal(replace(receipt, provenance=older)))
    code, said = bench("run", "--suite", suite)
    assert code == 0
    assert "1 stored, 0 to do" in said
    assert "1 run stale" in said
    code, said = bench("run", "--suite", suite, "--stale")
    assert code == 0
    assert "run again under today's code of the method: identical" in said
    assert bench.store.read(receipt.run_id).provenance.source_sha256 != "0" * 64
    assert len(list(bench.store.superseded.iterdir())) == 1
    assert "1 stored, 0 to do" in bench("run", "--suite", suite, "--stale")[1]


def test_other_threads_and_other_batches_of_evaluation_are_close_not_identical(
    bench: Bench,
) -> None:
    suite = bench.suite("cutmix")
    assert bench("run", "--suite", suite, "--threads", "1", "--results", "one")[0] == 0
    for other in (("--threads", "2"), ("--threads", "1", "--score-batch-size", "7")):
        name = other[-2].strip("-")
        assert bench("run", "--suite", suite, *other, "--results", name)[0] == 0
        code, said = bench("compare", "one", name)
        assert code == 0
        assert "0 identical, 1 close, 0 different" in said
    assert bench("run", "--suite", suite, "--threads", "1", "--results", "again")[0] == 0
    assert "1 identical, 0 close, 0 different" in bench("compare", "one", "again")[1]


def test_a_result_that_does_not_repeat_is_found_when_two_folders_meet(bench: Bench) -> None:
    """A method that is not deterministic is found out, not outvoted by the older result."""
    suite = bench.suite("tests.fixtures.misbehaving:Restless")
    for results in ("one", "other"):
        assert bench("run", "--suite", suite, "--results", results)[0] == 0
    before = [r.metrics for r in receipts(Store(bench.folder / "one"))]
    code, said = bench("merge", "other", "--results", "one")
    assert code == 1
    assert "1 different" in said
    assert [r.metrics for r in receipts(Store(bench.folder / "one"))] == before
