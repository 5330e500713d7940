"""Methods that misbehave are recorded failures, and the others go on."""

from bench.store.results import receipts
from tests.fixtures.command import Bench

MISBEHAVING = {
    "Raises": "ValueError: this method never works",
    "Exits": "exit code 0 without a result",
    "ExitsPolitely": "SystemExit: 0",
    "ExitsLikeALostServer": "exit code 255 without a result",
    "MeetsAFullDisk": "No space left on device: '/elsewhere/cache.bin'",
    "Masked": "must return a float32 array, not MaskedArray",
    "Segfaults": "Segmentation fault",
    "Hangs": "time limit",
    "HoldsTheInterpreter": "time limit",
    "FillsMemory": "MemoryError",
    "Prints": "printed more than 64 MiB",
    "NotFinite": "128 of 128 values that are not finite",
    "TooShort": "must return shape (128,), not (127,)",
    "WrongType": "must return a float32 array, not float64",
}
ENDLESS = ("Hangs", "HoldsTheInterpreter")
BEHAVING = ("Constant", "Forks", "LeavesAChild", "Good")


def test_methods_that_misbehave_are_recorded_failures_and_the_others_go_on(bench: Bench) -> None:
    suite = bench.suite(*(f"tests.fixtures.misbehaving:{n}" for n in (*MISBEHAVING, *BEHAVING)))
    endless = ",".join(f"tests.fixtures.misbehaving:{n}" for n in ENDLESS)
    code, said = bench(
        "run", "--suite", suite, "--methods", endless, "--timeout", "3", "--slots", "1"
    )
    assert code == 1, said
    assert f"{len(ENDLESS)} runs failed" in said
    process = bench.start("run", "--suite", suite, "--timeout", "60", "--slots", "3")
    said = "".join(process.communicate(timeout=300))
    assert process.returncode == 1, said
    assert f"{len(MISBEHAVING) - len(ENDLESS)} runs failed" in said
    assert f"{len(ENDLESS)} runs failed earlier" in said
    assert "Traceback" not in said
    done = {r.spec.method_source.partition("@")[0]: r for r in receipts(bench.store)}
    assert {path.partition(":")[2] for path in done} == set(BEHAVING)
    constant = done["tests.fixtures.misbehaving:Constant"]
    assert constant.metrics.auroc == 0.5
    assert constant.warnings == ("all scores are equal",)

    reasons = {}
    for folder in bench.store.failed.iterdir():
        (failure,) = bench.store.failures(folder.name)
        reasons[failure.spec.method_source.partition("@")[0].partition(":")[2]] = failure
        assert failure.provenance.python
        assert failure.provenance.threads >= 1
        assert (folder / "1" / "log.txt").stat().st_size < 2 << 20
    assert reasons.keys() == MISBEHAVING.keys()
    for name, reason in MISBEHAVING.items():
        assert reason in reasons[name].reason
    assert "in fit" in reasons["Raises"].traceback
    logs = [p.read_text() for p in bench.store.failed.glob("*/1/log.txt")]
    assert any("fitting 64" in log for log in logs)
    code, said = bench("status", "--suite", suite)
    assert f"failed   {len(MISBEHAVING)}" in said
    shown = bench.start("show", reasons["Raises"].run_id[:8]).communicate(timeout=60)[0]
    assert "in fit" in shown
    assert "log.txt" in shown

    # What failed by itself is not tried again, and is not forgotten either; memory may be back.
    code, said = bench("run", "--suite", suite)
    assert code == 1
    assert f"{len(BEHAVING)} stored, 1 to do" in said
    assert "--retry-failed" in said
    only = ("--methods", "tests.fixtures.misbehaving:Raises")
    code, said = bench("run", "--suite", suite, *only, "--retry-failed")
    assert code == 1
    assert len(bench.store.failures(reasons["Raises"].run_id)) == 2
