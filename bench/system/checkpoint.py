"""What a file of weights holds, read without torch; nothing in it is executed."""

import json
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

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
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError):
            raise ValueError("is cut off or damaged: fetch it again") from None


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
                return _Reader().read(stream)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError):
        raise _Damaged("no whole ZIP archive, as PyTorch writes it") from None


def _legacy(file: IO[bytes], size: int) -> Any:
    """Read what PyTorch wrote before 1.6: five pickles, then the numbers."""
    reader = _Reader()
    for _ in range(3):  # a magic number, a version, facts on the machine
        _Reader().read(file)
    content = reader.read(file)
    _Reader().read(file)
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


@dataclass(frozen=True)
class _Global:
    """A class or function that a pickle names."""

    name: str


_MARK = object()


class _Reader:
    """Reads a pickle of tensors; calls nothing that it names."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, int] = {}

    @property
    def storage_bytes(self) -> int:
        """Bytes of all storages, each with the count of its numbers before it."""
        return sum(8 + size for size in self.storages.values())

    def read(self, stream: IO[bytes]) -> Any:
        """Return what a pickle holds, up to its end."""
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                break
            self._step(opcode.name, argument)
        return self.stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        stack, memo = self.stack, self.memo
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                stack.append(_MARK)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}[name])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                length = int(name[-1])
                stack[-length:] = [tuple(stack[-length:])]
            case "TUPLE" | "LIST":
                items = self._to_mark()
                stack.append(tuple(items) if name == "TUPLE" else items)
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_Global(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                stack[-2:] = [_Global(f"{stack[-2]}.{stack[-1]}")]
            case "BINPERSID":
                stack[-1] = self._storage(stack[-1])
            case "REDUCE":
                stack[-2:] = [_result(stack[-2], stack[-1])]
            case "BUILD":  # what a dictionary of PyTorch carries beside its tensors
                stack.pop()
            case "SETITEM" | "SETITEMS":
                items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._to_mark()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "APPEND" | "APPENDS":
                items = [stack.pop()] if name == "APPEND" else self._to_mark()
                stack[-1].extend(items)
            case "NEWOBJ" | "NEWOBJ_EX" | "OBJ" | "INST":
                raise _Foreign(next((g.name for g in stack if isinstance(g, _Global)), "object"))
            case _ if argument is not None:  # a number or a text
                stack.append(argument)
            case _:
                raise _Foreign(f"object (by {name})")

    def _to_mark(self) -> list[Any]:
        """Take what lies above the last mark."""
        start = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def _storage(self, identity: Any) -> str:
        """Return the type of a storage, and remember its size."""
        if identity[0] == "module":  # how PyTorch once wrote an entire network
            raise _Foreign(str(identity[1].name))
        _, kind, key, _, count = identity[:5]
        name = str(kind.name).rpartition(".")[2]
        self.storages[str(key)] = int(count) * _BYTES.get(name, 1)
        return _TYPES.get(name, name)


def _result(function: Any, arguments: Any) -> Any:
    """Return what a call of PyTorch's makes; raises _Foreign for any other."""
    name = function.name
    if name == "collections.OrderedDict":
        return dict(*arguments)
    if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        return StoredTensor(str(arguments[0]), tuple(map(int, arguments[2])))
    if name == "torch._utils._rebuild_parameter":
        return arguments[0]
    raise _Foreign(name)
