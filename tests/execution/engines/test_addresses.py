"""Addresses of schedulers, and who is kept out."""

import json
from pathlib import Path

import pytest

from bench.errors import RequestError
from bench.execution.engines.addresses import (
    FILES,
    certificates,
    is_loopback,
    scheduler_address,
    security_for,
)


def test_an_address_stands_alone_or_in_the_schedulers_file(tmp_path: Path) -> None:
    assert scheduler_address("tls://head:8786") == "tls://head:8786"
    assert scheduler_address("127.0.0.1:8786") == "tcp://127.0.0.1:8786"
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": "tcp://127.0.0.1:1234", "id": "x"}))
    assert scheduler_address(str(file)) == "tcp://127.0.0.1:1234"


@pytest.mark.parametrize(
    ("text", "why"),
    [("http://head:1", "takes tls://"), ("head", "takes tls://"), ("tcp://head:x", "takes tls://"),
     ("none.json", "cannot read"), ("tcp://:1", "takes tls://")],
)  # fmt: skip
def test_no_address_is_one_line(text: str, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        scheduler_address(text)


def test_another_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text("[1]")
    with pytest.raises(RequestError, match="no file that `dask scheduler"):
        scheduler_address(str(file))


@pytest.mark.parametrize(
    ("address", "alone"),
    [("tcp://127.0.0.1:1", True), ("tcp://127.9.9.9:1", True), ("tcp://[::1]:1", True),
     ("tcp://localhost:1", True), ("tcp://10.0.0.1:1", False), ("tcp://0.0.0.0:1", False),
     ("tcp://head:1", False)],
)  # fmt: skip
def test_which_addresses_others_reach(address: str, alone: bool) -> None:
    assert is_loopback(address) == alone
    if alone:
        assert security_for(address, None, insecure=False) is None
        return
    with pytest.raises(RequestError, match="open to everyone on the network"):
        security_for(address, None, insecure=False)
    assert security_for(address, None, insecure=True) is None


def test_certificates_are_complete_and_the_key_is_ones_own(tmp_path: Path) -> None:
    for name in FILES:
        with pytest.raises(RequestError, match=f"has no {name}"):
            certificates(tmp_path)
        (tmp_path / name).write_text("x")
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(RequestError, match="chmod 600"):
        certificates(tmp_path)
    (tmp_path / "key.pem").chmod(0o600)
    assert [p.name for p in certificates(tmp_path)] == list(FILES)
    with pytest.raises(RequestError, match="takes an address tls://"):
        security_for("tcp://head:1", tmp_path, insecure=False)
    with pytest.raises(RequestError, match="asks for certificates"):
        security_for("tls://head:1", None, insecure=True)
    pytest.importorskip("distributed")
    assert security_for("tls://head:1", tmp_path, insecure=False).require_encryption
