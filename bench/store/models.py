"""A run's saved model, `model.safetensors`: a detector's `state`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import MethodError
from bench.system.untrusted import is_one_line

DTYPES = frozenset(
    {"bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16",
     "float32", "float64"}
)  # fmt: skip
"""What both numpy and safetensors know."""


def model_bytes(state: Any) -> bytes:
    """Return `state()` as safetensors bytes; raises MethodError."""
    from safetensors.numpy import save

    if not isinstance(state, Mapping) or not state:
        raise MethodError(f"state() must return arrays by name, not {type(state).__name__}")
    arrays = {}
    for name, array in state.items():
        if type(name) is not str or not is_one_line(name):
            raise MethodError(f"state() must name its arrays by a text, not {name!r:.80}")
        if type(array) is not np.ndarray or array.dtype.name not in DTYPES:
            kind = array.dtype if type(array) is np.ndarray else type(array).__name__
            raise MethodError(f"state()[{name!r:.80}] must be an array of numbers, not {kind}")
        # Dense, in C order: safetensors takes the memory as it lies, whatever the strides.
        arrays[name] = np.array(array, order="C")
    return save(arrays)


def read_model(content: bytes) -> dict[str, NDArray[Any]]:
    """Return a saved model's arrays, writable; raises ValueError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return {name: np.array(array) for name, array in load(content).items()}
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"is no model ({error})") from error
