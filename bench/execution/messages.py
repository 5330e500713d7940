"""Messages of a run to its command: JSON, told apart by their `kind`."""

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """An epoch is over; with epoch 0, the first step of training begins."""

    epoch: int
    epochs: int
    loss: str


@dataclass(frozen=True)
class Failed:
    """The run has failed, and has recorded it."""

    reason: str


@dataclass(frozen=True)
class Trouble:
    """The disk of the results refuses, which ends the command."""

    reason: str


@dataclass(frozen=True)
class Note:
    """Something worth a line."""

    text: str


@dataclass(frozen=True)
class Stayed:
    """The run has found a sound result in its place, and dropped its own."""

    text: str


Message = Progress | Failed | Trouble | Note | Stayed
_KINDS: dict[str, type[Message]] = {
    "progress": Progress,
    "failed": Failed,
    "trouble": Trouble,
    "note": Note,
    "stayed": Stayed,
}
_NAMES = {cls: kind for kind, cls in _KINDS.items()}


def encode_message(message: Message) -> bytes:
    """Return a message as the bytes that `decode_message` reads."""
    return json.dumps({"kind": _NAMES[type(message)], **asdict(message)}).encode()


def decode_message(data: bytes) -> Message:
    """Read what `encode_message` has written; raises ValueError for anything else."""
    try:
        fields: dict[str, Any] = json.loads(data)
        return _KINDS[fields.pop("kind")](**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("is no message of a run") from error
