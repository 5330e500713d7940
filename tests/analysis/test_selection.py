"""What a figure shows, and what it says of the rest."""

from types import SimpleNamespace
from typing import Any

from bench.analysis.selection import left_out


def configuration(method: str, shots: int) -> Any:
    return SimpleNamespace(row=SimpleNamespace(method=method, shots=shots))


def test_a_method_that_is_left_out_twice_is_named_once() -> None:
    ran = [configuration(m, s) for m, s in (("cavga", 0), ("cavga", 10), ("padim", 0), ("dra", 1))]
    assert left_out(ran, ran[3:]) == " Also ran: CAVGA and PaDiM."
    assert left_out(ran, ran) == ""
