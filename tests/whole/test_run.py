"""The real command, end to end, in processes of its own."""

import pyarrow.parquet as pq
import pytest

from bench.metrics import auroc
from bench.store.folder import Store
from bench.store.results import receipts
from bench.store.verify import problems
from tests.fixtures.command import Bench


def test_a_suite_becomes_results_and_the_same_command_has_nothing_left(bench: Bench) -> None:
    suite = bench.suite("atacnet", "cutmix", "shortcut", shots="1, 10")
    code, said = bench.apart("run", "--suite", suite, "--threads", "1")
    assert code == 0, said
    assert "6 runs wanted, 0 stored, 6 to do" in said
    ids = bench.store.ids()
    assert len(ids) == 6
    table = pq.read_table(bench.store.table).to_pylist()
    assert [row["run_id"] for row in table] == ids
    for row in table:
        receipt = bench.store.read(row["run_id"])
        scores = pq.read_table(bench.store.runs / row["run_id"] / "scores.parquet").to_pydict()
        counted = [i for i, role in enumerate(scores["role"]) if role == "test"]
        assert scores["role"].count("drawn") == 10
        assert len(receipt.draw) == 10
        measured = auroc(
            [scores["score"][i] for i in counted], [scores["label"][i] for i in counted]
        )
        assert measured == row["auroc"] == receipt.metrics.auroc
        assert receipt.provenance.source_sha256
        assert receipt.split.scored == len(scores["file"]) == 128
    draws = {r.draw for r in receipts(bench.store)}
    assert len(draws) == 1  # every method and every number of shots meets the same draw

    code, said = bench.apart("run", "--suite", suite)
    assert code == 0
    assert "6 runs wanted, 6 stored, 0 to do" in said
    code, said = bench("status", "--suite", suite)
    assert "done     6" in said
    assert "left     nothing" in said
    code, said = bench("show", ids[0][:6])
    assert f"run {ids[0]}" in said

    # The same spec once more, in another results folder: the same bits.
    again = ("--results", "again", "--shots", "10", "--threads", "1")
    code, said = bench("run", "--suite", suite, *again)
    assert code == 0, said
    repeated = Store(bench.folder / "again")
    assert len(repeated.ids()) == 3
    for run_id in repeated.ids():
        first, second = bench.store.read(run_id), repeated.read(run_id)
        assert first.metrics == second.metrics


def test_a_helper_beside_a_method_from_outside_is_part_of_its_identity(bench: Bench) -> None:
    (bench.folder / "helper.py").write_text("SIGN = 1\n")
    (bench.folder / "mine.py").write_text(
        "from helper import SIGN\nfrom tests.fixtures.misbehaving import Good\n"
        "class Mine(Good):\n    name = 'mine'\n"
        "    def score(self, samples):\n        return SIGN * super().score(samples)\n"
    )
    arguments = ("run", "--suite", bench.suite("shortcut"), "--method", "mine:Mine")
    assert bench.apart(*arguments)[0] == 0
    assert "0 to do" in bench.apart(*arguments)[1]
    (bench.folder / "helper.py").write_text("SIGN = -1\n")
    assert "1 to do" in bench.apart(*arguments)[1]
    first, second = (r.metrics.auroc for r in receipts(bench.store))
    assert first == pytest.approx(1 - second)


def test_two_commands_at_once_share_the_work(bench: Bench) -> None:
    suite = bench.suite(*(f"tests.fixtures.misbehaving:Slow{n}" for n in "ABCD"))
    commands = [bench.start("run", "--suite", suite) for _ in range(2)]
    said = ["".join(p.communicate(timeout=120)) for p in commands]
    assert [p.returncode for p in commands] == [0, 0], said
    assert len(bench.store.ids()) == 4
    assert list(problems(bench.store)) == []
    trained = sum(text.count("auroc 0.") for text in said)
    assert trained == 8  # each command tells of all four
    assert "under way in another command" in said[0] + said[1]
