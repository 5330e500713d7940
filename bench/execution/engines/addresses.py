"""Addresses of schedulers, and what keeps strangers from them.

Whoever reaches a scheduler without certificates can run code on its nodes.
"""

import ipaddress
import json
import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.errors import RequestError
from bench.system.untrusted import one_line, os_reason

FILES = ("ca.pem", "cert.pem", "key.pem")
"""The certificate authority, and this side's certificate and key; one set serves all sides."""


def scheduler_address(text: str) -> str:
    """Read `--scheduler`: an address, or a file that a scheduler has written.

    Raises RequestError for anything else.
    """
    path = Path(text).expanduser()
    if "://" not in text and (path.is_file() or path.suffix == ".json"):
        try:
            address = str(json.loads(path.read_bytes())["address"])
        except OSError as error:
            raise RequestError(f"cannot read {one_line(path)}: {os_reason(error)}") from error
        except (ValueError, KeyError, TypeError):
            raise RequestError(
                f"{one_line(path)} is no file that `dask scheduler --scheduler-file` writes"
            ) from None
    else:
        address = text if "://" in text else f"tcp://{text}"
    try:
        parts = urlsplit(address)
        known = parts.scheme in ("tcp", "tls") and bool(parts.hostname) and parts.port
    except ValueError:
        known = False
    if not known:
        raise RequestError(
            f"--scheduler takes tls://HOST:PORT, tcp://127.0.0.1:PORT or the scheduler's file, not"
            f" {text!r:.200}"
        )
    return address


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address."""
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def security_for(address: str, tls: Path | None, *, insecure: bool) -> Any:
    """Return the `distributed.Security` for an address; None without encryption.

    Raises RequestError for an address that strangers reach, unless that is asked for, and for a
    folder without usable certificates.
    """
    if tls is None:
        if address.startswith("tls://"):
            raise RequestError(f"{address} asks for certificates: give their folder, --tls DIR")
        if not is_loopback(address) and not insecure:
            raise RequestError(
                f"{address} is open to everyone on the network, who could run code there: give"
                " --tls DIR, or --insecure where nobody else is on it"
            )
        return None
    if not address.startswith("tls://"):
        raise RequestError(f"--tls takes an address tls://HOST:PORT, not {address}")
    ca, cert, key = certificates(tls)
    from distributed import Security

    return Security(
        tls_ca_file=str(ca), tls_client_cert=str(cert), tls_client_key=str(key),
        require_encryption=True,
    )  # fmt: skip


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Return ca.pem, cert.pem and key.pem of a folder.

    Raises RequestError where one is missing, and where others may read the key.
    """
    ca, cert, key = (folder / name for name in FILES)
    for path in (ca, cert, key):
        if not path.is_file():
            raise RequestError(f"{one_line(folder)} has no {path.name}: --tls takes {FILES}")
    if key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise RequestError(f"{one_line(key)} can be read by others: `chmod 600 {one_line(key)}`")
    return ca, cert, key
