"""What a run says to its command: read back as it was said, and nothing else is."""

import json

import pytest

from bench.execution.messages import (
    Failed,
    Message,
    Note,
    OutOfMemory,
    Progress,
    Stayed,
    Trouble,
    decode_message,
    encode_message,
)


@pytest.mark.parametrize(
    "message",
    [
        Progress(3, 30, "0.25"),
        Failed("ValueError: \u00e4\nand more"),
        OutOfMemory("MemoryError: needs 3.0 GiB", "Traceback", 3 << 30),
        OutOfMemory("MemoryError", "", None),
        Trouble("no space left"),
        Note(""),
        Stayed("it was there already"),
    ],
)
def test_a_message_is_read_back_as_what_it_was(message: Message) -> None:
    assert decode_message(encode_message(message)) == message
    assert json.loads(encode_message(message))["kind"] == type(message).__name__.lower()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"3", b"null", b"\xff", b"{}", b'{"kind": "cheer", "text": "x"}',
        b'{"kind": []}', b'{"kind": "note"}', b'{"kind": "note", "text": "x", "more": 1}',
    ],
)  # fmt: skip
def test_what_is_no_message_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        decode_message(data)
