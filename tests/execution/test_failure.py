"""A failure in one text."""

from bench.execution.failure import reason


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError


def test_a_reason_is_type_and_text_and_no_error_of_its_own():
    assert reason(ValueError("too small")) == "ValueError: too small"
    assert reason(Unspeakable()) == "Unspeakable"
