"""What a file of weights holds, read without torch; nothing in it is executed."""

import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

from bench.system.untrusted import one_line, open_regular

MAX_HEADER = 32 << 20
"""Bytes of names and shapes; a network of ten thousand tensors has about one megabyte."""
_TYPES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "F32": "float32", "F64": "float64", "F16": "float16",
    "BF16": "bfloat16",
}  # fmt: skip
"""Types of PyTorch's storages and of safetensors; others have their own names."""
_BYTES = {
    "FloatStorage": 4, "DoubleStorage": 8, "HalfStorage": 2, "BFloat16Storage": 2,
    "LongStorage": 8, "IntStorage": 4,
}  # fmt: skip
"""Bytes of a number in a storage of PyTorch; the least where it is not known."""
_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the state dict."""
_PARALLEL = "module."
"""What DataParallel puts before each name."""


@dataclass(frozen=True)
class StoredTensor:
    """Type and shape of a tensor in a file."""

    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a state dict by name, without DataParallel's prefix."""

    suffix: str
    """How a file of this kind is named: `.pth` or `.safetensors`."""
    tensors: Mapping[str, StoredTensor]
    wrapper: str = ""
    """The key that the state dict lies under, or empty."""
    prefix: str = ""
    """What stands before each name, or empty."""

    def is_plain(self, suffix: str) -> bool:
        """Whether a loader of files with a suffix takes it as it is, in float32."""
        casts = {"float16", "bfloat16", "float64"} & {t.type for t in self.tensors.values()}
        kind = ".safetensors" if suffix == ".safetensors" else ".pth"
        return not (casts or self.wrapper or self.prefix or kind != self.suffix)


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what a file of weights holds; raises OSError and ValueError.

    The ValueError says what the file is instead, and what to do.
    """
    with open_regular(path) as file:
        head = file.read(512)
        size = file.seek(0, 2)
        file.seek(0)
        if problem := _not_weights(head):
            raise ValueError(problem)
        try:
            if head.startswith(b"PK"):
                return _unwrapped(_zipped(file))
            if head.startswith(b"\x80"):
                return _unwrapped(_legacy(file, size))
            return _safetensors(file, size)
        except _Foreign as error:
            raise ValueError(
                f"holds a pickled {one_line(error)[:200]}, not a state dict alone: save"
                " model.state_dict() instead"
            ) from None
        except _Damaged as error:
            raise ValueError(f"is cut off or damaged ({error}): fetch it again") from None
        except _ERRORS:
            raise ValueError("is cut off or damaged: fetch it again") from None


_ERRORS = (
    *(ValueError, LookupError, TypeError, AttributeError, OverflowError, EOFError),
    *(pickle.UnpicklingError, struct.error),
)
"""What damaged bytes raise."""


class _Foreign(Exception):
    """A class that is no part of a state dict."""


class _Damaged(Exception):
    """What is wrong with a file of the right kind."""


def _not_weights(head: bytes) -> str:
    """Return what a file is that is no weights at all."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "is empty: fetch it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file: fetch it with `git lfs pull`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "is a web page, perhaps of a log-in or an error: fetch the file itself"
    if head.startswith((b"PK", b"\x80")) or head[8:9] == b"{":
        return ""
    return "is no file of weights: neither PyTorch's nor safetensors'"


def _safetensors(file: IO[bytes], size: int) -> Checkpoint:
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, MAX_HEADER):
        raise _Damaged("its header is longer than the file")
    entries = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if 8 + length + end != size:
        raise _Damaged(f"{size} bytes of {8 + length + end}")
    tensors = {
        name: StoredTensor(_TYPES.get(e["dtype"], str(e["dtype"])), tuple(map(int, e["shape"])))
        for name, e in entries.items()
    }
    return _without_prefix(Checkpoint(".safetensors", tensors))


def _zipped(file: IO[bytes]) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if any(name.endswith("/constants.pkl") for name in names):
                raise _Foreign("TorchScript program")
            entry = next((n for n in names if n.rpartition("/")[2] == "data.pkl"), None)
            if entry is None:
                raise _Damaged("a ZIP archive without data.pkl")
            if archive.getinfo(entry).file_size > MAX_HEADER:
                raise _Damaged("its list of tensors is too long")
            with archive.open(entry) as stream:
                return _Reader(stream).load()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError):
        raise _Damaged("no whole ZIP archive, as PyTorch writes it") from None


def _legacy(file: IO[bytes], size: int) -> Any:
    """Read what PyTorch wrote before 1.6: five pickles, then the numbers."""
    for _ in range(3):  # a magic number, a version, facts on the machine
        _Reader(file).load()
    reader = _Reader(file)
    content = reader.load()
    _Reader(file).load()
    if size < file.tell() + reader.storage_bytes:
        raise _Damaged(f"{size} bytes of {file.tell() + reader.storage_bytes}")
    return content


def _unwrapped(content: Any) -> Checkpoint:
    """Return the state dict in what was pickled."""
    if isinstance(content, dict):
        for wrapper in ("", *_WRAPPERS):
            entries = content.get(wrapper) if wrapper else content
            if isinstance(entries, dict) and entries and _are_tensors(entries):
                return _without_prefix(Checkpoint(".pth", entries, wrapper))
    kind = "a tensor" if isinstance(content, StoredTensor) else f"a {type(content).__name__}"
    if isinstance(content, dict):
        kind = f"a table of {', '.join(map(repr, [*content][:5]))}"
    raise _Foreign(f"object ({kind[:150]})")


def _are_tensors(entries: Mapping[Any, Any]) -> bool:
    return all(isinstance(n, str) and isinstance(t, StoredTensor) for n, t in entries.items())


def _without_prefix(checkpoint: Checkpoint) -> Checkpoint:
    tensors = checkpoint.tensors
    if not tensors or not all(name.startswith(_PARALLEL) for name in tensors):
        return checkpoint
    short = {name.removeprefix(_PARALLEL): tensor for name, tensor in tensors.items()}
    return Checkpoint(checkpoint.suffix, short, checkpoint.wrapper, _PARALLEL)


def _drop(reader: Any) -> None:
    """Drop what a dictionary of PyTorch carries beside its tensors."""
    reader.stack.pop()


# In Python, not in C: C allocates a memo as long as the highest place that a file names.
class _Reader(pickle._Unpickler):
    """Unpickles tensors as `StoredTensor`; calls nothing else that a file names."""

    dispatch: ClassVar = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _drop}

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="utf-8")
        self.storages: dict[str, int] = {}

    @property
    def storage_bytes(self) -> int:
        """Bytes of all storages, each with the count of its numbers before it."""
        return sum(8 + size for size in self.storages.values())

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in; raises _Foreign for what is no part of a state dict."""
        if module == "torch" and name.endswith("Storage"):
            return name
        if f"{module}.{name}" not in _STAND_INS:
            raise _Foreign(f"{module}.{name}")
        return _STAND_INS[f"{module}.{name}"]

    def persistent_load(self, identity: Any) -> str:
        """Return the type of a storage, and remember its size."""
        name = str(identity[1])
        self.storages[str(identity[2])] = int(identity[4]) * _BYTES.get(name, 1)
        return _TYPES.get(name, name)


def _tensor(kind: str, offset: int, shape: tuple[int, ...], *_: Any) -> StoredTensor:
    return StoredTensor(str(kind), tuple(map(int, shape)))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


_STAND_INS = {
    "collections.OrderedDict": dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
