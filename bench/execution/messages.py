"""Messages of a run to its command, in JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any, get_args


@dataclass(frozen=True)
class Progress:
    """An epoch is over; 0 means that training begins."""

    epoch: int
    epochs: int
    loss: str


@dataclass(frozen=True)
class Failed:
    """The run has failed, and has recorded it."""

    reason: str


@dataclass(frozen=True)
class OutOfMemory:
    """The run is out of memory; the command decides."""

    reason: str
    traceback: str
    needed: int | None
    """Bytes that it needs, where that is known."""


@dataclass(frozen=True)
class Trouble:
    """The results' disk refuses: the command ends."""

    reason: str


@dataclass(frozen=True)
class Note:
    """Something worth a line."""

    text: str


@dataclass(frozen=True)
class Stayed:
    """The stored run stays; this one was dropped."""

    text: str


Message = Progress | Failed | OutOfMemory | Trouble | Note | Stayed
_KINDS: dict[str, type[Message]] = {cls.__name__.lower(): cls for cls in get_args(Message)}


def encode_message(message: Message) -> bytes:
    """Return a message as the bytes that `decode_message` reads."""
    return json.dumps({"kind": type(message).__name__.lower(), **asdict(message)}).encode()


def decode_message(data: bytes) -> Message:
    """Read what `encode_message` returned; raises ValueError."""
    try:
        fields: dict[str, Any] = json.loads(data)
        return _KINDS[fields.pop("kind")](**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("is no message of a run") from error
