"""Memory of a training step, rehearsed on fake tensors."""

import functools
import importlib
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.detector import BackboneSource, Context, Seeds
from bench.errors import RequestError
from bench.planning.runtime import LENGTH_PARAMETERS, RATE_PARAMETERS
from bench.planning.variants import Variant
from bench.registry import load_class
from bench.system.device import peak_memory
from bench.system.host import process_memory

MARGIN = 1.25
"""What a step really takes above its tensors: buffers of the libraries, gaps of the allocator.

Measured with ResNet-18 and ResNet-50 on a CPU: tests/planning/test_resources.py says how."""
FIXED = 64 << 20
"""Bytes that the libraries take for themselves however small the step."""
_PRIVATE = (
    ("torch._subclasses.fake_tensor", "FakeTensorMode"),
    ("torch.utils._python_dispatch", "TorchDispatchMode"),
    ("torch.utils._pytree", "tree_leaves"),
)
"""Modules and names that torch may move or remove in any release."""


def torch_internals() -> tuple[Any, Any, Any]:
    """Return FakeTensorMode, TorchDispatchMode and tree_leaves of torch.

    Raises RequestError where this torch lacks one of them.
    """
    import torch

    internals = []
    for module, name in _PRIVATE:
        try:
            internals.append(getattr(importlib.import_module(module), name))
        except (ImportError, AttributeError):
            raise RequestError(
                f"memory cannot be estimated: torch {torch.__version__} has no {module}.{name};"
                " measure it by a first run, or install an older torch"
            ) from None
    fake_tensor_mode, dispatch_mode, tree_leaves = internals
    return fake_tensor_mode, dispatch_mode, tree_leaves


def estimate_problem() -> str:
    """Return why this torch cannot rehearse, if so."""
    try:
        torch_internals()
    except RequestError as error:
        return str(error)
    return ""


def ledger() -> Any:
    """Return a context that counts tensor bytes: `alive` and `peak`."""
    import torch

    _, dispatch_mode, tree_leaves = torch_internals()

    class Ledger(dispatch_mode):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.alive: int = 0
            self.peak: int = 0
            self._known: weakref.WeakSet[Any] = weakref.WeakSet()

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
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

    return Ledger()


def rehearsed_peak(detector: Any, size: int, context: Context) -> int:
    """Return the peak tensor bytes of a detector's training step.

    `detector` has `rehearse` (see `bench.detector.Detector`). Nothing is computed or allocated;
    what libraries take for their own work space is not seen. Raises RequestError where torch cannot
    do this.
    """
    fake_tensor_mode, *_ = torch_internals()
    with fake_tensor_mode(allow_non_fake_inputs=True), ledger() as counts:
        detector.rehearse(size, context)
    peak: int = counts.peak
    return peak


_peaks: dict[Any, int | None] = {}
"""Rehearsed so far, by what a step depends on."""


def rehearsed(variant: Variant) -> int | None:
    """Return the tensor bytes of one training step, or None.

    Rehearsed once for all variants that make the same step.
    """
    cls = load_class(variant.method.path)
    if not hasattr(cls, "rehearse"):
        return None
    settings = variant.settings
    ignored = {"setting", "resize", "weights", *LENGTH_PARAMETERS}
    if not variant.method.outside:
        ignored |= RATE_PARAMETERS
    key = (variant.method.path, tuple((k, v) for k, v in settings.items() if k not in ignored))
    if key not in _peaks:
        detector = cls(cls.Parameters(**variant.parameters()))
        size = int(settings["image_size"])
        try:
            _peaks[key] = rehearsed_peak(detector, size, rehearsal_context(variant))
        except Exception:  # whatever a method from outside does, and a torch without the means
            _peaks[key] = None
    return _peaks[key]


def rehearsal_context(variant: Variant) -> Context:
    """Return a context without weights, its external image blank."""
    settings = variant.settings
    chosen: dict[str, Any] = {k: settings[k] for k in ("precision", "batch_size") if k in settings}
    if "backbone" in settings:
        # The weights file says where the strides sit; v1.5 is the variant that takes more memory.
        chosen["backbone"] = BackboneSource(str(settings["backbone"]), int(settings["stage"]), None)
    if settings.get("external", "none") != "none":
        size = int(settings["image_size"])
        chosen["external"] = np.zeros((1, 3, size, size), np.uint8)
    return Context(device="cpu", seeds=Seeds(0, "rehearsal", "rehearsal"), **chosen)


def step_bytes(peak: int) -> int:
    """Return a step's memory from its peak tensor bytes."""
    return FIXED + round(MARGIN * peak)


@functools.cache
def process_base(modules: Sequence[str]) -> int:
    """Return the bytes of a process after a run's imports.

    `modules` are those imports. Call it before a rehearsal, which imports more than a run does.
    """
    for module in modules:
        importlib.import_module(module)
    return process_memory("VmRSS") or peak_memory()
