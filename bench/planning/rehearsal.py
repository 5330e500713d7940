"""How much memory a training step needs, learnt from a rehearsal on tensors without memory."""

import weakref
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.detector import Context


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the storages that live, and the most that lived at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: int = 0
        self.peak: int = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._enter(leaf.untyped_storage())
        return result

    def _enter(self, storage: Any) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._leave, size)

    def _leave(self, size: int) -> None:
        self.alive -= size


def rehearsed_peak(detector: Any, size: int, context: Context) -> int:
    """Return the bytes of tensors that one training step of a detector holds at its peak.

    `detector` has `rehearse` (see `bench.detector.Detector`). Nothing is computed or allocated;
    what libraries take for their own work space is not seen.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), _Ledger() as ledger:
        detector.rehearse(size, context)
    peak: int = ledger.peak
    return peak
