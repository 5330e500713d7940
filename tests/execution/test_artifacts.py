"""A stored run that lacks an artifact runs again for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.store.archive import pack
from bench.store.artifacts import EMBEDDINGS, EXPLANATIONS, MODEL
from bench.store.explanations import explanations_bytes
from bench.store.folder import Store
from bench.store.results import receipts
from bench.store.verify import problems
from bench.system.digests import file_digest
from tests.fixtures.command import Bench
from tests.fixtures.runs import explanations_of, rewrite, rewrite_scores, tree
from tests.fixtures.stores import MAPS, kept

KEEPING = "tests.fixtures.misbehaving:Keeps"


def test_what_a_stored_run_lacks_is_kept_by_running_again(tmp_path: Path, warm_cache: Path) -> None:
    command = Bench(tmp_path, warm_cache)
    suite = command.suite(KEEPING, "shortcut")
    assert command("run", "--suite", suite, "--save-models")[0] == 0
    before = {r.run_id: r.metrics.scores_sha256 for r in receipts(command.store)}
    code, said = command("run", "--suite", suite, "--save-maps", "--dry-run")
    assert (code, "1 run stored without embeddings or maps: again" in said) == (0, True), said
    assert "no embeddings of shortcut: it takes a method with embed()" in said
    code, said = command("run", "--suite", suite, "--save-maps")
    assert code == 0, said
    assert "run again for its embeddings and maps: identical" in said
    after = {r.run_id: r.metrics.scores_sha256 for r in receipts(command.store)}
    assert after == before
    receipt = next(r for r in receipts(command.store) if r.spec.method == "keeps")
    run_id = receipt.run_id
    assert kept(command.store, run_id) == {MODEL, *MAPS}
    assert receipt.timings.keys() >= {"score_s", "embed_s", "explain_s"}
    embeddings = command.store.embeddings(run_id)
    assert embeddings.values.shape == (128, 50)
    assert embeddings.file == command.store.scores(run_id).file
    # What `embed` did to its images is not what `explain` was given.
    assert command.store.explanations(run_id).maps["grey"].max() > 0
    assert list(problems(command.store)) == []
    assert not list(command.store.root.glob("superseded/*"))
    assert "0 to do" in command("run", "--suite", suite, "--save-maps", "--save-models")[1]
    (command.store.runs / run_id / "scores.parquet").write_bytes(b"rotten")
    code, said = command("run", "--suite", suite)
    assert (code, "did not verify" in said) == (0, True), said
    assert kept(command.store, run_id) == {MODEL, *MAPS}
    pack(command.store, tmp_path / "archive")
    archive = ("--results", str(tmp_path / "archive"), "--dry-run")
    assert "0 to do" in command("run", "--suite", suite, "--save-maps", *archive)[1]


def test_a_suite_may_ask_for_maps_itself(tmp_path: Path, warm_cache: Path) -> None:
    command = Bench(tmp_path, warm_cache)
    suite = Path(command.suite("tests.fixtures.misbehaving:KeepsLess", shots="1, 10"))
    suite.write_text("save_maps = true\n" + suite.read_text())
    code, said = command("run", "--suite", str(suite), "--shots", "10", "--set", "image_size=16")
    assert code == 0, said
    assert "keeps no maps: NotImplementedError: not for\n" in said
    (run_id,) = command.store.ids()
    assert kept(command.store, run_id) == {EMBEDDINGS}
    assert command.store.read(run_id).unsupported == ("explain",)
    again = ("--suite", str(suite), "--shots", "10", "--set", "image_size=16")
    assert "0 to do" in command("run", *again)[1]
    (command.store.runs / run_id / EMBEDDINGS).unlink()
    rewrite(command.store.runs / run_id, lambda r: r["files"].pop(EMBEDDINGS))
    code, said = command("status", *again)
    assert "1 run stored without embeddings: again" in said


def test_a_run_again_that_may_not_take_the_place_is_no_failure(
    tmp_path: Path, warm_cache: Path
) -> None:
    """The stored one keeps what the method cannot give here, and has other last digits."""
    command = Bench(tmp_path, warm_cache)
    suite = command.suite("tests.fixtures.misbehaving:KeepsLess")
    assert command("run", "--suite", suite)[0] == 0
    (run_id,), folder = command.store.ids(), command.store.runs
    scores = command.store.scores(run_id)
    close = replace(scores, score=np.nextafter(scores.score, np.float32(9)))
    rewrite_scores(folder / run_id, close)
    explained = explanations_of(scores.file, "score")
    (folder / run_id / EXPLANATIONS).write_bytes(explanations_bytes(explained))
    digest = file_digest(folder / run_id / EXPLANATIONS)
    rewrite(folder / run_id, lambda r: (
        r["files"].update({EXPLANATIONS: digest}), r["provenance"].update(threads=77),
        r["metrics"].update(close.metrics(full=False), scores_sha256=close.digest()),
    ))  # fmt: skip
    before = tree(folder)
    code, said = command("run", "--suite", suite, "--save-maps")
    assert code == 0, said
    assert f"run {run_id} was there already, and stays: close" in said
    assert tree(folder) == before
    assert not command.store.failed_ids()


def test_a_method_that_breaks_its_contract_there_is_a_recorded_failure(
    tmp_path: Path, warm_cache: Path
) -> None:
    command = Bench(tmp_path, warm_cache)
    suite = command.suite(
        "tests.fixtures.misbehaving:Mismaps", "tests.fixtures.misbehaving:ForksWhileEmbedding"
    )
    code, said = command("run", "--suite", suite, "--save-maps")
    assert code == 1, said
    assert "explain().maps['grey'] holds 1 values that are not finite" in said
    (receipt,) = receipts(Store(tmp_path / "results"))
    assert receipt.spec.method == "forks-while-embedding"
    assert list(problems(command.store)) == []
